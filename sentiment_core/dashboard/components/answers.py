"""What the live model said: two cards, where they disagree, and how the answers came while reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components import trace
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import notice
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Answer, Refused, Trace, Waiting, Which
from sentiment_core.labels import LABEL_WORDS

IDLE = "Type a review, or pick a sample."
READING = "Reading…"
NOT_TUNED = "No fine-tuned model yet: python train.py makes one."

Shown = tuple[object, object, object]
"""HTML of the cards and the verdict, and the value of the trace; `gr.skip()` where nothing changes."""


def word_of(p_positive: float) -> str:
    return LABEL_WORDS[int(p_positive >= 0.5)]


def stream(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """The fine-tuned answer first, then the base model's, then how both came."""
    seen: dict[Which, Any] = {}
    for event in context.serving.ask(run, review):
        match event:
            case Waiting(ahead):
                visitors = "one visitor comes" if ahead == 1 else f"{ahead} visitors come"
                note = f"Waiting: {visitors} before you." if ahead else READING
                yield cards(note), "", trace.NOTHING
            case Refused(sentence):
                yield cards("No answer."), notice(sentence, warn=True), trace.NOTHING
            case Answer(system, answer):
                seen[system] = answer
                if len(seen) == 2:
                    base, fine = word_of(seen["base"].p_positive), word_of(seen["fine-tuned"].p_positive)
                    cut = any(one.truncated for one in seen.values())
                    yield cards("", seen), render("verdict", base=base, fine=fine, cut=cut), gr.skip()
                else:
                    yield cards(NOT_TUNED if system == "base" else READING, seen), "", gr.skip()
            case Trace(text, found):
                yield gr.skip(), gr.skip(), trace.value_of(text, found)


def stream_trace(context: Context, run: Run | None, review: str) -> Iterator[object]:
    """The trace alone."""
    for *_, value in stream(context, run, review):
        yield value


def cards(note: str = IDLE, answers: Mapping[Which, Any] | None = None) -> str:
    """Both models' cards; without its answer a card holds the note."""
    return render("answers", answers=answers or {}, note=note, word_of=word_of)
