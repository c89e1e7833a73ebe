"""Everything the page shows, read through `artifacts` and kept until the files change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

import pandas as pd

from sentiment_core import artifacts, schema
from sentiment_core.artifacts import ArtifactError, Evaluation, Listing, Problem, Run
from sentiment_core.systems import SYSTEMS, first_base

T = TypeVar("T")

DATASET_TITLES = {
    "imdb": "IMDB test reviews",
    "counterfactual_imdb_test": "Counterfactual pairs",
}
"""What a dataset is called on the page; one that is not here goes by its own name."""


def dataset_title(name: str) -> str:
    return DATASET_TITLES.get(name, name)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0)
    return info.st_mtime_ns, info.st_size


class Store:
    """The artifacts under one root. Safe to share between requests: values are read-only by convention."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._kept: dict[Hashable, tuple[Hashable, object]] = {}

    def keep(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what it gave last time while `stamp` is unchanged. Errors are not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != stamp:
                if len(self._kept) > 400:
                    self._kept.clear()
                found = (stamp, make())
                self._kept[key] = found
            return found[1]  # type: ignore[return-value]

    # ---- what is there

    def signature(self) -> Hashable:
        """Changes when any run, evaluation or small file appears, changes or goes."""
        marks = []
        for kind, names in (
            ("runs", ("run.json", "history.jsonl")),
            ("evals", ("eval.json", "predictions.parquet")),
        ):
            folder = self.root / kind
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                marks.append((path.name, *(_stamp(path / name) for name in names)))
        return (*marks, *(_stamp(self.root / name) for name in ("references.json", "sample_reviews.jsonl")))

    def listing(self) -> Listing:
        return self.keep("listing", self.signature(), lambda: artifacts.list_artifacts(self.root))

    def problems(self) -> tuple[Problem, ...]:
        """What was passed over, predictions that cannot be read included."""
        problems = list(self.listing().problems)
        for evaluation in self.listing().evals:
            try:
                self.predictions(evaluation)
            except ArtifactError as error:
                problems.append(Problem(evaluation.path, str(error)))
        for read in (self.references, self.samples):
            try:
                read()
            except ArtifactError as error:
                problems.append(Problem(self.root, str(error)))
        return tuple(problems)

    # ---- runs

    def finished_runs(self) -> list[Run]:
        return [run for run in self.listing().runs if run.record is not None]

    def run(self, run_id: str | None) -> Run | None:
        """The finished run of that name, or the default one: the most accurate on the largest dataset."""
        runs = self.finished_runs()
        for run in runs:
            if run.run_id == run_id:
                return run

        def rank(run: Run) -> tuple[int, float, float]:
            evals = [e.record for e in self._usable() if e.record.run_id == run.run_id]
            best = max(evals, key=lambda record: record.dataset.n, default=None)
            tested = (best.dataset.n, best.metrics["accuracy"].value) if best else (0, 0.0)
            return (*tested, run.record.validation_accuracy.value)  # type: ignore[union-attr]

        return max(runs, key=rank, default=None)

    def history(self, run: Run) -> pd.DataFrame:
        stamp = _stamp(run.history_path)
        return self.keep(("history", run.path), stamp, lambda: artifacts.read_history(run.path))

    # ---- evaluations

    def _usable(self) -> list[Evaluation]:
        """Evaluations whose predictions can be read and that carry an accuracy."""
        usable = []
        for evaluation in self.listing().evals:
            try:
                self.predictions(evaluation)
            except ArtifactError:
                continue
            if "accuracy" in evaluation.record.metrics:
                usable.append(evaluation)
        return usable

    def predictions(self, evaluation: Evaluation) -> pd.DataFrame:
        """Columns as the artifact; do not write into it."""
        return self.keep(("predictions", evaluation.path), self.stamp(evaluation), evaluation.predictions)

    def stamp(self, *evaluations: Evaluation | None) -> Hashable:
        """Changes when the predictions of any of them change."""
        return tuple(_stamp(e.path / "predictions.parquet") for e in evaluations if e)

    def datasets(self) -> list[str]:
        """Names of the evaluated datasets, largest first."""
        sizes: dict[str, int] = {}
        for evaluation in self._usable():
            dataset = evaluation.record.dataset
            sizes[dataset.name] = max(sizes.get(dataset.name, 0), dataset.n)
        return sorted(sizes, key=lambda name: -sizes[name])

    def evals(self, run: Run | None, dataset: str | None) -> dict[str, Evaluation]:
        """System -> its newest evaluation on `dataset`: this run's, and those of its base model."""
        base = run.record.base_model.name if run and run.record else None
        found: dict[str, Evaluation] = {}
        for evaluation in self._usable():
            record = evaluation.record
            if record.dataset.name != dataset:
                continue
            if record.run_id is not None and (run is None or record.run_id != run.run_id):
                continue
            if base and record.base_model is not None and record.base_model.name != base:
                continue
            older = found.get(record.system)
            if older is None or older.record.created_at < record.created_at:
                found[record.system] = evaluation
        return {system: found[system] for system in SYSTEMS if system in found}

    def before(self, evals: dict[str, Evaluation]) -> Evaluation | None:
        """The base model's evaluation that compares like with like, else any other of the base model."""
        system = first_base(evals)
        return evals[system] if system else None

    # ---- small files

    def references(self) -> tuple[schema.Reference, ...]:
        path = self.root / "references.json"
        return self.keep("references", _stamp(path), lambda: artifacts.read_references(self.root))

    def samples(self) -> tuple[schema.SampleReview, ...]:
        path = self.root / "sample_reviews.jsonl"
        return self.keep("samples", _stamp(path), lambda: artifacts.read_sample_reviews(self.root))

    def references_or_none(self) -> tuple[schema.Reference, ...]:
        try:
            return self.references()
        except ArtifactError:
            return ()

    def samples_or_none(self) -> tuple[schema.SampleReview, ...]:
        try:
            return self.samples()
        except ArtifactError:
            return ()
