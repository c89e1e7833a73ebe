"""What visitors type or upload, checked on the server: a usable value, or one clear sentence."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sentiment_core.data.sources import DataError, read_csv
from sentiment_core.labels import parse_label

MAX_CHARACTERS = 20_000
"""The longest IMDB review has 13,704 characters."""

MAX_ROWS = 1_000
MAX_UPLOAD_BYTES = 8_000_000


class InputRefused(ValueError):
    """The input cannot be used; the message says why and what to do."""


def clean_text(text: object) -> str:
    """The review as the model reads it: control characters become blanks, line breaks stay.

    Raises:
        InputRefused: no text, only blanks, or too long.
    """
    if not isinstance(text, str):
        raise InputRefused("Please send the review as text.")
    if len(text) > MAX_CHARACTERS:
        raise InputRefused(
            f"This text has {len(text):,} characters; up to {MAX_CHARACTERS:,} can be read. Please shorten "
            f"it."
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(
        c if c == "\n" or c == "\t" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text
    )
    if not any(unicodedata.category(c)[0] not in "ZC" for c in text):
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
    if path:
        return _from_csv(Path(path))
    lines = [line for line in (pasted or "").splitlines() if line.strip()]
    if not lines:
        raise InputRefused("Choose a CSV file with a column named text, or paste one review per line.")
    _check_count(len(lines))
    return Batch([_row(line, number) for number, line in enumerate(lines, 1)], None)


def _check_count(rows: int) -> None:
    if rows > MAX_ROWS:
        raise InputRefused(f"{rows:,} rows are too many; up to {MAX_ROWS:,} at a time.")


def _row(text: object, number: int) -> str:
    try:
        return clean_text(text)
    except InputRefused as error:
        raise InputRefused(f"Row {number}: {error}") from None


def _from_csv(path: Path) -> Batch:
    try:
        if path.stat().st_size > MAX_UPLOAD_BYTES:
            raise InputRefused(
                f"The file is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB; please split it."
            )
        frame = read_csv("The file", path.read_bytes(), most=MAX_ROWS + 1)
    except OSError:
        raise InputRefused("The file cannot be read; please choose it again.") from None
    except DataError as error:
        raise InputRefused(f"{error}.") from None
    frame.columns = [name.strip().lower() for name in frame]
    frame = frame.loc[:, ~frame.columns.duplicated()]
    if "text" not in frame:
        found = ", ".join(name[:40] for name in frame.columns[:8])
        raise InputRefused(f"The CSV has no column named text; it has: {found}.")
    if frame.empty:
        raise InputRefused("The CSV has a header but no rows.")
    _check_count(len(frame))
    texts = [_row(text, number) for number, text in enumerate(frame["text"], 1)]
    if "label" not in frame or not frame["label"].str.strip().any():
        return Batch(texts, None)
    return Batch(texts, [_label(value, number) for number, value in enumerate(frame["label"], 1)])


def _label(value: str, number: int) -> int:
    try:
        return int(parse_label(value))
    except ValueError as error:
        raise InputRefused(f"Row {number}: {error}.") from None


def safe_cell(value: object) -> object:
    """A CSV cell that a spreadsheet will not run as a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
