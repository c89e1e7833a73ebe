"""The live model as the page uses it: one queue, which is awaited, and few threads that do the work.

Work is an iterator of events, one for each piece of some tenths of a second. Between two pieces whoever goes
first goes on: answers, then traces and dials, then batches; so nobody waits for another one's whole work.

On a ZeroGPU Space a GPU exists only inside a function marked with `spaces.GPU`, which runs in another
process: arguments and results must be plain. Only batches go there: opening the page costs a visitor nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from markupsafe import Markup

from sentiment_core.artifacts.schema import ReadingTrace
from sentiment_core.artifacts.store import Run
from sentiment_core.config import UserError
from sentiment_core.dashboard.host import ModelHost, ModelUnavailable, Which, systems_of, version_of
from sentiment_core.dashboard.inputs import MAX_CHARACTERS, InputRefused, clean_text

if TYPE_CHECKING:
    from sentiment_core.live.classifier import LiveAnswer, LiveClassifier

log = logging.getLogger(__name__)
spaces: Any = import_module("spaces") if find_spec("spaces") else None  # on Spaces alone


class Rank(IntEnum):
    ANSWER, TRACE, BATCH = range(3)  # who goes first


class Kind(NamedTuple):
    """A kind of work: how many may wait for it, and for how many seconds until it begins; whoever comes then
    is told politely to try again."""

    rank: Rank
    places: int
    longest: float


KINDS = {
    "answers": Kind(Rank.ANSWER, 24, 60),
    "dials": Kind(Rank.TRACE, 12, 60),
    "batches": Kind(Rank.BATCH, 6, 600),
}

MOST_OPEN = 4  # reviews that wait for their traces, with what was computed of them in memory: traces go first
MOST_KNOWN = 300  # texts whose answers are kept in memory, to be given again at once
TOGETHER = 60  # texts of a batch that both models answer before the next: what a Stop waits for, and keeps
MODEL_EVENT: dict[str, Any] = {"concurrency_limit": None}  # waits in our queue, which refuses politely
LOOK_AGAIN = 5.0  # seconds after which a visitor is told again how many come first
TOO_MANY = "Many visitors are asking at this moment. Please try again in a minute; the other tabs are open."
BROKE = "Something went wrong while reading; the server's log has the details. Please try another text."


class Waiting(NamedTuple):
    ahead: int  # visitors that come first
    loading: float | None = 0.0  # seconds until the model is there, None where nobody knows
    seconds: float = 0.0  # until it is this visitor's turn, about; 0 where nobody knows


class Answer(NamedTuple):
    system: Which
    answer: LiveAnswer  # its `read` is less than 1 while only the beginning has been read


class Trace(NamedTuple):
    text: str  # the review as it was read, which the rows' ends refer to
    found: dict[Which, ReadingTrace]  # how each model's answer came, as far as known


class Dial(NamedTuple):
    found: tuple[float, ...]  # P(positive) for each α of `DIAL`, as far as known


class Scores(NamedTuple):
    found: dict[Which, list[float]]  # P(positive) of each text by each model, 0 where it is still to come
    share: float  # of the whole work, in [0, 1]
    answered: int  # texts, from the first on, that every model has answered


class Refused(NamedTuple):
    sentence: str  # why nothing more comes


Event = Waiting | Answer | Trace | Dial | Scores | Refused
Work = Callable[[Run | None, Any], Iterator[Event | None]]  # None: what comes now may wait for answers

# ---- the queue

END = object()


@dataclass(eq=False)
class Job:
    """Work that somebody waits for; made where it is awaited."""

    rank: Rank
    steps: Iterator[Any]
    run: Run | None = None
    given: str | list[str] = ""
    since: float = field(default_factory=time.monotonic)
    begun: bool = False
    busy: bool = False  # a thread is at it
    seconds: float = 0.0  # of the model's time, so far
    _came: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def __lt__(self, other: Job) -> bool:
        return (self.rank, self.since) < (other.rank, other.since)

    def step(self) -> bool:
        """Do the next piece, in the visitor's context, and tell what comes of it; whether there is more."""
        self.begun, began = True, time.perf_counter()
        try:
            came = self._context.run(next, self.steps, END)
        except Exception as error:
            came = error
        self.seconds += time.perf_counter() - began
        if came is None:
            self.rank = Rank.TRACE
            return True
        with suppress(RuntimeError):  # nobody waits any more: their loop is closed
            self._loop.call_soon_threadsafe(self._came.put_nowait, came)
        return came is not END and not isinstance(came, Exception)

    async def events(self) -> AsyncGenerator[Event | None]:
        """Events as they come, None after each while without one."""
        while True:
            came = None
            with suppress(TimeoutError):
                came = await asyncio.wait_for(self._came.get(), LOOK_AGAIN)
            if came is END:
                return
            if isinstance(came, Exception):
                raise came
            yield came


class Worker:
    """What does everybody's pieces: the lowest rank first, and of those who came first. One thread, or as
    many as the model answers at once."""

    def __init__(self) -> None:
        self.seconds = 0.0  # until a place among the answers is free again, lately
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._threads = 0

    def submit(self, job: Job, at_once: int = 1) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
            while self._threads < at_once:
                self._threads += 1
                threading.Thread(target=self._work, name=f"model-{self._threads}", daemon=True).start()

    def drop(self, job: Job) -> None:
        """Nothing more of it is done."""
        with self._changed, suppress(ValueError):
            self._jobs.remove(job)

    def turn_of(self, job: Job) -> Waiting:
        with self._changed:
            ahead = sum(one < job for one in self._jobs)
        return Waiting(ahead, 0.0, ahead * self.seconds)

    def waiting(self, run: Run | None) -> list[str]:
        """The reviews that wait for this run's answers."""
        with self._changed:
            fresh = [job for job in self._jobs if not job.begun and job.rank == Rank.ANSWER]
            return [job.given for job in fresh if job.run == run and isinstance(job.given, str)]

    def told(self, job: Job) -> None:
        """Its place is free again."""
        self.seconds += (0.2 if self.seconds else 1) * (job.seconds / self._threads - self.seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._changed.wait_for(self._first)
                job.busy = True
            more = job.step()
            with self._changed:
                job.busy = False
                if not more:
                    self.drop(job)
                self._changed.notify()

    def _first(self) -> Any:
        """The job that goes on; None while a thread is at each."""
        idle = [job for job in self._jobs if not job.busy]
        held = [job for job in self._jobs if job.begun and job.rank == Rank.TRACE]
        traces = [job for job in held if not job.busy and len(held) >= MOST_OPEN]
        return min(traces or idle, default=None)


class Latest:
    """A visitor's newest question: what still works on an older one stops, and shows nothing more."""

    question: object = None


class Serving:
    """What the page asks of the live model, each as a stream of events that ends with the last or `Refused`.
    batch_host: where the models for batches are, if elsewhere than the others: on a ZeroGPU Space."""

    def __init__(self, host: ModelHost, batch_host: ModelHost | None = None) -> None:
        self.host, self.worker = host, Worker()
        self.batch_host, self.batch_worker = batch_host or host, Worker() if batch_host else self.worker
        # of each kind of work the visitors that wait for it, or are being answered
        self.places: dict[str, Counter[object]] = {name: Counter() for name in KINDS}
        self._known: dict[Any, list[Event]] = {}
        self._together: dict[Any, LiveAnswer] = {}  # answered with others, not yet told
        self._score_many = spaces.GPU(self._score, duration=60) if batch_host and spaces else self._score

    # ---- what it is asked

    def ask(self, run: Run | None, review: str, visitor: object = None) -> AsyncGenerator[Event]:
        """The fine-tuned `Answer`, of a long review first of its beginning; the base's; then each `Trace`.
        visitor: whose newer question takes the place of an older one."""
        return self._events("answers", self._answers, run, review, visitor)

    def dial(self, run: Run | None, review: str) -> AsyncGenerator[Event]:
        """`Dial`, one point more each time. Of runs with a fine-tuned model only."""
        return self._events("dials", self._points, run, review)

    def scores(self, run: Run | None, texts: list[str]) -> AsyncGenerator[Event]:
        """`Scores` of all texts, which `clean_text` has seen, some hundreds at a time by each model."""
        if len(texts) == 1:
            return self._events("answers", self._score, run, texts)
        return self._events("batches", self._score_many, run, texts)

    async def warm_up(self, run: Run | None) -> None:
        """Behind all that visitors ask for."""
        job = Job(Rank.BATCH, self.host.get(run).warm_up())
        self.worker.submit(job)
        async for _ in job.events():
            pass

    def queue(self) -> dict[str, Any]:
        """How many wait for answers, how many seconds one would who asks now, and why nobody else may."""
        waiting = len(self.places["answers"])
        full = TOO_MANY if waiting >= KINDS["answers"].places else ""
        return {"waiting": waiting, "seconds": round(waiting * self.worker.seconds, 1), "full": full}

    # ---- the work, in pieces

    def _answers(self, run: Run | None, text: str) -> Iterator[Event | None]:
        model, found = self.host.get(run), {}
        if model.on_gpu:
            self._answer_together(model, run, text)
        reading: dict[Which, Iterator[Any]] = {system: model.read(text, system) for system in systems_of(run)}
        for system, steps in reading.items():
            ready = self._together.pop((version_of(run), text, system), None)
            for answer in [ready] if ready else steps:
                yield Answer(system, answer)
                if answer.read == 1:
                    break
        yield None
        for system, steps in reading.items():
            *_, found[system] = steps
            yield Trace(text, dict(found))

    def _answer_together(self, model: LiveClassifier, run: Run | None, text: str) -> None:
        """One batch of all texts that wait, as a GPU computes many in the time of one."""
        texts, version = [text, *self.worker.waiting(run)], version_of(run)
        if len(texts) > 1 and (version, text, "base") not in self._together:
            self._together = {
                (version, text, system): answer
                for system in systems_of(run)
                for text, answer in zip(texts, model.classify_together(texts, system), strict=True)
            }

    def _points(self, run: Run | None, text: str) -> Iterator[Event]:
        yield from map(Dial, accumulate((p,) for p in self.host.get(run).dial(text)))

    def _score(self, run: Run | None, texts: list[str]) -> Iterator[Event]:
        model = (self.host if len(texts) == 1 else self.batch_host).get(run)
        found: dict[Which, list[float]] = {system: [0.0] * len(texts) for system in systems_of(run)}
        done, whole = 0, len(texts) * len(found)
        for start in range(0, len(texts), TOGETHER):
            for system in found:
                for places, p_positive in model.batches(texts[start : start + TOGETHER], system):
                    for place, p in zip(places.tolist(), p_positive.tolist(), strict=True):
                        found[system][start + place] = p
                    done += len(places)
                    yield Scores(found, done / whole, len(texts) if done == whole else start)

    # ---- waiting

    async def _events(
        self, name: str, work: Work, run: Run | None, given: Any, visitor: object = None
    ) -> AsyncGenerator[Event]:
        """Waits for a place, for the model and for a turn; then come the work's own events."""
        batches, kind, places, told = name == "batches", KINDS[name], self.places[name], list[Event]()
        host, worker = (self.batch_host, self.batch_worker) if batches else (self.host, self.worker)
        visitor = visitor or object()
        try:
            given = given if work in (self._score, self._score_many) else clean_text(given)
            key = name, version_of(run), str(given)
            if key in self._known:
                for event in self._known[key]:
                    yield event
                return
            if visitor not in places and len(places) >= kind.places:
                raise ModelUnavailable(TOO_MANY)
            job = Job(kind.rank, work(run, given), run, given)
            places[visitor] += 1
            try:
                while not (loading := host.slot(run)).done():
                    yield Waiting(0, host.left(run))
                    with suppress(Exception):  # `get` tells what went wrong
                        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(loading)), LOOK_AGAIN)
                began = time.monotonic()
                worker.submit(job, host.get(run).at_once)
                yield worker.turn_of(job)
                async for event in job.events():
                    if event:
                        told.append(event)
                    elif not job.begun and time.monotonic() - began > kind.longest:
                        raise ModelUnavailable(TOO_MANY)
                    # the last one again: whoever does not wait for it any more can stop
                    yield event or (told[-1] if told else worker.turn_of(job))
            finally:  # who leaves is dropped at once
                worker.drop(job)
                places[visitor] -= 1
                places += Counter()  # without those who have gone
            if name == "answers":
                worker.told(job)
            if len(str(given)) <= MAX_CHARACTERS:
                self._known[key] = told
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        except (InputRefused, ModelUnavailable, UserError) as error:
            yield Refused(str(error))
        except gr.Error as error:  # of a ZeroGPU Space: none is free, or a visitor's daily share is used up
            yield Refused(Markup(error.message).striptags())
        except Exception:
            log.exception("the live model failed")
            yield Refused(BROKE)
