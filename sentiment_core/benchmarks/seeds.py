"""How much of a figure is the seed's: each recipe trained from several seeds, validated on reviews left out.

A seed decides the order of the reviews, the adapter's start, and which reviews are left out.
"""

import argparse
from itertools import product

import numpy as np

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.benchmarks import measure
from sentiment_core.benchmarks.parity import trained
from sentiment_core.config import PRESETS

FLAGS = measure.FLAGS | {
    "presets": (",".join(PRESETS), "recipes, as in train.py"),
    "seeds": (5, "of each, counted from 0"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Train with one seed after the other; the record so far, of each recipe the mean with the lowest and the
    highest accuracy, is written after each."""
    names = measure.asked("--presets", arguments.presets, list(PRESETS))
    reached: dict[str, list[float]] = {name: [] for name in names}
    rows: dict[str, BenchmarkRow] = {}
    for seed, name in product(range(arguments.seeds), names):
        done = trained(arguments, f"{name}, seed {seed}", **PRESETS[name], preset=name, seed=seed)
        (found := reached[name]).append(done.validation_accuracy.value)
        mean, sd = float(np.mean(found)), float(np.std(found, ddof=1)) if found[1:] else 0.0
        metric = Metric(value=mean, low=min(found), high=max(found), n=done.validation_accuracy.n)
        note = f"mean of {len(found)} seeds, SD {100 * sd:.2f} points"
        rows[name] = BenchmarkRow(system=name, validation_accuracy=metric, note=note)
        data = {"dataset": done.data.source, "train": done.data.train, "accuracies": reached}
        record = measure.record(arguments, list(rows.values()), arguments.base_model, **data)
    return record  # pyrefly: ignore[unbound-name] at least one seed and one recipe
