"""Every metric by hand, against scikit-learn or scipy, and at its edges."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from sentiment_core.artifacts import frames
from sentiment_core.metrics import classification, intervals

LABEL = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
ANSWER = [0, 0, 1, None, 1, 1, 1, 0, None, 1]
P = [0.1, 0.3, 0.7, 0.4, 0.9, 0.8, 0.6, 0.2, 0.5, 0.95]


def synthetic(n: int = 2000, seed: int = 0, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers and float32 probabilities of a decent, slightly overconfident classifier."""
    random = np.random.RandomState(seed)
    label = random.randint(0, 2, n)
    p = (1 / (1 + np.exp(-gap * (2 * label - 1) - 2 * random.normal(size=n)))).astype(np.float32)
    return label, (p >= 0.5).astype(int), p


def table(n: int = 400, **columns: object) -> pd.DataFrame:
    label, answer, p = synthetic(n)
    base = {"label": label, "prediction": pd.array(answer, dtype="Int8"), "p_positive": p}
    return pd.DataFrame(base | {"tokens": np.arange(1, n + 1), "truncated": np.arange(n) > n - 10} | columns)


def calibration(label: object, p: object, **more: int) -> dict[str, intervals.Metric]:
    """`classification.evaluate` where only the probabilities matter."""
    return classification.evaluate(label, label, p, **more)


# ---- values


def test_the_temperature_undoes_overconfidence() -> None:
    random = np.random.RandomState(0)
    log_odds = random.normal(scale=3, size=20_000)
    label = (random.rand(len(log_odds)) < 1 / (1 + np.exp(-log_odds))).astype(int)
    assert classification.fit_temperature(label, log_odds) == pytest.approx(1, abs=0.05)
    assert classification.fit_temperature(label, 1.7 * log_odds) == pytest.approx(1.7, abs=0.08)
    assert classification.fit_temperature([0, 1], [-1, 1]) == pytest.approx(0.25, abs=0.01), "bounded"


def test_the_error_without_a_temperature_is_that_of_the_probabilities_before() -> None:
    label, _, p = synthetic()
    p[:3] = 0.0, 1.0, 0.5
    log_odds = np.log(np.maximum(p, 1e-300) / np.maximum(1 - p.astype(float), 1e-300))
    cooled = 1 / (1 + np.exp(-log_odds / 1.3))
    found = classification.ece_without(label, cooled, 1.3)
    assert found == pytest.approx(calibration(label, p)["ece"].value, abs=1e-6)
    assert found != pytest.approx(calibration(label, cooled)["ece"].value, abs=1e-3)


def test_metrics_of_answers_by_hand() -> None:
    found = {name: (e.value, e.n) for name, e in classification.evaluate(LABEL, ANSWER).items()}
    assert found == {
        "accuracy": (0.6, 10),
        "accuracy_lenient": (0.75, 8),
        "balanced_accuracy": (pytest.approx((2 / 4 + 4 / 6) / 2), 10),
        "macro_f1": (pytest.approx((2 * 2 / (4 + 3) + 2 * 4 / (6 + 5)) / 2), 10),
        "precision_negative": (pytest.approx(2 / 3), 3),
        "recall_negative": (0.5, 4),
        "precision_positive": (0.8, 5),
        "recall_positive": (pytest.approx(4 / 6), 6),
    }


def test_metrics_of_probabilities_agree_with_scikit_learn() -> None:
    label, answer, p = synthetic()
    found = classification.evaluate(label, answer, p, resamples=50)
    wide = p.astype(float)
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(label, p))
    assert found["brier"].value == pytest.approx(sk.brier_score_loss(label, wide))
    assert found["nll"].value == pytest.approx(sk.log_loss(label, wide))
    certain = calibration([0, 1], [1.0, 1.0])["nll"].value
    assert certain == pytest.approx(-np.log(1e-7) / 2, rel=1e-6), "a certain mistake is finite"
    coarse = np.round(p, 1)
    assert classification.roc_auc(label, coarse).value == pytest.approx(sk.roc_auc_score(label, coarse))


def test_ece_by_hand_and_as_guo_et_al() -> None:
    """Confidences 0.9, 0.7, 0.7, 0.6: right, right, wrong, right, in bins 14, 11, 11 and 9 of 15."""
    found = calibration([1, 1, 0, 0], [0.9, 0.7, 0.7, 0.4])["ece"].value
    assert found == pytest.approx((0.1 + abs(2 * 0.7 - 1) + 0.4) / 4)

    label, _, p = synthetic()
    confidence, right = np.maximum(p, 1 - p.astype(float)), (p >= 0.5) == label
    expected = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration(label, p, resamples=10)["ece"].value == pytest.approx(expected)


def test_consistency_asks_for_both_of_a_pair() -> None:
    pairs = ["a", "a", "b", "b", "c", None]
    found = classification.evaluate([0, 1, 0, 1, 0, 0], [0, 1, 0, None, 0, 0], pair_id=pairs)["consistency"]
    assert (found.value, found.n) == (0.5, 2)
    assert "consistency" not in classification.evaluate([0, 1], [0, 1], pair_id=["a", "b"])


# ---- intervals


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (81, 263), (1, 1), (12_345, 25_000)])
def test_wilson_is_where_the_score_test_turns(k: int, n: int) -> None:
    """Wilson 1927: (k/n - p)² = z² p (1 - p) / n at both ends."""
    found, z = intervals.wilson(k, n), stats.norm.ppf(0.975)
    for p in (found.low, found.high):
        assert (k / n - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_delong_interval_agrees_with_a_direct_count() -> None:
    label, _, p = synthetic(300, gap=0.7)
    positive, negative = p[label == 1], p[label == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    found = classification.roc_auc(label, p)
    scale = found.value * (1 - found.value)
    logit = np.log(found.value / (1 - found.value))
    expected = 1 / (1 + np.exp(-(logit + stats.norm.ppf([0.025, 0.975]) * np.sqrt(variance) / scale)))
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_bootstrap_of_the_counts_is_the_bootstrap_of_the_reviews() -> None:
    label, answer, _ = synthetic(400)
    found = classification.evaluate(label, answer)["macro_f1"]
    random = np.random.RandomState(1)
    rows = [random.randint(0, 400, 400) for _ in range(300)]
    low, high = np.quantile([sk.f1_score(label[r], answer[r], average="macro") for r in rows], (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)


def test_ece_interval_holds_the_value_of_a_calibrated_classifier() -> None:
    """Without the shift the bootstrap lies above the value: resampling adds noise to every bin."""
    random = np.random.RandomState(0)
    p = random.rand(2000)
    found = calibration((random.rand(2000) < p).astype(int), p, resamples=200)["ece"]
    assert found.low < found.value < found.high


def test_resamples_are_frozen_across_library_versions() -> None:
    """Stored intervals depend on this stream."""
    drawn = intervals.resampled_means(np.arange(5.0)[:, None], 4)
    assert drawn[:, 0] == pytest.approx([2.6, 2.0, 1.4, 1.4])


def test_the_same_data_gives_the_same_numbers_and_every_interval_holds_its_value() -> None:
    label, answer, p = synthetic(500)
    first, second = (classification.evaluate(label, answer, p, pair_id=np.arange(500) // 2) for _ in range(2))
    assert first == second
    for name, estimate in first.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.higher_is_better == (name not in ("brier", "nll", "ece"))


def test_a_new_metric_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def unparsed_rate(reviews: intervals.Reviews) -> Iterator[tuple[str, intervals.Metric]]:
        yield "unparsed_rate", intervals.wilson(int((reviews.answer == 2).sum()), len(reviews.label))

    before = classification.evaluate(LABEL, ANSWER, P)
    monkeypatch.setattr(classification, "METRICS", (*classification.METRICS, unparsed_rate))
    found = classification.evaluate(LABEL, ANSWER, P)
    assert found.pop("unparsed_rate").value == 0.2
    assert list(found.items()) == list(before.items())


# ---- edges


def test_what_cannot_be_computed_is_left_out() -> None:
    one_class = set(classification.evaluate([1, 1, 1], [1, 1, 0], [0.9, 0.8, 0.2]))
    answers = {"accuracy", "precision_negative", "precision_positive", "recall_positive"}
    assert one_class == answers | {"brier", "nll", "ece"}
    unparsed = classification.evaluate([0, 1], [None, None], [np.nan, np.nan])
    both = {"balanced_accuracy", "macro_f1", "recall_negative", "recall_positive"}
    assert {name: e.value for name, e in unparsed.items()} == dict.fromkeys({"accuracy"} | both, 0)


def test_partly_scored_reviews_count_only_where_scored() -> None:
    found = classification.evaluate([0, 1, 1], [0, 1, None], [0.1, 0.9, np.nan])
    assert found["brier"].n == found["roc_auc"].n == 2
    assert (found["roc_auc"].value, found["roc_auc"].low) == (1.0, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "no reviews"),
        (([0, 2], [0, 1]), "label holds 2"),
        (([0, np.nan], [0, 1]), "label holds nan"),
        (([0, 1], [0]), "1 predictions for 2 labels"),
        (([0, 1], [0, 3]), "prediction holds 3"),
        (([0, 1], [0, 1], [0.5]), "1 probabilities for 2 labels"),
        (([0, 1], [0, 1], [0.5, 1.5]), "p_positive holds 1.5"),
        (([[0, 1]], [0, 1]), "label has 2 dimensions"),
    ],
)
def test_input_that_cannot_be_meant_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification.evaluate(*arguments)


# ---- comparison


def test_compare_counts_and_tests_as_mcnemar() -> None:
    label, answer, _ = synthetic(2000)
    other = np.where(np.random.RandomState(3).rand(2000) < 0.1, 1 - answer, answer)
    found = classification.compare(label, other, answer)
    a, b = other == label, answer == label
    cells = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert [[found.both_right, found.broken], [found.fixed, found.both_wrong]] == cells
    changed = found.fixed + found.broken
    tail = stats.binom.cdf(min(found.fixed, found.broken), changed, 0.5)
    assert found.mcnemar_p == pytest.approx(min(1.0, 2 * tail))
    paired = b.astype(float) - a
    half = 1.96 * paired.std() / np.sqrt(2000)
    expected = (paired.mean() - half, paired.mean() + half)
    assert found.difference.value == pytest.approx(paired.mean())
    assert (found.difference.low, found.difference.high) == pytest.approx(expected, abs=0.1 * half)
    itself = classification.compare(label, answer, answer)
    assert (itself.difference.low, itself.difference.high, itself.mcnemar_p) == (0, 0, 1.0)


# ---- tables and curves


def test_at_threshold_by_hand() -> None:
    found = classification.at_threshold([*LABEL, 1], [*P, np.nan], 0.75)
    assert (found["positive_positive"], found["negative_positive"], found["positive_unparsed"]) == (3, 0, 1)
    assert (found["precision_positive"], found["recall_negative"]) == (1.0, 1.0)
    assert found["recall_positive"] == pytest.approx(3 / 7)
    assert classification.at_threshold(LABEL, P, 1.01)["precision_positive"] is None


def test_slices_are_of_the_groups_that_a_dataset_brought() -> None:
    frame = table(
        40, pair_id=np.arange(40) // 20, many=np.arange(40), some=[2.0, 10.0, None, 1.0] * 10, one=["a"] * 40
    )
    found = frames.slices(frame)
    assert [(part.by, part.value, part.accuracy.n) for part in found] == [
        ("some", "1.0", 10), ("some", "2.0", 10), ("some", "10.0", 10), ("one", "a", 40),
    ]  # fmt: skip
    right = frame["prediction"] == frame["label"]
    assert found[0].accuracy.value == pytest.approx(right[3::4].mean())
    assert found[3].accuracy.value == pytest.approx(right.mean())
