"""What visitors type or upload, checked on the server: a usable value, or one clear sentence."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from sentiment_core.data.sources import DataError, read_csv
from sentiment_core.labels import parse_label

T = TypeVar("T")

MAX_CHARACTERS = 20_000
"""The longest IMDB review has 13,704 characters."""

MAX_ROWS = 1_000
MAX_UPLOAD_BYTES = 8_000_000


class InputRefused(ValueError):
    """The input cannot be used; the message says why and what to do."""


def clean_text(text: object) -> str:
    """The review as the model reads it: control characters become blanks, line breaks stay.

    Raises:
        InputRefused: no text, nothing in it that is a letter, or too long.
    """
    if not isinstance(text, str):
        raise InputRefused("Please send the review as text.")
    if len(text) > MAX_CHARACTERS:
        sizes = f"{len(text):,} characters; up to {MAX_CHARACTERS:,} can be read"
        raise InputRefused(f"This text has {sizes}. Please shorten it.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    if not any(c.isalpha() for c in text):
        raise InputRefused("There is nothing to read yet: type a review, or pick one of the samples.")
    return text.strip()


@dataclass(frozen=True)
class Batch:
    """Rows to classify: texts, and labels where all rows carry one."""

    texts: list[str]
    labels: list[int] | None


def read_batch(path: str | Path | None, pasted: str | None) -> Batch:
    """Rows from a CSV with a `text` column (and perhaps `label`), else one review per pasted line.

    Raises:
        InputRefused: nothing given, no CSV, no `text` column, too many rows, or a bad row (named).
    """
    texts = [line for line in (pasted or "").splitlines() if line.strip()]
    if not path and not texts:
        raise InputRefused("Choose a CSV file with a column named text, or paste one review per line.")
    frame = _read_csv(Path(path)) if path else pd.DataFrame({"text": texts}, dtype=object)
    if len(frame) > MAX_ROWS:
        raise InputRefused(f"{len(frame):,} rows are too many; up to {MAX_ROWS:,} at a time.")
    texts = list(_by_row(clean_text, frame["text"]))
    labelled = "label" in frame and frame["label"].str.strip().any()
    return Batch(texts, list(_by_row(parse_label, frame["label"])) if labelled else None)


def _by_row(read: Callable[[str], T], values: Iterable[str]) -> Iterator[T]:
    """`read` of each value; a refusal names the row."""
    for number, value in enumerate(values, 1):
        try:
            yield read(value)
        except ValueError as error:
            raise InputRefused(f"Row {number}: {str(error).rstrip('.')}.") from None


def _read_csv(path: Path) -> pd.DataFrame:
    """Its cells, all of them text, in columns named in small letters; one of them is `text`."""
    try:
        if path.stat().st_size > MAX_UPLOAD_BYTES:
            raise InputRefused(
                f"The file is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB; please split it."
            )
        frame = read_csv("The file", path, most=MAX_ROWS + 1)
    except OSError:
        raise InputRefused("The file cannot be read; please choose it again.") from None
    except DataError as error:
        raise InputRefused(f"{error}.") from None
    frame.columns = [str(name).strip().lower() for name in frame]
    if twice := next(iter(frame.columns[frame.columns.duplicated()]), None):
        raise InputRefused(f"The CSV has the column {twice[:40]} more than once; please keep one of them.")
    if "text" not in frame:
        found = ", ".join(name[:40] for name in frame.columns[:8])
        raise InputRefused(f"The CSV has no column named text; it has: {found}.")
    if frame.empty:
        raise InputRefused("The CSV has a header but no rows.")
    return frame


def safe_cell(text: str) -> str:
    """A CSV cell that a spreadsheet will not run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
