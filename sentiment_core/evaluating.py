"""One call of eval.py: which systems on which reviews, each scored, summarized and written as artifacts."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core import baselines, environment
from sentiment_core.artifacts import read_eval, utc_now, write_eval
from sentiment_core.base_models import BaseModelError
from sentiment_core.config import ConfigError, EvalConfig, TrainConfig
from sentiment_core.data import TrainSplit, load_reviews, match_key
from sentiment_core.eval_inputs import (
    Subject,
    adapter_hash,
    base_key,
    base_of,
    find_run,
    folder_of,
    group_columns,
    safe_name,
    train_rows,
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
from sentiment_core.packed import unsupported
from sentiment_core.place import Place, find_place
from sentiment_core.schema import EvalRecord
from sentiment_core.scored_parts import PartStore, Scored, Scoring, Task, process_group
from sentiment_core.scoring import SentimentScorer, p_positive
from sentiment_core.summary import OVERLAP_SETTING, summarize
from sentiment_core.systems import SYSTEMS

DEFAULT_MAX_LENGTH = TrainConfig.max_length_tokens


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
    with process_group(place):
        for plan in plans:
            if plan not in todo:
                session.say(f"{plan.eval_id}: finished before with the same settings, kept")
                outcomes[plan.system] = Outcome(read_eval(plan.folder).record, plan.folder, kept=True)
                continue
            record = session.carry_out(plan, work / "evals" / plan.eval_id)
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


# ---- a call


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
            decisive["adapter_sha256"] = adapter_hash(folder_of(self.config.run, self.assets))
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
            self._split = train_rows(self.config, self.run)
        return self._split

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
        dtype = replace(self.place, precision=precision).dtype
        if self._loaded is not None and self._loaded.compute_dtype == dtype and not self._adapted:
            return self._loaded
        self._loaded, self._adapted = None, False
        loaded = load_base(self.base, device=self.place.device, compute_dtype=dtype, resident=False)
        self._check_revision(loaded.info.revision)
        if self.config.engine != "plain" and (self.config.engine != "auto" or _room_for_resident(loaded)):
            make_resident(loaded.model, loaded.compute_dtype)
        self._loaded = loaded
        return loaded

    def _check_revision(self, now: str | None) -> None:
        then = self.run.base_model.revision if self.run else None
        if now and then and now != then:
            raise BaseModelError(
                f"base model {self.base.name!r} is not the one that run {self.run.run_id!r} was trained on "
                f"(revision {now}, then {then}); give the same with --base-model"
            )

    def _scorer(self, precision: str, *, adapter: bool) -> SentimentScorer:
        loaded = self.loaded(precision)
        model = None
        if adapter:
            self._adapted = True
            with warnings.catch_warnings():  # peft asks transformers for an attribute by its old name
                warnings.simplefilter("ignore", FutureWarning)
                model = load_adapter(loaded.model, folder_of(self.config.run, self.assets) / "adapter")
        engine = {"plain": "padded", "resident": "padded"}.get(self.config.engine, self.config.engine)
        if engine == "packed":
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
            loaded = self.loaded(plan.precision)
            head = self._head()
            few = baselines.FewShotScorer(loaded, head, batch_tokens=config.batch_tokens)
            settings = {"batch_tokens": few.batch_tokens, "shared_tokens": len(head)}
            return Task(lambda rows: few.stream(take(encoded, rows)), 2, _from_scores, settings)
        scorer = self._scorer(plan.precision, adapter=plan.system == "fine-tuned")
        settings = {"batch_tokens": scorer.batch_tokens, "engine": scorer.engine}
        return Task(lambda rows: scorer.stream(take(encoded, rows)), 2, _from_scores, settings)

    def _head(self) -> list[int]:
        """Raises ConfigError: examples and the longest review are more than the model can read."""
        try:
            head = baselines.few_shot_head(self.encoder, self.examples)
        except ValueError as error:
            raise ConfigError(f"baseline-few-shot: {error}") from None
        assert self._loaded is not None
        most = getattr(self._loaded.model.config.get_text_config(), "max_position_embeddings", None)
        needed = len(head) - len(self.encoder.prefix_ids) + int(self.encoded.lengths.max())
        if most and needed > most:
            raise ConfigError(
                f"--shots {self.config.shots} makes prompts of {needed} tokens, the model reads {most}; "
                "use fewer --shots or a lower --max-length-tokens"
            )
        return head

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

    def carry_out(self, plan: Plan, work: Path) -> EvalRecord | None:
        """Score, summarize and write one evaluation; the record on the main process."""
        self.say(plan.eval_id)
        _give_back_memory(self.place)
        parts = PartStore(work, plan.identity)
        if self.place.is_main:
            parts.open()
        task = self.task(plan)
        on_gpu = task.on_gpu and self.place.device.type == "cuda"
        scoring = Scoring(task, parts, self.encoded.lengths, self.place, label=plan.system, say=self.say)
        scored = scoring.run(warm_up=on_gpu)
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
    return Encoded.from_lists([encoded[row] for row in rows], encoded.truncated[rows], encoded.shared)


def _from_scores(values: np.ndarray) -> dict[str, Any]:
    """(n, 2) log-probabilities or (n, 1) P(positive) -> columns."""
    values = values.astype(np.float32)
    p = p_positive(values) if values.shape[1] == 2 else values[:, 0]
    prediction = pd.array((p >= 0.5).astype(np.int8), dtype="Int8")
    prediction[np.isnan(p)] = pd.NA  # numbers that overflowed are no answer
    return {"prediction": prediction, "p_positive": p}


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


def _room_for_resident(loaded: LoadedModel) -> bool:
    if loaded.device.type != "cuda":
        return True
    import torch

    return 2 * loaded.info.parameters < 0.5 * torch.cuda.mem_get_info(loaded.device)[0]


def _give_back_memory(place: Place) -> None:
    """What the last system left cached counts as free when the next one sizes its batches."""
    if place.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


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
                SYSTEMS[record.system].title,
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
