"""The reader pane: one review in full, its true label, and what both systems predicted."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

import pandas as pd
from markupsafe import Markup

from sentiment_core.dashboard.components.html import render
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS

OUTCOMES = {"fixed": "Fixed by fine-tuning", "broken": "Regressed"}
VERSIONS = {"original": " As originally written.", "edited": " Rewritten to say the opposite."}


def reader_hint(sentence: str) -> Markup:
    return render("placeholder", sentence=sentence, height=200, boxed=True)


def reader_html(
    row: Any, text: str | None, base_name: str, partner: Any = None, partner_text: str | None = None
) -> Markup:
    """A row of `pairs.paired`; below it the other one of its pair, the words that differ underlined."""
    heading = OUTCOMES.get(row.outcome, row.outcome.capitalize())
    other = _pane(partner, "The other review of this pair", base_name) if partner else None
    changed = marked_changes(text, partner_text) if text and partner_text else None
    return render("reader", pane=_pane(row, heading, base_name), text=text, partner=other, changed=changed)


def predicted(prediction: Any, label: int, p_positive: float = math.nan) -> str:
    """A prediction with the sign of whether it is right, and P(prediction) in percent where that is given."""
    if pd.isna(prediction):
        return "✗\u00a0Unparsed"
    sure = "" if pd.isna(p_positive) else f" {percent(p_positive if prediction else 1 - p_positive, 0)}"
    return f"{'✓' if prediction == label else '✗'}\u00a0{LABEL_WORDS[int(prediction)]}{sure}"


def _pane(row: Any, heading: str, base_name: str) -> dict[str, object]:
    """What `reader.html` says of a review; of each answer the actor, name, prediction, and P or None."""
    if kind := getattr(row, "kind", ""):
        small = f"{kind.capitalize()}, written for this page."
    else:
        small = f"Review {row.review_id}, {row.tokens:,} tokens."
        small += " Its middle was left out for the model." if row.truncated else ""
        small += VERSIONS.get(getattr(row, "version", ""), "")
    answers = [
        (actor, name, predicted(prediction, row.label), None if pd.isna(p) else float(p))
        for actor, name, prediction, p in (
            ("base", base_name, row.prediction_base, row.p_positive_base),
            ("fine", "Fine-tuned", row.prediction_fine_tuned, row.p_positive_fine_tuned),
        )
    ]
    if kind and pd.isna(row.prediction_fine_tuned):
        heading, answers = "Our own sample review", []
    return {"heading": heading, "label": LABEL_WORDS[row.label], "small": small, "answers": answers}


def marked_changes(before: str, after: str) -> Markup:
    """`after` as HTML, the words that `before` has not in <ins>.

    >>> str(marked_changes("A good film.", "A bad <b> film."))
    'A <ins>bad &lt;b&gt;</ins> film.'
    """
    old, new = before.split(), re.findall(r"\S+\s*", after)
    found = difflib.SequenceMatcher(None, old, [word.strip() for word in new], autojunk=False)
    out: list[str] = []
    for kind, _, _, start, end in found.get_opcodes():
        part = "".join(new[start:end])
        words = part.rstrip()
        changed = words and kind != "equal"
        out += [Markup("<ins>{}</ins>").format(words), part[len(words) :]] if changed else [part]
    return Markup().join(out)
