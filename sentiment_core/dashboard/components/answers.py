"""What the live model said, as HTML: two cards, where they disagree, and the words that moved it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import notice
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Answer, Refused, Waiting, Which, Words
from sentiment_core.labels import LABEL_WORDS

IDLE = "Type a review, or pick a sample."
READING = "Reading…"
LOOKING = "Looking for the words that moved the answer…"
NOT_TUNED = "No fine-tuned model yet: python train.py makes one."

STRONG = 0.1
"""Words that move the log-odds by less, the odds by less than a tenth, are left plain."""
MAX_WORDS = 40
"""Only the words that moved most are tinted, so that the eye finds them."""
MAX_TABLE_WORDS = 15

Shown = tuple[object, object, object]
"""HTML of the cards, the verdict and the tinted words; `gr.skip()` where nothing changes."""


def word_of(p_positive: float) -> str:
    return LABEL_WORDS[int(p_positive >= 0.5)]


def stream(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """Both answers, then the words that moved the fine-tuned one."""
    shown: Shown = ("", "", "")
    for shown in stream_answers(context, run, review):
        yield shown
    if shown[2]:
        for words in stream_words(context, run, review):
            yield gr.skip(), gr.skip(), words


def stream_answers(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """The fine-tuned answer first, then the base model's."""
    seen: dict[Which, Any] = {}
    for event in context.serving.ask(run, review):
        match event:
            case Waiting(ahead):
                visitors = "one visitor comes" if ahead == 1 else f"{ahead} visitors come"
                yield cards(f"Waiting: {visitors} before you." if ahead else READING), "", ""
            case Refused(sentence):
                yield cards("No answer."), notice(sentence, warn=True), ""
            case Answer(system, answer):
                seen[system] = answer
                if len(seen) == 2:
                    base, fine = word_of(seen["base"].p_positive), word_of(seen["fine-tuned"].p_positive)
                    cut = any(one.truncated for one in seen.values())
                    verdict = render("verdict", base=base, fine=fine, cut=cut)
                    yield cards("", seen), verdict, notice(LOOKING)
                else:
                    yield cards(NOT_TUNED if system == "base" else READING, seen), "", ""


def stream_words(context: Context, run: Run | None, review: str) -> Iterator[str]:
    """The tinted review, more words each time. What our own sample reviews get is kept."""
    key = (run.run_id if run else "", review)
    if kept := context.explained.get(key):
        yield kept
        return
    event, shown = None, ""
    for event in context.serving.words(run, review):
        match event:
            case Waiting():
                shown = notice(LOOKING)
            case Refused(sentence):
                shown = notice(sentence, warn=True)
            case Words(text, words, planned, method):
                shown = tinted(text, words, method, planned)
        yield shown
    if isinstance(event, Words) and any(review == sample.text for sample in context.store.samples()):
        context.explained[key] = shown


def cards(note: str = IDLE, answers: Mapping[Which, Any] | None = None) -> str:
    """Both models' cards; without its answer a card holds the note."""
    return render("answers", answers=answers or {}, note=note, word_of=word_of)


def tinted(text: str, weights: Sequence[Any], method: str, planned: int = 0) -> str:
    """The review once more, with the words that moved the fine-tuned answer, and one sentence about them.

    Args:
        planned: how many words will be tried; more than there are weights while that goes on.
    """
    moved = sorted((w for w in weights if abs(w.weight) >= STRONG), key=lambda w: -abs(w.weight))[:MAX_WORDS]
    pieces, end = [], 0
    for w in sorted(moved, key=lambda w: w.start):
        if w.start >= end:
            pieces += [(text[end : w.start], 0.0), (text[w.start : w.end], w.weight)]
            end = w.end
    table = [(text[w.start : w.end], w.weight) for w in moved]
    return render(
        "words", finding=_finding(table), pieces=[*pieces, (text[end:], 0.0)], odds=odds,
        strongest=abs(moved[0].weight) if moved else 1.0, table=table[:MAX_TABLE_WORDS],
        tried=len(weights), planned=planned, method=method.rstrip("."),
    )  # fmt: skip


def odds(weight: float) -> str:
    """A weight in log-odds as what it does to the odds of Positive: 1.34 -> "odds × 3.8".

    >>> odds(-0.7) == "odds ÷\u00a02.0"
    True
    """
    return f"odds {'×' if weight > 0 else '÷'}\u00a0{math.exp(min(abs(weight), 20)):,.1f}"


def _finding(moved: Sequence[tuple[str, float]]) -> str:
    """The strongest word of each direction, in a sentence; `moved` begins with the strongest."""
    if not moved:
        return "No single word moved the odds of the fine-tuned answer by a tenth"
    best: dict[str, str] = {}
    for word, weight in moved:
        verb = "up" if weight > 0 else "down"
        best.setdefault(verb, f"“{' '.join(word.split())[:40]}” pulled it {verb} most ({odds(weight)})")
    return f"What moved the fine-tuned answer: {'; '.join(best.values())}"
