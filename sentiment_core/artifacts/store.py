"""The one writer and the one reader of everything under `assets/`; its types are in `schema`.

A folder is finished when its JSON record is there: the record is written last and atomically.
`list_artifacts` turns refusals into `Problem`s, so that one bad folder never takes the others down.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from sentiment_core.artifacts import schema
from sentiment_core.artifacts.schema import EvalRecord, HistoryRow, Reference, RunRecord, SampleReview
from sentiment_core.config import ASSETS, UserError
from sentiment_core.data.reviews import fingerprint, review_id
from sentiment_core.data.tables import read_parquet
from sentiment_core.metrics import classification

MOST_BYTES = 64_000_000  # no file of an artifact is larger; 25,000 predictions take half a megabyte
UNUSABLE = (
    OSError, pa.ArrowException, SafetensorError, ValueError, TypeError, LookupError, AttributeError,
    RuntimeError,
)  # fmt: skip
"""What json, parquet, pandas and safetensors raise on files that hold something else."""
NUMBERS = {"label": "int8", "prediction": "Int8", "p_positive": "float32", "tokens": "int32"}
"""Types of a prediction's numbers; an answer that is no label is a gap."""


class ArtifactError(UserError):
    """A file under `assets/` cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Run:
    """A folder of `assets/runs/`. `record` is None while the run is unfinished."""

    path: Path
    record: RunRecord | None
    hub: str = ""
    """Of one from the Hub "user/name@commit"; its adapter lies beside its record, as it was pushed."""

    @property
    def run_id(self) -> str:
        return self.hub or self.path.name

    @property
    def adapter_path(self) -> Path:
        return self.path if self.hub else self.path / "adapter"

    @property
    def history_path(self) -> Path:
        return self.path / "history.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """A finished folder of `assets/evals/`."""

    path: Path
    record: EvalRecord

    def predictions(self) -> pd.DataFrame:
        """In dataset order; ArtifactError where they are not the record's.

        Columns PREDICTION_COLUMNS plus groups; numbers as in NUMBERS, with NaN in p_positive.
        """
        path = self.path / "predictions.parquet"
        with _reading(path, "run eval.py again"):
            frame = read_parquet("it", path, most=16 * MOST_BYTES)
            if missing := [column for column in schema.PREDICTION_COLUMNS if column not in frame]:
                raise ValueError(f"it lacks the columns {missing}")
            frame = frame.astype(NUMBERS)
            if frame["truncated"].dtype != bool:
                raise ValueError("truncated must be true or false")
            if fingerprint(frame["review_id"]) != self.record.dataset.fingerprint:
                raise ValueError("its reviews are not those of its record, or in another order")
            if not frame["p_positive"].dropna().between(0, 1).all():
                raise ValueError("p_positive must lie between 0 and 1")
            counted = classification.confusion(frame["label"], frame["prediction"])  # 0 and 1 alone
            if schema.Confusion(**counted) != self.record.confusion:
                raise ValueError("its counts are not those of its record")
            return frame


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what `path` is to hold: a reader of it sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """All of it or nothing. Raises ArtifactError."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"{path} cannot be written ({error.strerror})"
        raise ArtifactError(f"{what}; free some space or correct its rights, then repeat") from None


def write_record(path: Path, record: BaseModel) -> None:
    write_text(path, record.model_dump_json(indent=1) + "\n")


class HistoryWriter:
    """Appends rows to `history.jsonl`, each flushed, so that a dashboard can follow a running training.
    resume_at: rows beyond this step are dropped first (they came after the checkpoint that is resumed)."""

    def __init__(self, folder: Path, *, resume_at: int | None = None) -> None:
        self.path = folder / "history.jsonl"
        kept = () if resume_at is None else (row for row in _history_rows(folder) if row.step <= resume_at)
        write_text(self.path, "".join(f"{row.model_dump_json(exclude_none=True)}\n" for row in kept))

    def append(self, row: HistoryRow) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{row.model_dump_json(exclude_none=True)}\n")


def write_eval(folder: Path, record: EvalRecord, predictions: pd.DataFrame) -> None:
    """Write `predictions.parquet`, extra columns as they are, then the record that finishes the folder."""
    plain = predictions.astype(NUMBERS | {"review_id": object})  # pandas' own strings would be large ones
    table = pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata()
    with replacing(folder / "predictions.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)
    write_record(folder / "eval.json", record)


_R = TypeVar("_R", bound=BaseModel)


@contextmanager
def _reading(path: Path, remedy: str, *, home: Path | None = None) -> Iterator[None]:
    """What goes wrong in the block becomes an ArtifactError, as does what is no file, too large, or linked
    from out of `home`, by default its own folder."""
    try:
        _check_link(path, home or path.parent)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 10**6} MB, as no artifact is")
        if not path.is_file():  # a pipe would never end
            raise ValueError("it is not a file")
        yield
    except ArtifactError:
        raise
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not there; {remedy}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path}: field {where!r}: {first['msg'].lower()}; {remedy}") from None
    except UNUSABLE as error:
        raise ArtifactError(f"{path} cannot be used ({error}); {remedy}") from None


def _check_link(path: Path, home: Path) -> None:
    if not path.resolve().is_relative_to(home.resolve()):
        raise ArtifactError(f"{path} is a link to another folder; put the file itself there")


def read_record(path: Path, kind: type[_R], remedy: str, *, home: Path | None = None) -> _R:
    """One JSON record; ArtifactError if not there, not JSON, of another version, or with other fields."""
    with _reading(path, remedy, home=home):
        content = json.loads(path.read_text(encoding="utf-8"))
        content = schema.upgraded(kind, content) if isinstance(content, dict) else {"schema_version": None}
        known = kind.model_fields["schema_version"].default
        if (version := content.get("schema_version", known)) != known:
            what = f"{path} has schema version {version!r}, this program reads {known}"
            raise ArtifactError(f"{what}; update the program or {remedy}")
        return kind.model_validate(content)


def _read_list(
    path: Path, kind: type[_R], remedy: str = "restore it from the repository", *, growing: bool = False
) -> tuple[_R, ...]:
    """The records of a JSON list or of JSON lines, where it is growing without an unfinished last one."""
    with _reading(path, remedy):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            lines = text.split("\n")[: -1 if growing else None]
            rows = ",\n".join(line for line in lines if line.strip())
            text = f"[{rows}]"
        return TypeAdapter(tuple[kind, ...]).validate_json(text)


def read_run(folder: Path) -> Run:
    path = folder / "run.json"
    if not os.path.lexists(path):
        return Run(folder, None)
    record = read_record(path, RunRecord, "train it again with train.py")
    if record.run_id != folder.name:
        raise ArtifactError(f"{path} says run_id {record.run_id!r}; rename its folder to that")
    return Run(folder, record)


def read_finished(folder: Path) -> Run:
    """Raises ArtifactError: there is no finished run."""
    if (run := read_run(folder)).record is None:
        raise ArtifactError(f"{folder} is not there or unfinished; train it, or go on with train.py --resume")
    return run


def read_adapter_config(run: Run) -> dict[str, Any]:
    """What PEFT wrote of the run's adapter. Raises ArtifactError: it is not there, or no JSON object."""
    path = run.adapter_path / "adapter_config.json"
    with _reading(path, "train the run again", home=run.path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def read_adapter_shapes(run: Run) -> dict[str, tuple[int, int, int]]:
    """Adapted matrix -> outputs, inputs and rank, from its adapter's header; empty where there is none.
    Raises ArtifactError: it is no adapter of safetensors."""
    path = run.adapter_path / "adapter_model.safetensors"
    if not os.path.lexists(path):
        return {}
    if "r" not in read_adapter_config(run):
        raise ArtifactError(f"{path.with_name('adapter_config.json')} names no rank; train the run again")
    with _reading(path, "train the run again", home=run.path), safe_open(path, "numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return {
            name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): (
                shapes[name.replace("lora_A", "lora_B")][0], shape[1], shape[0]
            )
            for name, shape in shapes.items() if name.endswith(".lora_A.weight")
        }  # fmt: skip


def read_history(folder: Path) -> pd.DataFrame:
    """`history.jsonl`, columns as in HistoryRow; without a last line still being written.

    Gaps are NaN, in `eval_counts` None.
    """
    rows = [row.model_dump() for row in _history_rows(folder)]
    frame = pd.DataFrame(rows, columns=list(HistoryRow.model_fields))
    whole = ("step", "examples", "tokens", "eval_counts")
    return frame.astype({column: "float64" for column in frame if column not in whole})


def _history_rows(folder: Path) -> tuple[HistoryRow, ...]:
    path = folder / "history.jsonl"
    return _read_list(path, HistoryRow, "train the run again", growing=True) if os.path.lexists(path) else ()


def read_eval(folder: Path) -> Evaluation:
    record = read_record(folder / "eval.json", EvalRecord, "run eval.py again")
    if record.eval_id != folder.name:
        raise ArtifactError(f"{folder}/eval.json says eval_id {record.eval_id!r}; rename its folder to that")
    if not (folder / "predictions.parquet").exists():
        raise ArtifactError(f"{folder}/predictions.parquet is not there; run eval.py again")
    return Evaluation(folder, record)


@dataclass(frozen=True)
class Problem:
    path: Path  # of a folder or file that was passed over
    message: str


@dataclass(frozen=True)
class Listing:
    runs: tuple[Run, ...] = ()
    evals: tuple[Evaluation, ...] = ()
    problems: tuple[Problem, ...] = ()


def list_artifacts(root: Path = ASSETS) -> Listing:
    """Read every run and evaluation under `root`, in the order of their names."""
    runs, evals, problems = list[Run](), list[Evaluation](), list[Problem]()
    for path in [*sorted(root.glob("runs/[!.]*/")), *sorted(root.glob("evals/[!.]*/"))]:
        try:
            _check_link(path, root)
            if path.parent.name == "runs":
                runs.append(read_run(path))
            else:
                evals.append(read_eval(path))
        except ArtifactError as error:
            problems.append(Problem(path, str(error)))
    return Listing(tuple(runs), tuple(evals), tuple(problems))


def read_references(root: Path = ASSETS) -> tuple[Reference, ...]:
    """Published results, weakest first, then what has no accuracy."""
    return _read_list(root / "references.json", Reference)


def read_sample_reviews(root: Path = ASSETS) -> tuple[SampleReview, ...]:
    return _read_list(root / "sample_reviews.jsonl", SampleReview)


def read_sample_answers(run: Run, samples: Iterable[SampleReview]) -> dict[str, schema.SampleAnswer]:
    """What the run's models say of our own reviews, by their ids; empty where that was not stored.
    Raises ArtifactError: the file cannot be read, or is of another adapter, prompt, or text."""
    path, remedy = run.path / "sample_answers.json", "run eval.py with this run again"
    texts = {sample.id: review_id(sample.text) for sample in samples}
    if run.record is None or not texts or not os.path.lexists(path):
        return {}
    found = read_record(path, schema.SampleAnswers, remedy)
    fits = {
        "adapter": found.adapter_sha256 == adapter_sha256(run),
        "prompt": found.prompt_hash == run.record.prompt.hash,
        "text": all(texts.get(name) == answer.review_id for name, answer in found.answers.items()),
    }
    if other := [what for what, same in fits.items() if not same]:
        raise ArtifactError(f"{path} was made with another {other[0]}; {remedy}")
    return found.answers


def adapter_sha256(run: Run) -> str:
    """Of the run's weights; empty where there are none. ArtifactError as `read_adapter_shapes`."""
    path = run.adapter_path / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if read_adapter_shapes(run) else ""


def browser_bytes(run: Run, root: Path = ASSETS) -> int:
    """What a browser fetches of the run's export by `publishing browser`; 0 where there is none."""
    with suppress(*UNUSABLE):
        about = json.loads((root / "browser" / run.run_id / "model.json").read_text(encoding="utf-8"))
        return int(about["bytes"]) * (about["adapter"] == adapter_sha256(run))
    return 0


def read_benchmark(kind: str, root: Path = ASSETS) -> schema.BenchmarkRecord:
    path, remedy = root / "benchmarks" / f"{kind}.json", f"python -m sentiment_core.benchmarks {kind}"
    return read_record(path, schema.BenchmarkRecord, f"make it with {remedy}", home=root)


def read_soak(root: Path = ASSETS) -> schema.SoakRecord:
    path = root / "benchmarks" / "soak.json"
    return read_record(path, schema.SoakRecord, "make it with make soak", home=root)
