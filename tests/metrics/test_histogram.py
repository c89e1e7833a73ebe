"""Counts on the log-odds axis: every review stands in one bin, and where it moves is counted once."""

import numpy as np

from sentiment_core.metrics.histogram import BINS, bin_of, counts, moves


def test_every_probability_has_a_bin_and_one_half_is_the_first_positive_one():
    p = np.array([0.0, 1e-9, 0.4999, 0.5, 0.5001, 1 - 1e-9, 1.0], dtype=np.float32)
    assert bin_of(p).tolist() == [0, 0, BINS // 2 - 1, BINS // 2, BINS // 2, BINS - 1, BINS - 1]


def test_counts_and_moves_sum_to_the_reviews_and_agree():
    rng = np.random.default_rng(0)
    label, before, after = rng.integers(0, 2, 500), rng.random(500), rng.random(500)
    cells = moves(label, before, after)
    assert cells[:, 3].sum() == 500
    for column, p in ((1, before), (2, after)):
        again = np.zeros((2, BINS), dtype=int)
        np.add.at(again, (cells[:, 0], cells[:, column]), cells[:, 3])
        assert (again == counts(label, p)).all()
        right = again[1, BINS // 2 :].sum() + again[0, : BINS // 2].sum()
        assert right == ((p >= 0.5) == label).sum()
