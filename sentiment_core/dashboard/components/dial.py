"""How much fine-tuning? P(positive) by weights of base + α · adapter, as a small curve that a slider reads.

Both ends are known from the answers; the points between come when the visitor asks for them:

    figure = dial_figure("dial")
    figure.turn(partial(stream, context), [run, figure], figure, **QUIET, **MODEL_EVENT)
    yield value_of(text, p_base, p_tuned)                # with the answers; `NOTHING` hides the figure
    yield value_of(text, p_base, p_tuned, answer.dial)   # stored: complete at once
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import gradio as gr

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Dial, Refused, Waiting
from sentiment_core.labels import LABEL_WORDS

NOTHING: dict[str, Any] = {"curve": []}

SHARES = (0.0, *DIAL, 1.0)
BEND = 0.05
"""How far the curve must leave the range of its ends to be called a fall or a rise."""

TEMPLATE = (
    '<div class="q dial"><h3></h3><svg viewBox="0 0 360 152" aria-hidden="true"></svg>'
    '<label>How much fine-tuning<input type="range" min="0" max="100" step="20" value="100"></label>'
    '<output></output><button type="button">Compute the points between</button>'
    '<p class="small muted" role="status"></p></div>'
)

CAPTION = (
    "P(positive) by weights of base + α · adapter: 0 % is the base model (square), 100 % the fine-tuned one "
    "(circle). Every point is computed; the line only joins them."
)


def dial_figure(elem_id: str) -> gr.HTML:
    """An empty place for a dial; its value is what `value_of` gives. Its event `turn` asks for the points."""
    return gr.HTML(
        NOTHING, html_template=TEMPLATE, js_on_load="figs.dial(element, props, watch, () => trigger('turn'))",
        apply_default_css=False, elem_id=elem_id,
    )  # fmt: skip


def value_of(text: str, base: float, tuned: float, between: Sequence[float] = ()) -> dict[str, Any]:
    """The curve of P(positive) over `SHARES`, null where it is not known yet, and its finding."""
    curve = [base, *between, *[None] * (len(DIAL) - len(between)), tuned]
    known = len(between) == len(DIAL)
    title = finding([base, *between, tuned]) if known else "How much fine-tuning does it take?"
    note = CAPTION if known else "Four more answers of this review." if not between else "Computing…"
    return {"text": text, "curve": curve, "title": title, "note": note, "busy": bool(between)}


def stream(context: Context, run_id: str | None, value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The points of the figure's own text, one after the other; answers of other visitors go first."""
    text, (base, *_, tuned) = value["text"], value["curve"]
    for event in context.serving.dial(context.store.run(run_id), text):
        match event:
            case Waiting(ahead):
                yield value | {"busy": True, "note": "Waiting for other visitors…" if ahead else "Computing…"}
            case Dial(found):
                yield value_of(text, base, tuned, found)
            case Refused(sentence):
                yield value | {"busy": False, "note": sentence}


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
    low, high = min(curve), max(curve)
    if low < min(curve[0], curve[-1]) - BEND:
        return f"It stays {word}, and falls to {100 * low:.0f} % on the way"
    if high > max(curve[0], curve[-1]) + BEND:
        return f"It stays {word}, and rises to {100 * high:.0f} % on the way"
    return f"It stays {word} all the way"
