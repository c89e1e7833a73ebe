"""What every metric is made of: a value with its interval, and checked labels, answers, probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable, and refusing fields that this version does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Metric(Record):
    """A value, its 95 % interval (None where none is defined), and how many reviews it rests on."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    higher_is_better: bool = True


@dataclass(frozen=True)
class Reviews:
    """n evaluated reviews, checked: what every metric is computed from."""

    label: np.ndarray  # (n,) int, 0 or 1
    answer: np.ndarray  # (n,) int: 0, 1, or 2 for an answer that is no label
    p_positive: np.ndarray  # (n,) float64 in [0, 1], NaN where a review was not scored
    pair_id: np.ndarray | None  # (n,) objects
    resamples: int  # of the bootstraps


def floats(values: ArrayLike, name: str) -> np.ndarray:
    """(n,) float64 with NaN for gaps; pandas' nullable columns included."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"{name} has {array.ndim} dimensions; it must be a list with one value per review")
    return array


def _refuse(odd: np.ndarray, name: str, rule: str) -> None:
    if odd.size:
        raise ValueError(f"{name} holds {odd[0]:g}; it must {rule}")


def read_labels(label: ArrayLike) -> np.ndarray:
    """(n,) int, each 0 or 1."""
    array = floats(label, "label")
    _refuse(array[~np.isin(array, (0, 1))], "label", "be 0 (negative) or 1 (positive)")
    return array.astype(np.intp)


def read_answers(prediction: ArrayLike) -> np.ndarray:
    """(n,) int: 0, 1, or 2 for an answer that is no label."""
    array = floats(prediction, "prediction")
    gaps = np.isnan(array)
    _refuse(array[~gaps & ~np.isin(array, (0, 1))], "prediction", "be 0, 1 or empty (no label)")
    return np.where(gaps, 2, array).astype(np.intp)


def read_probabilities(p_positive: ArrayLike) -> np.ndarray:
    """(n,) float64 in [0, 1], NaN where a review was not scored."""
    array = floats(p_positive, "p_positive")
    _refuse(array[(array < 0) | (array > 1)], "p_positive", "lie in [0, 1] or be empty")
    return array


def wilson(successes: int, n: int) -> Metric:
    """A proportion with its Wilson (1927) score interval.

    >>> share = wilson(81, 263)  # Newcombe 1998, Statist. Med. 17:857, Table I, method 3
    >>> round(share.low, 4), round(share.high, 4)
    (0.2553, 0.3662)
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no proportion")
    value, bounds = successes / n, binomtest(successes, n).proportion_ci(method="wilson")
    low, high = min(bounds.low, value), max(bounds.high, value)  # rounding may leave 1e-17 between them
    return Metric(value=value, low=low, high=high, n=n)


def mean_of_draws(first: Metric, values: Sequence[float]) -> Metric:
    """The mean of a metric over k seeded draws, `first` among them, with `first`'s n.

    The 95 % interval adds two variances: of the draws (Student's t with k - 1 degrees of freedom), and of
    the reviews, which all draws share, as `first` has it.
    """
    from scipy.stats import t

    k, value = len(values), float(np.mean(values))
    if k < 2 or first.low is None or first.high is None:
        return first.model_copy(update={"value": value})
    draws = t.ppf(0.975, k - 1) * np.std(values, ddof=1) / np.sqrt(k)
    half = float(np.hypot(draws, (first.high - first.low) / 2))
    return first.model_copy(update={"value": value, "low": max(value - half, 0.0), "high": value + half})


def frozen_random() -> np.random.RandomState:
    """The legacy generator: its stream is frozen, so stored intervals can be recomputed under any numpy
    (integers exactly, multinomial draws up to the machine's mathematical library)."""
    return np.random.RandomState(0)


def percentile_interval(value: float, draws: np.ndarray, n: int, *, higher_is_better: bool = True) -> Metric:
    """2.5 % and 97.5 % points of the resamples; widened, if need be, to hold the value."""
    low, high = np.nanquantile(draws, (0.025, 0.975))
    low, high = min(low, value), max(high, value)
    return Metric(value=value, low=low, high=high, n=n, higher_is_better=higher_is_better)


def resampled_means(columns: np.ndarray, resamples: int) -> np.ndarray:
    """(resamples, k) means of (n, k) columns over n reviews drawn with replacement."""
    n, random = len(columns), frozen_random()
    drawn = (random.randint(0, n, n, dtype=np.int64) for _ in range(resamples))
    return np.stack([np.bincount(rows, minlength=n) @ columns for rows in drawn]) / n
