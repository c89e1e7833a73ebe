"""One call of eval.py: systems on reviews, scored in parts that survive a stop, written as artifacts.

A part is a `.npz` of row numbers and raw values (log-probabilities or answer tokens) under the work folder,
in a folder named by a hash of everything that decides the values. The same call after a stop scores the
rest; another model, adapter, prompt, dataset or setting has another hash and starts anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from sentiment_core import baselines, environment
from sentiment_core.artifacts import (
    PREDICTION_COLUMNS,
    SYSTEM_TITLES,
    DatasetInfo,
    EvalRecord,
    RunRecord,
    read_eval,
    read_run,
    utc_now,
    write_eval,
)
from sentiment_core.base_models import BaseModel, BaseModelError, file_sha256, resolve
from sentiment_core.config import SYSTEMS, ConfigError, EvalConfig, TrainConfig
from sentiment_core.data import (
    DEFAULT_DATASET,
    DataError,
    Reviews,
    TrainSplit,
    load_reviews,
    match_key,
    overlapping_ids,
    split_train,
)
from sentiment_core.models import (
    Encoded,
    LoadedModel,
    PromptEncoder,
    load_adapter,
    load_base,
    load_tokenizer,
    make_resident,
)
from sentiment_core.scoring import SentimentScorer, p_positive
from sentiment_core.sources import open_source
from sentiment_core.summary import OVERLAP_SETTING, summarize
from sentiment_core.training import Place, find_place

SECONDS_BETWEEN_PARTS = 5.0
"""What a kill without warning can cost at most."""

DEFAULT_MAX_LENGTH = TrainConfig.max_length_tokens
GROUP_CHARACTERS, GROUP_VALUES = 60, 50
"""A column of the dataset is carried along when its values are this short and this few (pairs aside)."""

Parts = baselines.Parts


@dataclass(frozen=True)
class Outcome:
    """One evaluation: made by this call, or found finished with the same settings and kept."""

    record: EvalRecord
    folder: Path
    kept: bool = False


def evaluate(config: EvalConfig, *, assets: Path, work: Path, overwrite: bool = False) -> list[Outcome]:
    """Evaluate what the settings ask for; on every process of a launch but the first, returns nothing.

    Raises:
        ConfigError, DataError, BaseModelError, ArtifactError: one sentence each.
    """
    place = find_place(config.precision)
    session = Session(config, place, assets)
    plans = [session.plan(system) for system in (SYSTEMS if config.system == "all" else (config.system,))]
    todo = [plan for plan in plans if not _finished(plan, keep=config.system == "all", overwrite=overwrite)]
    outcomes: dict[str, Outcome] = {}
    with _process_group(place):
        for plan in plans:
            if plan not in todo:
                session.say(f"{plan.eval_id}: finished before with the same settings, kept")
                outcomes[plan.system] = Outcome(read_eval(plan.folder).record, plan.folder, kept=True)
                continue
            record = session.carry_out(plan, work / "evals" / plan.eval_id, fresh=overwrite)
            if record is not None:
                outcomes[plan.system] = Outcome(record, plan.folder)
    return list(outcomes.values()) if place.is_main else []


# ---- what to do


@dataclass(frozen=True)
class Plan:
    """One system on the reviews, before anything heavy is loaded."""

    system: str
    eval_id: str
    folder: Path
    decisive: dict[str, Any]
    """Every setting and input that decides the predictions, by name; kept in the record's settings."""
    precision: str
    more: dict[str, Any] = field(default_factory=dict)
    """Further settings to record."""

    @property
    def identity(self) -> str:
        """First 16 hex digits of SHA-256 over `decisive`."""
        text = json.dumps([self.system, self.decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finished(plan: Plan, *, keep: bool, overwrite: bool) -> bool:
    """Whether a finished evaluation can stand for this plan.

    Raises:
        ConfigError: there is one that may be neither kept nor replaced.
    """
    if overwrite or not (plan.folder / "eval.json").exists():
        return False
    before = read_eval(plan.folder).record.settings
    changed = [name for name in plan.decisive if before.get(name) != plan.decisive[name]]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"evaluation {plan.eval_id!r} exists in {plan.folder.parent} with another {name} "
            f"({before.get(name)!r}, now {plan.decisive[name]!r}); --overwrite replaces it"
        )
    if not keep:
        raise ConfigError(
            f"evaluation {plan.eval_id!r} is finished in {plan.folder.parent}; --overwrite repeats it"
        )
    return True


def find_run(name: str, assets: Path) -> RunRecord:
    """A finished run by its name under assets/runs, or by its folder; `folder_of` has the same rule.

    Raises:
        ConfigError: no such run, or an unfinished one.
        ArtifactError: its record cannot be read.
    """
    folder = folder_of(name, assets)
    if not folder.is_dir():
        runs = assets / "runs"
        known = sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []
        raise ConfigError(
            f"--run {name!r} is not under {runs} (there: {', '.join(known) or 'nothing'}); "
            "train it with train.py, or give its folder"
        )
    record = read_run(folder).record
    if record is None:
        raise ConfigError(f"--run {name!r} is unfinished (no run.json); finish it with train.py --resume")
    return record


def folder_of(name: str, assets: Path) -> Path:
    named = assets / "runs" / name
    return named if named.is_dir() or not Path(name).is_dir() else Path(name)


def base_of(flag: str, run: RunRecord | None) -> BaseModel:
    """The base model: the flag's, else the run's, else the default.

    Raises:
        ConfigError: the run's base is a folder that is not here.
    """
    if run is None:
        return resolve(flag or None)
    name = flag or run.config.get("base_model") or run.base_model.name
    base = resolve(name)
    if base.name != run.base_model.name:
        raise ConfigError(
            f"--base-model {name!r} is not the base of run {run.run_id!r} ({run.base_model.name!r}); "
            "leave the flag out, or give that model's folder"
        )
    if run.base_model.source == "folder" and not base.is_local:
        raise ConfigError(
            f"run {run.run_id!r} was trained on the folder {run.base_model.name!r}, which is not here; "
            "give its path with --base-model"
        )
    return base


def base_key(base: BaseModel) -> str:
    """What tells two base models of one name apart."""
    if base.embedded is not None:
        return base.embedded.sha256
    if not base.is_local:
        return f"{base.location}@{base.revision or 'main'}"
    files = sorted(Path(str(base.location)).glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        large = path.stat().st_size > 2 << 30
        digest.update(f"{path.name} {path.stat().st_size if large else file_sha256(path)}\n".encode())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """A name with nothing but letters, digits, ".", "_" and "-".

    >>> safe_name("Qwen/Qwen2.5 0.5B")
    'Qwen2.5-0.5B'
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last) or "unnamed"


# ---- the reviews


@dataclass(frozen=True)
class Subject:
    """The reviews under test."""

    reviews: Reviews
    split: str
    """"all" for an undivided source."""
    overlap_ids: tuple[str, ...]
    short_name: str
    """With split and limit, as evaluation names begin."""

    @classmethod
    def load(cls, config: EvalConfig) -> Subject:
        source = open_source(config.dataset)
        split = config.split if source.splits else "all"
        reviews = load_reviews(config.dataset, config.split, limit=config.limit, seed=config.seed)
        overlap = overlapping_ids(config.dataset) if split == "test" else set()
        name = safe_name(reviews.name)
        name += f"-{safe_name(split)}" if split not in ("test", "all") else ""
        name += f"-n{config.limit}" if config.limit else ""
        return cls(reviews, split, tuple(sorted(overlap & set(reviews.ids))), name)

    @property
    def info(self) -> DatasetInfo:
        reviews = self.reviews
        return DatasetInfo(
            name=reviews.name,
            split=self.split,
            n=len(reviews),
            fingerprint=reviews.fingerprint,
            source=reviews.source,
        )


def group_columns(reviews: Reviews) -> pd.DataFrame:
    """The dataset's further columns that hold short values, few of them unless they tie pairs together."""
    texts = set(reviews.texts)
    kept: dict[str, pd.Series] = {}
    for column in reviews.group_columns:
        values = reviews.frame[column]
        present = values.dropna()
        scalars = present.map(lambda value: isinstance(value, str | bool | int | float | np.generic)).all()
        if column in PREDICTION_COLUMNS or not len(present) or not scalars:
            continue
        shown = present.astype(str)
        few = column == "pair_id" or shown.nunique() <= GROUP_VALUES
        if few and shown.str.len().max() <= GROUP_CHARACTERS and not shown.isin(texts).any():
            mixed = values.dtype == object and present.map(type).nunique() > 1
            kept[column] = values.where(values.isna(), values.astype(str)) if mixed else values
    return pd.DataFrame(kept, index=reviews.frame.index)


# ---- a call


@dataclass(frozen=True)
class Task:
    """How one system scores the reviews at given rows."""

    stream: Callable[[np.ndarray], Parts]
    """Rows (m,) -> parts whose indices count within those rows."""
    width: int
    answer: Callable[[np.ndarray], dict[str, Any]]
    """(n, width) values -> {"prediction", "p_positive"} and, where there are any, "answer_forms"."""
    settings: dict[str, Any] = field(default_factory=dict)
    on_gpu: bool = True


class Session:
    """What the systems of one call share: reviews, token counts, train rows and the base model."""

    def __init__(self, config: EvalConfig, place: Place, assets: Path) -> None:
        self.config, self.place, self.assets = config, place, assets
        self.run = find_run(config.run, assets) if config.run else None
        self.base = base_of(config.base_model, self.run)
        started = time.perf_counter()
        self.subject = Subject.load(config)
        self.encoder = PromptEncoder(load_tokenizer(self.base))
        if self.run and self.run.prompt.hash != self.encoder.info.hash:
            raise ConfigError(
                f"run {self.run.run_id!r} was trained with prompt {self.run.prompt.hash}, this program's is "
                f"{self.encoder.info.hash}; train it again, or use the version that trained it"
            )
        trained = self.run.config.get("max_length_tokens") if self.run else None
        self.max_length = config.max_length_tokens or trained or DEFAULT_MAX_LENGTH
        if self.max_length < self.encoder.shortest_limit():
            raise ConfigError(
                f"--max-length-tokens is {self.max_length}; the prompt needs at least "
                f"{self.encoder.shortest_limit()}"
            )
        self.encoded = self.encoder.encode_cached(self.subject.reviews.texts, self.max_length)
        self._split: TrainSplit | None = None
        self._examples: list[baselines.Example] | None = None
        self._loaded: LoadedModel | None = None
        self._adapted = False
        seconds = time.perf_counter() - started
        self.say(
            f"Reviews: {len(self.encoded):,} from {self.subject.reviews.source}, "
            f"{int(self.encoded.lengths.sum()):,} prompt tokens ({seconds:.1f} s)"
        )

    def say(self, text: str) -> None:
        if self.place.is_main:
            print(text, file=sys.stderr, flush=True)

    # -- plans

    def plan(self, system: str) -> Plan:
        """Everything that decides the result of a system, and its name."""
        subject, config = self.subject, self.config
        decisive: dict[str, Any] = {"dataset_fingerprint": subject.reviews.fingerprint}
        more: dict[str, Any] = {"max_length_tokens": self.max_length}
        if config.limit:
            more |= {"limit": config.limit, "limit_seed": config.seed}
        precision = self.place.precision
        if system == "tfidf-logreg":
            who = safe_name(self.train_split.train.name)
            decisive |= {
                "train_fingerprint": self.train_split.train.fingerprint,
                "tfidf": _plain(baselines.TFIDF_SETTINGS),
                "logreg": _plain(baselines.LOGREG_SETTINGS),
            }
            more |= {
                "train_source": self.train_split.train.source,
                "train_reviews": len(self.train_split.train),
                "tokens_of": self.base.name,
            }
        else:
            if system == "fine-tuned":
                precision = self._trained_precision()
            decisive |= {
                "base": base_key(self.base),
                "prompt_hash": self.encoder.info.hash,
                "max_length_tokens": self.max_length,
                "precision": precision,
            }
            who = safe_name(self.base.name)
        if system == "fine-tuned":
            assert self.run is not None
            who = self.run.run_id
            decisive["adapter_sha256"] = _adapter_hash(folder_of(self.config.run, self.assets))
        if system == "baseline-generated":
            decisive["max_new_tokens"] = config.max_new_tokens
        if system == "baseline-few-shot":
            decisive |= {"shots": config.shots, "shot_ids": [e.review_id for e in self.examples]}
            more |= {"shot_seed": config.seed, "train_source": self.train_split.train.source}
        eval_id = f"{subject.short_name}--{system}--{who}"
        return Plan(system, eval_id, self.assets / "evals" / eval_id, decisive, precision, more)

    def _trained_precision(self) -> str:
        """The run's own number format where this device has it; otherwise this device's."""
        assert self.run is not None
        if self.config.precision != "auto" or self.place.device.type != "cuda":
            return self.place.precision
        try:
            return find_place(self.run.config.get("precision", "auto")).precision
        except ConfigError:
            return self.place.precision

    @property
    def train_split(self) -> TrainSplit:
        """The train rows of the run, or those that train.py's defaults would take.

        Raises:
            ConfigError: they are not the rows that the run was trained on, or its source is not here.
        """
        if self._split is None:
            self._split = self._load_train()
        return self._split

    def _load_train(self) -> TrainSplit:
        config, run = self.config, self.run
        source = self._train_source()
        if run is None:
            most = len(load_reviews(source, "train")) // 10
            held = min(TrainConfig.validation, most) if most > 1 else 0
            return split_train(source, validation=held, exclude=config.exclude, seed=TrainConfig.seed)
        exclude = config.exclude or tuple(p for p in run.config.get("exclude", ()) if os.path.exists(p))
        try:
            split = split_train(
                source,
                validation=run.config["validation"],
                exclude=exclude,
                limit=run.config.get("limit"),
                seed=run.config["seed"],
            )
        except DataError as error:
            raise ConfigError(
                f"the baselines need the train rows of run {run.run_id!r}: {error}; "
                "--train-dataset names where they are"
            ) from None
        if split.train.fingerprint != run.data.fingerprint:
            unseen = ", ".join(run.config.get("exclude", ())) or "nothing"
            raise ConfigError(
                f"{source} gives train rows with fingerprint {split.train.fingerprint}, run {run.run_id!r} "
                f"was trained on {run.data.fingerprint} ({run.data.source} without {unseen}); "
                "name the same with --train-dataset and --exclude"
            )
        return split

    def _train_source(self) -> str:
        """--train-dataset, else the run's source, found again under --dataset when that is a local copy."""
        config = self.config
        if config.train_dataset:
            return config.train_dataset
        tested = open_source(config.dataset)
        if self.run is None:
            return config.dataset if "train" in tested.splits else DEFAULT_DATASET
        return config.dataset if tested.shown == self.run.data.source else self.run.data.source

    @property
    def examples(self) -> list[baselines.Example]:
        if self._examples is None:
            config = self.config
            tested = self.subject.reviews
            if config.limit:  # the same examples, whatever the limit
                tested = load_reviews(config.dataset, config.split)
            unseen = {match_key(text) for text in tested.texts}
            try:
                self._examples = baselines.choose_examples(
                    self.train_split.train, config.shots, seed=config.seed, unseen=unseen
                )
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return self._examples

    # -- models

    def loaded(self, precision: str) -> LoadedModel:
        """The base model without an adapter; loaded once as long as the precision stays."""
        from sentiment_core.training import DTYPES

        if self._loaded is not None and self._loaded.compute_dtype == DTYPES[precision] and not self._adapted:
            return self._loaded
        self._loaded, self._adapted = None, False
        loaded = load_base(
            self.base, device=self.place.device, compute_dtype=DTYPES[precision], resident=False
        )
        if self.run and None not in (self.run.base_model.revision, loaded.info.revision) \
                and loaded.info.revision != self.run.base_model.revision:  # fmt: skip
            raise BaseModelError(
                f"base model {self.base.name!r} is not the one that run {self.run.run_id!r} was trained on "
                f"(revision {loaded.info.revision}, then {self.run.base_model.revision}); "
                "give the same with --base-model"
            )
        if self.config.engine != "plain" and (self.config.engine != "auto" or _room_for_resident(loaded)):
            make_resident(loaded.model, loaded.compute_dtype)
        self._loaded = loaded
        return loaded

    def _scorer(self, precision: str, *, adapter: bool) -> SentimentScorer:
        loaded = self.loaded(precision)
        model = None
        if adapter:
            self._adapted = True
            model = load_adapter(loaded.model, folder_of(self.config.run, self.assets) / "adapter")
        engine = {"plain": "padded", "resident": "padded"}.get(self.config.engine, self.config.engine)
        if engine == "packed":
            from sentiment_core.packed import unsupported

            reason = unsupported(loaded.model, loaded.device)
            if reason:
                raise ConfigError(f"--engine packed: {reason}; use --engine resident")
        return SentimentScorer(loaded, model, engine=engine, batch_tokens=self.config.batch_tokens)

    # -- systems

    def task(self, plan: Plan) -> Task:
        """The system, loaded and ready to score."""
        config, encoded = self.config, self.encoded
        if plan.system == "tfidf-logreg":
            return self._tfidf()
        if plan.system == "baseline-generated":
            free = baselines.FreeAnswers(
                self.loaded(plan.precision),
                max_new_tokens=config.max_new_tokens,
                batch_tokens=config.batch_tokens,
            )
            return Task(
                lambda rows: free.stream(take(encoded, rows)),
                config.max_new_tokens,
                lambda values: _from_texts(free.texts(values)),
                {"batch_tokens": free.batch_tokens},
            )
        if plan.system == "baseline-few-shot":
            head = baselines.few_shot_head(self.encoder, self.examples)
            few = baselines.FewShotScorer(self.loaded(plan.precision), head, batch_tokens=config.batch_tokens)
            settings = {"batch_tokens": few.batch_tokens, "shared_tokens": len(head)}
            return Task(lambda rows: few.stream(take(encoded, rows)), 2, _from_scores, settings)
        scorer = self._scorer(plan.precision, adapter=plan.system == "fine-tuned")
        settings = {"batch_tokens": scorer.batch_tokens, "engine": scorer.engine}
        return Task(lambda rows: scorer.stream(take(encoded, rows)), 2, _from_scores, settings)

    def _tfidf(self) -> Task:
        if not self.place.is_main:
            return Task(lambda rows: iter(()), 1, _from_scores, on_gpu=False)
        train = self.train_split.train
        self.say(f"Fitting TF-IDF and logistic regression on {len(train):,} reviews …")
        started = time.perf_counter()
        model = baselines.TfidfLogReg().fit(train.texts, train.labels)
        settings = {
            "fit_seconds": round(time.perf_counter() - started, 2),
            "features": len(model.vectorizer.vocabulary_),
        }
        texts = self.subject.reviews.texts
        return Task(
            lambda rows: model.stream([texts[row] for row in rows]), 1, _from_scores, settings, on_gpu=False
        )

    # -- carrying out

    def carry_out(self, plan: Plan, work: Path, *, fresh: bool) -> EvalRecord | None:
        """Score, summarize and write one evaluation; the record on the main process."""
        self.say(f"{plan.eval_id}")
        parts = PartStore(work, plan.identity)
        if self.place.is_main:
            parts.open(fresh=fresh)
        task = self.task(plan)
        on_gpu = task.on_gpu and self.place.device.type == "cuda"
        scored = Scoring(self, task, parts, label=plan.system).run(warm_up=on_gpu)
        if scored is None:
            return None
        return self._write(plan, task, scored, parts)

    def _write(self, plan: Plan, task: Task, scored: Scored, parts: PartStore) -> EvalRecord:
        subject, reviews = self.subject, self.subject.reviews
        answers = task.answer(scored.values)
        predictions = pd.DataFrame(
            {
                "review_id": reviews.ids,
                "label": reviews.labels,
                "prediction": answers["prediction"],
                "p_positive": answers["p_positive"],
                "tokens": self.encoded.lengths.astype(np.int32),
                "truncated": self.encoded.truncated,
            }
        )
        predictions = pd.concat([predictions, group_columns(reviews)], axis=1)
        settings = plan.decisive | plan.more | task.settings | {"identity": plan.identity}
        settings["warmup_seconds"] = round(scored.warmup_seconds, 2)
        if subject.overlap_ids:
            settings[OVERLAP_SETTING] = list(subject.overlap_ids)
        on_gpu = task.on_gpu and self.place.device.type == "cuda"
        with_model = plan.system != "tfidf-logreg"
        record = EvalRecord(
            eval_id=plan.eval_id,
            system=plan.system,
            created_at=utc_now(),
            commit=environment.commit(),
            base_model=self._loaded.info if with_model and self._loaded else None,
            run_id=self.run.run_id if self.run and plan.system == "fine-tuned" else None,
            prompt=self.encoder.info if with_model else None,
            dataset=subject.info,
            answer_forms=answers.get("answer_forms", ()),
            settings=settings,
            command=environment.command_line(),
            wall_seconds=round(scored.seconds, 3),
            reviews_per_second=round(len(reviews) / max(scored.seconds, 1e-9), 2),
            hardware=environment.hardware(
                "cuda" if on_gpu else "cpu", self.place.world_size if on_gpu else 1
            ),
            versions=environment.versions(),
            **summarize(predictions, overlap_ids=subject.overlap_ids),
        )
        (plan.folder / "eval.json").unlink(missing_ok=True)  # from here to the end it is unfinished
        write_eval(plan.folder, record, predictions)
        parts.remove()
        return record


def take(encoded: Encoded, rows: np.ndarray) -> Encoded:
    """The prompts at these rows."""
    return Encoded.from_lists([encoded[row] for row in rows], encoded.truncated[rows])


def _from_scores(values: np.ndarray) -> dict[str, Any]:
    """(n, 2) log-probabilities or (n, 1) P(positive) -> columns."""
    p = p_positive(values) if values.shape[1] == 2 else values[:, 0].astype(np.float32)
    return {"prediction": pd.array((p >= 0.5).astype(np.int8), dtype="Int8"), "p_positive": p}


def _from_texts(answers: list[str]) -> dict[str, Any]:
    """Free answers -> columns and forms; no probability."""
    labels = [baselines.parse_answer(answer) for answer in answers]
    return {
        "prediction": pd.array([None if x is None else int(x) for x in labels], dtype="Int8"),
        "p_positive": np.full(len(answers), np.nan, dtype=np.float32),
        "answer_forms": baselines.count_forms(answers),
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))


def _adapter_hash(run: Path) -> str:
    path = run / "adapter" / "adapter_model.safetensors"
    if not path.is_file():
        raise BaseModelError(f"{run} holds no adapter/{path.name}; train the run again (python train.py)")
    return file_sha256(path)


def _room_for_resident(loaded: LoadedModel) -> bool:
    if loaded.device.type != "cuda":
        return True
    import torch

    return 2 * loaded.info.parameters < 0.5 * torch.cuda.mem_get_info(loaded.device)[0]


# ---- scoring in parts


class PartStore:
    """Scored rows on disk: `<work>/<identity>/<process>-<number>.npz` with rows, values and seconds."""

    def __init__(self, work: Path, identity: str) -> None:
        self.work, self.folder = work, work / identity
        self._numbers = itertools.count()

    def open(self, *, fresh: bool) -> None:
        """Make the folder; what belongs to other settings goes, and everything if `fresh`."""
        if fresh:
            shutil.rmtree(self.work, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.work.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def save(self, rows: np.ndarray, values: np.ndarray, seconds: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = self.folder / f"{os.getpid()}-{next(self._numbers)}.npz"
            if not path.exists():
                break
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            np.savez(stream, rows=rows, values=values, seconds=np.float64(seconds))
        temporary.replace(path)

    def load(self, n: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Every readable part; one that a kill damaged is passed over."""
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    rows, values, seconds = stored["rows"], stored["values"], float(stored["seconds"])
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            if values.shape == (len(rows), width) and len(rows) and 0 <= rows.min() <= rows.max() < n:
                yield rows, values, seconds

    def remove(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


@dataclass(frozen=True)
class Scored:
    """Raw values of all reviews, and what they cost."""

    values: np.ndarray
    seconds: float
    """Scoring only, stopped parts included; of several processes, the slowest one's."""
    warmup_seconds: float


class Scoring:
    """One task over all reviews: what earlier calls left, then this process's share of the rest."""

    def __init__(self, session: Session, task: Task, parts: PartStore, *, label: str) -> None:
        self.place, self.task, self.parts, self.label = session.place, task, parts, label
        self.say = session.say
        self.lengths = session.encoded.lengths
        self.values = np.full((len(self.lengths), task.width), np.nan)
        self.done = np.zeros(len(self.lengths), dtype=bool)

    def run(self, *, warm_up: bool) -> Scored | None:
        before = self._take_up() if self.place.is_main else 0.0
        todo = _from_main(np.flatnonzero(~self.done), self.place)
        if 0 < len(todo) < len(self.lengths):
            self.say(f"Going on: {len(self.lengths) - len(todo):,} of {len(self.lengths):,} are scored")
        todo = todo[np.argsort(-self.lengths[todo], kind="stable")]
        if self.task.on_gpu:
            mine = todo[self.place.rank :: self.place.world_size]
        else:
            mine = todo if self.place.is_main else todo[:0]
        warmup = self._warm_up(mine) if warm_up and len(mine) else 0.0
        started = time.perf_counter()
        self._score(mine, total=len(todo))
        results = _to_main((mine, self.values[mine], time.perf_counter() - started), self.place)
        if results is None:
            return None
        for rows, values, _ in results:
            self.values[rows] = values
        return Scored(self.values, before + max(seconds for *_, seconds in results), warmup)

    def _take_up(self) -> float:
        """Read the parts of earlier calls; returns the seconds they took."""
        spent = 0.0
        for rows, values, seconds in self.parts.load(len(self.lengths), self.task.width):
            self.values[rows], self.done[rows] = values, True
            spent += seconds
        return spent

    def _warm_up(self, rows: np.ndarray) -> float:
        """Compile and allocate on the first batch, whose values are thrown away."""
        started = time.perf_counter()
        with closing(self.task.stream(rows)) as stream:
            next(stream, None)
        return time.perf_counter() - started

    def _score(self, mine: np.ndarray, *, total: int) -> None:
        share = total / max(len(mine), 1)  # the bar shows all processes by what this one does
        buffer: list[tuple[np.ndarray, np.ndarray]] = []
        saved = time.perf_counter()

        def save() -> None:
            nonlocal saved
            now = time.perf_counter()
            if buffer:
                rows, values = (np.concatenate(part) for part in zip(*buffer, strict=True))
                self.parts.save(rows, values, (now - saved) / self.place.world_size)
                buffer.clear()
            saved = now

        bar = tqdm(
            total=total, initial=0, unit=" reviews", smoothing=0.1, file=sys.stderr, dynamic_ncols=True,
            mininterval=0.5, desc=self.label, disable=not self.place.is_main,
        )  # fmt: skip
        finished = 0
        try:
            for local, values in self.task.stream(mine):
                rows = mine[local]
                self.values[rows] = values
                buffer.append((rows, values))
                finished += len(rows)
                bar.update(round(finished * share) - bar.n)
                if time.perf_counter() - saved > SECONDS_BETWEEN_PARTS:
                    save()
        finally:
            save()
            bar.close()


# ---- several processes


@contextmanager
def _process_group(place: Place) -> Iterator[None]:
    """Processes of one launch find each other; small arrays travel over CPU memory (gloo)."""
    if place.world_size == 1:
        yield
        return
    import torch.distributed as dist

    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("gloo", timeout=timedelta(hours=12))
    try:
        yield
    finally:
        if mine:
            dist.destroy_process_group()


def _from_main(value: Any, place: Place) -> Any:
    """The main process's value, on every process."""
    if place.world_size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _to_main(value: Any, place: Place) -> list[Any] | None:
    """Every process's value in order, on the main process; None elsewhere."""
    if place.world_size == 1:
        return [value]
    import torch.distributed as dist

    box = [None] * place.world_size if place.is_main else None
    dist.gather_object(value, box, dst=0)
    return box


# ---- what a person sees


def describe(outcomes: list[Outcome], assets: Path) -> str:
    """A table of what was evaluated, where it is, and what to do next."""
    head = ("System", "Accuracy (95 % interval)", "n", "Unparsed", "Seconds", "Reviews/s", "")
    rows = [head]
    for outcome in outcomes:
        record = outcome.record
        accuracy = record.metrics["accuracy"]
        rows.append(
            (
                SYSTEM_TITLES[record.system],
                f"{accuracy.value:.2%} ({accuracy.low:.2%}–{accuracy.high:.2%})",
                f"{accuracy.n:,}",
                f"{record.unparsed:,}",
                f"{record.wall_seconds:.1f}",
                f"{record.reviews_per_second:,.0f}",
                "kept" if outcome.kept else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += ["", f"Folder  {assets / 'evals'}"]
    lines += [f"        {outcome.folder.name}" for outcome in outcomes]
    return "\n".join([*lines, "Next    python app.py"])
