"""The likelihoods of the label words compared: by the base model, behind examples, and after fine-tuning."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import numpy as np
from torch import nn

from sentiment_core.artifacts.schema import DRAW_COLUMN
from sentiment_core.artifacts.store import adapter_sha256
from sentiment_core.config import PACKING, ConfigError
from sentiment_core.data.reviews import Reviews, load_reviews, match_key, unlabelled_reviews
from sentiment_core.engines.device import find_device
from sentiment_core.engines.generic import engine_for_packs
from sentiment_core.engines.scorer import SentimentScorer, fitting_tokens
from sentiment_core.evaluation.inputs import Inputs
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work, from_scores
from sentiment_core.labels import Label
from sentiment_core.models.base_models import BaseModelError, base_identity
from sentiment_core.models.loading import LoadedModel, load_adapter
from sentiment_core.models.tokens import Encoded, PromptEncoder, conversation


class ZeroShot(EvaluatedSystem):
    """The base model as it is."""

    @property
    def precision(self) -> str:
        return self.inputs.context.precision

    def decisive(self) -> dict[str, Any]:
        base = self.inputs.base
        return super().decisive() | {
            "base": base_identity(base) or base.spec, "prompt_hash": self.inputs.encoder.info.hash,
            "max_length_tokens": self.inputs.max_length, "precision": self.precision,
        }  # fmt: skip

    def work(self) -> Work:
        return self.scored(self.scorer(self.inputs.base_model(self.precision)))

    def scored(self, scorer: SentimentScorer, **settings: Any) -> Work:
        """The zero-shot prompts through a scorer; `settings` are recorded."""
        settings |= {"batch_tokens": scorer.batch_tokens, "engine": scorer.engine}
        prompts, info = self.inputs.prompts, scorer.loaded.info
        return Work(lambda rows: scorer.stream(prompts(rows)), settings=settings, base_model=info)

    def scorer(
        self, loaded: LoadedModel, model: nn.Module | None = None, *, compiled: bool = True
    ) -> SentimentScorer:
        """Raises ConfigError: the engine that was asked for cannot be had here."""
        engine = {"nf4": "padded", "dequantized": "padded"}.get(self.config.engine, self.config.engine)
        if engine in PACKING:
            engine = str(engine_for_packs(engine, loaded.model, loaded.device))
        budget = self.config.batch_tokens
        return SentimentScorer(loaded, model, engine=engine, batch_tokens=budget, compiled=compiled)


UNLABELLED = 1_000  # train reviews whose median log-odds is the recalibrated threshold


class Recalibrated(ZeroShot):
    """The base model with its threshold where half of some train reviews, labels unread, are positive.

    p_positive is the sigmoid of the log-odds minus that threshold, so that 0.5 stays the place to cut: the
    bias that a prompt gives to every answer goes (Zhao et al. 2021, arXiv 2102.09690, who take it from empty
    inputs instead). It takes for granted that both labels are about as frequent.
    """

    @cached_property
    def unlabelled(self) -> Reviews:
        source, exclude = self.inputs.train_rows()
        return unlabelled_reviews(source, exclude=exclude, limit=UNLABELLED, seed=self.config.seed)[0]

    def decisive(self) -> dict[str, Any]:
        return super().decisive() | {"unlabelled_fingerprint": self.unlabelled.fingerprint}

    def work(self) -> Work:
        loaded = self.inputs.base_model(self.precision)
        prompts = self.inputs.encoder.encode(self.unlabelled.texts, self.inputs.max_length)
        negative, positive = self.scorer(loaded, compiled=False).log_likelihoods(prompts).astype(float).T
        threshold = float(np.median(positive - negative))
        settings = {
            "threshold_log_odds": threshold, "unlabelled_reviews": len(prompts),
            "unlabelled_seed": self.config.seed, "train_source": self.unlabelled.source,
        }  # fmt: skip
        work = self.scored(self.scorer(loaded), **settings)
        return replace(work, answers=lambda values: from_scores(values - np.array([0, threshold])))


class FineTuned(ZeroShot):
    """The base model with a run's adapter on it."""

    def __init__(self, system_id: str, inputs: Inputs) -> None:
        super().__init__(system_id, inputs)
        assert inputs.trained, "EvalConfig asks for --run"
        assert inputs.run
        self.run, self.run_id, self.trained = inputs.run, inputs.run.run_id, inputs.trained

    @property
    def origin(self) -> str:
        return self.run.run_id.replace("/", "--")  # of one from the Hub

    @property
    def precision(self) -> str:
        """The run's own number format where this device has it; otherwise this device's."""
        context = self.inputs.context
        if self.config.precision == "auto" and context.device.type == "cuda":
            with suppress(ConfigError):
                return find_device(self.run.config.get("precision", "auto")).precision
        return context.precision

    def decisive(self) -> dict[str, Any]:
        temperature = {"temperature": self.run.temperature} if self.run.temperature != 1 else {}
        return super().decisive() | {"adapter_sha256": adapter_sha256(self.trained)} | temperature

    def work(self) -> Work:
        loaded = self.inputs.base_model(self.precision, shared=False)
        # peft asks transformers for an attribute by its old name
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            model = load_adapter(loaded.model, self.trained.adapter_path)
        work = self.scored(self.scorer(loaded, model))
        return replace(work, answers=lambda values: from_scores(values / np.float32(self.run.temperature)))


EXAMPLE_WORDS = (30, 120)  # long enough to say something, short enough for a short prompt
DRAWS = 5  # of examples, seeded one after the other: accuracy depends on the draw more than on the reviews


class FewShot(ZeroShot):
    """The base model behind a few train reviews, which every prompt shares as its prefix; several draws."""

    shots = 4  # examples in a prompt, half of each label

    @cached_property
    def examples(self) -> list[Reviews]:
        train, tested = self.inputs.train_split.train, self.inputs.test.reviews
        if self.config.limit:  # the same examples, whatever the limit
            tested = load_reviews(self.config.dataset, self.config.split)
        unseen = {match_key(text) for text in tested.texts}
        return [choose_examples(train, self.shots, seed=seed, unseen=unseen) for seed in self.seeds]

    @property
    def seeds(self) -> list[int]:
        return [self.config.seed + draw for draw in range(DRAWS)]

    def decisive(self) -> dict[str, Any]:
        ids = [examples.ids for examples in self.examples]
        return super().decisive() | {"shots": self.shots, "shot_seeds": self.seeds, "shot_ids": ids}

    def work(self) -> Work:
        """Raises ConfigError: examples and the longest review are more than the model can read."""
        loaded, encoder = self.inputs.base_model(self.precision), self.inputs.encoder
        prefixes = [few_shot_prefix(encoder, draw.texts, draw.labels) for draw in self.examples]
        most = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        longest = int(self.inputs.encoded.lengths.max())
        needed = max(map(len, prefixes)) - len(encoder.prefix_ids) + longest
        if most and needed > most:
            raise ConfigError(
                f"{self.shots} examples make prompts of {needed} tokens, the model reads {most}; "
                "use a lower --max-length-tokens"
            )
        scorer = self.scorer(loaded, compiled=False)  # a shape for each draw: compiling takes longer
        if scorer.engine != "packed":  # "generic" knows no prefix; padded batches repeat its keys and values
            budget = self.config.batch_tokens or fitting_tokens(loaded)
            scorer = SentimentScorer(loaded, engine="padded", batch_tokens=budget)
        shared, source = [len(prefix) for prefix in prefixes], self.examples[0].source
        work = self.scored(scorer, train_source=source, shared_tokens=shared)
        return replace(work, stream=partial(self._stream, scorer, prefixes), answers=from_draws, draws=DRAWS)

    def _stream(self, scorer: SentimentScorer, prefixes: list[list[int]], rows: np.ndarray) -> Parts:
        draws, reviews = np.divmod(rows, len(self.inputs.encoded))
        for draw in np.unique(draws):
            own = np.flatnonzero(draws == draw)
            for part, values in scorer.stream(with_prefix(prefixes[draw], self.inputs.prompts(reviews[own]))):
                yield own[part], values


class FewShot8(FewShot):
    shots = 8


def from_draws(values: np.ndarray) -> dict[str, Any]:
    """(DRAWS · n, 2) log-likelihoods -> the first draw's columns, and P(positive) of the others."""
    first, *further = map(from_scores, np.split(values, DRAWS))
    return first | {DRAW_COLUMN.format(at): draw["p_positive"] for at, draw in enumerate(further, start=2)}


def choose_examples(train: Reviews, shots: int, *, seed: int, unseen: Collection[bytes]) -> Reviews:
    """Half of each label, negative first and then in turn, the same for the same train rows and seed.
    unseen: `match_key`s of reviews that must not be shown, such as those under test.
    Raises ConfigError: too few reviews are left."""
    texts, labels = train.texts, train.labels
    sizes = np.array([len(text.split()) for text in texts])
    distance = np.abs(sizes - sizes.clip(*EXAMPLE_WORDS))  # 0 inside the range
    order = np.random.default_rng([seed, shots]).permutation(len(train))
    order = order[np.argsort(distance[order], kind="stable")]
    chosen = []
    for label in Label:
        fits = (row for row in order if labels[row] == label and match_key(texts[row]) not in unseen)
        chosen.append(list(islice(fits, shots // 2)))
    if min(map(len, chosen)) < shots // 2:
        raise ConfigError(f"{train.source} has too few reviews for {shots} examples; give more train reviews")
    return train.take(np.transpose(chosen).ravel())


def with_prefix(prefix: Sequence[int], encoded: Encoded) -> Encoded:
    """Zero-shot prompts with another prefix in place of the one that they share."""
    rows = [np.concatenate([prefix, row[encoded.shared :]]) for row in encoded]
    return Encoded.from_lists(rows, encoded.truncated, len(prefix))


def few_shot_prefix(encoder: PromptEncoder, texts: Sequence[str], labels: Iterable[int]) -> list[int]:
    """Token ids of everything before the review under test: instruction, examples with answers, its header.

    A review in it is encoded as plain text, like every review.
    Raises BaseModelError: the chat template does not show every turn once, and the last one as if alone.
    """
    first, *between, suffix = conversation(encoder.tokenizer, len(texts))
    if suffix != encoder.suffix:
        raise BaseModelError("this model's chat template ends otherwise after examples; use another model")
    words = [encoder.control_ids(encoder.label_words[label]) for label in labels]
    slots = chain.from_iterable(zip(encoder.review_ids(texts), words, strict=True))
    prefix = encoder.control_ids(first)
    for slot, text in zip(slots, between, strict=True):
        prefix += slot + encoder.control_ids(text)
    return prefix
