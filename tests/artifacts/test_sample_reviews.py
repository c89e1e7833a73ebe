"""The example reviews that visitors click: our own words, balanced, and short enough to read."""

from collections import Counter
from pathlib import Path

import pytest

from sentiment_core.artifacts import schema, store

ROOT = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def samples() -> tuple[schema.SampleReview, ...]:
    return store.read_sample_reviews(ROOT)


def test_enough_balanced_clean_and_between_30_and_300_words(samples):
    labels = Counter(sample.label for sample in samples)
    assert len(samples) >= 44
    assert abs(labels[0] - labels[1]) <= 2
    for sample in samples:
        assert 30 <= len(sample.text.split()) <= 300, sample.id
        assert sample.text == sample.text.strip(), sample.id
        assert "<" not in sample.text
        assert "  " not in sample.text


def test_ids_count_up_and_texts_and_openings_differ(samples):
    assert [sample.id for sample in samples] == [f"sample-{n:02d}" for n in range(1, len(samples) + 1)]
    assert len({sample.text for sample in samples}) == len(samples)
    assert len({" ".join(sample.text.split()[:4]) for sample in samples}) == len(samples)


def test_plain_kinds_have_their_own_label_and_the_others_have_both(samples):
    found = Counter((sample.kind, sample.label) for sample in samples)
    assert found[("positive", 0)] == found[("negative", 1)] == 0
    assert found[("positive", 1)] >= 8
    assert found[("negative", 0)] >= 8
    for kind in ("mixed", "sarcastic", "negated"):
        assert min(found[(kind, 0)], found[(kind, 1)]) >= 4, kind
