"""One queue and one worker: answers go before traces, traces before batches, and nobody waits in vain."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sentiment_core.dashboard import app, serving
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.host import ModelHost
from sentiment_core.dashboard.serving import (
    KINDS,
    TOO_MANY,
    Answer,
    Dial,
    Rank,
    Refused,
    Scores,
    Trace,
    Waiting,
    Worker,
)
from tests import waiting
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, write_assets, write_run
from tests.fake_live import FakeClassifier


class Gate(FakeClassifier):
    """Does a piece each time that a test lets it, and notes what it does."""

    allowed = threading.Semaphore(0)
    pieces: ClassVar[list[tuple[str, str]]] = []
    """(what, text)."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.allowed, self.pieces = Gate.allowed, Gate.pieces  # of its test, which a worker may outlive

    def _piece(self, what: str, text: str) -> None:
        assert self.allowed.acquire(timeout=20)
        self.pieces.append((what, text))

    def read(self, text: str, system: str) -> Iterator[Any]:
        for step in super().read(text, system):
            self._piece("trace" if hasattr(step, "ends") else "answer", text)
            yield step

    def dial(self, text: str) -> Iterator[float]:
        for p in super().dial(text):
            self._piece("dial", text)
            yield p

    def batches(self, texts: Any, system: str) -> Iterator[Any]:
        for place, part in enumerate(super().batches(texts, system)):
            self._piece(f"batch {place}", texts[0])
            yield part


@pytest.fixture
def context(tmp_path: Path) -> Context:
    Gate.allowed, Gate.pieces = threading.Semaphore(0), []
    found = context_of(write_assets(tmp_path, n=60, pairs=10), Gate)
    found.serving.host.get(found.store.run(RUN))  # nobody waits for the model
    return found


def visit(context: Context, visitors: Coroutine[Any, Any, Any]) -> Any:
    try:
        return waiting.run(asyncio.wait_for(visitors, 30))
    finally:
        Gate.allowed.release(1000)  # whatever still holds the worker


async def listen(events: Any) -> list[Any]:
    return [event async for event in events if not isinstance(event, Waiting)]


async def began(context: Context, kind: str, number: int) -> None:
    """Until so many wait there, each with a place in the worker's order."""
    while len(context.serving.places[kind]) < number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


def test_answers_go_before_traces_and_traces_before_batches(context: Context) -> None:
    run, serve = context.store.run(RUN), context.serving

    async def visitors() -> None:
        batch = asyncio.create_task(listen(serve.scores(run, ["fine"] * 60)))
        await began(context, "batches", 1)  # its first piece is under way
        dial = asyncio.create_task(listen(serve.dial(run, "dialled")))
        await began(context, "dials", 1)
        asked = []
        for text in ("first", "second"):
            asked.append(asyncio.create_task(listen(serve.ask(run, text))))
            await began(context, "answers", len(asked))
        Gate.allowed.release(100)
        told = await asyncio.gather(batch, dial, *asked)
        assert [type(part[-1]) for part in told] == [Scores, Dial, Trace, Trace]
        assert told[0][-1].share == 1
        assert len(told[0][-1].found["fine-tuned"]) == 60

    visit(context, visitors())
    answers = [("answer", text) for text in ("first", "first", "second", "second")]
    between = [("dial", "dialled")] * 4 + [("trace", "first")] * 2 + [("trace", "second")] * 2
    rest = [(f"batch {n}", "fine") for n in (1, 2, 0, 1, 2)]
    assert Gate.pieces == [("batch 0", "fine"), *answers, *between, *rest]


def test_many_open_reviews_get_their_traces_before_more_are_answered(context: Context) -> None:
    """What was computed of them lies in memory until then."""
    run = context.store.run(RUN)

    async def visitors() -> None:
        asked = []
        for number in range(serving.MOST_OPEN + 2):
            asked.append(asyncio.create_task(listen(context.serving.ask(run, f"text {number}"))))
            await began(context, "answers", len(asked))
        Gate.allowed.release(100)
        await asyncio.gather(*asked)

    visit(context, visitors())
    kinds = [what for what, _ in Gate.pieces]
    assert kinds.index("trace") == 2 * serving.MOST_OPEN
    assert kinds.count("answer") == kinds.count("trace") == 2 * (serving.MOST_OPEN + 2)


def test_beyond_the_places_and_the_time_one_is_refused(context: Context, monkeypatch) -> None:
    monkeypatch.setitem(KINDS, "answers", serving.Kind(Rank.ANSWER, 2, 0.3))
    monkeypatch.setattr(serving, "LOOK_AGAIN", 0.05)
    run = context.store.run(RUN)

    async def visitors() -> None:
        first = asyncio.create_task(listen(context.serving.ask(run, "first")))
        await began(context, "answers", 1)
        second = context.serving.ask(run, "second")
        assert await anext(second) == Waiting(1)
        assert await listen(context.serving.ask(run, "third")) == [Refused(TOO_MANY)]
        assert (await listen(second))[-1] == Refused(TOO_MANY), "the first one's work holds it up"
        Gate.allowed.release(100)
        assert isinstance((await first)[-1], Trace)
        assert not context.serving.places["answers"]
        assert isinstance((await listen(context.serving.ask(run, "fourth")))[-1], Trace)

    visit(context, visitors())
    assert "second" not in {text for _, text in Gate.pieces}


def test_a_visitors_newer_question_needs_no_second_place(context: Context, monkeypatch) -> None:
    monkeypatch.setitem(KINDS, "answers", serving.Kind(Rank.ANSWER, 1, 60))
    run, visitor = context.store.run(RUN), object()

    async def visitors() -> None:
        older = asyncio.create_task(listen(context.serving.ask(run, "older", visitor)))
        await began(context, "answers", 1)
        newer = asyncio.create_task(listen(context.serving.ask(run, "newer", visitor)))
        assert await listen(context.serving.ask(run, "somebody else's", object())) == [Refused(TOO_MANY)]
        Gate.allowed.release(100)
        assert [type(told[-1]) for told in await asyncio.gather(older, newer)] == [Trace, Trace]
        assert not context.serving.places["answers"]

    visit(context, visitors())


def test_who_leaves_is_not_worked_for(context: Context) -> None:
    run = context.store.run(RUN)

    async def visitors() -> None:
        batch = context.serving.scores(run, ["fine"] * 60)
        await anext(batch)
        Gate.allowed.release(1)
        await anext(batch)
        await batch.aclose()
        await asyncio.sleep(0)
        assert not context.serving.places["batches"]
        Gate.allowed.release(100)
        await listen(context.serving.ask(run, "next"))

    visit(context, visitors())
    assert sum(what.startswith("batch") for what, _ in Gate.pieces) <= 2


def test_a_text_that_was_asked_before_is_answered_from_memory(context: Context) -> None:
    run, other = context.store.run(RUN), context.store.run(None)
    Gate.allowed.release(100)
    first = waiting.all_of(context.serving.ask(run, "A great film, but long."))
    done = len(Gate.pieces)
    again = waiting.all_of(context.serving.ask(run, "A great film, but long."))
    assert again == [event for event in first if not isinstance(event, Waiting)]
    assert len(Gate.pieces) == done
    assert other == run
    waiting.all_of(context.serving.ask(None, "A great film, but long."))
    assert len(Gate.pieces) > done, "answers belong to their run"


def test_on_a_gpu_waiting_texts_are_answered_in_one_batch(tmp_path: Path) -> None:
    together: list[list[str]] = []
    hold = threading.Event()

    class OnGpu(FakeClassifier):
        on_gpu = True

        def classify_together(self, texts, system):
            together.append(list(texts))
            return super().classify_together(texts, system)

        def dial(self, text):
            hold.wait(20)
            return super().dial(text)

    context = context_of(write_assets(tmp_path, n=60, pairs=10), OnGpu)
    run = context.store.run(RUN)
    context.serving.host.get(run)

    async def visitors() -> list[list[Any]]:
        holding = asyncio.create_task(listen(context.serving.dial(run, "held")))
        await began(context, "dials", 1)
        asked = []
        for text in ("great", "dreadful", "flat"):
            asked.append(asyncio.create_task(listen(context.serving.ask(run, text))))
            await began(context, "answers", len(asked))
        hold.set()
        await holding
        return list(await asyncio.gather(*asked))

    told = waiting.run(visitors())
    assert together == [["great", "dreadful", "flat"]] * 2
    for text, events in zip(("great", "dreadful", "flat"), told, strict=True):
        answers = [event.answer.p_positive for event in events if isinstance(event, Answer)]
        expected = [FakeClassifier(run)._p(text, system) for system in ("fine-tuned", "base")]
        assert answers == expected, text
        assert isinstance(events[-1], Trace)


def test_an_error_ends_its_own_visitor_alone(tmp_path: Path) -> None:
    class Fails(FakeClassifier):
        def read(self, text, system):
            if "broken" in text:
                raise ZeroDivisionError
            return super().read(text, system)

    context = context_of(write_assets(tmp_path, n=60, pairs=10), Fails)
    run = context.store.run(RUN)
    assert waiting.all_of(context.serving.ask(run, "broken"))[-1] == Refused(serving.BROKE)
    assert isinstance(waiting.all_of(context.serving.ask(run, "whole"))[-1], Trace)


def test_the_queue_is_told_before_one_asks(context: Context) -> None:
    run = context.store.run(RUN)
    assert context.serving.queue() == {"waiting": 0, "seconds": 0, "full": ""}

    async def visitors() -> None:
        asked = [asyncio.create_task(listen(context.serving.ask(run, f"text {n}"))) for n in range(3)]
        await began(context, "answers", 3)
        context.serving.worker.seconds = 2.0
        assert context.serving.queue() == {"waiting": 3, "seconds": 6.0, "full": ""}
        waits = context.serving.ask(run, "the fourth")
        assert await anext(waits) == Waiting(3, 0.0, 6.0)
        Gate.allowed.release(100)
        await asyncio.gather(*asked)

    visit(context, visitors())


def test_a_worker_outlives_visitors_whose_loop_is_closed() -> None:
    worker, go = Worker(), threading.Event()

    async def leaves() -> None:
        worker.submit(serving.Job(Rank.ANSWER, (Dial((float(go.wait(20)),)) for _ in range(1))))

    async def stays() -> list[Any]:
        job = serving.Job(Rank.ANSWER, iter([Dial((0.5,))]))
        worker.submit(job)
        return [event async for event in job.events()]

    waiting.run(leaves())
    go.set()
    assert waiting.run(stays()) == [Dial((0.5,))]


def test_a_tab_is_drawn_once_until_an_artifact_changes(context: Context) -> None:
    """However many open the page at once; a stranger's choice is drawn for itself."""
    drawn: list[tuple[str, ...]] = []

    def render(*inputs: str) -> list[str]:
        drawn.append(inputs)
        return [f"{inputs} of {len(context.store.listing().runs)} runs"]

    draw = context.drawn_once("tab", render)
    runs = len(context.store.listing().runs)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, ["a"] * 40)) == [[f"('a',) of {runs} runs"]] * 40
    assert drawn == [("a",)]
    assert draw("b") == [f"('b',) of {runs} runs"]
    write_run(context.store.root, "newer")
    assert draw("a") == [f"('a',) of {runs + 1} runs"]
    assert drawn == [("a",), ("b",), ("a",)]


def test_choosing_a_run_asks_for_its_model_also_when_its_tabs_come_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(ModelHost, "start", lambda self, run: begun.append(run.run_id))
    page = app.build(write_assets(tmp_path, n=60, pairs=10), FakeClassifier.load, texts={})
    [run] = [block for block in page.blocks.values() if block.elem_id == "run"]
    calls = [call for call in page.fns.values() if (run._id, "input") in call.targets and call.fn]
    alone = [call.fn for call in calls if call.inputs == [run]]
    for _ in range(2):
        for fn in alone:
            fn(RUN)
    assert begun == [RUN] * 2


class Pair(FakeClassifier):
    """Answers while two are at it."""

    at_once, both = 2, threading.Barrier(2)

    def classify(self, text: str, system: str) -> Any:
        self.both.wait(10)
        return super().classify(text, system)


def test_a_model_that_answers_two_at_once_is_asked_by_two(tmp_path: Path) -> None:
    found = context_of(write_assets(tmp_path, n=60, pairs=10), Pair)
    run = found.store.run(RUN)

    async def visitors() -> list[Any]:
        return await asyncio.gather(
            *(listen(found.serving.ask(run, text)) for text in ("one film", "another"))
        )

    for events in waiting.run(asyncio.wait_for(visitors(), 30)):
        assert [type(event) for event in events] == [Answer, Answer, Trace, Trace]


@pytest.mark.parametrize("given", [["A film."], 7, {"text": "A film."}, None])
def test_what_is_no_text_is_refused(context: Context, given: Any) -> None:
    run, serve = context.store.run(RUN), context.serving
    for asked in (serve.ask(run, given), serve.dial(run, given)):
        assert waiting.all_of(asked) == [Refused("Please send the review as text.")]
    assert context.store.run(given) == context.store.run(None)
    assert Gate.pieces == []
