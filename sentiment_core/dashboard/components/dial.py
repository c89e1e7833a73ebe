"""How much fine-tuning? P(positive) by weights of base + α · adapter, as a small curve that a slider reads.

Both ends are known from the answers; the points between are stored, or come when the visitor asks for them.
"""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import gradio as gr

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.dashboard.components.parts import own_figure
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Dial, Refused
from sentiment_core.labels import LABEL_WORDS

SHARES = (0.0, *DIAL, 1.0)
BEND = 0.05  # how far the curve must leave the range of its ends to be called a fall or a rise

COMPUTING = "Computing…"
CAPTION = (
    "P(positive) by weights of base + α · adapter: 0 % is the base model (square), 100 % the fine-tuned one "
    "(circle). Every point is computed; the line only joins them."
)


def dial_figure(elem_id: str) -> gr.HTML:
    """An empty place for a dial, with values of `value_of`; its event `turn` asks for the points between."""
    return own_figure("dial", elem_id, "element, props, watch, trigger /* 'turn' */", value={"curve": []})


def value_of(text: str, base: float, tuned: float, between: Sequence[float] = ()) -> dict[str, Any]:
    """The curve of P(positive) over `SHARES`, null where it is not known yet, and its finding."""
    missing, curve = len(DIAL) - len(between), [base, *between, tuned]
    shown: dict[str, Any] = {"text": text, "curve": [base, *between, *[None] * missing, tuned]}
    if not missing:
        return shown | {"title": finding(curve), "note": CAPTION, "busy": False}
    note = COMPUTING if between else "Four more answers of this review."
    return shown | {"title": "How much fine-tuning does it take?", "note": note, "busy": bool(between)}


async def stream(context: Context, run_id: str | None, value: dict[str, Any]) -> AsyncIterator[dict]:
    """The points of the figure's own text, one after the other; answers of other visitors go first."""
    async for event in context.serving.dial(context.store.run(run_id), value["text"]):
        if isinstance(event, Dial):
            yield value_of(value["text"], value["curve"][0], value["curve"][-1], event.found)
        elif isinstance(event, Refused):
            yield value | {"busy": False, "note": event.sentence}
        else:
            waiting = getattr(event, "ahead", 0)
            yield value | {"busy": True, "note": "Waiting for other visitors…" if waiting else COMPUTING}


def finding(curve: Sequence[float]) -> str:
    """Where on the way the answer turns, or how it bends.

    >>> finding([0.78, 0.42, 0.22, 0.15, 0.09, 0.01])
    'The answer turns to Negative at about 16 % of the fine-tuning'
    >>> finding([0.82, 0.66, 0.7, 0.84, 0.96, 0.98])
    'It stays Positive, and falls to 66 % on the way'
    """
    steps = zip(pairwise(SHARES), pairwise(curve), strict=True)
    turns = [a + (b - a) * (0.5 - p) / (q - p) for (a, b), (p, q) in steps if (p >= 0.5) != (q >= 0.5)]
    word = LABEL_WORDS[int(curve[-1] >= 0.5)]
    if len(turns) == 1:
        return f"The answer turns to {word} at about {100 * turns[0]:.0f} % of the fine-tuning"
    if turns:
        return f"The answer turns {len(turns)} times on the way to {word}"
    low, high, (first, *_, last) = min(curve), max(curve), curve
    fall, rise = min(first, last) - low, high - max(first, last)
    if max(fall, rise) <= BEND:
        return f"It stays {word} all the way"
    way = f"falls to {100 * low:.0f}" if fall > BEND else f"rises to {100 * high:.0f}"
    return f"It stays {word}, and {way} % on the way"
