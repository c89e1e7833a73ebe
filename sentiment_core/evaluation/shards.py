"""Scoring in parts that survive an interruption, in one process or in several.

A part is a `.npz` of row numbers and raw values (log-probabilities or answer tokens) under the work folder,
in a folder named by a hash of everything that decides the values. The same call scores the rest after
an interruption; another model, adapter, prompt, dataset or setting has another hash and starts anew.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from sentiment_core.engines.device import DeviceContext
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Work

SECONDS_BETWEEN_PARTS = 5.0
"""At most this much work is lost when a process is killed."""

BAR = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""tqdm's own, with reviews/s however slow."""


class PartStore:
    """Scored rows on disk: `<work>/<identity>/<rank>of<processes>-<number>.npz`: rows, values and seconds."""

    def __init__(self, work: Path, identity: str, context: DeviceContext) -> None:
        self.work, self.folder, self.context = work, work / identity, context
        names = (self.folder / f"{context.rank}of{context.world_size}-{n}.npz" for n in itertools.count())
        self._unused = (path for path in names if not path.exists())

    def open(self) -> None:
        """Make the folder; what belongs to other settings goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.work.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def save(self, rows: np.ndarray, values: np.ndarray, seconds: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = next(self._unused)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            np.savez(stream, rows=rows, values=values, seconds=np.float64(seconds))
        temporary.replace(path)

    def load(self) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Every readable part; one that a kill damaged is passed over."""
        for path in sorted(self.folder.glob("*.npz")):
            with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                with np.load(path, allow_pickle=False) as stored:
                    part = stored["rows"], stored["values"], float(stored["seconds"])
                yield part

    def remove(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


def score(system: EvaluatedSystem, work: Work, store: PartStore) -> tuple[np.ndarray, float, float] | None:
    """All reviews' values: those of earlier calls, then this process's share of the rest.

    Returns:
        (draws · n, width) raw values, the seconds that scoring took (interrupted calls included; of several
        processes, the slowest one's), and those of the warm-up; None on every process but the first.
    """
    context, lengths = store.context, np.tile(system.inputs.encoded.lengths, work.draws)
    values = np.full((len(lengths), work.width), np.nan)
    done = np.zeros(len(lengths), dtype=bool)
    before = 0.0
    for rows, found, seconds in store.load() if context.is_main else ():
        values[rows], done[rows] = found, True
        before += seconds
    todo = np.flatnonzero(~done)
    if context.world_size > 1:
        (todo,) = broadcast_object_list([todo])
    if 0 < len(todo) < len(lengths):
        system.inputs.say(f"Resuming: {len(lengths) - len(todo):,} of {len(lengths):,} already scored")
    todo = todo[np.argsort(-lengths[todo], kind="stable")]
    mine = todo[context.rank :: context.world_size]
    started = time.perf_counter()
    if context.device.type == "cuda" and len(mine):  # compile and allocate, before the clock starts
        with closing(work.stream(mine)) as stream:  # pyrefly: ignore[bad-specialization] generators, all
            next(stream, None)
    warmup = time.perf_counter() - started
    shares = [_score(work, store, mine, system.id)]
    if context.world_size > 1:
        shares = gather_object(shares)
    if not context.is_main:
        return None
    for rows, found, _ in shares:
        values[rows] = found
    return values, before + max(seconds for *_, seconds in shares), warmup


def _score(
    work: Work, store: PartStore, mine: np.ndarray, label: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """This process's rows, their values, and the seconds they took; saved now and then, however it ends."""
    started = since = time.perf_counter()
    values = np.full((len(mine), work.width), np.nan)
    unsaved: list[np.ndarray] = []
    processes = store.context.world_size

    def save() -> None:
        nonlocal since
        before, since = since, time.perf_counter()
        if unsaved:
            rows = np.concatenate(unsaved)
            store.save(mine[rows], values[rows], (since - before) / processes)
            unsaved.clear()

    bar = tqdm(
        total=len(mine), unit=" reviews", smoothing=0.1, file=sys.stderr, dynamic_ncols=True, mininterval=0.5,
        desc=label, bar_format=BAR, disable=not store.context.is_main,
        unit_scale=processes > 1 and processes,  # one process's bar stands for all
    )  # fmt: skip
    try:
        for local, found in work.stream(mine):
            values[local] = found
            unsaved.append(local)
            bar.update(len(local))
            if time.perf_counter() - since > SECONDS_BETWEEN_PARTS:
                save()
    finally:
        bar.close()
        save()
    return mine, values, time.perf_counter() - started
