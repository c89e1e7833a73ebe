"""What the fast path costs in accuracy: the same training through two engines, validated on the same reviews.

Both see the same reviews in the same order, from the same seed, with the same learning rates; they differ in
layout, kernels and rounding only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric, RunRecord
from sentiment_core.artifacts.store import write_record
from sentiment_core.benchmarks.measure import asked, record
from sentiment_core.config import DEFAULT_BASE_MODEL, ENGINES, TrainConfig
from sentiment_core.engines.device import free_memory
from sentiment_core.training.session import train


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default=TrainConfig.dataset, help="reviews to train on")
    parser.add_argument("--base-model", default=DEFAULT_BASE_MODEL, help="as in train.py")
    parser.add_argument("--engines", default="packed,nf4", help="which to compare, as in train.py")
    parser.add_argument("--epochs", type=int, default=1, help="as in train.py")
    parser.add_argument("--limit", type=int, default=None, help="train on this many reviews")
    parser.add_argument("--validation", type=int, default=5000, help="reviews left out of training")
    parser.add_argument("--seed", type=int, default=TrainConfig().seed, help="of both")


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Train with one engine after the other in this process; the record so far is written after each."""
    rows: list[BenchmarkRow] = []
    names = ("dataset", "base_model", "limit", "validation", "seed", "epochs")
    settings = {name: getattr(arguments, name) for name in names}
    for engine in asked("--engines", arguments.engines, [name for name in ENGINES if name != "auto"]):
        config = TrainConfig(**settings, evaluations_per_epoch=1, engine=engine, run_id="parity")
        done = trained(config, engine)
        accuracy, loss = done.validation_accuracy, done.validation_loss
        precision = done.config["precision"]
        rows.append(BenchmarkRow(
            system=engine, reviews_per_second=Metric(value=done.reviews_per_second, n=1),
            validation_accuracy=accuracy, validation_loss=loss, peak_memory_bytes=done.peak_memory_bytes,
            note=f"{done.steps} steps of {config.batch_size} reviews, seed {config.seed}, {precision}",
        ))  # fmt: skip
        data = {"dataset": done.data.source, "train": done.data.train, "validation": done.data.validation}
        found = record("parity", rows, arguments.base_model, **data)
        write_record(Path(arguments.output), found)
    return found


def trained(config: TrainConfig, title: str) -> RunRecord:
    """The record of a run whose files are not kept; told on stderr under this title."""
    with tempfile.TemporaryDirectory() as folder:
        done, _ = train(config, assets=Path(folder), work=Path(folder) / "work")
    assert done is not None  # as in every main process
    free_memory()
    accuracy = done.validation_accuracy
    told = f"{title}: {accuracy.value:.2%} of {accuracy.n:,}, loss {done.validation_loss:.4f}"
    print(told, file=sys.stderr, flush=True)
    return done
