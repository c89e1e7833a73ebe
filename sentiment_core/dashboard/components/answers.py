"""What the live model said, as the values that the page's script draws: answers, trace and dial."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from itertools import pairwise, zip_longest
from math import ceil
from typing import Any

from sentiment_core.artifacts.schema import DIAL, ReadingTrace, SampleAnswer, Which
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.parts import seconds
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Answer, Dial, Refused, Trace, Waiting
from sentiment_core.labels import LABEL_WORDS

IDLE = "Type a review, or pick one of ours."
READING = "Reading…"
LOADING = "The model is loading; the answer comes by itself."
NOT_TUNED = "No fine-tuned model yet: python train.py makes one."
ACTORS: dict[Which, str] = {"base": "base", "fine-tuned": "fine"}  # in the page's values and styles
NO_TRACE: dict[str, Any] = {"rows": []}


def word_of(p_positive: float) -> str:
    return LABEL_WORDS[int(p_positive >= 0.5)]


async def stream(
    context: Context, run: Run | None, review: str, visitor: object = None
) -> AsyncGenerator[dict[str, Any]]:
    """The fine-tuned answer first, then the base model's, then how both came.

    Each value says which text and run it belongs to: {text, run, note, warn, base, fine, trace, dial}. `base`
    and `fine` are {p, read, cut, detail, about}, there once known; a card without its answer holds the note.
    """
    shown: dict[str, Any] = {"text": review, "run": run.run_id if run else None, "trace": NO_TRACE}
    async with aclosing(context.serving.ask(run, review, visitor)) as events:
        async for event in events:
            match event:
                case Waiting():
                    shown |= {"note": waiting_note(event)}
                case Refused(sentence):
                    shown |= {"note": "No answer.", "warn": sentence}
                case Answer(system, one):
                    detail = f"{seconds(one.seconds)}, {one.tokens:,} tokens"
                    value = {"p": one.p_positive, "read": one.read, "cut": one.truncated, "detail": detail}
                    value |= {"about": one.about} if one.about else {}
                    shown |= {"note": NOT_TUNED if system == "base" else READING, ACTORS[system]: value}
                case Trace(text, found):
                    shown |= {"trace": trace_value(text, found)}
                    if len(found) == 2:
                        shown |= {"dial": dial_value(text, shown["base"]["p"], shown["fine"]["p"])}
            yield dict(shown)


def waiting_note(event: Waiting) -> str:
    """What stands in the cards until the answer comes.

    >>> waiting_note(Waiting(0, 38.2)), waiting_note(Waiting(0))
    ('Your turn in about 40\u202fs: the model is loading.', 'Reading…')
    >>> waiting_note(Waiting(3, 0.0, 6.2))
    '3 visitors come before you: about 6.2\u202fs.'
    """
    if event.ahead:
        visitors = "One visitor comes" if event.ahead == 1 else f"{event.ahead} visitors come"
        return f"{visitors} before you{f': about {seconds(event.seconds)}' if event.seconds else ''}."
    if event.loading:
        return f"Your turn in about {seconds(5 * ceil(event.loading / 5))}: the model is loading."
    return LOADING if event.loading is None else READING


def stored_value(text: str, stored: SampleAnswer) -> dict[str, Any]:
    """A stored answer in the same form: {base, fine, trace, dial}."""
    p = {ACTORS[system]: one.p_positive[-1] for system, one in stored.traces.items()}
    turned = {"dial": dial_value(text, p["base"], p["fine"], stored.dial)} if len(p) == 2 else {}
    return {actor: {"p": p[actor]} for actor in p} | {"trace": trace_value(text, stored.traces)} | turned


def trace_value(text: str, found: Mapping[Which, ReadingTrace]) -> dict[str, Any]:
    """Rows of {text, base, fine}, one a clause; null for a model whose trace is still to come."""
    clauses = [text[start:end] for start, end in pairwise((0, *next(iter(found.values())).ends))]
    base, tuned = (found[s].p_positive if s in found else () for s in ("base", "fine-tuned"))
    rows = zip_longest(clauses, base, tuned)
    return {"rows": [{"text": clause.strip(), "base": p, "fine": q} for clause, p, q in rows]}


def dial_value(text: str, base: float, tuned: float, between: Sequence[float] = ()) -> dict[str, Any]:
    """P(positive) by weights of base + α · adapter: known from the answers at 0 % and 100 %; for each
    α of `DIAL` stored, or null until the visitor has asked for it."""
    missing = len(DIAL) - len(between)
    curve = [base, *between, *[None] * missing, tuned]
    return {"text": text, "curve": curve, "busy": bool(between) and missing > 0}


async def turn(context: Context, run_id: str | None, value: dict[str, Any]) -> AsyncIterator[dict]:
    """A dial's points between, one after the other; answers of other visitors go first."""
    async for event in context.serving.dial(context.store.run(run_id), value["text"]):
        if isinstance(event, Dial):
            yield dial_value(value["text"], value["curve"][0], value["curve"][-1], event.found)
        elif isinstance(event, Refused):
            yield value | {"busy": False, "note": event.sentence}
        else:
            waiting = getattr(event, "ahead", 0)
            yield value | {"busy": True, "note": "Waiting for other visitors…" if waiting else None}
