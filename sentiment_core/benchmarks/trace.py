"""Does the reading trace point at clauses that matter? The fine-tuned model's answers without single clauses.

Of each review the clause with the largest move is left out. How far the log-odds change then is compared with
a clause at random, with the clause whose gradient × input is largest (Shrikumar et al. 2016, summed over its
tokens), and with the best single clause, which is found by leaving out each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.benchmarks.measure import finished, record
from sentiment_core.config import ConfigError, TrainConfig
from sentiment_core.data.reviews import load_reviews
from sentiment_core.engines.device import find_device
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.labels import Label
from sentiment_core.live.trace import rows_of
from sentiment_core.metrics.intervals import percentile_interval, resampled_means
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.models.tokens import Encoded, PromptEncoder

FEWEST_ROWS, RESAMPLES = 3, 2000

CHOICES = ("largest move", "random clause", "gradient × input", "best single clause")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="run whose fine-tuned model answers")
    parser.add_argument("--base-model", default="", help="folder of a base model that is not on the Hub")
    parser.add_argument("--dataset", default=TrainConfig.dataset, help="whose test reviews are read")
    parser.add_argument("--reviews", type=int, default=200, help="how many, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0, help="which reviews")


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """In float32: changes of the log-odds by each choice, with 95 % bootstrap intervals over the reviews."""
    run, base_model = finished(arguments.run)
    assert run is not None
    assert run.record is not None
    loaded = load_base(resolve(arguments.base_model or base_model), device=find_device("fp32").device)
    model = load_adapter(loaded.model, run.adapter_path)
    limit = int(run.record.config.get("max_length_tokens") or TrainConfig.max_length_tokens)
    texts = load_reviews(arguments.dataset, "test").texts
    order = np.random.default_rng(arguments.seed).permutation(len(texts))
    found = reviews_of([texts[i] for i in order], loaded.encoder, limit, arguments.reviews)
    scorer = SentimentScorer(loaded, model, engine="padded")
    margins = np.split(_margins(scorer, found), np.cumsum([2 * len(bounds) - 2 for _, bounds in found])[:-1])
    saliency = [clause_saliency(model, loaded.encoder, *review) for review in found]
    rows = rows_of_record(compared(margins, saliency))
    return record(
        "trace", rows, base_model, run=arguments.run, reviews=len(found), seed=arguments.seed,
        clauses=sum(len(bounds) - 1 for _, bounds in found),
    )  # fmt: skip


Review = tuple[list[int], list[int]]
"""Its token ids, and where its rows begin and end among them: 0, …, all."""


def reviews_of(texts: Sequence[str], encoder: PromptEncoder, limit: int, count: int) -> list[Review]:
    """The first `count` that a prompt holds whole and that have at least `FEWEST_ROWS` rows.

    Raises:
        ConfigError: there are fewer.
    """
    found: list[Review] = []
    room = limit - len(encoder.prefix_ids) - len(encoder.suffix_ids)
    for text in texts:
        ids = encoder.review_ids([text])[0]
        bounds = [0, *rows_of(text, encoder, len(ids))[1].tolist(), len(ids)] if len(ids) <= room else []
        if len(bounds) > FEWEST_ROWS:
            found.append((ids, bounds))
        if len(found) == count:
            return found
    raise ConfigError(f"--reviews is {count}; only {len(found)} reviews are short enough and have 3 clauses")


def _margins(scorer: SentimentScorer, reviews: Sequence[Review]) -> np.ndarray:
    """Log-odds of every review: after each row (the last is the answer), then without each row."""
    parts = []
    for ids, bounds in reviews:
        parts += [ids[:end] for end in bounds[1:]]
        parts += [ids[:start] + ids[end:] for start, end in pairwise(bounds)]
    encoder = scorer.loaded.encoder
    prompts = [[*encoder.prefix_ids, *part, *encoder.suffix_ids] for part in parts]
    encoded = Encoded.from_lists(prompts, [False] * len(prompts), len(encoder.prefix_ids))
    scores = scorer.log_likelihoods(encoded)
    return scores[:, Label.POSITIVE] - scores[:, Label.NEGATIVE]


def clause_saliency(model: Any, encoder: PromptEncoder, ids: list[int], bounds: list[int]) -> np.ndarray:
    """(rows,) gradient × input of the log-odds, summed over each row's tokens."""
    prompt = torch.tensor([[*encoder.prefix_ids, *ids, *encoder.suffix_ids]], device=model.device)
    embedded = model.get_input_embeddings()(prompt).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, logits_to_keep=1, use_cache=False).logits[0, -1]
    negative, positive = (logits[token] for token in encoder.label_ids)
    (gradient,) = torch.autograd.grad(positive - negative, embedded)
    by_token = (gradient * embedded).sum(dim=-1)[0].detach().cpu().numpy()
    return np.add.reduceat(by_token[len(encoder.prefix_ids) :], bounds[:-1])


def compared(margins: Sequence[np.ndarray], saliency: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """By choice of a clause: (n,) absolute changes of the log-odds where it is left out.

    Args:
        margins: of each review (2 rows,), see `_margins`.
        saliency: of each review (rows,).
    """
    changes = []
    for margin, salient in zip(margins, saliency, strict=True):
        after, without = np.split(margin, 2)
        change = np.abs(without - after[-1])
        move = 1 + np.abs(np.diff(expit(after))).argmax()  # the first row has none
        changes.append((change[move], change.mean(), change[np.abs(salient).argmax()], change.max()))
    return dict(zip(CHOICES, np.transpose(changes), strict=True))


def rows_of_record(changes: dict[str, np.ndarray]) -> list[BenchmarkRow]:
    """Means with 95 % bootstrap intervals over the reviews; the last row is the move's lead over chance."""
    move, chance, *_ = CHOICES
    columns = changes | {f"{move} minus {chance}": changes[move] - changes[chance]}
    draws = resampled_means(np.transpose(list(columns.values())), RESAMPLES).T
    rows = []
    for (name, values), draw in zip(columns.items(), draws, strict=True):
        change = percentile_interval(float(values.mean()), draw, len(values))
        rows.append(BenchmarkRow(system=name, log_odds_change=change))
    return rows
