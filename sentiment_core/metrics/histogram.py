"""Counts of reviews on a log-odds axis: where a system places them, and how they move between two systems."""

import numpy as np
from numpy.typing import ArrayLike

EDGE = 9.0  # log-odds of the axis's ends, 0.01 % and 99.99 %; what lies beyond is in the outermost bins
BINS = 90  # each 0.2 log-odds wide, so that 50 % is an edge between two


def bin_of(p_positive: np.ndarray) -> np.ndarray:
    """(n,) in [0, 1] -> (n,) bins from 0 to BINS - 1; 0.5 is in the upper half, as it is called Positive."""
    p = np.asarray(p_positive, dtype=float)
    with np.errstate(divide="ignore"):
        odds = np.log(p) - np.log1p(-p)
    return np.clip(np.floor((odds + EDGE) * BINS / (2 * EDGE) + 1e-9), 0, BINS - 1).astype(int)


def probability_of(edge: int) -> float:
    """P(positive) at the edge below bin `edge`; 0 and 1 at the axis's ends, whose bins hold what lies beyond.

    >>> probability_of(45)
    0.5
    """
    odds = edge * 2 * EDGE / BINS - EDGE
    return float(edge == BINS) if edge in (0, BINS) else float(1 / (1 + np.exp(-odds)))


def counts(label: np.ndarray, p_positive: np.ndarray) -> np.ndarray:
    """(2, BINS) reviews by label and bin."""
    return np.bincount(BINS * np.asarray(label) + bin_of(p_positive), minlength=2 * BINS).reshape(2, BINS)


def moves(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How reviews move between two systems' bins.
    Returns (m, 4) integers: label, bin before, bin after, reviews; only what occurs, the reviews sum to n."""
    joint = np.column_stack([label, bin_of(before), bin_of(after)])
    return np.column_stack(np.unique(joint, axis=0, return_counts=True))


def least_log_odds(counts: ArrayLike, target: float) -> float | None:
    """The smallest |log-odds| from which on a share `target` of the answers is right; None without such.
    counts: (2, BINS) reviews by label and bin, see `counts`."""
    negative, positive = np.asarray(counts)
    half = BINS // 2
    right = (positive[half:] + negative[:half][::-1])[::-1].cumsum()  # from the surest bins inwards
    wrong = (negative[half:] + positive[:half][::-1])[::-1].cumsum()
    enough = np.flatnonzero((right + wrong > 0) & (right >= target * (right + wrong)))
    return float((half - 1 - enough[-1]) * 2 * EDGE / BINS) if len(enough) else None
