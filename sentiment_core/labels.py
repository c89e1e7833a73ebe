"""The two sentiments, their one column order, and the words that stand for them in a prompt."""

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

UNPARSED = "unparsed"  # name of the third outcome: an answer that is no label

# "0.0": a CSV column with a gap in it is read as floats
_NAMES = dict.fromkeys(("0", "0.0", "neg", "negative"), Label.NEGATIVE)
_NAMES |= dict.fromkeys(("1", "1.0", "pos", "positive"), Label.POSITIVE)


def parse_label(value: object) -> Label:
    """Read 0/1, neg/pos or negative/positive (any case, surrounding blanks ignored).
    Raises ValueError: the value is none of these."""
    label = _NAMES.get(str(value).strip().lower())
    if label is None:
        raise ValueError(f"unknown label {value!r}; use 0/1, neg/pos or negative/positive")
    return label
