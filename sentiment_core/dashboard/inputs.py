"""What visitors type or upload, checked on the server: a usable value, or one clear sentence."""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from sentiment_core.data.tables import DataError, csv_parts, read_parquet
from sentiment_core.labels import parse_label

T = TypeVar("T")

MAX_CHARACTERS = 20_000  # the longest IMDB review has 13,704
MAX_ROWS = 5_000
MAX_UPLOAD_BYTES = 16_000_000  # Gradio refuses larger files
ANY_NUMBER = "python eval.py --predict takes any number of them"
TEXT_NAMES = ("text", "review", "body", "content", "comment", "sentence")
LABEL_NAMES = ("label", "sentiment", "class", "polarity")


class InputRefused(ValueError):
    """The input cannot be used; the message says why and what to do."""


def clean_text(text: object) -> str:
    """The review as the model reads it: control characters become blanks, line breaks stay.
    Raises InputRefused: no text, nothing in it that is a letter, or too long."""
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


class Batch(NamedTuple):
    """Rows to classify: texts, and labels where all rows carry one."""

    texts: list[str]
    labels: list[int] | None = None


def read_batch(path: str | None, pasted: str | None, text: str | None = "", label: str | None = "") -> Batch:
    """One review per pasted line; without these, rows from a file's columns `text` and, if given, `label`.
    Raises InputRefused: nothing given, no table, no such column, too many rows, or a bad row (named)."""
    if lines := [line for line in (pasted or "").splitlines() if line.strip()]:
        return Batch(_by_row(clean_text, _few(lines)))
    if not path:
        raise InputRefused("Choose a CSV or parquet file, or paste one text per line.")
    frame = read_upload(path)
    text = text or columns_of(frame)[0]
    if missing := next((name for name in (text, label) if name and name not in frame), None):
        raise InputRefused(f"The file has no column {missing[:40]!r}; choose another one.")
    given = frame[label].fillna("").astype(str).str.strip() if label else pd.Series(dtype=str)
    return Batch(_by_row(clean_text, frame[text]), _by_row(parse_label, given) if given.any() else None)


def read_upload(path: str) -> pd.DataFrame:
    """A CSV, TSV or parquet file with at least a row. Raises InputRefused."""
    file = Path(path)
    try:
        if file.suffix.lower() == ".parquet":
            frame = read_parquet("The file", file, most=4 * MAX_UPLOAD_BYTES, rows=MAX_ROWS)
        else:
            frame = next(csv_parts("The file", file, MAX_ROWS + 1))
    except OSError:
        raise InputRefused("The file cannot be read; please choose it again.") from None
    except DataError as error:
        raise InputRefused(f"{error}.") from None
    if frame.empty:
        raise InputRefused("The file has a header but no rows.")
    return _few(frame)


def _few(rows: Any) -> Any:
    if len(rows) > MAX_ROWS:
        raise InputRefused(f"There are more than {MAX_ROWS:,} rows; {ANY_NUMBER}.")
    return rows


def columns_of(frame: pd.DataFrame) -> tuple[str, str]:
    """The columns called like texts, else the one of the longest cells, and like labels, else ""."""
    names, head = {str(name): str(name).strip().lower() for name in frame}, frame.head(200).astype(str)
    text = next((name for name, low in names.items() if low in TEXT_NAMES), None)
    label = next((name for name, low in names.items() if low in LABEL_NAMES), "")
    return text or max(names, key=lambda name: head[name].str.len().mean()), label


def _by_row(read: Callable[[str], T], values: Iterable[str]) -> list[T]:
    """`read` of each value; a refusal names the row."""
    found: list[T] = []
    for value in values:
        try:
            found.append(read(value))
        except ValueError as error:
            raise InputRefused(f"Row {len(found) + 1}: {str(error).rstrip('.')}.") from None
    return found


def safe_cell(text: str) -> str:
    """A CSV cell that a spreadsheet will not run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
