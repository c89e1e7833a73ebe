"""One file as a table, whatever it holds: parquet, CSV, TSV and JSONL, bounded while they are read."""

import csv
import json
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentiment_core.config import UserError

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
FORMS = "a Hub id, a .parquet, .csv, .tsv or .jsonl file, or a folder of them"
_REVIEW_BYTES, _LINE_BYTES, _TABLE_BYTES = 1 << 20, 1 << 23, 1 << 33
_COLUMNS, _CELLS = 1000, 100_000_000  # bounds of what is read into memory; IMDB's longest review is 14 kB
_FLAT = re.compile("null|bool|u?int|(half)?float|double|date|time|(dictionary<values=)?(large_)?(string|bin)")
"""What Arrow calls the kinds of columns that are read."""

csv.field_size_limit(_REVIEW_BYTES)


class DataError(UserError):
    """A source of reviews cannot be used; the message is one sentence with the value and the remedy."""


def read_table(given: str, path: Path) -> pd.DataFrame:
    """A file by its ending; messages call it `given`. Raises DataError: of no known kind, or unreadable."""
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{given} is of a kind that cannot be read ({suffix or 'no ending'}); use {FORMS}")
    check_file(given, path, _TABLE_BYTES)
    if suffix == ".parquet":
        return read_parquet(given, path)
    return _read_jsonl(given, path) if suffix == ".jsonl" else next(csv_parts(given, path, _CELLS))


def check_file(given: str, path: Path, most: int) -> None:
    """Before it is opened: a file, not a pipe that never ends, and of no more than `most` bytes."""
    if not path.is_file():
        raise DataError(f"{given} is not a file; use {FORMS}")
    if (size := path.stat().st_size) > most:
        raise DataError(f"{given} is too large ({size:,} bytes, at most {most:,}); split it")


def _check_shape(given: str, rows: int, names: Collection[str]) -> None:
    columns, different = len(names), len(set(names))
    if columns > _COLUMNS or different < columns:
        found = f"{columns} columns of {different} different names"
        raise DataError(f"{given} has {found}; use at most {_COLUMNS}, each name once")
    if rows * columns > _CELLS:
        found = f"{rows:,} rows of {columns} columns"
        raise DataError(f"{given} has {found}, beyond {_CELLS:,} cells; split it or leave columns out")


def read_parquet(given: str, path: Path, *, most: int = _TABLE_BYTES, rows: int = _CELLS) -> pd.DataFrame:
    """Columns of numbers and texts that take up to `most` bytes, whatever the file says of itself.
    Raises DataError: no parquet, texts that are not UTF-8, nested columns, or too much of anything."""
    try:
        file = pq.ParquetFile(path)
        fields = [one for one in file.schema_arrow if not one.name.startswith("__index_level_")]
        names, about = [field.name for field in fields], file.metadata
        _check_shape(given, about.num_rows, names)
        if about.num_rows > rows:
            raise DataError(f"{given} has {about.num_rows:,} rows, more than {rows:,}; split it")
        if odd := next((one for one in fields if not _FLAT.match(str(one.type))), None):
            raise DataError(f"{given} has {odd.type} in its column {odd.name!r}; leave that column out")
        if sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups)) > most:
            raise DataError(f"{given} unpacks to more than {most:,} bytes; split it")
        batches = [*_batches(given, path, names, most)]
        table = pa.Table.from_batches(batches) if batches else file.read(names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0].rstrip(". ")
        what = "holds bytes that are not UTF-8" if "UTF8" in reason else "cannot be read as parquet"
        raise DataError(f"{given} {what} ({reason}); write the file again") from None
    return table.to_pandas(ignore_metadata=True)


def _batches(given: str, path: Path, names: list[str], most: int) -> Iterator[pa.RecordBatch]:
    """A dictionary's one text can stand for any number of rows, so texts are measured, then decoded."""
    for batch in pq.ParquetFile(path, read_dictionary=names).iter_batches(1024, columns=names):
        batch.validate(full=True)
        columns = dict(zip(names, batch.columns, strict=True))
        for name, column in columns.items():
            if isinstance(column, pa.DictionaryArray):
                lengths = pc.binary_length(column.dictionary)  # pyrefly: ignore[missing-attribute]
                longest = pc.max(lengths).as_py() or 0  # pyrefly: ignore[missing-attribute]
                if longest > _REVIEW_BYTES:
                    raise DataError(f"{given} has a cell of {longest:,} bytes in {name!r}; shorten it")
                columns[name] = column.dictionary_decode()
        yield (plain := pa.RecordBatch.from_pydict(columns))
        most -= plain.nbytes
        if most < 0:
            raise DataError(f"{given} unpacks to more bytes than it says; write the file again")


def _lines(given: str, path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line; only a newline ends one, as U+2028 and the like may stand in a text.
    Raises DataError: a line that is too long, not UTF-8, or with a NUL byte in it, which no text has."""
    with path.open("rb") as stream:
        for number, line in enumerate(iter(partial(stream.readline, _LINE_BYTES + 1), b""), 1):
            if len(line) > _LINE_BYTES:
                raise DataError(f"{given}, line {number}: more than {_LINE_BYTES:,} bytes; break it up")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                at = f"line {number} (0x{line[error.start]:02x})"
                raise DataError(f"{given} holds bytes that are not UTF-8 in {at}; save it as UTF-8") from None
            if "\0" in text:
                raise DataError(f"{given}, line {number}: a NUL character; save the file as UTF-8 text")
            yield number, text


def csv_parts(given: str, path: Path, most: int) -> Iterator[pd.DataFrame]:
    """Cells under a header, all as text: a blank cell stays blank, "NA" stays a word.

    Args:
        path: tabs divide its cells where it ends in .tsv, otherwise commas.
        most: rows of a part, the header aside; there is a first part even without rows.
    Raises DataError: bytes that are not UTF-8, no header, or a line with more or fewer cells than the header.
    """
    # Not pyarrow's reader: it takes an unclosed quote's rest of the file for one cell, and knows no lines.
    separator, called = ("\t", "tab") if path.suffix.lower() == ".tsv" else (",", "comma")
    pieces = (piece for _, line in _lines(given, path) for piece in re.split(r"(?<=\r)(?!\n)", line))
    reader = csv.reader(pieces, delimiter=separator, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    line, some = 1, False
    try:
        for row in reader:
            if names:
                rows += [row] if row else []
            elif row:
                names = [name or f"column {number}" for number, name in enumerate(row, 1)]
            if row and len(row) != len(names):
                raise DataError(
                    f"{given}, line {line}: {len(row)} cells, and the header has {len(names)}; put quotes "
                    f"around a text that holds a {called}, and leave out no cell"
                )
            _check_shape(given, len(rows), names)
            if len(rows) == most:
                yield pd.DataFrame(rows, columns=names, dtype=str)
                rows, some = [], True
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{given}, line {line}, cannot be read as CSV ({error}); correct it there") from None
    if not names:
        raise DataError(f"{given} cannot be read as CSV (it is empty); begin it with a header")
    if rows or not some:
        yield pd.DataFrame(rows, columns=names, dtype=str)


def _read_jsonl(given: str, path: Path) -> pd.DataFrame:
    rows: dict[int, dict[str, object]] = {}
    names: set[str] = set()
    for number, line in _lines(given, path):
        if not line.strip():
            continue
        where = f"{given}, line {number}"
        try:
            rows[number - 1] = row = json.loads(line, object_pairs_hook=_flat)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair is valid JSON
            message = f"{given} holds half a character that is not UTF-8 in line {number}; correct it there"
            raise DataError(message) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {getattr(error, 'msg', error)}; correct the JSON there") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object; write it as {{'text': …, 'label': …}}")
        names |= row.keys()
        _check_shape(given, len(rows), names)
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object).infer_objects()


def _flat(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of texts, numbers and nulls, each name once; ValueError otherwise."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("the same name twice in an object")
    if nested := [name for name, value in pairs if isinstance(value, dict | list)]:
        raise ValueError(f"a list or an object under {nested[0][:40]!r}")
    return row
