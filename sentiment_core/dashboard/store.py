"""Everything the page shows, read through `artifacts` and kept until the files change."""

import glob
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pandas as pd

from sentiment_core.artifacts import remote, schema, store
from sentiment_core.artifacts.store import ArtifactError, Evaluation, Listing, Problem, Run
from sentiment_core.data.sources import CHALLENGE, COUNTERFACTUAL_TRAIN
from sentiment_core.metrics.histogram import least_log_odds
from sentiment_core.models.base_models import EMBEDDED
from sentiment_core.systems import SYSTEMS, first_base

T = TypeVar("T")

MOST_KEPT = 400  # values kept at once; the one that was wanted longest ago goes first

DATASET_TITLES = {
    "imdb": "IMDB test reviews", "counterfactual_imdb_test": "Counterfactual pairs",
    CHALLENGE: "Challenge set", COUNTERFACTUAL_TRAIN: "counterfactual pairs",
}  # fmt: skip
"""What a dataset is called on the page; one that is not here goes by its own name."""

TARGETS = (0.97, 0.98, 0.99)  # accuracies of which a visitor may ask one; less sure answers are not given
WATCHED = ("*.json*", "*/*", "*/*/*.json*", "*/*/predictions.parquet")
FRESH = 2.0  # seconds for which what lies there is not looked at again: a crowd asks often


def _stamp(path: str | Path) -> tuple[int, int]:
    with suppress(OSError):
        info = os.stat(path)
        return info.st_mtime_ns, info.st_size
    return (0, 0)


def _attempt(path: Path, read: Callable[[], T]) -> tuple[T | None, Problem | None]:
    """What `read` gives, or why it cannot."""
    try:
        return read(), None
    except ArtifactError as error:
        return None, Problem(path, str(error))


def noun(*sources: str) -> str:
    """What the texts of these datasets are called, each by its name or source."""
    return "reviews" if all(one in DATASET_TITLES or "imdb" in one.lower() for one in sources) else "texts"


def actors_of(evals: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Of these: "base", where it compares like with like, else any other of the base model; and "fine"."""
    both = {"base": evals.get(first_base(evals) or ""), "fine": evals.get("fine-tuned")}
    return {actor: one for actor, one in both.items() if one}


class Store:
    """The artifacts under one root. Safe to share between requests: values are read-only by convention."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._kept: dict[Hashable, SimpleNamespace] = {}  # lock (held while it is made), stamp, value
        self._signature: tuple[Hashable, ...] = ()
        self._looked = -math.inf

    def keep(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what it gave last time while `stamp`, not None, is unchanged. Errors are not kept.

        Who asks for a key that is being made waits for it; other keys are not held up. `make` may keep
        other keys, never its own.
        """
        with self._lock:
            kept = self._kept.pop(key, None) or SimpleNamespace(lock=threading.Lock(), stamp=None)
            self._kept[key] = kept
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        with kept.lock:
            if kept.stamp != stamp:
                kept.value, kept.stamp = make(), stamp
            return kept.value

    def signature(self) -> Hashable:
        """Changes, within `FRESH` seconds, when a run, evaluation or small file appears, changes or goes."""
        if time.monotonic() - self._looked > FRESH:
            paths = (path for pattern in WATCHED for path in sorted(glob.glob(pattern, root_dir=self.root)))
            self._signature = tuple((path, _stamp(os.path.join(self.root, path))) for path in paths)
            self._looked = time.monotonic()
        return self._signature

    def listing(self) -> Listing:
        return self.keep("listing", self.signature(), partial(store.list_artifacts, self.root))

    def problems(self) -> tuple[Problem, ...]:
        """What was passed over, each once; all that is read only when it is shown is tried."""
        listing = self.listing()
        tried: list[Any] = [_attempt(one.path, partial(self.predictions, one)) for one in listing.evals]
        for run in listing.runs:
            reads = partial(self.history, run), partial(store.read_adapter_shapes, run)
            tried += [*(_attempt(run.path, read) for read in reads), self._stored_answers(run)]
        for path in sorted(self.root.glob("benchmarks/*.json")):
            read = store.read_soak if path.stem == "soak" else partial(store.read_benchmark, path.stem)
            tried.append(_attempt(path, partial(read, self.root)))
        tried += map(self._small, (store.read_references, store.read_sample_reviews))
        found = [*listing.problems, *(problem for _, problem in tried)]
        return tuple({problem.message: problem for problem in found if problem}.values())

    def finished_runs(self) -> list[Run]:
        return [run for run in self.listing().runs if run.record is not None]

    def run(self, run_id: str | None) -> Run | None:
        """The finished run of that name, here or on the Hub, or the default: on the smallest base (a large
        one loads where it is chosen), by labels alone, most accurate on most reviews."""
        if "/" in str(run_id or ""):
            with suppress(ArtifactError):  # which was told to whoever opened it
                return self.hub_run(str(run_id))
        runs = self.finished_runs()
        named = next((run for run in runs if run.run_id == run_id), None)
        best = partial(max, runs, key=self._rank, default=None)
        return named or self.keep("default run", self.signature(), best)

    def hub_run(self, run_id: str) -> Run:
        """The run of that Hub id; without a commit in it, looked up anew every ten minutes.

        Raises ArtifactError, of one sentence for visitors, also where its base is none that is served here.
        """
        pinned = len(run_id.partition("@")[2]) == 40 or time.monotonic() // 600
        run = self.keep(("hub", run_id), pinned, lambda: remote.fetch_run(run_id))
        base, *others = (one.record.base_model.name for one in (run, *self.finished_runs()) if one.record)
        if base not in (known := {*EMBEDDED, *others}):
            told = f"run {run_id!r} is on the base model {base[:90]!r}"
            raise ArtifactError(f"{told}; here run those on {', '.join(sorted(known))}")
        return run

    def _rank(self, run: Run) -> tuple[float, ...]:
        """Size of the base, labels alone, size of the largest dataset that it answered, accuracy there and in
        validation; all so that more is better."""
        record: Any = run.record
        evals = [e.record for e in self._usable() if e.record.run_id == run.run_id]
        tested = max(((e.dataset.n, e.metrics["accuracy"].value) for e in evals), default=(0, 0.0))
        plain = not (record.teacher or record.data.also or record.parts)
        return (-record.base_model.parameters, plain, *tested, record.validation_accuracy.value)

    def history(self, run: Run) -> pd.DataFrame:
        return self.keep(run.history_path, _stamp(run.history_path), lambda: store.read_history(run.path))

    def certainties(self, run: Run | None) -> dict[float, float]:
        """Target accuracy -> the certainty from which on the run's validation answers reached it; those that
        none reached, and runs without stored validation answers, are left out."""
        if not (run and run.record):
            return {}
        history, _ = _attempt(run.path, partial(self.history, run))
        if history is None or (validated := history.dropna(subset=["eval_counts"])[::-1]).empty:
            return {}
        away = (validated["eval_accuracy"] - run.record.validation_accuracy.value).abs()
        kept = validated["eval_counts"].iloc[away.argmin()]  # of the last such one
        odds = {target: least_log_odds(kept, target) for target in TARGETS}
        return {t: 1 / (1 + math.exp(-x / run.record.temperature)) for t, x in odds.items() if x is not None}

    def _usable(self) -> list[Evaluation]:
        """Evaluations whose predictions can be read and that carry an accuracy."""
        return self.keep("usable", self.signature(), lambda: [*filter(self._is_usable, self.listing().evals)])

    def _is_usable(self, one: Evaluation) -> bool:
        return "accuracy" in one.record.metrics and not _attempt(one.path, partial(self.predictions, one))[1]

    def predictions(self, evaluation: Evaluation) -> pd.DataFrame:
        """Columns as the artifact; do not write into it."""
        return self.keep(("predictions", evaluation.path), self.stamp(evaluation), evaluation.predictions)

    def stamp(self, *evaluations: Evaluation | None) -> Hashable:
        """Changes when the predictions of any of them change."""
        return tuple(_stamp(e.path / "predictions.parquet") for e in evaluations if e)

    def datasets(self) -> list[str]:
        """Names of the evaluated datasets, largest first."""
        largest_first = sorted((e.record.dataset for e in self._usable()), key=lambda dataset: -dataset.n)
        return list(dict.fromkeys(dataset.name for dataset in largest_first))

    def evals(self, run: Run | None, dataset: str | None) -> dict[str, Evaluation]:
        """System, an encoder's with its name -> its newest evaluation on `dataset`: this run's, and those of
        its base model or of none."""
        run_id, base = run and run.run_id, run and run.record and run.record.base_model.name
        newest: dict[str, Evaluation] = {}
        for one in sorted(self._usable(), key=lambda one: one.record.created_at):
            its = one.record
            of_base = not (base and its.base_model) or base == its.base_model.name
            if its.dataset.name == dataset and its.run_id in (None, run_id) and of_base:
                newest[f"{its.system} {its.encoder}".strip()] = one
        order = [*SYSTEMS].index
        return dict(sorted(newest.items(), key=lambda named: (order(named[1].record.system), named[0])))

    def references(self) -> tuple[schema.Reference, ...]:
        """Empty where the file cannot be read, as are `samples`."""
        return self._small(store.read_references)[0] or ()

    def samples(self) -> tuple[schema.SampleReview, ...]:
        return self._small(store.read_sample_reviews)[0] or ()

    def sample_answers(self, run: Run | None) -> dict[str, schema.SampleAnswer]:
        """Sample id -> what the run's models said of it; empty where that was not stored."""
        return self._stored_answers(run)[0] or {} if run else {}

    def _stored_answers(self, run: Run) -> tuple[dict[str, schema.SampleAnswer] | None, Problem | None]:
        samples, adapter = self.samples(), run.adapter_path / "adapter_model.safetensors"
        stamp = *map(_stamp, (run.path / "sample_answers.json", adapter)), samples
        read = partial(store.read_sample_answers, run, samples)
        return _attempt(run.path, lambda: self.keep(("samples", run.path), stamp, read))

    def _small(self, read: Callable[[Path], T]) -> tuple[T | None, Problem | None]:
        """What is read of a small file, until anything changes."""
        return _attempt(self.root, lambda: self.keep(read, self.signature(), partial(read, self.root)))
