"""One system's answers to texts that need no labels and may be more than memory holds.

The input is cut into parts of so many rows. Each part's answers are a file under the work folder, written
whole or not at all by one process of a launch; a later call makes those that are missing. Once all are
there, the first process joins them in order, a row group each.
"""

import pkgutil
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from tqdm import tqdm

from sentiment_core.artifacts.store import replacing
from sentiment_core.config import ConfigError, EvalConfig
from sentiment_core.data.sources import Stream
from sentiment_core.data.tables import DataError
from sentiment_core.engines.device import find_device
from sentiment_core.evaluation.inputs import Inputs
from sentiment_core.evaluation.systems.base import Work
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.models.base_models import writing
from sentiment_core.systems import SYSTEMS

ROWS = {"cpu": 256, "cuda": 8_192}  # of a part: what is lost when a process is killed
ANSWERING = ("fine-tuned", "baseline-scored", "baseline-generated")
"""Systems that need no other reviews than those they answer."""


def predict(config: EvalConfig, output: Path, *, assets: Path, work: Path, overwrite: bool = False) -> str:
    """Answer the texts of `config.dataset`; what to say of it, "" on every process but the first.

    `output` has the input's rows and columns in order, and prediction ("Positive", "Negative"; null where
    there is no text, or the answer is no label), p_positive (null where not scored), tokens and truncated.
    Raises ConfigError, DataError, BaseModelError, ArtifactError: one sentence each."""
    if config.system not in ANSWERING:
        raise ConfigError(f"--predict with --system {config.system}; use one of {', '.join(ANSWERING)}")
    if output.suffix != ".parquet" or output.is_dir():
        raise ConfigError(f"--output {output} must be a file that ends in .parquet")
    if output.exists() and not overwrite:
        raise ConfigError(f"--output {output} exists; --overwrite replaces it")
    source, context = Stream(config.dataset, config.split), find_device(config.precision)
    inputs = Inputs(config, context, assets)
    inputs.fingerprint = source.fingerprint
    system = pkgutil.resolve_name(SYSTEMS[config.system].work)(config.system, inputs)
    rows, loaded, parts = ROWS[context.device.type], None, list[Path]()
    folder = work / "predictions" / f"{system.identity()}-{rows}"
    with tqdm(total=source.rows, unit=" rows", mininterval=0.5, disable=not context.is_main) as bar:
        for number, (table, texts) in enumerate(source.tables(rows)):
            parts.append(folder / f"{number:08}.parquet")
            if number % context.world_size == context.rank and not parts[-1].exists():
                loaded = loaded or system.work()
                answered = _answered(inputs, loaded, table, texts)
                _write(parts[-1], answered.schema, [answered])
            bar.update(len(table))
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    if not context.is_main:
        return ""
    if not parts:
        raise DataError(f"{config.dataset} has no rows; give a file with texts")
    if missing := [part for part in parts if not part.exists()]:
        raise ConfigError(f"{len(missing)} parts are not in {folder}; give all hosts the same --work")
    _write(output, pq.read_schema(parts[0]), map(pq.read_table, parts))
    shutil.rmtree(folder, ignore_errors=True)
    return f"{pq.read_metadata(output).num_rows:,} rows, {output}"


def _answered(inputs: Inputs, work: Work, table: pa.Table, texts: Sequence[str]) -> pa.Table:
    """The table with the columns of the answers, which replace those of the same names."""
    there = np.array([bool(text.strip()) for text in texts], dtype=bool)
    given = [text for text in texts if text.strip()]
    inputs.encoded = encoded = inputs.encoder.encode(given, inputs.max_length)
    values = np.full((len(given), work.width), np.nan)
    for at, found in work.stream(np.arange(len(given))):
        values[at] = found
    answers, places = work.answers(values), pa.array(np.cumsum(there) - 1, mask=~there)
    columns = {
        "prediction": pa.array(LABEL_WORDS).take(pa.array(answers["prediction"], pa.int8())),
        "p_positive": pa.array(np.asarray(answers["p_positive"], np.float32), from_pandas=True),
        "tokens": pa.array(encoded.lengths, pa.int32()), "truncated": pa.array(encoded.truncated),
    }  # fmt: skip
    table = table.drop_columns([name for name in columns if name in table.column_names])
    for name, column in columns.items():
        table = table.append_column(name, column.take(places))
    return table


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """A parquet file with a row group for each table, whole or not at all."""
    with writing(path), replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
