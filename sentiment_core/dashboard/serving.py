"""The live model as the page uses it: loaded in the background, waited for in one place, answers as events.

On a ZeroGPU Space a GPU exists only inside a function marked with `spaces.GPU`, which runs in another
process: arguments and results must be plain, and the model is waited for outside.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import gradio as gr
from markupsafe import Markup

from sentiment_core.artifacts.store import Run
from sentiment_core.config import UserError
from sentiment_core.dashboard.inputs import InputRefused, clean_text

if TYPE_CHECKING:
    from sentiment_core.live.classifier import LiveAnswer, LiveClassifier
    from sentiment_core.live.trace import ReadingTrace

try:
    import spaces  # pyrefly: ignore[missing-import] only on Spaces
except ImportError:
    spaces = None

log = logging.getLogger(__name__)

CHUNK = 24
"""Reviews between two events of a batch; in between, it can be stopped."""

LONGEST_QUEUES = {"answers": 24, "batches": 6, "dials": 12}
"""Visitors that wait for each kind of work; whoever comes then is told politely to try again."""

MODEL_EVENT: dict[str, Any] = {"concurrency_limit": None}
"""For Gradio's events that use the model: they wait in our queues, which refuse politely, not in Gradio's."""

LOOK_AGAIN = 1.0
"""Seconds after which a visitor is told again how many come first."""

TOO_MANY = "Many visitors are asking at this moment. Please try again in a minute; the other tabs are open."
BROKE = "Something went wrong while reading; the server's log has the details. Please try another review."

Which = Literal["base", "fine-tuned"]


class ModelUnavailable(RuntimeError):
    """The live model cannot answer; the message is one sentence for the visitor."""


class Waiting(NamedTuple):
    ahead: int  # visitors that come first
    loading: float | None = 0.0  # seconds until the model is there, None where nobody knows


class Answer(NamedTuple):
    system: Which
    answer: LiveAnswer  # its `read` is less than 1 while only the beginning has been read


class Trace(NamedTuple):
    text: str  # the review as it was read, which the rows' ends refer to
    found: dict[Which, ReadingTrace]  # how each model's answer came, as far as known


class Dial(NamedTuple):
    found: tuple[float, ...]  # P(positive) for each α of `DIAL`, as far as known


class Scores(NamedTuple):
    found: dict[Which, list[float]]  # P(positive) of a batch by each model, as far as it has come
    system: Which  # the one at work
    share: float  # of the whole work, in [0, 1]


class Refused(NamedTuple):
    sentence: str  # why nothing more comes


Event = Waiting | Answer | Trace | Dial | Scores | Refused
Work = Callable[[Run | None, Any], Iterator[Event]]
Loading: TypeAlias = "Future[LiveClassifier]"


class WaitQueue:
    """First come, first served, one at a time; `longest` may stand in it, the one being served among them."""

    def __init__(self, longest: int) -> None:
        self.longest, self._tickets = longest, list[object]()
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def join(self) -> Iterator[Callable[[float | None], int]]:
        """A place in the queue, `ModelUnavailable` where it is full; what it gives says how many come first,
        after at most so many seconds."""
        ticket = object()

        def ahead(seconds: float | None = None) -> int:
            with self._moved:
                self._moved.wait_for(lambda: self._tickets[0] is ticket, seconds)
                return self._tickets.index(ticket)

        with self._moved:
            if len(self) >= self.longest:
                raise ModelUnavailable(TOO_MANY)
            self._tickets.append(ticket)
        try:
            yield ahead
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._moved.notify_all()


@dataclass
class Latest:
    """A visitor's newest question: what still works on an older one stops, and shows nothing more."""

    question: object = None


def load_live(run: Run | None) -> LiveClassifier:
    """Load base and adapter; imports torch, so it is called only in a loader thread."""
    from sentiment_core.live.classifier import LiveClassifier

    return LiveClassifier.load(run)


class ModelHost:
    """Loads each run's model once; at most `keep` of them stay in memory. What `load` raises is told."""

    def __init__(self, load: Callable[[Run | None], LiveClassifier] = load_live, *, keep: int = 2) -> None:
        self._load, self._keep = load, keep
        self._slots: dict[str | None, Loading] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._began, self._took = 0.0, 0.0
        self.not_before = 0.0  # by `time.monotonic`: what is asked to load earlier is begun then

    def start(self, run: Run | None) -> Loading:
        """Begin to load this run's model unless that was done; returns at once. A failure is tried again."""
        key = run.run_id if run else None
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is None or (slot.done() and slot.exception()):
                slot = Future()
                threading.Thread(target=self._fill, args=(slot, run), name=f"load-{key}", daemon=True).start()
            idle = [k for k, other in self._slots.items() if other.done()]
            for old in idle[: max(0, len(self._slots) + 1 - self._keep)]:
                del self._slots[old]
            self._slots[key] = slot  # most recently used last
            return slot

    def _fill(self, slot: Loading, run: Run | None) -> None:
        time.sleep(max(0.0, self.not_before - time.monotonic()))
        try:
            with self._loading:
                self._began = time.monotonic()
                model = self._load(run)
                self._took = time.monotonic() - self._began
            slot.set_result(model)
        except Exception as error:
            log.exception("the live model could not be loaded")
            slot.set_exception(ModelUnavailable(f"The live model could not be loaded: {_reason(error)}"))

    def left(self, run: Run | None) -> float | None:
        """Seconds until this run's model is there, going by the last one's; None where that says nothing."""
        left = self._began + self._took - time.monotonic()
        return 0.0 if self.slot(run).done() else left if left > 0 else None

    def slot(self, run: Run | None) -> Loading:
        """This run's model, loaded or on its way."""
        return self._slots.get(run.run_id if run else None) or self.start(run)

    def get(self, run: Run | None) -> LiveClassifier:
        """The loaded model; waits for it, and raises `ModelUnavailable` where it cannot be loaded."""
        return self.slot(run).result()


def _reason(error: Exception) -> str:
    """The error as one sentence for visitors, without the source file that an ImportError names."""
    if not isinstance(error, (OSError, ValueError, ImportError, RuntimeError, MemoryError)):
        return "an unexpected error; the server's log has the details."
    words = " ".join(re.sub(r"\s*\([^()]*\.py\)", "", str(error)).split())[:300]
    return f"{words.rstrip('.') or type(error).__name__}."


def gpu(function: Work, seconds: int) -> Work:
    """Mark a generator that needs a ZeroGPU Space's GPU, for `seconds` at most; what the Space refuses (none
    free, a visitor's daily share used up) becomes a `ModelUnavailable`. No change elsewhere."""
    if spaces is None:
        return function
    marked = spaces.GPU(function, duration=seconds)

    def told(run: Run | None, given: Any) -> Iterator[Event]:
        try:
            yield from marked(run, given)
        except gr.Error as error:
            raise ModelUnavailable(Markup(error.message).striptags()) from error

    return told


def systems_of(run: Run | None) -> tuple[Which, ...]:
    """The models of a run: the base model alone where nothing is fine-tuned."""
    tuned = run is not None and run.record is not None and run.adapter_path.is_dir()
    return ("fine-tuned", "base") if tuned else ("base",)


class Serving:
    """What the page asks of the live model, each as a stream of events that ends with the last or `Refused`.

    Answers, dials and batches queue apart; where cores are shared, the model lets answers go first.
    """

    def __init__(self, host: ModelHost) -> None:
        self.host = host
        self.queues = {kind: WaitQueue(longest) for kind, longest in LONGEST_QUEUES.items()}

        def answers(run: Run | None, text: str) -> Iterator[Event]:
            model, found = host.get(run), {}
            reading: dict[Which, Iterator[Any]] = {s: model.read(text, s) for s in systems_of(run)}
            for system, steps in reading.items():
                for answer in steps:
                    yield Answer(system, answer)
                    if answer.read == 1:
                        break
            for system, steps in reading.items():
                found[system] = next(steps)
                yield Trace(text, dict(found))

        def scores(run: Run | None, texts: list[str]) -> Iterator[Event]:
            model = host.get(run)
            found: dict[Which, list[float]] = {system: [] for system in systems_of(run)}
            for system, start in product(found, range(0, len(texts), CHUNK)):
                found[system] += model.classify_many(texts[start : start + CHUNK], system).tolist()
                yield Scores(found, system, sum(map(len, found.values())) / (len(texts) * len(found)))

        def points(run: Run | None, text: str) -> Iterator[Event]:
            found: tuple[float, ...] = ()
            try:
                for p in host.get(run).dial(text):
                    found += (p,)
                    yield Dial(found)
            except UserError as error:  # the review is too long for it
                yield Refused(str(error))

        self._answers, self._scores, self._points = gpu(answers, 20), gpu(scores, 60), gpu(points, 20)

    def ask(self, run: Run | None, review: str) -> Iterator[Event]:
        """The fine-tuned `Answer`, of a long review first of its beginning; the base's; then each `Trace`."""
        return self._events("answers", self._answers, run, review)

    def dial(self, run: Run | None, review: str) -> Iterator[Event]:
        """`Dial`, one point more each time. Of runs with a fine-tuned model only."""
        return self._events("dials", self._points, run, review)

    def scores(self, run: Run | None, texts: list[str]) -> Iterator[Event]:
        """`Scores` of all texts, which `clean_text` has seen, by one model and then by the other."""
        return self._events("batches" if len(texts) > 1 else "answers", self._scores, run, texts)

    def probabilities(self, run: Run | None, texts: list[str]) -> dict[Which, list[float]]:
        """P(positive) by each model; raises `ModelUnavailable` as well where too many wait for it already."""
        *_, last = self.scores(run, texts)
        if isinstance(last, Refused):
            raise ModelUnavailable(last.sentence)
        return last.found  # pyrefly: ignore[missing-attribute] the last of them are Scores

    def _events(self, kind: str, work: Work, run: Run | None, given: str | list[str]) -> Iterator[Event]:
        """Waits for a turn in the queue and for the model; then come the work's own events."""
        try:
            given = given if isinstance(given, list) else clean_text(given)
            with self.queues[kind].join() as ahead:
                loading, count = self.host.slot(run), ahead(0)
                while count or not loading.done():
                    yield Waiting(count, self.host.left(run))
                    if count:
                        count = ahead(LOOK_AGAIN)
                    else:
                        wait([loading], LOOK_AGAIN)
                yield Waiting(0)
                self.host.get(run)
                yield from work(run, given)
        except (InputRefused, ModelUnavailable) as error:
            yield Refused(str(error))
        except Exception:
            log.exception("the live model failed")
            yield Refused(BROKE)
