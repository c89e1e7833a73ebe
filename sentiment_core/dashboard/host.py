"""The live models in memory: each run's loaded once, in the background, and the newest few kept."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sentiment_core.artifacts.schema import Which
from sentiment_core.artifacts.store import Run

if TYPE_CHECKING:
    from sentiment_core.live.classifier import LiveClassifier

log = logging.getLogger(__name__)


class ModelUnavailable(RuntimeError):
    """The live model cannot answer; the message is one sentence for the visitor."""


def version_of(run: Run | None) -> Hashable:
    """Changes when the run of that name is trained again."""
    return run and (run.run_id, run.record and run.record.created_at)


def systems_of(run: Run | None) -> tuple[Which, ...]:
    """The models of a run: the base model alone where nothing is fine-tuned."""
    tuned = run is not None and run.record is not None and run.adapter_path.is_dir()
    return ("fine-tuned", "base") if tuned else ("base",)


def load_live(run: Run | None, cuda: bool | None = None) -> LiveClassifier:
    """Load base and adapter, or find them on the engine that is set; imports torch, so it is called only in a
    loader thread."""
    from sentiment_core.live.classifier import Engine, LiveClassifier

    return LiveClassifier.load(run, cuda=cuda, engine=Engine.of_environment())


class ModelHost:
    """Loads each run's model once; two stay in memory, a large one alone. What `load` raises is told."""

    def __init__(self, load: Callable[[Run | None], LiveClassifier] = load_live) -> None:
        self._load = load
        self._slots: dict[Hashable, Future[LiveClassifier]] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._began, self._took = 0.0, 0.0
        self.not_before = 0.0  # by `time.monotonic`: what is asked to load earlier is begun then

    def start(self, run: Run | None) -> Future[LiveClassifier]:
        """Begin to load this run's model unless that was done; returns at once. A failure is tried again."""
        key = version_of(run)
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is None or (slot.done() and slot.exception()):
                slot = Future()
                threading.Thread(target=self._fill, args=(slot, run), name="load", daemon=True).start()
            idle = [k for k, other in self._slots.items() if other.done()]
            large = run is not None and run.record is not None and run.record.base_model.is_large
            for old in idle[: max(0, len(self._slots) + 1 - (1 if large else 2))]:
                del self._slots[old]
            self._slots[key] = slot  # most recently used last
            return slot

    def _fill(self, slot: Future[LiveClassifier], run: Run | None) -> None:
        time.sleep(max(0.0, self.not_before - time.monotonic()))
        try:
            with self._loading:
                self._began = time.monotonic()
                slot.set_result(self._load(run))
                self._took = time.monotonic() - self._began
        except Exception as error:
            log.exception("the live model could not be loaded")
            told = "an unexpected error; the server's log has the details."
            if isinstance(error, (OSError, ValueError, ImportError, RuntimeError, MemoryError)):
                # without the source file that an ImportError names
                words = " ".join(re.sub(r"\s*\([^()]*\.py\)", "", str(error)).split())[:300]
                told = f"{words.rstrip('.') or type(error).__name__}."
            slot.set_exception(ModelUnavailable(f"The live model could not be loaded: {told}"))

    def left(self, run: Run | None) -> float | None:
        """Seconds until this run's model is there, going by the last one's; None where that says nothing."""
        left = self._began + self._took - time.monotonic()
        return 0.0 if self.slot(run).done() else left if left > 0 else None

    def slot(self, run: Run | None) -> Future[LiveClassifier]:
        """This run's model, loaded or on its way."""
        return self._slots.get(version_of(run)) or self.start(run)

    def get(self, run: Run | None) -> LiveClassifier:
        """The loaded model; waits for it, and raises `ModelUnavailable` where it cannot be loaded."""
        return self.slot(run).result()

    def about(self, run: Run | None) -> str:
        """By which adapter and base it answers, where an engine elsewhere does; never waits."""
        slot = self.slot(run)
        return slot.result().about(systems_of(run)[0]) if slot.done() and not slot.exception() else ""
