"""The moving histograms: what they are told of the predictions, their finding, their table."""

import html
import json
import re

import numpy as np
import pytest

from sentiment_core.dashboard.tabs.accuracy import RANGES, movement_panel, movement_title, table_html
from sentiment_core.metrics.classification import at_threshold
from sentiment_core.metrics.histogram import counts, probability_of

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 2000)
BEFORE = RNG.beta(8, 2, 2000).astype("float32")
AFTER = np.where(LABEL == 1, RNG.beta(9, 1, 2000), RNG.beta(1, 9, 2000)).astype("float32")


def test_every_review_moves_once_and_the_tallest_bar_fills_the_height() -> None:
    panel = movement_panel(LABEL, BEFORE, AFTER, "here, n = 2,000")
    value = panel.figure
    assert sum(n for *_, n in value["cells"]) == 2000
    assert value["top"] == max(counts(LABEL, p).max() for p in (BEFORE, AFTER))
    assert "n = 2,000" in panel.caption
    assert len(json.dumps(value)) < 50_000


@pytest.mark.parametrize("edge", [10, 30, 45, 46, 80])
def test_counts_at_an_edge_are_those_of_the_matrix_at_that_threshold(edge: int) -> None:
    for p in (BEFORE, AFTER):
        by_bin = counts(LABEL, p)
        right = by_bin[0, :edge].sum() + by_bin[1, edge:].sum()
        assert right / 2000 == pytest.approx(at_threshold(LABEL, p, probability_of(edge))["accuracy"])


def test_the_title_tells_a_base_model_that_leans_and_one_that_does_not() -> None:
    half = np.array([0.4, 0.6] * 10)
    label = np.array([0, 1] * 10)
    assert movement_title(label, np.full(20, 0.8), half).startswith(
        "Before, 100.0\u202f% were called positive"
    )
    assert "called negative; after, 50.0\u202f%" in movement_title(label, np.full(20, 0.1), np.full(20, 0.1))
    assert movement_title(label, 1 - half, half) == ("From 0.0\u202f% to 100.0\u202f% classified correctly")


def test_each_count_of_the_table_asks_for_its_own_reviews() -> None:
    shown = table_html(movement_panel(LABEL, BEFORE, AFTER, "here").data)
    links = re.findall(r'data-ask="(.*?)">([\d,]+)<', shown)
    assert shown.count('<th scope="row">') == len(RANGES) - 1
    for words, n in links:
        ask = json.loads(html.unescape(words))
        p = BEFORE if ask["side"] == "before" else AFTER
        inside = (p >= ask["low"]) & ((p < ask["high"]) | (ask["high"] == 1)) & (ask["label"] == LABEL)
        assert inside.sum() == int(n.replace(",", ""))
    assert sum(int(n.replace(",", "")) for _, n in links) == 2 * 2000
