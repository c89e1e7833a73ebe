"""What an adapter's answers become elsewhere: by plain PEFT, merged, without rounding, and as served live.

Each form answers the same test reviews and is held against the model as it is evaluated: the base's NF4
values, the adapter beside them, this program's engine.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

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
    return record(arguments, rows, inputs.base.name, dataset=inputs.test.info.source, **about)


def row_of(form: str, p: np.ndarray, first: np.ndarray, labels: np.ndarray) -> BenchmarkRow:
    """One form's accuracy, and how far it is from the first, on the reviews that it was asked about."""
    p, first, labels = (values[~np.isnan(p)] for values in (p, first, labels))
    change = np.abs(p.astype(float) - first)
    return BenchmarkRow(
        system=form, accuracy=wilson(int(((p >= 0.5) == labels).sum()), len(p)),
        flipped=int(((p >= 0.5) != (first >= 0.5)).sum()),
        mean_change=float(change.mean()), largest_change=float(change.max()),
    )  # fmt: skip


def forms(inputs: Inputs, trained: Run, on_cpu: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """The model as evaluated, then the others: what makes (n,) P(positive), NaN where it was not asked."""
    precision, base, device = inputs.context.precision, inputs.base, inputs.context.device
    score = partial(scored, inputs, trained)
    load = partial(loading.load_base, device=device, compute_dtype=inputs.context.dtype)
    yield f"as evaluated: NF4 values, {precision}", lambda: score(load(base))
    yield f"plain PEFT on the NF4 values, {precision}", lambda: score(load(base), engine="padded")
    merge = partial(loading.load_merged, base, trained.adapter_path, device=device)
    yield "merged into the NF4 values, bf16", lambda: score(merge(), merged=True)
    yield f"plain PEFT on the base, not rounded, {precision}", lambda: score(load(base, rounded=False))
    if base.embedded:
        original = resolve("@".join(filter(None, published_as(base))))
        yield f"plain PEFT on {original.location}, {precision}", lambda: score(load(original, rounded=False))
    for number_format in NUMBER_FORMATS:
        on_gpu = device.type == "cuda" and number_format != "int8"
        asked = partial(live_answers, inputs, trained, number_format, None if on_gpu else on_cpu)
        yield f"live, {number_format}, {'GPU' if on_gpu else 'CPU'}", asked


def scored(
    inputs: Inputs, trained: Run, loaded: loading.LoadedModel, *, engine: str = "auto", merged: bool = False
) -> np.ndarray:
    """(n,) P(positive). merged: the adapter is in the weights."""
    assert trained.record
    model = loaded.model if merged else loading.load_adapter(loaded.model, trained.adapter_path)
    scorer = SentimentScorer(loaded, model, engine=engine, compiled=False)
    return p_positive(scorer.log_likelihoods(inputs.encoded) / np.float32(trained.record.temperature))


def live_answers(inputs: Inputs, trained: Run, number_format: str, on_cpu: int | None) -> np.ndarray:
    """(n,) P(positive) of the live classifier. on_cpu: how many reviews to ask about there; None: the GPU."""
    texts, given = inputs.test.reviews.texts, {"base_model": inputs.base.spec, "cuda": on_cpu is None}
    step, p = max(1, len(texts) // on_cpu) if on_cpu else 1, np.full(len(texts), np.nan, np.float32)
    served = LiveClassifier.load(trained, number_format=number_format, **given)
    p[::step] = [one.p_positive for one in served.classify_together(texts[::step], "fine-tuned")]
    return p
