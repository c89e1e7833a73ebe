"""Does the reading trace point at clauses that matter? The fine-tuned model's answers without single clauses.

Of each review the clause with the largest move is left out. How far the log-odds change then is compared with
a clause at random, with the clause whose gradient × input is largest (Shrikumar et al. 2016, summed over its
tokens), and with the best single clause, which is found by leaving out each.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.benchmarks import measure
from sentiment_core.config import ConfigError
from sentiment_core.data.reviews import load_reviews
from sentiment_core.engines.device import find_device
from sentiment_core.live.trace import rows_of
from sentiment_core.live.transformers import LiveTransformers
from sentiment_core.metrics.intervals import percentile_interval, resampled_means
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.models.tokens import PromptEncoder

FEWEST_ROWS, RESAMPLES = 3, 2000

FLAGS = {
    "run": ("smollm2-135m", "run whose fine-tuned model answers"),
    "base-model": ("", "folder of a base model that is not on the Hub"),
    "dataset": measure.FLAGS["dataset"],
    "reviews": (200, "how many of the test reviews, drawn with --seed"),
    "seed": (0, "which reviews"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """In float32: changes of the log-odds by each choice, with 95 % bootstrap intervals over the reviews."""
    run, base = measure.finished(arguments.run, arguments.base_model)
    assert run
    assert run.record
    loaded = load_base(base, device=find_device("fp32").device)
    model = load_adapter(loaded.model, run.adapter_path)
    reviews = load_reviews(arguments.dataset, "test")
    reviews = reviews.take(np.random.default_rng(arguments.seed).permutation(len(reviews)))
    usable = clauses_of(reviews.texts, loaded.encoder, run.record.max_length_tokens)
    found = list(islice(usable, arguments.reviews))
    if len(found) < arguments.reviews:
        raise ConfigError(
            f"--reviews is {arguments.reviews}; only {len(found)} reviews are short enough and have 3 clauses"
        )
    live = LiveTransformers(loaded, model, 1.0)
    changes = pd.DataFrame([
        compared(*answers_of(live, loaded.encoder, *review), clause_saliency(model, loaded.encoder, *review))
        for review in found
    ])  # fmt: skip
    means, draws = changes.to_numpy().mean(axis=0), resampled_means(changes.to_numpy(), RESAMPLES).T
    rows = [
        BenchmarkRow(system=system, log_odds_change=percentile_interval(float(mean), draw, len(changes)))
        for system, mean, draw in zip(changes.columns, means, draws, strict=True)
    ]
    clauses = sum(len(bounds) - 1 for _, bounds in found)
    settings = {"run": arguments.run, "reviews": len(found), "seed": arguments.seed, "clauses": clauses}
    return measure.record(arguments, rows, base.name, **settings)


Review = tuple[list[int], list[int]]  # its token ids, and where its rows begin and end among them: 0, …, all


def clauses_of(texts: Sequence[str], encoder: PromptEncoder, limit: int) -> Iterator[Review]:
    """Those that a prompt of `limit` tokens holds whole and that have at least `FEWEST_ROWS` rows."""
    room = limit - len(encoder.prefix_ids) - len(encoder.suffix_ids)
    for text in texts:
        ids = encoder.review_ids([text])[0]
        bounds = [0, *rows_of(text, encoder, len(ids))[1].tolist(), len(ids)] if len(ids) <= room else []
        if len(bounds) > FEWEST_ROWS:
            yield ids, bounds


def answers_of(
    live: LiveTransformers, encoder: PromptEncoder, ids: list[int], bounds: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) log-odds after each row, the last being the answer's, and (rows,) without each row."""
    parts = [ids[:end] for end in bounds[1:]] + [ids[:start] + ids[end:] for start, end in pairwise(bounds)]
    both = live.log_odds([np.array([*part, *encoder.suffix_ids]) for part in parts])
    return both[: len(parts) // 2], both[len(parts) // 2 :]


def clause_saliency(model: Any, encoder: PromptEncoder, ids: list[int], bounds: list[int]) -> np.ndarray:
    """(rows,) gradient × input of the log-odds, summed over each row's tokens."""
    prompt = torch.tensor([[*encoder.prefix_ids, *ids, *encoder.suffix_ids]], device=model.device)
    embedded = model.get_input_embeddings()(prompt).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, logits_to_keep=1, use_cache=False).logits[0, -1]
    negative, positive = (logits[token] for token in encoder.label_ids)
    (gradient,) = torch.autograd.grad(positive - negative, embedded)
    by_token = (gradient * embedded).sum(dim=-1)[0].detach().cpu().numpy()
    return np.add.reduceat(by_token[len(encoder.prefix_ids) :], bounds[:-1])


def compared(after: np.ndarray, without: np.ndarray, saliency: np.ndarray) -> dict[str, float]:
    """Absolute changes of the log-odds where one clause is left out, by how it is chosen.

    Args: of each row the log-odds after it and without it, and its saliency.
    """
    change = np.abs(without - after[-1])
    move, chance = change[1 + np.abs(np.diff(expit(after))).argmax()], change.mean()  # the first has no move
    return {
        "largest move": move, "random clause": chance, "gradient × input": change[np.abs(saliency).argmax()],
        "best single clause": change.max(), "largest move minus random clause": move - chance,
    }  # fmt: skip
