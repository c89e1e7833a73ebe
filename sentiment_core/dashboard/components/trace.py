"""The reading trace as a figure: one clause a row, both models' marks beside it, the finding as its title."""

from collections.abc import Mapping
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from sentiment_core.artifacts.schema import StoredTrace
from sentiment_core.dashboard.host import Which
from sentiment_core.live.clauses import MOVE, finding

if TYPE_CHECKING:
    from sentiment_core.live.trace import ReadingTrace

NOTHING: dict[str, Any] = {"rows": []}
READING = "Reading once more, clause by clause…"

CAPTION = (
    "P(positive) if the review ended there: squares are the base model, circles the fine-tuned. Steps of "
    f"{100 * MOVE:.0f} points or more are tinted: solid line towards positive, dashed line towards negative. "
    "Nothing is approximated; the last row is the answer."
)


def value_of(text: str, found: Mapping[Which, "ReadingTrace | StoredTrace"]) -> dict[str, Any]:
    """Rows of {text, base, fine}; the marks of a model whose trace is still to come are null."""
    clauses = [text[start:end] for start, end in pairwise((0, *next(iter(found.values())).ends))]
    base, tuned = (found[s].p_positive if s in found else () for s in ("base", "fine-tuned"))
    rows = [{"text": c.strip(), "base": p, "fine": q} for c, p, q in zip_longest(clauses, base, tuned)]
    title = finding(clauses, tuned, base) if base else READING
    return {"rows": rows, "title": title, "caption": CAPTION, "move": MOVE}
