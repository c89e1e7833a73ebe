"""Scoring in parts that survive a stop, on one process or on several.

A part is a `.npz` of row numbers and raw values (log-probabilities or answer tokens) under the work folder,
in a folder named by a hash of everything that decides the values. The same call after a stop scores the
rest; another model, adapter, prompt, dataset or setting has another hash and starts anew.
"""

from __future__ import annotations

import itertools
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
from tqdm import tqdm

from sentiment_core.baselines import Parts
from sentiment_core.place import Place

SECONDS_BETWEEN_PARTS = 5.0
"""What a kill without warning can cost at most."""

BAR = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""tqdm's own, with reviews/s however slow."""


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


class PartStore:
    """Scored rows on disk: `<work>/<identity>/<process>-<number>.npz` with rows, values and seconds."""

    def __init__(self, work: Path, identity: str) -> None:
        self.work, self.folder = work, work / identity
        self._numbers = itertools.count()

    def open(self) -> None:
        """Make the folder; what belongs to other settings goes."""
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

    def __init__(
        self,
        task: Task,
        parts: PartStore,
        lengths: np.ndarray,
        place: Place,
        *,
        label: str,
        say: Callable[[str], None],
    ) -> None:
        self.task, self.parts, self.lengths, self.place = task, parts, lengths, place
        self.label, self.say = label, say
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
            total=total, unit=" reviews", smoothing=0.1, file=sys.stderr, dynamic_ncols=True,
            mininterval=0.5, desc=self.label, bar_format=BAR, disable=not self.place.is_main,
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
def process_group(place: Place) -> Iterator[None]:
    """Processes of one launch find each other; small arrays travel over CPU memory (gloo)."""
    if place.world_size == 1:
        yield
        return
    import torch.distributed as dist

    mine = not dist.is_initialized()
    if mine:
        dist.initprocess_group("gloo", timeout=timedelta(hours=12))
    try:
        yield
    finally:
        if mine:
            dist.destroyprocess_group()


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
