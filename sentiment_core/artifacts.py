"""Typed schema of everything under `assets/`, with the one writer and the one reader.

A folder is finished when its JSON record is there: the record is written last and atomically.
Reading refuses unknown fields and unknown schema versions with the file's name and the remedy;
`list_runs` and `list_evals` turn such refusals into `Problem`s so that one bad folder never takes
the others down.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sentiment_core.config import ASSETS
from sentiment_core.config import SYSTEMS as SYSTEMS

SCHEMA_VERSION = 1

System = Literal["baseline-scored", "baseline-generated", "baseline-few-shot", "tfidf-logreg", "fine-tuned"]
SYSTEM_TITLES: dict[str, str] = {
    "baseline-scored": "Base model, label words compared",
    "baseline-generated": "Base model, free answer",
    "baseline-few-shot": "Base model, few-shot",
    "tfidf-logreg": "TF-IDF + logistic regression",
    "fine-tuned": "Fine-tuned (QLoRA)",
}

PREDICTION_COLUMNS = ("review_id", "label", "prediction", "p_positive", "tokens", "truncated")


class ArtifactError(ValueError):
    """A file under `assets/` cannot be used; the message names the file and the remedy."""


class _Record(BaseModel):
    """Immutable, and refusing fields that this version does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


# ---- shared parts


class BaseModelInfo(_Record):
    """Which pretrained model, and the number format its weights had in the run."""

    name: str
    source: str
    """Hub id, folder, or the package that ships the file."""
    revision: str | None = None
    """Hub commit or SHA-256 of the weights file."""
    parameters: int
    """Weights of the base, without the adapter; tied weights counted once."""
    quantization: str
    """For example "nf4, double quantization"."""
    licence: str | None = None


class PromptInfo(_Record):
    name: str
    hash: str
    """First 16 hex digits of SHA-256 over the rendered prompt, the label words and the truncation rule."""


class Hardware(_Record):
    device: str
    """For example "NVIDIA H200" or a processor's name."""
    count: int = 1
    """Devices used."""
    memory_bytes: int | None = None
    cpu: str | None = None


class Metric(_Record):
    """One number with its 95 % interval; low and high are None where no interval is defined."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    higher_is_better: bool = True


class Confusion(_Record):
    """Counts by true label (first word) and answer (second word)."""

    negative_negative: int
    negative_positive: int
    negative_unparsed: int = 0
    positive_negative: int
    positive_positive: int
    positive_unparsed: int = 0


class ReliabilityBin(_Record):
    """One bin of predicted probability: where it lies, and how often the reviews in it are positive."""

    low: float
    high: float
    n: int
    mean_p_positive: float | None = None
    share_positive: float | None = None


class Slice(_Record):
    """Accuracy of a part of the reviews, for example all with 1–178 tokens."""

    by: str
    """"tokens", "truncated", "confidence", or the name of a group column."""
    value: str
    accuracy: Metric


OTHER_FORM = "other"
"""The form under which rare answers are summed, one row per outcome."""


class AnswerForm(_Record):
    """How often a free answer took this form (its first words, lower-cased; never review text)."""

    form: str
    count: int
    parsed: Literal["negative", "positive", "unparsed"]


# ---- runs


class LoraInfo(_Record):
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


class DataInfo(_Record):
    source: str
    fingerprint: str
    """First 16 hex digits of SHA-256 over the train ids in order."""
    train: int
    validation: int
    excluded: dict[str, int]
    """Rows dropped before training, by reason."""


class RunRecord(_Record):
    """`run.json`: what was trained, on what, how, and at what cost."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    created_at: datetime
    commit: str | None = None
    base_model: BaseModelInfo
    lora: LoraInfo
    prompt: PromptInfo
    data: DataInfo
    config: dict[str, Any]
    """Every setting of the run, by flag name."""
    command: str
    engine: str
    """Which training path ran: "plain", "resident" or "packed"."""
    hardware: Hardware
    versions: dict[str, str]
    wall_seconds: float
    """Training loop, evaluation included; loading and warm-up not."""
    warmup_seconds: float = 0.0
    """Compiling and capturing before the first step."""
    reviews_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    trainable_parameters: int
    steps: int
    validation_accuracy: Metric
    validation_loss: float


class HistoryRow(_Record):
    """One line of `history.jsonl`; training lines have `loss`, evaluation lines `eval_loss`."""

    step: int
    epoch: float
    examples: int
    """Reviews seen so far."""
    tokens: int
    """Prompt tokens seen so far, padding not counted."""
    seconds: float
    """Since training began, pauses between resumed parts not counted."""
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None


HISTORY_COLUMNS = tuple(HistoryRow.model_fields)


@dataclass(frozen=True)
class Run:
    """A folder of `assets/runs/`. `record` is None while the run is unfinished."""

    path: Path
    record: RunRecord | None

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def adapter_path(self) -> Path:
        return self.path / "adapter"

    @property
    def history_path(self) -> Path:
        return self.path / "history.jsonl"


# ---- evaluations


class DatasetInfo(_Record):
    name: str
    """Short name, for example "imdb" or the file's stem."""
    split: str
    n: int
    fingerprint: str
    """First 16 hex digits of SHA-256 over the review ids in order."""
    source: str


class EvalRecord(_Record):
    """`eval.json`: one system on one dataset. Every metric can be recomputed from the predictions."""

    schema_version: Literal[1] = SCHEMA_VERSION
    eval_id: str
    system: System
    created_at: datetime
    commit: str | None = None
    base_model: BaseModelInfo | None
    """None for a system without a language model."""
    run_id: str | None
    prompt: PromptInfo | None
    dataset: DatasetInfo
    metrics: dict[str, Metric]
    confusion: Confusion
    unparsed: int
    reliability: tuple[ReliabilityBin, ...] = ()
    slices: tuple[Slice, ...] = ()
    answer_forms: tuple[AnswerForm, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    """What else the result depends on: shots, seeds, token limits."""
    command: str
    wall_seconds: float
    reviews_per_second: float
    hardware: Hardware
    versions: dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """A finished folder of `assets/evals/`."""

    path: Path
    record: EvalRecord

    def predictions(self) -> pd.DataFrame:
        """Columns PREDICTION_COLUMNS (prediction Int8 with gaps, p_positive float32 with NaN) plus groups."""
        return read_predictions(self.path)


# ---- small hand-checkable files


class Reference(_Record):
    """A published IMDB result, as its source reports it."""

    name: str
    parameters: int | None
    accuracy: float
    """Fraction in [0, 1]."""
    protocol: str
    source: str
    url: str
    kind: Literal["study-before", "study-after", "published", "ceiling"]
    checked: str
    """How far the figure was checked against its source."""


class SampleReview(_Record):
    """A review in our own words."""

    id: str
    text: str
    label: Literal[0, 1]
    kind: Literal["positive", "negative", "mixed", "sarcastic", "negated"]


class BenchmarkRow(_Record):
    system: str
    reviews_per_second: Metric | None = None
    """Median; low and high are the slowest and fastest repeat."""
    seconds_per_review: Metric | None = None
    first_step_seconds: float | None = None
    peak_memory_bytes: int | None = None
    note: str = ""


class BenchmarkRecord(_Record):
    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["train", "score", "live"]
    created_at: datetime
    commit: str | None = None
    command: str
    base_model: str
    hardware: Hardware
    versions: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[BenchmarkRow, ...]


# ---- writing


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def write_text(path: Path, text: str) -> None:
    """Write `path` atomically: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(path: Path, record: BaseModel) -> None:
    write_text(path, record.model_dump_json(indent=1) + "\n")


def write_run(folder: Path, record: RunRecord) -> None:
    """Finish a run: the last file to appear in its folder."""
    write_record(folder / "run.json", record)


class HistoryWriter:
    """Appends rows to `history.jsonl`, each flushed, so that a dashboard can follow a running training.

    Args:
        resume_at: rows beyond this step are dropped first (they came after the checkpoint that is resumed).
    """

    def __init__(self, folder: Path, *, resume_at: int | None = None) -> None:
        self.path = folder / "history.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept: list[str] = []
        if resume_at is not None and self.path.exists():
            rows = read_history(folder)
            kept = [
                HistoryRow(**{k: v for k, v in row.items() if pd.notna(v)}).model_dump_json(exclude_none=True)
                for row in rows[rows["step"] <= resume_at].to_dict("records")
            ]
        write_text(self.path, "".join(line + "\n" for line in kept))

    def append(self, row: HistoryRow) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(row.model_dump_json(exclude_none=True) + "\n")


def write_predictions(folder: Path, predictions: pd.DataFrame) -> None:
    """Write `predictions.parquet` with the contract's types; extra columns are kept as they are.

    Raises:
        ArtifactError: a column is missing, or a prediction is neither 0, 1 nor null.
    """
    missing = [c for c in PREDICTION_COLUMNS if c not in predictions]
    if missing:
        raise ArtifactError(f"predictions lack the columns {missing}")
    if not predictions["prediction"].dropna().isin((0, 1)).all():
        raise ArtifactError("predictions must be 0, 1 or null")
    table = predictions.copy()
    table["prediction"] = table["prediction"].astype("Int8")
    types = {
        "review_id": pa.string(), "label": pa.int8(), "prediction": pa.int8(),
        "p_positive": pa.float32(), "tokens": pa.int32(), "truncated": pa.bool_(),
    }  # fmt: skip
    arrays = {name: pa.array(table[name], type=types.get(name), from_pandas=True) for name in table.columns}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".predictions.parquet"
    pq.write_table(pa.table(arrays), temporary, compression="zstd", compression_level=19)
    os.replace(temporary, folder / "predictions.parquet")


def write_eval(folder: Path, record: EvalRecord, predictions: pd.DataFrame) -> None:
    """Write predictions, then the record that makes the folder count as finished."""
    write_predictions(folder, predictions)
    write_record(folder / "eval.json", record)


# ---- reading

_R = TypeVar("_R", bound=BaseModel)


def read_record(path: Path, kind: type[_R], remedy: str) -> _R:
    """Read and check one JSON record.

    Raises:
        ArtifactError: not there, not JSON, another schema version, or unknown or missing fields.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not there; {remedy}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); {remedy}") from None
    version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {version!r}, this program reads {SCHEMA_VERSION}; "
            f"update the program or {remedy}"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path}: field {where!r}: {first['msg'].lower()}; {remedy}") from None


def read_run(folder: Path) -> Run:
    """Read one run; `record` is None when `run.json` is not there yet."""
    path = folder / "run.json"
    if not path.exists():
        return Run(folder, None)
    record = read_record(path, RunRecord, "train it again with train.py")
    if record.run_id != folder.name:
        raise ArtifactError(f"{path} says run_id {record.run_id!r}; rename its folder to that")
    return Run(folder, record)


def read_history(folder: Path) -> pd.DataFrame:
    """All complete lines of `history.jsonl`; columns HISTORY_COLUMNS, gaps as NaN.

    A last line that is still being written is left out; any other bad line is refused.
    """
    path = folder / "history.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return pd.DataFrame(columns=list(HISTORY_COLUMNS))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); train the run again") from None
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(HistoryRow.model_validate_json(line).model_dump())
        except ValidationError as error:
            message = error.errors()[0]["msg"].lower()
            raise ArtifactError(f"{path} line {number}: {message}; train the run again") from None
    frame = pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))
    return frame.astype({c: "float64" for c in HISTORY_COLUMNS if c not in ("step", "examples", "tokens")})


def read_eval(folder: Path) -> Evaluation:
    """Read one evaluation's record (its predictions are read on demand)."""
    record = read_record(folder / "eval.json", EvalRecord, "run eval.py again")
    if record.eval_id != folder.name:
        raise ArtifactError(f"{folder}/eval.json says eval_id {record.eval_id!r}; rename its folder to that")
    if not (folder / "predictions.parquet").exists():
        raise ArtifactError(f"{folder}/predictions.parquet is not there; run eval.py again")
    return Evaluation(folder, record)


def read_predictions(folder: Path) -> pd.DataFrame:
    """The predictions of one evaluation, in dataset order."""
    path = folder / "predictions.parquet"
    try:
        frame = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); run eval.py again") from None
    missing = [c for c in PREDICTION_COLUMNS if c not in frame]
    if missing:
        raise ArtifactError(f"{path} lacks the columns {missing}; run eval.py again")
    frame["prediction"] = frame["prediction"].astype("Int8")
    frame["p_positive"] = frame["p_positive"].astype(np.float32)
    return frame


@dataclass(frozen=True)
class Problem:
    """A folder or file that was passed over, and why."""

    path: Path
    message: str


@dataclass(frozen=True)
class Listing:
    """What a folder of artifacts holds: everything readable, and what was passed over."""

    runs: tuple[Run, ...] = ()
    evals: tuple[Evaluation, ...] = ()
    problems: tuple[Problem, ...] = field(default=())


def list_artifacts(root: Path = ASSETS) -> Listing:
    """Read every run and evaluation under `root`, in the order of their names."""
    problems: list[Problem] = []

    def collect(kind: str, read: Any) -> Iterable[Any]:
        folder = root / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.is_dir() or path.name.startswith("."):
                continue
            try:
                yield read(path)
            except ArtifactError as error:
                problems.append(Problem(path, str(error)))

    runs = tuple(collect("runs", read_run))
    evals = tuple(collect("evals", read_eval))
    return Listing(runs, evals, tuple(problems))


def read_references(root: Path = ASSETS) -> tuple[Reference, ...]:
    """Published results, weakest first."""
    return tuple(_read_list(root / "references.json", Reference))


def read_sample_reviews(root: Path = ASSETS) -> tuple[SampleReview, ...]:
    """Our own reviews, in the file's order."""
    return tuple(_read_list(root / "sample_reviews.jsonl", SampleReview))


def read_benchmark(kind: str, root: Path = ASSETS) -> BenchmarkRecord:
    return read_record(
        root / "benchmarks" / f"{kind}.json",
        BenchmarkRecord,
        f"make it with python -m sentiment_core.benchmark {kind}",
    )


def _read_list(path: Path, kind: type[_R]) -> list[_R]:
    remedy = "restore it from the repository"
    try:
        text = path.read_text(encoding="utf-8")
        items = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" \
            else json.loads(text)  # fmt: skip
        return [kind.model_validate(item) for item in items]
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not there; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be used ({error}); {remedy}") from None
