"""Where reviews come from: raw, unchecked tables out of the Hub, files, folders and aclImdb's archive."""

from __future__ import annotations

import csv
import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentiment_core.config import CHALLENGE_FILE, UserError

_SEPARATORS = {".csv": (",", "comma"), ".tsv": ("\t", "tab")}
_TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
_ARCHIVES = (".tar.gz", ".tgz")
_FORMS = (
    "a Hub id, a .parquet, .csv, .tsv or .jsonl file, a folder of them, or aclImdb as a folder or .tar.gz"
)
_REVIEW_BYTES, _LINE_BYTES, _ARCHIVE_BYTES, _TABLE_BYTES = 1 << 20, 1 << 23, 1 << 30, 1 << 33
_COLUMNS, _CELLS = 1000, 100_000_000
"""Bounds of what is read into memory; IMDB's labelled reviews are 66 MB, its longest one is 14 kB."""
_FLAT = re.compile(
    "null|bool|u?int|halffloat|float|double|date|time|(dictionary<values=)?(large_)?(string|bin)"
)
"""What Arrow calls the kinds of columns that are read."""

csv.field_size_limit(_REVIEW_BYTES)


CHALLENGE = "challenge"
"""A source from any folder: our own reviews by phenomenon, see `assets/challenge/README.md`."""


class DataError(UserError):
    """A source of reviews cannot be used; the message is one sentence with the value and the remedy."""


@dataclass(frozen=True)
class Source:
    """Somewhere reviews can be read from, split by split."""

    given: str
    """As the user wrote it, for messages."""
    shown: str
    """As a record may keep it: never a path of this machine."""
    name: str
    """Short: a Hub id's last part, a folder's name or a file's stem."""
    splits: tuple[str, ...]
    """Empty: undivided, and every split asked for is the whole."""
    table: Callable[[str], pd.DataFrame]

    def read(self, split: str) -> pd.DataFrame:
        """One split as the source has it; the index is each row's number from 0, or its file's name.

        Raises:
            DataError: no such split, or its files cannot be read.
        """
        if self.splits and split not in self.splits:
            raise DataError(f"{self.given} has no split {split!r}; use one of: {', '.join(self.splits)}")
        with _refusing(self.given):
            return self.table(split)


@contextmanager
def _refusing(given: str) -> Iterator[None]:
    """Turn the file system's errors into a DataError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{given} cannot be read ({reason}); check the file and its rights") from None


def open_source(source: str) -> Source:
    """Find out what a source is, and which splits it has.

    Raises:
        DataError: not there, of an unknown kind, unreadable, or the Hub cannot be reached.
    """
    if not source or "\0" in source:
        raise DataError(f"{source!r} names no reviews; use {_FORMS}")
    path, named_as_file = Path(source).expanduser(), source.lower().endswith(_TABLES + _ARCHIVES)
    with _refusing(source):
        if source == CHALLENGE:
            return _open_challenge()
        if not path.exists():
            if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source, re.ASCII) and not named_as_file:
                return _open_hub(source)
            raise DataError(f"{source} is not there; check the path, or use {_FORMS}")
        if path.is_dir():
            return _open_folder(source, path)
        if path.name.lower().endswith(_ARCHIVES):
            return _open_archive(source, path)
        return _open_file(source, path)


def _open_hub(source: str) -> Source:
    """A dataset of the Hub, or of its cache when there is no network."""
    import datasets

    try:
        splits: Any = datasets.load_dataset(source)
    except Exception as error:  # its network, cache and parsing layers share no base class
        reason = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
        raise DataError(
            f"{source} is not a local path and could not be loaded from the Hub ({reason}); check the name "
            "and the network, or give a local file or folder instead"
        ) from None

    def read(split: str) -> pd.DataFrame:
        part = splits[split]
        frame = part.to_pandas()
        names = getattr(part.features.get("label"), "names", None)
        if names and set(names) & {"neg", "pos", "negative", "positive"}:
            frame["label"] = [names[i] if 0 <= i < len(names) else i for i in frame["label"].tolist()]
        return frame

    return Source(source, source, source.rsplit("/", 1)[-1], tuple(splits), read)


def _open_challenge() -> Source:
    """With minimal pairs tied by `pair_id`, as elsewhere."""
    frame = _read_table(CHALLENGE, CHALLENGE_FILE)
    ties = zip(frame["id"], frame.pop("pair"), strict=True)
    frame["pair_id"] = [min(tie) if all(tie) else None for tie in ties]
    return Source(CHALLENGE, CHALLENGE, CHALLENGE, (), lambda split: frame)


def _open_file(source: str, path: Path) -> Source:
    frame = _read_table(source, path)
    if "split" not in frame:
        return Source(source, path.name, path.stem, (), lambda split: frame)
    parts = {str(split): part for split, part in frame.groupby("split", sort=False, dropna=False)}
    return Source(source, path.name, path.stem, tuple(parts), parts.__getitem__)


def _open_folder(source: str, path: Path) -> Source:
    """Files named by split, or the raw aclImdb folder."""
    name = path.resolve().name
    raw = sorted(p.name for p in path.iterdir() if (p / "pos").is_dir() or (p / "neg").is_dir())
    if raw:
        return Source(source, name, name, tuple(raw), lambda split: _read_raw(path, split))
    files: dict[str, list[Path]] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in _TABLES):
        split = re.sub(r"-\d+-of-\d+$", "", file.stem)  # the Hub's own names: train-00000-of-00001
        files.setdefault(split, []).append(file)
    if not files:
        raise DataError(
            f"{source} has no reviews in it; put train and test there as .parquet, .csv or .jsonl, or as "
            "aclImdb's train/pos/*.txt and so on"
        )
    for split, found in files.items():
        if len(found) > 1 and not all("-of-" in file.stem for file in found):
            names = ", ".join(file.name for file in found)
            raise DataError(f"{source} has the split {split!r} more than once ({names}); keep one of them")

    def read(split: str) -> pd.DataFrame:
        tables = [_read_table(str(file), file) for file in files[split]]
        return pd.concat(tables, ignore_index=len(tables) > 1)

    return Source(source, name, name, tuple(files), read)


def _read_table(given: str, path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in _TABLES:
        raise DataError(f"{given} is of a kind that cannot be read ({suffix or 'no ending'}); use {_FORMS}")
    _check_file(given, path, _TABLE_BYTES)
    if suffix == ".parquet":
        return read_parquet(given, path)
    return _read_jsonl(given, path) if suffix == ".jsonl" else read_csv(given, path)


def _check_file(given: str, path: Path, most: int) -> None:
    """Before it is opened: a file, not a pipe that never ends, and of no more than `most` bytes."""
    if not path.is_file():
        raise DataError(f"{given} is not a file; use {_FORMS}")
    if (size := path.stat().st_size) > most:
        raise DataError(f"{given} is too large ({size:,} bytes, at most {most:,}); split it")


def _check_names(given: str, names: Collection[str]) -> None:
    if len(names) > _COLUMNS or len(set(names)) < len(names):
        found = f"{len(names)} columns of {len(set(names))} different names"
        raise DataError(f"{given} has {found}; use at most {_COLUMNS}, each name once")


def _check_cells(given: str, rows: int, columns: int) -> None:
    if rows * columns > _CELLS:
        found = f"{rows:,} rows of {columns} columns"
        raise DataError(f"{given} has {found}, beyond {_CELLS:,} cells; split it or leave columns out")


def read_parquet(given: str, path: Path, *, most: int = _TABLE_BYTES) -> pd.DataFrame:
    """Columns of numbers and texts that take up to `most` bytes, whatever the file says of itself.

    Raises:
        DataError: no parquet, texts that are not UTF-8, nested columns, or too much of anything.
    """
    try:
        file = pq.ParquetFile(path)
        fields = [one for one in file.schema_arrow if not one.name.startswith("__index_level_")]
        names, about = [field.name for field in fields], file.metadata
        _check_names(given, names)
        _check_cells(given, about.num_rows, len(names))
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
                if (longest := pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > _REVIEW_BYTES:
                    raise DataError(f"{given} has a cell of {longest:,} bytes in {name!r}; shorten it")
                columns[name] = column.dictionary_decode()
        yield (plain := pa.RecordBatch.from_pydict(columns))
        most -= plain.nbytes
        if most < 0:
            raise DataError(f"{given} unpacks to more bytes than it says; write the file again")


def _lines(given: str, path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line; only a newline ends one, as U+2028 and the like may stand in a text.

    Raises:
        DataError: a line that is too long, not UTF-8, or with a NUL byte in it, which no text has.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(iter(partial(stream.readline, _LINE_BYTES + 1), b""), 1):
            if len(line) > _LINE_BYTES:
                raise DataError(f"{given}, line {number}: more than {_LINE_BYTES:,} bytes; break it up")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"line {number} (0x{line[error.start]:02x})"
                raise DataError(
                    f"{given} holds bytes that are not UTF-8 in {what}; save it as UTF-8"
                ) from None
            if "\0" in text:
                raise DataError(f"{given}, line {number}: a NUL character; save the file as UTF-8 text")
            yield number, text


def read_csv(given: str, path: Path, *, most: int | None = None) -> pd.DataFrame:
    """Cells under a header, all as text: a blank cell stays blank, "NA" stays a word.

    Args:
        path: tabs divide its cells where it ends in .tsv, otherwise commas.
        most: read no more rows than this, the header aside.
    Raises:
        DataError: bytes that are not UTF-8, no header, or a line with more or fewer cells than the header.
    """
    # Not pyarrow's reader: it takes an unclosed quote's rest of the file for one cell, and knows no lines.
    separator, separator_name = _SEPARATORS.get(path.suffix.lower(), _SEPARATORS[".csv"])
    pieces = (piece for _, line in _lines(given, path) for piece in re.split(r"(?<=\r)(?!\n)", line))
    reader = csv.reader(pieces, delimiter=separator, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    line = 1
    try:
        for row in reader:
            if names:
                rows += [row] if row else []
            elif row:
                names = [name or f"column {number}" for number, name in enumerate(row, 1)]
                _check_names(given, names)
            if row and len(row) != len(names):
                raise DataError(
                    f"{given}, line {line}: {len(row)} cells, and the header has {len(names)}; put quotes "
                    f"around a text that holds a {separator_name}, and leave out no cell"
                )
            _check_cells(given, len(rows), len(names))
            if len(rows) == most:
                break
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{given}, line {line}, cannot be read as CSV ({error}); correct it there") from None
    if not names:
        raise DataError(f"{given} cannot be read as CSV (it is empty); begin it with a header")
    return pd.DataFrame(rows, columns=names, dtype=str)


def _read_jsonl(given: str, path: Path) -> pd.DataFrame:
    """One object a line."""
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
        _check_names(given, names)
        _check_cells(given, len(rows), len(names))
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object).infer_objects()


def _flat(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of texts, numbers and nulls, each name once; ValueError otherwise."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("the same name twice in an object")
    if nested := [name for name, value in pairs if isinstance(value, dict | list)]:
        raise ValueError(f"a list or an object under {nested[0][:40]!r}")
    return row


_MEMBER = re.compile(r"(?:^|/)(([^/]+)/(?:neg|pos)/[^/]+\.txt)$")
"""Groups: split/label/file, split."""


def _raw_frame(found: dict[str, bytes]) -> pd.DataFrame:
    """split/label/file → bytes, as a table: negative first, then by number, whatever the order found."""

    def order(place: str) -> tuple[str, int, str]:
        _, label, file = place.split("/")
        return label, int((re.match(r"\d+", file) or ["-1"])[0]), file

    rows = {place: (found[place], order(place)[0]) for place in sorted(found, key=order)}
    return pd.DataFrame(rows.values(), index=list(rows), columns=["text", "label"], dtype=object)


def _read_raw(folder: Path, split: str) -> pd.DataFrame:
    files = [p for label in ("neg", "pos") for p in (folder / split / label).glob("*.txt")]
    for file in files:
        _check_file(str(file), file, _REVIEW_BYTES)
    return _raw_frame({f"{split}/{p.parent.name}/{p.name}": p.read_bytes() for p in files})


class _Bounded(gzip.GzipFile):
    """Goes no further than `_ARCHIVE_BYTES`, and notices a cut file, as tarfile's own gzip does not."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > _ARCHIVE_BYTES:
            raise tarfile.TarError(f"it unpacks to more than {_ARCHIVE_BYTES:,} bytes")
        return super().read(size)


def _open_archive(given: str, path: Path) -> Source:
    """Every labelled split of an aclImdb archive, in one pass; nothing is written to disk."""
    found: dict[str, dict[str, bytes]] = {}
    try:
        with _Bounded(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                match = _MEMBER.search(member.name)
                if not match or not member.isreg() or not (text := archive.extractfile(member)):
                    continue
                if member.size > _REVIEW_BYTES:
                    size = f"{member.name} ({member.size:,} bytes)"
                    raise DataError(f"{given} is too large at {size}; use IMDB's own archive")
                found.setdefault(match[2], {})[match[1]] = text.read()
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{given} cannot be read as a .tar.gz ({error}); download it again") from None
    if not found:
        raise DataError(f"{given} has no train/pos/*.txt and the like in it; use IMDB's own archive")
    parts = {split: _raw_frame(texts) for split, texts in found.items()}
    name = re.sub(r"\.(tar\.gz|tgz)$", "", path.name, flags=re.IGNORECASE)
    return Source(given, path.name, name, tuple(sorted(parts)), parts.__getitem__)
