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
    """Train with one seed after the other; the record so far is written after each round of recipes."""
    names = measure.asked("--presets", arguments.presets, list(PRESETS))
    reached: dict[str, list[float]] = {name: [] for name in names}
    rows: dict[str, BenchmarkRow] = {}
    for seed, name in product(range(arguments.seeds), names):
        done = trained(arguments, f"{name}, seed {seed}", **PRESETS[name], preset=name, seed=seed)
        reached[name].append(done.validation_accuracy.value)
        rows[name] = row_of(name, reached[name], done.validation_accuracy.n)
        data = {"dataset": done.data.source, "train": done.data.train, "accuracies": reached}
        found = measure.record(arguments, list(rows.values()), arguments.base_model, **data)
    return found  # pyrefly: ignore[unbound-name] at least one seed and one recipe


def row_of(name: str, accuracies: list[float], n: int) -> BenchmarkRow:
    """The mean over seeds with the lowest and the highest, and the sample's standard deviation in words."""
    mean, sd = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)) if accuracies[1:] else 0.0
    metric = Metric(value=mean, low=min(accuracies), high=max(accuracies), n=n)
    note = f"mean of {len(accuracies)} seeds, SD {100 * sd:.2f} points"
    return BenchmarkRow(system=name, validation_accuracy=metric, note=note)
