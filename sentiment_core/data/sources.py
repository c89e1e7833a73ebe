"""Where reviews come from: raw, unchecked tables out of the Hub, files, folders and aclImdb's archive."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sentiment_core.config import CHALLENGE_FILE, UserError

_TABLES = (".parquet", ".csv", ".jsonl")
_ARCHIVES = (".tar.gz", ".tgz")
_FORMS = "a Hub id, a .parquet, .csv or .jsonl file, a folder of them, or aclImdb as a folder or .tar.gz"
_COLUMNS, _REVIEW_BYTES, _ARCHIVE_BYTES = 1000, 1 << 20, 1 << 30
"""Bounds of what is read into memory; IMDB's labelled reviews are 66 MB, its longest one is 14 kB."""

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
    if suffix != ".parquet":
        return (read_csv if suffix == ".csv" else _parse_jsonl)(given, path.read_bytes())
    try:
        table = pq.read_table(path)
        table.validate(full=True)
        columns = [name for name in table.column_names if not name.startswith("__index_level_")]
        return table.select(columns).to_pandas(ignore_metadata=True)
    except pa.ArrowException as error:
        reason = str(error).split("\n")[0].rstrip(". ")
        what = "holds bytes that are not UTF-8" if "UTF8" in reason else "cannot be read as parquet"
        raise DataError(f"{given} {what} ({reason}); write the file again") from None


def _utf8(given: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"line {line} (0x{content[error.start]:02x})"
        raise DataError(f"{given} holds bytes that are not UTF-8 in {what}; save it as UTF-8") from None


def read_csv(given: str, content: bytes, *, most: int | None = None) -> pd.DataFrame:
    """Comma-separated cells under a header, all as text: a blank cell stays blank, "NA" stays a word.

    Args:
        most: read no more rows than this, the header aside.
    Raises:
        DataError: bytes that are not UTF-8, no header, or a line with more or fewer cells than the header.
    """
    # Not pyarrow's reader: it takes an unclosed quote's rest of the file for one cell, and knows no lines.
    reader = csv.reader(io.StringIO(_utf8(given, content), newline=""), strict=True)
    rows: list[list[str]] = []
    line = 1
    try:
        for row in reader:
            rows += [row] if row else []
            if row and len(row) != len(rows[0]):
                raise DataError(
                    f"{given}, line {line}: {len(row)} cells, and the header has {len(rows[0])}; put quotes "
                    "around a text that holds a comma, and leave out no cell"
                )
            if len(rows) - 1 == most:
                break
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{given}, line {line}, cannot be read as CSV ({error}); correct it there") from None
    if not rows:
        raise DataError(f"{given} cannot be read as CSV (it is empty); begin it with a header")
    names = [name or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if len(names) > _COLUMNS or len(set(names)) < len(names):
        found = f"{len(names)} columns of {len(set(names))} different names"
        raise DataError(f"{given} has {found}; use at most {_COLUMNS}, each name once")
    return pd.DataFrame(rows[1:], columns=names, dtype=str)


def _parse_jsonl(given: str, content: bytes) -> pd.DataFrame:
    """One object a line; only a newline ends a line, as U+2028 and the like may stand in a text."""
    rows: dict[int, dict[str, object]] = {}
    for number, line in enumerate(_utf8(given, content).split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows[number - 1] = row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise DataError(f"{given}, line {number}: {error.msg}; correct the JSON there") from None
        except UnicodeEncodeError:  # half of a surrogate pair is valid JSON
            message = f"{given} holds half a character that is not UTF-8 in line {number}; correct it there"
            raise DataError(message) from None
        if not isinstance(row, dict):
            raise DataError(f"{given}, line {number}: not an object; write it as {{'text': …, 'label': …}}")
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object).infer_objects()


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
    return _raw_frame({f"{split}/{p.parent.name}/{p.name}": p.read_bytes() for p in files})


def _open_archive(given: str, path: Path) -> Source:
    """Every labelled split of an aclImdb archive, in one pass; nothing is written to disk."""
    found: dict[str, dict[str, bytes]] = {}
    total = 0
    try:
        # gzip, unlike tarfile's own reading of it, notices a file that was cut off between two members.
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                match = _MEMBER.search(member.name)
                if not match or not member.isreg() or not (text := archive.extractfile(member)):
                    continue
                total += member.size
                if member.size > _REVIEW_BYTES or total > _ARCHIVE_BYTES:
                    size = f"{member.size} bytes, {total} so far"
                    raise DataError(f"{given} is too large at {member.name} ({size}); use IMDB's own archive")
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
