"""Classify reviews live, with the base and the fine-tuned model, on two CPU cores or a GPU.

    classifier = LiveClassifier.load(read_run(ASSETS / "runs" / "smollm2-135m"))
    classifier.classify("A film that moves.", "fine-tuned").p_positive

Prompt, label words and probability are those of `engines.scorer`, computed in a way made for single answers.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from transformers import AutoConfig

from sentiment_core.artifacts.schema import DIAL, ReadingTrace, Which
from sentiment_core.artifacts.store import Run
from sentiment_core.config import UserError
from sentiment_core.engines.batching import batches_by_tokens
from sentiment_core.live.endpoint import Engine
from sentiment_core.live.forward import LiveLlama
from sentiment_core.live.number_format import choose_number_format, on_zero_gpu, processor_has, usable_cores
from sentiment_core.live.trace import rows_of
from sentiment_core.live.transformers import LiveTransformers
from sentiment_core.live.weights import dtype_of, is_lean, load_weights
from sentiment_core.models.base_models import BaseModel, live_base
from sentiment_core.models.loading import load_adapter, load_base, load_tokenizer, pretrained
from sentiment_core.models.tokens import Encoded, PromptEncoder, check_fits

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")  # code for lengths; 1,024 took half a GB

SYSTEMS: tuple[Which, ...] = ("base", "fine-tuned")
ALPHAS: dict[Which | float, float] = {"base": 0.0, "fine-tuned": 1.0, **{alpha: alpha for alpha in DIAL}}
"""How much of the adapter is on: weights = base + α · adapter."""
Systems = Mapping[float, LiveLlama | LiveTransformers]
"""By α, what answers prompts, given as token ids after the prefix, with log-odds of Positive."""

BATCH_TOKENS = {"cpu": 160, "cuda": 32_768}
"""Most padded tokens of a batch (on a CPU, a core): some tenths of a second, then answers may go first."""

DIAL_TOKENS = 300  # of the longest review that the dial is turned for: its points cost some four answers


class TooLong(UserError):
    """A review has too many tokens for the dial."""


@dataclass(frozen=True)
class LiveAnswer:
    p_positive: float
    seconds: float  # from text to probability, without waiting for others' answers
    tokens: int  # of the whole prompt, after any cut
    truncated: bool
    read: float = 1.0  # share of the prompt that the answer rests on; less in a long review's first answer
    about: str = ""  # by which adapter and base, with their hashes, where an engine elsewhere answered


@dataclass(eq=False)
class LiveClassifier:
    """Base and fine-tuned model; made by `load`. For `at_once` threads: who asks besides queues before it."""

    number_format: str
    encoder: PromptEncoder
    systems: Callable[[], Systems]
    max_length_tokens: int
    temperature: float = 1.0  # of the fine-tuned model, as evaluated: log-odds are divided by it
    at_once: int = 1  # texts that are read at the same time, where many wait

    @property
    def on_gpu(self) -> bool:
        """Whether many texts at once take about the time of one."""
        return self.number_format.endswith(("GPU", "engine"))

    @staticmethod
    def load(
        run: Run | None, *, base_model: str | None = None, number_format: str | None = None,
        cuda: bool | None = None, engine: Engine | None = None,
    ) -> LiveClassifier:  # fmt: skip
        """The base model, and the fine-tuned one when `run` is finished.

        Args:
            base_model: where the base is, when it is neither embedded nor on the Hub; else taken from the
                environment variable SENTIMENT_BASE_MODEL, the run, or the default.
            number_format: "bf16", "int8" or "fp32"; else SENTIMENT_LIVE_FORM, or the processor's fastest.
            cuda: whether on a GPU; by default where there is one all the time.
            engine: what computes instead, if it is elsewhere; nothing is loaded then but the tokenizer.

        Raises:
            EngineError: the engine is away, or does not hold the models.
            BaseModelError: base or adapter cannot be had, or do not fit each other or this program's prompt.
            ValueError: no such number format.
        """
        record = run.record if run else None
        base = live_base(record, base_model)
        cuda = torch.cuda.is_available() and not on_zero_gpu() if cuda is None else cuda
        large = record is not None and record.base_model.is_large
        wanted = number_format or os.environ.get("SENTIMENT_LIVE_FORM") or ("int8" if large else None)
        number_format = choose_number_format(wanted, cuda)
        encoder = PromptEncoder(load_tokenizer(base))
        if record is not None:
            check_fits(record, encoder, base.embedded.sha256 if base.embedded else None)
        adapter = run.adapter_path if run and record else None
        device = torch.device("cuda" if cuda else "cpu")
        if engine:
            build: Callable[[], Systems] = functools.partial(engine.connect, run, base, encoder)
            cuda, number_format, at_once = False, "engine", 1
        else:
            build, number_format, at_once = _builder(base, adapter, number_format, encoder, device)
        classifier = LiveClassifier(
            f"{number_format} on GPU" if cuda else number_format, encoder, functools.cache(build),
            record.max_length_tokens if record else 1024, record.temperature if record else 1.0, at_once,
        )  # fmt: skip
        if not (cuda and on_zero_gpu()):  # there, a GPU exists only inside a call
            for system in SYSTEMS[: 2 if adapter else 1]:
                classifier.classify("A warm-up, of a few words.", system)
        return classifier

    def classify(self, text: str, system: Which) -> LiveAnswer:
        """Raises ValueError for "fine-tuned" when there is no finished run."""
        steps = self.read(text, system)
        return next(step for step in steps if isinstance(step, LiveAnswer) and step.read == 1)

    def read(self, text: str, system: Which) -> Iterator[LiveAnswer | ReadingTrace]:
        """The answer, of a long review first after its beginning, and then how it came while reading.
        A review of one row has no trace but its answer. Raises as `classify`."""
        model, began = self._system(system), time.perf_counter()
        [row], encoded = self._rows([text])
        spent, tail, p = time.perf_counter() - began, len(self.encoder.suffix_ids), 0.5
        about = int(encoded.lengths[0]), bool(encoded.truncated[0])
        ends, cuts = rows_of(text, self.encoder, len(row) - tail)
        steps, read = iter(model.read(row, tail, cuts)), 0.0
        while read < 1:
            began = time.perf_counter()  # without what the page does between two steps
            tokens, [log_odds] = next(steps)
            spent, read = spent + time.perf_counter() - began, tokens / len(row)
            p = float(self._p(log_odds, system))
            yield LiveAnswer(p, spent, *about, read, self.about(system))
        before = self._p(next(steps)[1], system).tolist() if len(cuts) else []
        yield ReadingTrace(ends=tuple(ends), p_positive=(*before, p))

    def dial(self, text: str) -> Iterator[float]:
        """P(positive) by weights of base + α · adapter, for each α of `DIAL`.
        Raises TooLong, of one sentence; and ValueError when there is no finished run."""
        [row], _ = self._rows([text])
        if (tokens := len(row) - len(self.encoder.suffix_ids)) > DIAL_TOKENS:
            raise TooLong(f"The dial takes reviews of up to {DIAL_TOKENS} tokens; this one has {tokens:,}.")
        for alpha in DIAL:
            [log_odds] = self._system(alpha).log_odds([row])
            yield float(self._p(log_odds, alpha))

    def warm_up(self) -> Iterator[int]:
        """What makes later answers faster, in pieces; nobody needs to wait for it."""
        return self._system("base").meet_lengths()

    def classify_together(self, texts: Sequence[str], system: Which) -> list[LiveAnswer]:
        """As `classify`, all of them in batches; each has its share of the time."""
        began, found, (_, encoded) = time.perf_counter(), np.zeros(len(texts)), self._rows(texts)
        for places, p in self.batches(texts, system):
            found[places] = p
        each = (time.perf_counter() - began) / max(1, len(texts))
        told = zip(found.tolist(), encoded.lengths.tolist(), encoded.truncated.tolist(), strict=True)
        return [LiveAnswer(p, each, tokens, cut, about=self.about(system)) for p, tokens, cut in told]

    def batches(self, texts: Sequence[str], system: Which) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in `texts` and their float32 P(positive), some of like length at a time."""
        rows, _ = self._rows(texts)
        budget = self.at_once * BATCH_TOKENS["cuda" if self.on_gpu else "cpu"]
        for batch in batches_by_tokens(np.array([len(row) for row in rows]), budget, self.at_once):
            found = self._system(system).log_odds([rows[i] for i in batch])
            yield batch, self._p(found, system).astype(np.float32)

    def about(self, system: Which) -> str:
        """As `LiveAnswer.about`."""
        return getattr(self._system(system), "about", "")

    def _rows(self, texts: Sequence[str]) -> tuple[list[np.ndarray], Encoded]:
        """Prompts: their token ids after the prefix, and all of them."""
        encoded = self.encoder.encode(texts, self.max_length_tokens)
        return [encoded[i][len(self.encoder.prefix_ids) :] for i in range(len(encoded))], encoded

    def _p(self, log_odds: np.ndarray, name: Which | float) -> np.ndarray:
        """P(positive), by a temperature between the base's, 1, and the fine-tuned model's."""
        return expit(log_odds / (1 + ALPHAS[name] * (self.temperature - 1)))

    def _system(self, name: Which | float) -> LiveLlama | LiveTransformers:
        systems, alpha = self.systems(), ALPHAS[name]
        if alpha not in systems and 1.0 in systems:
            raise UserError("The dial needs the weights here, and an engine elsewhere answers now.")
        if alpha not in systems:
            raise ValueError("there is no finished run to answer with; train one first (python train.py)")
        return systems[alpha]


def _builder(
    base: BaseModel, adapter: Path | None, number_format: str, encoder: PromptEncoder, device: torch.device
) -> tuple[Callable[[], Systems], str, int]:
    """Load the weights; return what puts them on the device at first use, their number format, `at_once`."""
    config, on_cpu = pretrained(AutoConfig, base), device.type == "cpu"
    cores, fast_int8 = usable_cores() if on_cpu else 1, processor_has("vnni")
    lean = is_lean(config)
    if on_cpu:
        torch.set_num_threads(1 if lean else cores)  # see `forward`
    if not lean:
        number_format = "fp32" if number_format == "int8" else number_format
        loaded = replace(load_base(base, compute_dtype=dtype_of(number_format)), device=device)
        model = load_adapter(loaded.model, adapter) if adapter else loaded.model

        def build_transformers() -> Systems:
            model.to(device)
            alphas = ALPHAS.values() if adapter else (0.0,)
            return {alpha: LiveTransformers(loaded, model, alpha) for alpha in alphas}

        return build_transformers, number_format, 1
    shared, changes = load_weights(base, adapter, number_format, encoder)

    def build() -> Systems:
        tensors, plain = shared.made(device, functools.partial(LiveLlama, config), cores, fast_int8)
        if not changes:
            return {0.0: plain}
        merged, dial = (tensors | {name: t.to(device) for name, t in part.items()} for part in changes)
        between = {alpha: plain.between(dial, alpha) for alpha in DIAL}
        return between | {0.0: plain, 1.0: LiveLlama(config, merged, cores, fast_int8)}

    return build, number_format, cores
