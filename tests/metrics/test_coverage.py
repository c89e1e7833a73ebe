"""Answering only the surest: the curve, and a threshold from validation bins that does what it says."""

import numpy as np
import pytest
from scipy.special import expit

from sentiment_core.metrics.classification import above_certainty, coverage
from sentiment_core.metrics.histogram import BINS, EDGE, counts, least_log_odds

rng = np.random.default_rng(3)
LABEL = rng.integers(0, 2, 4000)
P = expit(2.5 * (2 * LABEL - 1) + rng.normal(0, 2.2, 4000))


def test_the_curve_takes_the_surest_first_and_ends_at_the_accuracy_of_all():
    label, p = np.array([1, 0, 1, 0]), np.array([0.99, 0.2, 0.4, 0.55])
    shares = [(share, one.value, one.n) for share, one in coverage(label, p, points=4)]
    assert shares == [(0.25, 1.0, 1), (0.5, 1.0, 2), (0.75, pytest.approx(2 / 3), 3), (1.0, 0.5, 4)]
    assert coverage(LABEL, P)[-1][1].value == ((P >= 0.5) == LABEL).mean()


@pytest.mark.parametrize("target", [0.9, 0.95, 0.99])
def test_the_least_certainty_is_the_smallest_edge_that_meets_the_target(target):
    least = least_log_odds(counts(LABEL, P), target)
    edges = np.arange(BINS // 2) * 2 * EDGE / BINS
    reached = [above_certainty(LABEL, P, expit(edge + 1e-9))[1].value >= target for edge in edges]
    assert least == pytest.approx(edges[reached.index(True)])
    assert 0 < above_certainty(LABEL, P, expit(least))[0] < 1


def test_no_certainty_where_none_is_enough():
    assert least_log_odds(counts(1 - LABEL, P), 0.9) is None
    assert above_certainty(LABEL, P, 1.1) is None
