"""How much fine-tuning? P(positive) by weights of base + α · adapter, as a small curve that a slider reads.

Both ends are known from the answers; the points between are stored, or come when the visitor asks for them.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.serving import Dial, Refused


def value_of(text: str, base: float, tuned: float, between: Sequence[float] = ()) -> dict[str, Any]:
    """P(positive) at 0 %, for each α of `DIAL` (null where it is not known yet) and at 100 %."""
    missing = len(DIAL) - len(between)
    curve = [base, *between, *[None] * missing, tuned]
    return {"text": text, "curve": curve, "busy": bool(between) and missing > 0}


async def stream(context: Context, run_id: str | None, value: dict[str, Any]) -> AsyncIterator[dict]:
    """The points of the figure's own text, one after the other; answers of other visitors go first."""
    async for event in context.serving.dial(context.store.run(run_id), value["text"]):
        if isinstance(event, Dial):
            yield value_of(value["text"], value["curve"][0], value["curve"][-1], event.found)
        elif isinstance(event, Refused):
            yield value | {"busy": False, "note": event.sentence}
        else:
            waiting = getattr(event, "ahead", 0)
            yield value | {"busy": True, "note": "Waiting for other visitors…" if waiting else None}
