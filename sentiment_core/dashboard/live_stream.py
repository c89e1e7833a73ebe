"""One review's way through the live model as what the page shows, step by step; refusals as one sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from sentiment_core.artifacts import Run
from sentiment_core.dashboard import answers
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.host import ModelUnavailable
from sentiment_core.dashboard.inputs import InputRefused, clean_text
from sentiment_core.dashboard.parts import notice

log = logging.getLogger(__name__)

READING = "Reading…"
NOT_TUNED = "No fine-tuned model yet: python train.py makes one."
BROKE = (
    "Something went wrong while reading this review; the server's log has the details. Please try another."
)
LOOKING = "Looking for the words that moved the answer…"
NO_WORDS = "The words could not be found; the server's log has the details."

Shown = tuple[str, str, str]
"""Cards, verdict, and what stands where the tinted words will be."""


def stream_answers(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """The fine-tuned answer first, then the base model's."""
    try:
        review = clean_text(review)
    except InputRefused as error:
        yield answers.idle_cards(), notice(str(error), warn=True), ""
        return
    yield answers.idle_cards(READING), "", ""
    base = fine = None
    try:
        for what, value in context.calls.answers(run, review):
            if what == "waiting":
                visitors = "one visitor comes" if value == 1 else f"{value} visitors come"
                yield answers.idle_cards(f"Waiting: {visitors} before you."), "", ""
            elif what == "fine":
                fine = value
                yield (
                    answers.cards(answers.card("base", None, READING), answers.answer_card("fine", fine)),
                    "",
                    "",
                )
            else:
                base = value
                yield _both(base, fine)
    except ModelUnavailable as error:
        yield answers.idle_cards("No answer."), notice(str(error), warn=True), ""
    except Exception:
        log.exception("live answer failed")
        yield answers.idle_cards("No answer."), notice(BROKE, warn=True), ""


def _both(base: Any, fine: Any) -> Shown:
    """Both cards and the verdict; without a fine-tuned model one card."""
    left = answers.answer_card("base", base)
    if fine is None:
        return answers.cards(left, answers.card("fine", None, NOT_TUNED)), "", ""
    shown = answers.cards(left, answers.answer_card("fine", fine))
    return shown, answers.verdict(base, fine), notice(LOOKING)


def stream_words(context: Context, run: Run | None, review: str) -> Iterator[str]:
    """The tinted review, more words each time. What our own sample reviews get is kept."""
    key = (run.run_id if run else "", review)
    if key in context.explained:
        yield context.explained[key]
        return
    yield notice(LOOKING)
    shown = ""
    try:
        text = clean_text(review)
        for found in context.calls.words(run, text):
            if found is not None:
                shown = answers.tinted(text, found.words, context.calls.method(run), found.planned)
                yield shown
    except (InputRefused, ModelUnavailable) as error:
        yield notice(str(error), warn=True)
        return
    except Exception:
        log.exception("explaining failed")
        yield notice(NO_WORDS, warn=True)
        return
    if not shown:
        shown = answers.tinted(text, [], context.calls.method(run))
        yield shown
    if any(review == sample.text for sample in context.store.samples_or_none()):
        context.explained[key] = shown
