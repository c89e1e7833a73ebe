"""Texts of a source that may be larger than memory, as Arrow tables one after the other."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sentiment_core.config import split_name
from sentiment_core.data.reviews import with_line_breaks
from sentiment_core.data.tables import TABLES, DataError, check_file, csv_parts


class Stream:
    """A file, or a split of a dataset of the Hub. `source`: as `open_source` takes it.

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
                yield table, [with_line_breaks(text or "") for text in texts]
        except DataError as error:
            said = str(error)
            raise DataError(said if self.name in said else f"{self.name} {said}; see --text-column") from None
        except Exception as error:  # the libraries' errors share no base class
            reason = " ".join(str(error).split())[:200].rstrip(". ")
            raise DataError(f"{self.name} cannot be read ({reason}); give another file or Hub id") from None

    def _tables(self, rows: int) -> Iterator[pa.Table]:
        kind = self.path.suffix.lower()
        if kind not in TABLES:
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
