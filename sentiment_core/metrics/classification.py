"""Labels, answers and probabilities of n reviews in; numbers with 95 % intervals out.

An answer that is no label ("unparsed") is wrong everywhere except in `accuracy_lenient`, which leaves it
out. Counts get Wilson intervals, ROC AUC an analytic one (DeLong), all others a percentile bootstrap over
reviews, seeded. One formula serves the value and its thousand resamples, so counts and losses are computed
here; the tests hold each against scikit-learn. What loads slowly is imported inside functions.

A new metric is a function of `Reviews` in a file of its own, and a line in METRICS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sentiment_core.metrics import intervals
from sentiment_core.metrics.intervals import Metric, Reviews, percentile_interval, read_answers, read_labels

CLASSES = ("negative", "positive")
ANSWERS = ("negative", "positive", "unparsed")
CALIBRATION_BINS = 15
NLL_FLOOR = 1e-7  # probabilities are kept this far from 0 and 1 in the NLL, about float32's resolution near 1
Found = Iterator[tuple[str, Metric]]


@dataclass(frozen=True)
class Comparison:
    """System b against system a on the same n reviews. Fixed: a wrong, b right; broken: the reverse."""

    difference: Metric  # accuracy of b minus accuracy of a, in [-1, 1], with a paired bootstrap interval
    mcnemar_p: float  # exact, two-sided, of "a review is as likely fixed as broken"; 0.0 below 1e-308
    fixed: int
    broken: int
    both_right: int
    both_wrong: int
    n: int


def confusion(label: ArrayLike, prediction: ArrayLike) -> dict[str, int]:
    """Counts by label (first word) and answer (second word), such as "positive_unparsed"."""
    return _named(_cells(read_labels(label), read_answers(prediction)))


def _cells(y: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """(2, 3) counts: rows the label, columns the answer."""
    return np.bincount(3 * y + answer, minlength=6).reshape(2, 3)


def _named(cells: np.ndarray) -> dict[str, int]:
    return {f"{t}_{a}": int(cells[i, j]) for i, t in enumerate(CLASSES) for j, a in enumerate(ANSWERS)}


def _class_means(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Mean recall and mean F1 of the two classes, of (..., 2, 3) counts; an unparsed answer is a miss, no
    false alarm. NaN where a class is absent."""
    right, truths, answers = cells[..., (0, 1), (0, 1)], cells.sum(-1), cells[..., :2].sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {"balanced_accuracy": right / truths, "macro_f1": 2 * right / (truths + answers)}
    return {name: share.mean(-1) for name, share in shares.items()}


def roc_auc(y: np.ndarray, p: np.ndarray) -> Metric | None:
    """Chance that a random positive review scores above a random negative one; ties count half.

    Interval: DeLong et al. 1988 (Biometrics 44:837), by midranks as in Sun & Xu 2014 (IEEE SPL 21:1389),
    on the logit scale so that it stays in [0, 1]; none where the two classes separate perfectly or one of
    them has a single review. None where a class is absent.

    Args: (n,) labels and P(positive), checked and without gaps.

    >>> roc_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])).value
    0.75
    """
    from scipy.stats import rankdata

    m, k = int((y == 1).sum()), int((y == 0).sum())
    if not m or not k:
        return None
    ranks = rankdata(p)
    beaten = (ranks[y == 1] - rankdata(p[y == 1])) / k  # share of negatives below each positive
    above = 1 - (ranks[y == 0] - rankdata(p[y == 0])) / m  # share of positives above each negative
    value = float(beaten.mean())
    if m == 1 or k == 1 or not 0 < value < 1:
        return Metric(value=value, n=len(y))
    deviation = np.sqrt(beaten.var(ddof=1) / m + above.var(ddof=1) / k)
    center, half = np.log(value / (1 - value)), 1.959963984540054 * deviation / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(center + np.array([-half, half]))))
    return Metric(value=value, low=low, high=high, n=len(y))


def _scores(reviews: Reviews) -> Found:
    """ROC AUC, then Brier score, negative log-likelihood and expected calibration error (lower is better).

    - brier: mean squared distance of p_positive from the outcome, in [0, 1] (Brier 1950).
    - nll: mean -log of the probability given to the true label, in nats, in [0, 16.1] (see NLL_FLOOR).
    - ece: mean |accuracy - confidence| over equal-width bins of the top label's confidence max(p, 1 - p),
      weighted by their reviews, in [0, 1] (Guo et al. 2017, arXiv 1706.04599). The top label is the one
      with p >= 0.5. Resampling adds noise to every bin and so inflates ECE; its interval is shifted back
      by the mean of that excess.
    """
    scored = ~np.isnan(reviews.p_positive)
    y, p = reviews.label[scored], reviews.p_positive[scored]
    if not len(y):
        return
    if auc := roc_auc(y, p):
        yield "roc_auc", auc
    columns = _calibration_columns(y, p)
    values, draws = columns.mean(0), intervals.resampled_means(columns, reviews.resamples)
    ece, ece_draws = np.abs(values[2:]).sum(), np.abs(draws[:, 2:]).sum(1)
    unbiased = np.clip(ece_draws - (ece_draws.mean() - ece), 0, 1)
    found = {"brier": (values[0], draws[:, 0]), "nll": (values[1], draws[:, 1]), "ece": (ece, unbiased)}
    for name, (value, drawn) in found.items():
        yield name, percentile_interval(float(value), drawn, len(y), higher_is_better=False)


def fit_temperature(label: ArrayLike, log_odds: ArrayLike) -> float:
    """The T, from 1/4 to 4, for which sigmoid(log_odds / T) has the lowest NLL (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    signed = np.where(read_labels(label) == 1, 1.0, -1.0) * np.asarray(log_odds, dtype=float)

    def nll(log_t: float) -> float:
        return np.logaddexp(0, -signed / np.exp(log_t)).mean()

    return float(np.exp(minimize_scalar(nll, bounds=(-np.log(4), np.log(4)), method="bounded").x))


def ece_without(label: ArrayLike, p_positive: ArrayLike, temperature: float) -> float:
    """The expected calibration error that probabilities had before log-odds were divided by a temperature."""
    from scipy.special import expit, logit

    p = expit(temperature * logit(np.asarray(p_positive, dtype=float)))
    return float(np.abs(_calibration_columns(np.asarray(label), p).mean(0)[2:]).sum())


def _calibration_columns(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(n, 2 + bins): squared error, negative log-likelihood, and right minus confidence in its bin."""
    floored, confidence = np.clip(p, NLL_FLOOR, 1 - NLL_FLOOR), np.maximum(p, 1 - p)
    slot = np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1  # bins (low, high], as Guo et al.
    columns = np.zeros((len(y), 2 + CALIBRATION_BINS))
    columns[:, 0] = (p - y) ** 2
    columns[:, 1] = -np.log(np.where(y == 1, floored, 1 - floored))
    columns[np.arange(len(y)), 2 + slot] = ((p >= 0.5) == y) - confidence
    return columns


def coverage(label: ArrayLike, p_positive: ArrayLike, *, points: int = 100) -> list[tuple[float, Metric]]:
    """Shares of the n reviews, from the surest to all, and the accuracy of the answers to each share;
    certainty is max(p, 1 - p). El-Yaniv & Wiener 2010 (JMLR 11:1605) call this selective prediction."""
    p = np.asarray(p_positive, dtype=float)
    surest_first = np.argsort(-np.maximum(p, 1 - p), kind="stable")
    right = ((p >= 0.5) == np.asarray(label))[surest_first].cumsum()
    sizes = np.unique(np.ceil(np.linspace(len(p) / points, len(p), points)).astype(int))
    return [(size / len(p), intervals.wilson(int(right[size - 1]), int(size))) for size in sizes]


def above_certainty(label: ArrayLike, p_positive: ArrayLike, certainty: float) -> tuple[float, Metric] | None:
    """The share of answers at least so sure, and their accuracy; None without any."""
    p = np.asarray(p_positive, dtype=float)
    given = np.maximum(p, 1 - p) >= certainty
    right = ((p >= 0.5) == np.asarray(label))[given]
    return (float(given.mean()), intervals.wilson(int(right.sum()), len(right))) if len(right) else None


def at_threshold(label: ArrayLike, p_positive: ArrayLike, threshold: float) -> dict[str, float | int | None]:
    """Confusion counts and rates when p >= threshold is called positive; about a millisecond for 25,000.
    Returns the six counts of `confusion` (without a probability: unparsed); accuracy, precision and recall of
    both classes, None where undefined."""
    p = intervals.read_probabilities(p_positive)
    cells = _cells(read_labels(label), np.where(np.isnan(p), 2, p >= threshold).astype(np.intp))
    shares = {"accuracy": (cells[0, 0] + cells[1, 1], cells.sum())}
    for i, name in enumerate(CLASSES):
        shares[f"precision_{name}"] = (cells[i, i], cells[:, i].sum())
        shares[f"recall_{name}"] = (cells[i, i], cells[i].sum())
    rates = {name: float(part / whole) if whole else None for name, (part, whole) in shares.items()}
    return _named(cells) | rates


def _counts(reviews: Reviews) -> Found:
    cells = _cells(reviews.label, reviews.answer)
    n, parsed, right = int(cells.sum()), int(cells[:, :2].sum()), cells[(0, 1), (0, 1)]
    yield "accuracy", intervals.wilson(int(right.sum()), n)
    if 0 < parsed < n:
        yield "accuracy_lenient", intervals.wilson(int(right.sum()), parsed)
    truths, answers = cells.sum(1), cells.sum(0)
    if truths.all():  # with one class both would only repeat its recall
        draws = intervals.frozen_random().multinomial(n, (cells / n).ravel(), size=reviews.resamples)
        draws = _class_means(draws.reshape(-1, 2, 3))
        for name, value in _class_means(cells).items():
            yield name, percentile_interval(float(value), draws[name], n)
    for i, name in enumerate(CLASSES):
        if answers[i]:
            yield f"precision_{name}", intervals.wilson(int(right[i]), int(answers[i]))
        if truths[i]:
            yield f"recall_{name}", intervals.wilson(int(right[i]), int(truths[i]))


def _pairs(reviews: Reviews) -> Found:
    """Share of pairs with every member right; a review without a partner is left out, n counts pairs."""
    if reviews.pair_id is None:
        return
    groups = pd.Series(reviews.answer == reviews.label).groupby(reviews.pair_id).agg(["size", "all"])
    whole = groups.loc[groups["size"] >= 2, "all"]
    if len(whole):
        yield "consistency", intervals.wilson(int(whole.sum()), len(whole))


METRICS: tuple[Callable[[Reviews], Found], ...] = (_counts, _scores, _pairs)
"""What `evaluate` computes, in this order: each yields the metrics that the reviews define, by name."""


def evaluate(
    label: ArrayLike, prediction: ArrayLike, p_positive: ArrayLike | None = None, *,
    pair_id: ArrayLike | None = None, resamples: int = 1000,
) -> dict[str, Metric]:  # fmt: skip
    """Every metric that the data defines.

    Args:
        label: (n,) 0 or 1.
        prediction: (n,) 0, 1 or empty (None, NaN, NA) for an answer that is no label.
        p_positive: (n,) in [0, 1], empty where not scored; None without scores.
        pair_id: (n,) what ties the members of a pair together.
    Returns accuracy; accuracy_lenient (only where some but not all answers are unparsed); balanced_accuracy
    and macro_f1 (both classes present); precision_* (n answers of that class), recall_* (n reviews of that
    class); roc_auc, brier, nll, ece (n scored reviews); consistency (n pairs).
    Raises ValueError: no reviews, lengths differ, or a value is outside its range.

    >>> evaluate([0, 1, 1], [0, 1, None])["accuracy_lenient"].value
    1.0
    """
    y, answer = read_labels(label), read_answers(prediction)
    if not (n := len(y)):
        raise ValueError("there are no reviews to evaluate")
    p = np.full(n, np.nan) if p_positive is None else intervals.read_probabilities(p_positive)
    pairs = None if pair_id is None else np.asarray(pair_id, dtype=object)
    for what, values in {"predictions": answer, "probabilities": p, "pair ids": pairs}.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {what} for {n} labels; there must be one for each")
    reviews = Reviews(y, answer, p, pairs, resamples)
    return {name: metric for metrics in METRICS for name, metric in metrics(reviews)}


def holm(p_values: list[float]) -> list[float]:
    """p-values for several tests made at once (Holm 1979).

    >>> holm([0.5, 0.25, 0.125])
    [0.5, 0.5, 0.375]
    """
    order = np.argsort(p_values)
    found = np.maximum.accumulate(np.sort(p_values) * np.arange(len(order), 0, -1))
    return np.minimum(found, 1.0)[np.argsort(order)].tolist()


def compare(label: ArrayLike, prediction_a: ArrayLike, prediction_b: ArrayLike) -> Comparison:
    """Whether b answers more of the same reviews right than a.

    Resampling reviews in pairs is resampling the four counts fixed, broken, both right, both wrong from a
    multinomial, so the bootstrap is exact in that sense and takes milliseconds. The test is McNemar's
    (1947), exact: fixed ~ Binomial(fixed + broken, 1/2).

    >>> c = compare([1, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1])
    >>> c.fixed, c.broken, c.difference.value, c.mcnemar_p
    (2, 1, 0.25, 1.0)
    """
    from scipy.stats import binomtest

    y = read_labels(label)
    n, right_a, right_b = len(y), read_answers(prediction_a) == y, read_answers(prediction_b) == y
    both_wrong, fixed, broken, both_right = (int(c) for c in np.bincount(2 * right_a + right_b, minlength=4))
    shares = np.array([fixed, broken, both_right, both_wrong]) / n
    draws = intervals.frozen_random().multinomial(n, shares, size=10_000)
    difference = percentile_interval((fixed - broken) / n, (draws[:, 0] - draws[:, 1]) / n, n)
    p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    return Comparison(difference, p, fixed, broken, both_right, both_wrong, n)
