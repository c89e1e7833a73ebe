"""The challenge set: balanced within each phenomenon, varied, and nobody else's words."""

import re
from collections import Counter, defaultdict
from difflib import SequenceMatcher

import pandas as pd

from sentiment_core.artifacts.store import read_sample_reviews
from sentiment_core.config import CHALLENGE_FILE

ROWS = pd.read_csv(CHALLENGE_FILE, keep_default_na=False).to_dict("records")


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def fives(text: str) -> set[tuple[str, ...]]:
    return set(zip(*(words(text)[start:] for start in range(5)), strict=False))


def test_twelve_phenomena_with_ten_of_each_label_and_fitting_lengths():
    assert list(Counter((row["phenomenon"], row["label"]) for row in ROWS).values()) == [10] * 24
    assert [row["id"] for row in ROWS] == [f"challenge-{n:03d}" for n in range(1, 241)]
    for row in ROWS:
        least, most = (1, 6) if row["phenomenon"] == "very short" else (3, 60)
        assert least <= len(row["text"].split()) <= most, row


def test_minimal_pairs_differ_in_few_words_and_in_their_label():
    paired = {row["id"]: row for row in ROWS if row["pair"]}
    assert 0 < len(paired) <= len(ROWS) / 3
    for one in paired.values():
        other = paired[one["pair"]]
        assert (other["pair"], other["phenomenon"]) == (one["id"], one["phenomenon"])
        assert other["label"] != one["label"]
        assert SequenceMatcher(None, *(words(row["text"]) for row in (one, other))).ratio() >= 0.5, one


def test_no_two_others_share_a_text_or_five_words_in_a_row():
    where = defaultdict(list)
    for row in ROWS:
        for part in {row["text"], *fives(row["text"])}:
            where[part].append((row["id"], row["pair"]))
    shared = [found for found in where.values() if len(found) > 1]
    assert [found for found in shared if [pair[::-1] for pair in found[::-1]] != found] == []
    assert not where.keys() & set().union(*(fives(sample.text) for sample in read_sample_reviews()))
