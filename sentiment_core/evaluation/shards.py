"""Scoring in parts that survive an interruption, in one process or in several.

A part is a `.npz` of row numbers and raw values (log-probabilities or answer tokens) under the work folder,
in a folder named by a hash of everything that decides the values. The same call scores the rest after
an interruption; another model, adapter, prompt, dataset or setting has another hash and starts anew.
"""

import shutil
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
from accelerate.utils import gather_object
from tqdm import tqdm

from sentiment_core.engines.device import DeviceContext
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Work
from sentiment_core.models.base_models import writing
from sentiment_core.models.tokens import read_arrays, write_arrays

SECONDS_BETWEEN_PARTS = 5.0  # at most so much work is lost when a process is killed


class PartStore:
    """Scored rows on disk: in `<work>/<identity>/` an .npz of each part's rows, values and seconds."""

    def __init__(self, work: Path, identity: str, context: DeviceContext) -> None:
        """Makes the folder; what belongs to other settings goes."""
        self.folder, self.context = work / identity, context
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for other in {*work.iterdir()} - {self.folder}:
            shutil.rmtree(other, ignore_errors=True)

    def save(self, rows: np.ndarray, values: np.ndarray, seconds: float) -> None:
        path = self.folder / f"{uuid4().hex}.npz"
        with writing(path):
            write_arrays(path, rows=rows, values=values, seconds=np.float64(seconds))

    def load(self) -> list[dict[str, np.ndarray]]:
        """Every readable part on any of the hosts; one that was damaged is passed over."""
        found = sorted(self.folder.glob("*.npz"))
        parts = {path.name: read_arrays(path, "rows", "values", "seconds") for path in found}
        if self.context.world_size > 1:  # each host has its own; those of a shared folder count once
            parts = {name: part for host in gather_object([parts]) for name, part in host.items()}
        return [part for part in parts.values() if part]


def score(system: EvaluatedSystem, work: Work, store: PartStore) -> tuple[np.ndarray, float, float] | None:
    """All reviews' values: those of earlier calls, then this process's share of the rest.

    Returns (draws · n, width) raw values, the seconds that scoring took (interrupted calls included; of
    several processes, the slowest one's), and those of the warm-up; None on every process but the first."""
    context, lengths = store.context, np.tile(system.inputs.encoded.lengths, work.draws)
    values = np.full((len(lengths), work.width), np.nan)
    done = np.zeros(len(lengths), dtype=bool)
    before = 0.0
    for part in store.load():
        values[part["rows"]], done[part["rows"]] = part["values"], True
        before += float(part["seconds"])
    todo = np.flatnonzero(~done)
    if 0 < len(todo) < len(lengths):
        system.inputs.say(f"Resuming: {len(lengths) - len(todo):,} of {len(lengths):,} already scored")
    todo = todo[np.argsort(-lengths[todo], kind="stable")]
    mine = todo[context.rank :: context.world_size]
    started = time.perf_counter()
    if context.device.type == "cuda" and len(mine):  # compile and allocate, before the clock starts
        next(work.stream(mine), None)
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
        total=len(mine), unit=" reviews", mininterval=0.5, desc=label, disable=not store.context.is_main,
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
