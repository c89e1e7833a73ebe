"""What an adapter's answers become elsewhere: by plain PEFT, merged, without rounding, and as served live.

Each form answers the same test reviews and is held against the model as it is evaluated: the base's NF4
values, the adapter beside them, this program's engine.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.artifacts.store import Run, adapter_sha256
from sentiment_core.benchmarks.measure import record
from sentiment_core.config import ASSETS, EvalConfig
from sentiment_core.engines.device import find_device, free_memory
from sentiment_core.engines.scorer import SentimentScorer, p_positive
from sentiment_core.evaluation.inputs import Inputs, find_run
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.live.weights import NUMBER_FORMATS
from sentiment_core.metrics.intervals import wilson
from sentiment_core.models import loading
from sentiment_core.models.base_models import BaseModelError, published_as, resolve

FLAGS = {
    "run": ("", "whose adapter: a name under assets/runs, or a folder"),
    "base-model": ("", "as in eval.py; by default the run's"),
    "dataset": (EvalConfig.dataset, "whose test reviews"),
    "limit": (2000, "this many of them, stratified and seeded"),
    "seed": (0, "of that choice"),
    "on-cpu": (200, "of these, how many the live number formats answer where they run on the CPU"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Let each form answer; one that cannot be had here is told and left out."""
    chosen = {name: getattr(arguments, name) for name in ("run", "base_model", "dataset", "limit", "seed")}
    inputs, trained = Inputs(EvalConfig(**chosen), find_device(), ASSETS), find_run(arguments.run, ASSETS)
    answers: dict[str, np.ndarray] = {}
    for form, answer in forms(inputs, trained, arguments.on_cpu):
        began = time.perf_counter()
        try:
            answers[form] = answer()
            inputs.say(f"{form}: {time.perf_counter() - began:.1f} s")
        except BaseModelError as error:
            inputs.say(f"Left out: {form} ({error})")
        free_memory()
    first, labels = next(iter(answers.values())), inputs.test.reviews.labels
    rows = [row_of(form, p, first, labels) for form, p in answers.items()]
    about = {"run": trained.run_id, "adapter_sha256": adapter_sha256(trained), "seed": arguments.seed}
    return record("export", rows, inputs.base.name, dataset=inputs.test.info.source, **about)


def row_of(form: str, p: np.ndarray, first: np.ndarray, labels: np.ndarray) -> BenchmarkRow:
    """One form's accuracy, and how far it is from the first, on the reviews that it was asked about."""
    asked = ~np.isnan(p)
    p, first, labels = p[asked], first[asked], labels[asked]
    change = np.abs(p.astype(float) - first)
    return BenchmarkRow(
        system=form, accuracy=wilson(int(((p >= 0.5) == labels).sum()), len(p)),
        flipped=int(((p >= 0.5) != (first >= 0.5)).sum()),
        mean_change=float(change.mean()), largest_change=float(change.max()),
    )  # fmt: skip


def forms(inputs: Inputs, trained: Run, on_cpu: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """The model as evaluated, then the others: what makes (n,) P(positive), NaN where it was not asked."""
    precision, base = inputs.context.precision, inputs.base
    score = partial(scored, inputs)
    load = partial(loading.load_base, device=inputs.context.device, compute_dtype=inputs.context.dtype)
    yield f"as evaluated: NF4 values, {precision}", lambda: score(load(base))
    yield f"plain PEFT on the NF4 values, {precision}", lambda: score(load(base), engine="padded")
    merge = partial(loading.load_merged, base, trained.adapter_path, device=inputs.context.device)
    yield "merged into the NF4 values, bf16", lambda: score(merge(), adapter=None)
    yield f"plain PEFT on the base, not rounded, {precision}", lambda: score(load(base, rounded=False))
    if base.embedded:
        original = resolve("@".join(filter(None, published_as(base))))
        yield f"plain PEFT on {original.location}, {precision}", lambda: score(load(original, rounded=False))
    for number_format in NUMBER_FORMATS:
        on_gpu = inputs.context.device.type == "cuda" and number_format != "int8"
        asked = partial(live_answers, inputs, trained, number_format, None if on_gpu else on_cpu)
        yield f"live, {number_format}, {'GPU' if on_gpu else 'CPU'}", asked


def scored(inputs: Inputs, loaded: loading.LoadedModel, **changes: Any) -> np.ndarray:
    """(n,) P(positive). changes: `engine` of the scorer; `adapter`, None where it is in the weights."""
    model, adapter = loaded.model, changes.pop("adapter", inputs.adapter)
    scorer = SentimentScorer(
        loaded, loading.load_adapter(model, adapter) if adapter else model, compiled=False, **changes
    )
    temperature = inputs.run.temperature if inputs.run else 1.0
    return p_positive(scorer.log_likelihoods(inputs.encoded) / np.float32(temperature))


def live_answers(inputs: Inputs, trained: Run, number_format: str, on_cpu: int | None) -> np.ndarray:
    """(n,) P(positive) of the live classifier; in a process of its own where there is a GPU.

    on_cpu: how many reviews to ask about where no GPU is to be seen; eight bits need that. None: the GPU.
    """
    texts = list(inputs.test.reviews.texts)
    step, p = max(1, len(texts) // on_cpu) if on_cpu else 1, np.full(len(texts), np.nan, np.float32)
    ask = partial(classified, trained, inputs.base.spec, number_format, texts[::step])
    if inputs.context.device.type == "cpu":
        p[::step] = ask()
        return p
    hide = partial(os.putenv, "CUDA_VISIBLE_DEVICES", "") if on_cpu else None
    with ProcessPoolExecutor(1, get_context("spawn"), hide) as pool:
        p[::step] = pool.submit(ask).result()
    return p


def classified(trained: Run, base_model: str, number_format: str, texts: list[str]) -> np.ndarray:
    served = LiveClassifier.load(trained, base_model=base_model, number_format=number_format)
    return served.classify_many(texts, "fine-tuned")
