"""The two sentiments, their one column order, and the words that stand for them in a prompt."""

from __future__ import annotations

from enum import IntEnum


class Label(IntEnum):
    """A review's sentiment; the value is IMDB's own and the index of every probability column."""

    NEGATIVE = 0
    POSITIVE = 1

    @property
    def word(self) -> str:
        """The label as a reader sees it and as the model answers it: "Negative" or "Positive"."""
        return self.name.capitalize()


LABEL_WORDS: tuple[str, str] = (Label.NEGATIVE.word, Label.POSITIVE.word)
"""Label words in column order (negative, positive)."""

UNPARSED = "unparsed"
"""Name of the third outcome: an answer that is no label."""

_NAMES = {
    "0": Label.NEGATIVE,
    "1": Label.POSITIVE,
    "neg": Label.NEGATIVE,
    "pos": Label.POSITIVE,
    "negative": Label.NEGATIVE,
    "positive": Label.POSITIVE,
}


def parse_label(value: object) -> Label:
    """Read 0/1, neg/pos or negative/positive (any case, surrounding blanks ignored).

    Raises:
        ValueError: the value is none of these.
    """
    if isinstance(value, bool):
        raise ValueError(f"unknown label {value!r}; use 0/1, neg/pos or negative/positive")
    text = str(value).strip().lower()
    if text in ("0.0", "1.0"):  # a CSV column with a gap in it is read as floats
        text = text[0]
    try:
        return _NAMES[text]
    except KeyError:
        raise ValueError(f"unknown label {value!r}; use 0/1, neg/pos or negative/positive") from None
