"""Every use of the live model goes through here, so that one place knows about waiting and about ZeroGPU.

On a ZeroGPU Space a GPU exists only inside a function marked with `spaces.GPU`, which runs in another
process: arguments and results must be plain, and the model is waited for outside. Elsewhere the mark does
nothing.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from sentiment_core.artifacts import Run
from sentiment_core.dashboard.host import ModelHost, ModelUnavailable, Which
from sentiment_core.dashboard.line import Line
from sentiment_core.dashboard.store import Store

try:
    import spaces
except ImportError:
    spaces = None

F = TypeVar("F", bound=Callable[..., Iterator[Any]])

CHUNK = 24
"""Reviews between two steps of the progress bar; in between, a batch can be stopped."""

LONGEST_LINES = {"answers": 24, "words": 12, "batches": 6}
"""Visitors that wait for each kind of work; whoever comes then is told politely to try again."""

MODEL_EVENT: dict[str, Any] = {"concurrency_limit": None}
"""For Gradio's events that use the model: they wait in our lines, which refuse politely, not in Gradio's."""

LOOK_AGAIN = 1.0
"""Seconds between two looks at the line, for the visitor who is told how many come first."""


def gpu(function: F, seconds: int) -> F:
    """Mark a generator that needs the GPU of a ZeroGPU Space; changes nothing elsewhere.

    A visitor needs as much left of a day's share as a call may take: `seconds`, at most. What the Space
    refuses (no GPU free, a visitor's share used up) becomes a `ModelUnavailable`.
    """
    if spaces is None:
        return function
    marked = spaces.GPU(function, duration=seconds)

    @functools.wraps(function)
    def told(*arguments: Any) -> Iterator[Any]:
        try:
            yield from marked(*arguments)
        except gr.Error as error:
            raise ModelUnavailable(_plain(error.message)) from error

    return told


def _plain(message: object) -> str:
    """A message without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", str(message))).split())


def is_tuned(run: Run | None) -> bool:
    return run is not None and run.record is not None and run.adapter_path.is_dir()


class LiveCalls:
    """What the page asks of the live model.

    All methods raise `ModelUnavailable` when it cannot answer, or when too many wait for it already.
    Answers, words and batches have a line each; where cores are shared, the model itself lets answers go
    first.
    """

    def __init__(self, store: Store, host: ModelHost) -> None:
        self.store, self.host = store, host
        self.lines = {name: Line(longest) for name, longest in LONGEST_LINES.items()}

        def model(run_id: str | None) -> Any:
            return host.get(store.run(run_id))

        def stream(run_id: str | None, text: str, tuned: bool) -> Iterator[tuple[str, Any]]:
            classifier = model(run_id)
            if tuned:
                for answer in classifier.read(text, "fine-tuned"):
                    yield "fine", answer
            yield "base", classifier.classify(text, "base")

        def many(
            run_id: str | None, texts: list[str], systems: list[Which]
        ) -> Iterator[tuple[Which, list[float]]]:
            classifier = model(run_id)
            for system in systems:
                for start in range(0, len(texts), CHUNK):
                    part = classifier.classify_many(texts[start : start + CHUNK], system)
                    yield system, [float(p) for p in part]

        def words(run_id: str | None, text: str) -> Iterator[Any]:
            yield from model(run_id).explain(text)

        self._stream, self._many, self._words = gpu(stream, 20), gpu(many, 60), gpu(words, 30)

    def method(self, run: Run | None) -> str:
        """How the words are weighed, in words."""
        return self.host.get(run).explain_method

    def answers(self, run: Run | None, text: str) -> Iterator[tuple[str, Any]]:
        """("waiting", how many come first) while there are any, ("fine", LiveAnswer), ("base", LiveAnswer).

        Of a long review "fine" comes twice, first after its beginning (`read` less than 1). Without a
        fine-tuned model no "fine".
        """
        with self.lines["answers"].place() as place:
            while ahead := place.ahead(LOOK_AGAIN):
                yield "waiting", ahead
            self.host.get(run)
            yield from self._stream(run.run_id if run else None, text, is_tuned(run))

    def words(self, run: Run | None, text: str) -> Iterator[Any]:
        """What `explain` tells, a few words more each time; None while others come first."""
        with self.lines["words"].place() as place:
            while place.ahead(LOOK_AGAIN):
                yield None
            self.host.get(run)
            yield from self._words(run.run_id if run else None, text)

    def probabilities(
        self, run: Run | None, texts: list[str], on_progress: Callable[[float, str], None] | None = None
    ) -> dict[Which, list[float]]:
        """P(positive) by both models (the base model alone where nothing is fine-tuned).

        Args:
            on_progress: called with the share done in [0, 1] and what is being done.
        """
        systems: list[Which] = ["fine-tuned", "base"] if is_tuned(run) else ["base"]
        found: dict[Which, list[float]] = {system: [] for system in systems}
        with self.lines["batches" if len(texts) > 1 else "answers"].place() as place:
            while ahead := place.ahead(LOOK_AGAIN):
                if on_progress is not None:
                    on_progress(0.0, f"waiting, {ahead} before you")
            self.host.get(run)
            for system, part in self._many(run.run_id if run else None, texts, systems):
                found[system] += part
                if on_progress is not None:
                    done = sum(map(len, found.values())) / (len(texts) * len(systems))
                    on_progress(done, f"{system}: {len(found[system]):,} of {len(texts):,}")
        return found
