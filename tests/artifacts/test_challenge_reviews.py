"""The challenge set: balanced within each phenomenon, varied, and nobody else's words."""

import csv
import re
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from sentiment_core.artifacts.store import read_sample_reviews

ROOT = Path(__file__).resolve().parents[2] / "assets"
PHENOMENA = (
    "negation", "double negation", 'contrast with "but"', "sarcasm", "comparison",
    "expectation against outcome", "praise quoted then rejected", "mixed with a verdict at the end",
    "slang and typos", "figures and ratings", "very short", "plot without opinion words",
)  # fmt: skip


@pytest.fixture(scope="module")
def reviews() -> dict[str, dict[str, str]]:
    with (ROOT / "challenge" / "reviews.csv").open(encoding="utf-8", newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def fives(text: str) -> set[tuple[str, ...]]:
    """Five words in a row, wherever they stand."""
    return set(zip(*(words(text)[start:] for start in range(5)), strict=False))


def test_twenty_of_each_phenomenon_half_of_them_positive(reviews):
    found = Counter((row["phenomenon"], row["label"]) for row in reviews.values())
    assert found == dict.fromkeys(
        ((name, label) for name in PHENOMENA for label in ("Positive", "Negative")), 10
    )
    assert list(reviews) == [f"challenge-{n:03d}" for n in range(1, len(reviews) + 1)]


def test_lengths(reviews):
    for row in reviews.values():
        least, most = (1, 6) if row["phenomenon"] == "very short" else (3, 60)
        assert least <= len(row["text"].split()) <= most, row
        assert row["text"] == " ".join(row["text"].split()), row


def test_minimal_pairs_differ_in_few_words_and_in_their_label(reviews):
    paired = [row for row in reviews.values() if row["pair"]]
    for row in paired:
        other = reviews[row["pair"]]
        assert (other["pair"], other["phenomenon"]) == (row["id"], row["phenomenon"])
        assert other["label"] != row["label"]
        before, after = words(row["text"]), words(other["text"])
        same = sum(part.size for part in SequenceMatcher(None, before, after).get_matching_blocks())
        assert max(len(before), len(after)) - same <= 3, row
    assert 0 < len(paired) <= len(reviews) / 3


def test_no_two_others_share_five_words_in_a_row(reviews):
    where = defaultdict(set)
    for name, row in reviews.items():
        for five in fives(row["text"]):
            where[five].add(name)
    shared = {five: names for five, names in where.items() if len(names) > 1}
    assert [names for names in shared.values() if {reviews[name]["pair"] for name in names} != names] == []
    assert len({row["text"] for row in reviews.values()}) == len(reviews)
    ours = set().union(*(fives(sample.text) for sample in read_sample_reviews(ROOT)))
    assert ours.isdisjoint(where)


def test_the_openings_differ(reviews):
    openings = Counter(tuple(words(row["text"])[:2]) for row in reviews.values() if not row["pair"])
    assert max(openings.values()) <= 2
