"""What the fast path costs in accuracy: the same training through two engines, validated on the same reviews.

Both see the same reviews in the same order, from the same seed, with the same learning rates; they differ in
layout, kernels and rounding only.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric, RunRecord
from sentiment_core.benchmarks import measure
from sentiment_core.config import ENGINES, TrainConfig
from sentiment_core.engines.device import free_memory
from sentiment_core.training.session import train

FLAGS = measure.FLAGS | {
    "engines": ("packed,nf4", "which to compare, as in train.py"),
    "epochs": (1, "as in train.py"),
    "seed": (TrainConfig().seed, "of both"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Train with one engine after the other in this process; the record so far is written after each."""
    rows: list[BenchmarkRow] = []
    alike = {"seed": arguments.seed, "epochs": arguments.epochs, "evaluations_per_epoch": 1}
    for engine in measure.asked("--engines", arguments.engines, [name for name in ENGINES if name != "auto"]):
        done = trained(arguments, engine, **alike, early_validations=False, engine=engine)
        about = "{batch_size} reviews, seed {seed}, {precision}".format_map(done.config)
        rows.append(BenchmarkRow(
            system=engine, reviews_per_second=Metric(value=done.reviews_per_second, n=1),
            validation_accuracy=done.validation_accuracy, validation_loss=done.validation_loss,
            peak_memory_bytes=done.peak_memory_bytes, note=f"{done.steps} steps of {about}",
        ))  # fmt: skip
        data = {"dataset": done.data.source, "train": done.data.train, "validation": done.data.validation}
        found = measure.record(arguments, rows, arguments.base_model, **data)
    return found  # pyrefly: ignore[unbound-name] a comma-separated flag has at least one name


def trained(arguments: argparse.Namespace, title: str, **settings: Any) -> RunRecord:
    """The record of a run whose files are not kept; told on stderr under this title."""
    common = {name: getattr(arguments, name) for name in ("dataset", "base_model", "limit", "validation")}
    config = TrainConfig(**common | settings, run_id=arguments.kind)
    with tempfile.TemporaryDirectory() as folder:
        done, _ = train(config, assets=Path(folder), work=Path(folder) / "work")
    assert done is not None  # as in every main process
    free_memory()
    accuracy = done.validation_accuracy
    told = f"{title}: {accuracy.value:.2%} of {accuracy.n:,}, loss {done.validation_loss:.4f}"
    print(told, file=sys.stderr, flush=True)
    return done
