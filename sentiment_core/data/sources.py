"""Where reviews come from: raw, unchecked tables out of the Hub, files and folders, or streams of them."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sentiment_core.config import CACHE, CHALLENGE_FILE, COLUMN_FLAGS, flag, split_name
from sentiment_core.data import tables
from sentiment_core.data.tables import DataError, check_file, csv_parts, read_table
from sentiment_core.labels import parse_label

BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)  # HTML's line break, which a model reads as a newline
CHALLENGE = "challenge"  # from any folder: our own reviews by phenomenon, see `assets/challenge/README.md`
COUNTERFACTUAL, COUNTERFACTUAL_TRAIN = "counterfactual", "counterfactual-train"
"""Sources from any folder: reviews and their minimal edits of the other label (Kaushik et al. 2020,
arXiv 1909.12434; Apache-2.0), fetched once. Artifacts call the first, to test on, by the file that it was."""
_COUNTERFACTUAL_URL = (
    "https://raw.githubusercontent.com/acmi-lab/counterfactually-augmented-data/"
    "6f232a1d2a11462a30ce08fb4825b734ab30828e/sentiment/combined/paired/{}_paired.tsv"
)
_COUNTERFACTUAL_SHA256 = {
    "test": "9534b20850205c59015b313983cae7afb31c54c04ffcbd19cea7f1bce5011275",
    "train": "7ac50ca3d70890f80e11ee59955cdbfc43f26b5078d0603717817ab224d2af18",
}


@dataclass(frozen=True)
class Source:
    """Somewhere reviews can be read from, split by split."""

    given: str  # as the user wrote it, for messages
    shown: str  # as a record may keep it: never a path of this machine
    name: str  # short: a Hub id's last part, a folder's name or a file's stem
    splits: tuple[str, ...]  # empty: undivided, and every split asked for is the whole
    table: Callable[[str], pd.DataFrame]

    def read(self, split: str) -> pd.DataFrame:
        """One split as the source has it; the index is each row's number from 0.
        Raises DataError: no such split, or its files cannot be read."""
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
    source: behind a "?" it may say what its columns are, see `config.COLUMN_FLAGS`.
    Raises DataError: not there, of an unknown kind, unreadable, or the Hub cannot be reached."""
    place, about = split_name(source)
    chosen = dict(parse_qsl(about))
    if unknown := ", ".join(chosen.keys() - COLUMN_FLAGS.keys()):
        raise DataError(f"{source} says {unknown} of its columns; use {', '.join(COLUMN_FLAGS)}")
    opened = _open(place, chosen.get("dataset_config"))
    if not about:
        return opened
    columns = {chosen[f"{name}_column"]: name for name in ("text", "label") if f"{name}_column" in chosen}
    meanings = _meanings(chosen.get("label_map", ""))

    def read(split: str) -> pd.DataFrame:
        frame = opened.table(split)
        if missing := next((column for column in columns if column not in frame), None):
            found, what = ", ".join(map(str, frame.columns)), flag(f"{columns[missing]}_column")
            raise DataError(f"{place} has no column {missing!r} (found: {found}); correct {what}")
        replaced = [name for name in columns.values() if name in frame and name not in columns]
        frame = frame.drop(columns=replaced).rename(columns=columns)
        if meanings and "label" in frame:
            values = map(_bare, frame["label"])
            frame["label"] = [meanings.get(value, f"{value} (not in --label-map)") for value in values]
        return frame

    return replace(opened, shown=f"{opened.shown}?{about}", table=read)


def _meanings(label_map: str) -> dict[str, str]:
    """From "1=negative,5=positive": what the dataset has as a label -> what we call it."""
    pairs = [pair.rpartition("=") for pair in label_map.split(",") if label_map]
    try:
        return {_bare(value): parse_label(mark and label).word for value, mark, label in pairs}
    except ValueError as error:
        raise DataError(f"--label-map {label_map}: {error}, as in 1=negative,5=positive") from None


def _bare(value: object) -> str:
    return str(value).strip().removesuffix(".0")  # a column with a gap in it is read as floats


def _open(source: str, config: str | None = None) -> Source:
    """config: which configuration of a dataset of the Hub."""
    if not source or "\0" in source:
        raise DataError(f"{source!r} names no reviews; use {tables.FORMS}")
    path, named_as_file = Path(source).expanduser(), source.lower().endswith(tables.TABLES)
    with _refusing(source):
        if config and (source in NAMED or path.exists()):
            raise DataError(f"--dataset-config {config}: {source} is not the Hub's; leave the flag out")
        if source in (CHALLENGE, COUNTERFACTUAL) or (source in NAMED and not path.exists()):
            return NAMED[source](source)
        if not path.exists():
            if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source, re.ASCII) and not named_as_file:
                return _open_hub(source, config)
            raise DataError(f"{source} is not there; check the path, or use {tables.FORMS}")
        return _open_folder(source, path) if path.is_dir() else _open_file(source, path)


def _open_hub(source: str, config: str | None = None) -> Source:
    """A dataset of the Hub, or of its cache when there is no network."""
    import datasets

    try:
        splits: Any = datasets.load_dataset(source, config)
    except Exception as error:  # its network, cache and parsing layers share no base class
        reason = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
        raise DataError(
            f"{source} is not a local path and could not be loaded from the Hub ({reason}); check the name "
            "and the network, or give a local file or folder instead"
        ) from None

    def read(split: str) -> pd.DataFrame:
        part = splits[split]
        frame = part.to_pandas()
        for column, feature in part.features.items():
            names = getattr(feature, "names", None)
            if names and set(names) & {"neg", "pos", "negative", "positive"}:
                frame[column] = [names[int(i)] if 0 <= i < len(names) else i for i in frame[column].tolist()]
        return frame

    name = source.rsplit("/", 1)[-1] + (f"-{config}" if config else "")
    return Source(source, source, name, tuple(splits), read)


def _open_challenge(source: str) -> Source:
    """With minimal pairs tied by `pair_id`, as elsewhere."""
    frame = read_table(CHALLENGE, CHALLENGE_FILE)
    ties = zip(frame["id"], frame.pop("pair"), strict=True)
    frame["pair_id"] = [min(tie) if all(tie) else None for tie in ties]
    return Source(source, CHALLENGE, CHALLENGE, (), lambda split: frame)


def _open_counterfactual(source: str) -> Source:
    """Each original with its edit behind it."""
    from sklearn.datasets import fetch_file  # pyrefly: ignore[missing-module-attribute] in its stubs

    part, shown = ("train", source) if source == COUNTERFACTUAL_TRAIN else ("test", COUNTERFACTUAL)
    folder, url = CACHE / "data", _COUNTERFACTUAL_URL.format(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"):  # of a damaged copy, and of trying again
            path = fetch_file(url, folder, sha256=_COUNTERFACTUAL_SHA256[part], n_retries=1)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{source} is not in the cache and could not be fetched ({error}); go online once, or put "
            f"{url} into {folder}"
        ) from None
    names = {"Text": "text", "Sentiment": "label", "batch_id": "pair_id"}
    frame = read_table(source, path).rename(columns=names).astype({"pair_id": int})
    frame["version"] = ["original", "edited"] * (len(frame) // 2)
    return Source(source, shown, f"counterfactual_imdb_{part}", (), lambda split: frame)


NAMED: dict[str, Callable[[str], Source]] = {
    CHALLENGE: _open_challenge, **dict.fromkeys((COUNTERFACTUAL, COUNTERFACTUAL_TRAIN), _open_counterfactual),
    "counterfactual_imdb_test.parquet": _open_counterfactual,  # as runs recorded it before it had a name
    "imdb": lambda source: _open_hub("stanfordnlp/imdb"),  # as runs recorded a local copy
}  # fmt: skip
"""What can be had from any folder, each by its name."""


def _open_file(source: str, path: Path) -> Source:
    frame = read_table(source, path)
    if "split" not in frame:
        return Source(source, path.name, path.stem, (), lambda split: frame)
    parts = {str(split): part for split, part in frame.groupby("split", sort=False, dropna=False)}
    return Source(source, path.name, path.stem, tuple(parts), parts.__getitem__)


def _open_folder(source: str, path: Path) -> Source:
    """Files named by split."""
    files: dict[str, list[Path]] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in tables.TABLES):
        split = re.sub(r"-\d+-of-\d+$", "", file.stem)  # the Hub's own names: train-00000-of-00001
        files.setdefault(split, []).append(file)
    if not files:
        what = "put train and test there as .parquet, .csv or .jsonl"
        raise DataError(f"{source} has no reviews in it; {what}")
    for split, found in files.items():
        if len(found) > 1 and not all("-of-" in file.stem for file in found):
            names = ", ".join(file.name for file in found)
            raise DataError(f"{source} has the split {split!r} more than once ({names}); keep one of them")

    def read(split: str) -> pd.DataFrame:
        tables = [read_table(str(file), file) for file in files[split]]
        return pd.concat(tables, ignore_index=len(tables) > 1)

    name = path.resolve().name
    return Source(source, name, name, tuple(files), read)


class Stream:
    """Texts of a file, or of a split of a dataset of the Hub, that may be larger than memory.
    source: as `open_source` takes it.

    `rows` is None where only reading it all would tell; `fingerprint` changes with a file, but not with what
    the Hub holds under the same name.
    """

    def __init__(self, source: str, split: str) -> None:
        self.name, about = split_name(source)
        self.split, self.chosen = split, dict(parse_qsl(about))
        self.path, self.rows, self.fingerprint = Path(self.name).expanduser(), None, f"{source} {split}"
        with suppress(OSError, pa.ArrowException):
            self.fingerprint += f" {self.path.stat().st_size} {self.path.stat().st_mtime_ns}"
            self.rows = pq.read_metadata(self.path).num_rows

    def tables(self, rows: int) -> Iterator[tuple[pa.Table, list[str]]]:
        """Up to `rows` rows with all their columns, and their texts, "" where there is none; always the same.
        Raises DataError: no such source, one that cannot be read from there on, or no column of texts."""
        column = self.chosen.get("text_column", "text")
        try:
            for table in (one for one in self._tables(rows) if len(one)):
                if column not in table.column_names:
                    raise DataError(f"has no column {column!r} (found: {', '.join(table.column_names)})")
                texts = table[column].to_pylist()
                if odd := [text for text in texts if not isinstance(text, str | None)][:1]:
                    raise DataError(f"has {str(odd[0])[:40]!r} in place of a text in {column!r}")
                yield table, [BREAK.sub("\n", text or "") for text in texts]
        except DataError as error:
            said = str(error)
            raise DataError(said if self.name in said else f"{self.name} {said}; see --text-column") from None
        except Exception as error:  # the libraries' errors share no base class
            reason = " ".join(str(error).split())[:200].rstrip(". ")
            raise DataError(f"{self.name} cannot be read ({reason}); give another file or Hub id") from None

    def _tables(self, rows: int) -> Iterator[pa.Table]:
        kind = self.path.suffix.lower()
        if kind not in tables.TABLES:
            import datasets

            splits: Any = datasets.load_dataset(self.name, self.chosen.get("dataset_config"), streaming=True)
            if self.split not in splits:
                names = ", ".join(splits)
                raise DataError(f"{self.name} has no split {self.split!r}; use --split with one of: {names}")
            yield from splits[self.split].with_format("arrow").iter(batch_size=rows)
            return
        check_file(self.name, self.path, 1 << 60)
        if kind == ".parquet":
            with pq.ParquetFile(self.path) as file:
                yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(rows))
        elif kind == ".jsonl":
            with pyarrow.json.open_json(self.path) as reader:
                yield from (pa.Table.from_batches([batch]) for batch in reader)
        else:
            yield from (pa.table(dict(part)) for part in csv_parts(self.name, self.path, rows))
