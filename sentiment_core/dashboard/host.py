"""The live model: loaded in the background, one per run, never at import."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from sentiment_core.artifacts import Run

log = logging.getLogger(__name__)

Which = Literal["base", "fine-tuned"]


class Classifier(Protocol):
    """What the page needs of `sentiment_core.live.LiveClassifier`."""

    run_id: str
    form: str
    explain_method: str

    def classify(self, text: str, system: Which) -> Any: ...

    def read(self, text: str, system: Which) -> Iterator[Any]: ...

    def classify_many(
        self, texts: Sequence[str], system: Which, on_progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray: ...

    def explain(self, text: str) -> Iterator[Any]: ...


class ModelUnavailable(RuntimeError):
    """The live model cannot answer; the message is one sentence for the visitor."""


def load_live(run: Run | None) -> Classifier:
    """Load base and adapter; imports torch, so it is called only in a loader thread."""
    from sentiment_core.live import LiveClassifier

    return LiveClassifier.load(run)


def _for_visitors(error: Exception) -> str:
    """The error as one sentence, without the source file that an ImportError names."""
    words = " ".join(re.sub(r"\s*\([^()]*\.py\)", "", str(error)).split())[:300]
    return f"{words.rstrip('.')}." if words else f"{type(error).__name__}."


@dataclass
class _Slot:
    ready: threading.Event = field(default_factory=threading.Event)
    model: Classifier | None = None
    error: str | None = None
    seconds: float = 0.0


class ModelHost:
    """Loads each run's model once; at most `keep` of them stay in memory.

    Args:
        load: run -> classifier; raises OSError, ValueError or ImportError with one clear sentence.
    """

    def __init__(self, load: Callable[[Run | None], Classifier] = load_live, *, keep: int = 2) -> None:
        self._load = load
        self._keep = keep
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._not_before = 0.0

    def hold(self, seconds: float) -> None:
        """Begin no loading for so long; what is asked to load meanwhile is begun then."""
        self._not_before = time.monotonic() + seconds

    def start(self, run: Run | None) -> None:
        """Begin to load this run's model unless that was done; returns at once. A failure is tried again."""
        key = run.run_id if run else ""
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is not None and (slot.error is None or not slot.ready.is_set()):
                self._slots[key] = slot  # most recently used last
                return
            for old in [k for k, s in self._slots.items() if s.ready.is_set()][
                : max(0, len(self._slots) - self._keep + 1)
            ]:
                del self._slots[old]
            slot = self._slots[key] = _Slot()
        threading.Thread(target=self._fill, args=(slot, run), name=f"load-{key}", daemon=True).start()

    def _fill(self, slot: _Slot, run: Run | None) -> None:
        time.sleep(max(0.0, self._not_before - time.monotonic()))
        began = time.perf_counter()
        try:
            with self._loading:
                slot.model = self._load(run)
        except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
            log.exception("the live model could not be loaded")
            slot.error = _for_visitors(error)
        except Exception:
            log.exception("the live model could not be loaded")
            slot.error = "an unexpected error; the server's log has the details."
        finally:
            slot.seconds = time.perf_counter() - began
            slot.ready.set()

    def state(self, run: Run | None) -> tuple[Literal["loading", "ready", "failed"], str]:
        """The state and a sentence for the page."""
        slot = self._slots.get(run.run_id if run else "")
        if slot is None or not slot.ready.is_set():
            return "loading", "Loading the live model… The other tabs are ready now."
        if slot.model is None:
            return (
                "failed",
                f"The live model could not be loaded: {slot.error} The other tabs work without it.",
            )
        return "ready", f"Live model ready ({slot.model.form}, loaded in {slot.seconds:.0f} s)."

    def get(self, run: Run | None, *, timeout: float = 60.0) -> Classifier:
        """The loaded model; waits for it.

        Raises:
            ModelUnavailable: it failed, or is still loading after `timeout` seconds.
        """
        key = run.run_id if run else ""
        if key not in self._slots:
            self.start(run)
        slot = self._slots[key]
        if not slot.ready.wait(timeout):
            raise ModelUnavailable("The live model is still loading; try again in a moment.")
        if slot.model is None:
            raise ModelUnavailable(f"The live model could not be loaded: {slot.error}")
        return slot.model
