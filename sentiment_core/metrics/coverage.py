"""Accuracy against coverage: how right the answers are when only the surest of them are given.

Certainty is max(p, 1 - p), in [0.5, 1]. El-Yaniv & Wiener 2010 (JMLR 11:1605) call this selective prediction.
"""

import numpy as np
from numpy.typing import ArrayLike

from sentiment_core.metrics.histogram import BINS, EDGE
from sentiment_core.metrics.intervals import Metric, wilson


def curve(label: ArrayLike, p_positive: ArrayLike, *, points: int = 100) -> list[tuple[float, Metric]]:
    """Shares of the n reviews, from the surest to all, and the accuracy of the answers to each share."""
    p = np.asarray(p_positive, dtype=float)
    surest_first = np.argsort(-np.maximum(p, 1 - p), kind="stable")
    right = ((p >= 0.5) == np.asarray(label))[surest_first].cumsum()
    sizes = np.unique(np.ceil(np.linspace(len(p) / points, len(p), points)).astype(int))
    return [(size / len(p), wilson(int(right[size - 1]), int(size))) for size in sizes]


def above(label: ArrayLike, p_positive: ArrayLike, certainty: float) -> tuple[float, Metric] | None:
    """The share of answers at least so sure, and their accuracy; None without any."""
    p = np.asarray(p_positive, dtype=float)
    given = np.maximum(p, 1 - p) >= certainty
    right = ((p >= 0.5) == np.asarray(label))[given]
    return (float(given.mean()), wilson(int(right.sum()), len(right))) if len(right) else None


def least_log_odds(counts: ArrayLike, target: float) -> float | None:
    """The smallest |log-odds| from which on a share `target` of the answers is right; None without such.
    counts: (2, BINS) reviews by label and bin, see `histogram.counts`."""
    negative, positive = np.asarray(counts)
    half = BINS // 2
    right = (positive[half:] + negative[:half][::-1])[::-1].cumsum()  # from the surest bins inwards
    wrong = (negative[half:] + positive[:half][::-1])[::-1].cumsum()
    enough = np.flatnonzero((right + wrong > 0) & (right >= target * (right + wrong)))
    return float((half - 1 - enough[-1]) * 2 * EDGE / BINS) if len(enough) else None
