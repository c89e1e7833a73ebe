"""A source of texts that may be larger than memory, as Arrow tables one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sentiment_core.config import split_name
from sentiment_core.data.reviews import with_line_breaks
from sentiment_core.data.tables import DataError, check_file, csv_parts

KINDS = (".parquet", ".csv", ".tsv", ".jsonl")
ANSWERS = {"prediction", "p_positive", "tokens", "truncated"}
"""Columns that the answers bring along."""


@dataclass(frozen=True)
class Stream:
    """A file, or a split of a dataset of the Hub; `source` as `open_source` takes it."""

    source: str
    split: str

    @property
    def place(self) -> Path:
        return Path(split_name(self.source)[0]).expanduser()

    @property
    def fingerprint(self) -> str:
        """Changes with the file; of a dataset of the Hub with its name alone."""
        about = self.place.stat() if self.place.exists() else None
        return f"{self.source} {f'{about.st_size} {about.st_mtime_ns}' if about else self.split}"

    @property
    def rows(self) -> int | None:
        """None where only reading it all would tell."""
        with suppress(OSError, pa.ArrowException):
            return pq.read_metadata(self.place).num_rows
        return None

    def tables(self, rows: int) -> Iterator[tuple[pa.Table, list[str]]]:
        """Up to `rows` rows with all their columns, and their texts, "" where there is none.

        The same call gives the same tables.
        Raises:
            DataError: no such file or dataset, or one that cannot be read from there on; no column of texts.
        """
        column = dict(parse_qsl(split_name(self.source)[1])).get("text_column", "text")
        found = self._local(rows) if self.place.suffix.lower() in KINDS else self._of_the_hub(rows)
        while (table := self._next(found)) is not None:
            if column not in table.column_names:
                names = ", ".join(table.column_names)
                raise DataError(f"{self.place} has no column {column!r} (found: {names}); see --text-column")
            if taken := ", ".join(ANSWERS.intersection(table.column_names)):
                raise DataError(f"{self.place} has columns that the answers need ({taken}); rename them")
            texts = table[column].to_pylist()
            if odd := next((text for text in texts if not isinstance(text, str | None)), None):
                raise DataError(
                    f"{self.place} has {odd!r} in place of a text in {column!r}; see --text-column"
                )
            yield table, [with_line_breaks(text or "") for text in texts]

    def _next(self, found: Iterator[pa.Table]) -> pa.Table | None:
        """None at the end; what the libraries raise, whose errors share no base class, as a DataError."""
        try:
            return next(found, None)
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
            raise DataError(
                f"{self.place} cannot be read ({reason}); use a {', '.join(KINDS)} file or a Hub id"
            ) from None

    def _local(self, rows: int) -> Iterator[pa.Table]:
        check_file(str(self.place), self.place, 1 << 60)
        if self.place.suffix.lower() == ".parquet":
            with pq.ParquetFile(self.place) as file:
                yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(rows))
        elif self.place.suffix.lower() == ".jsonl":
            with pyarrow.json.open_json(self.place) as reader:
                yield from (pa.Table.from_batches([batch]) for batch in reader)
        else:
            yield from map(_table, csv_parts(str(self.place), self.place, rows))

    def _of_the_hub(self, rows: int) -> Iterator[pa.Table]:
        import datasets

        name, about = split_name(self.source)
        config = dict(parse_qsl(about)).get("dataset_config")
        splits: Any = datasets.load_dataset(name, config, streaming=True)
        if self.split not in splits:
            raise DataError(
                f"{name} has no split {self.split!r}; use --split with one of: {', '.join(splits)}"
            )
        yield from splits[self.split].with_format("arrow").iter(batch_size=rows)


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
