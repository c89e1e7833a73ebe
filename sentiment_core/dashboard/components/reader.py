"""The reader pane: one review in full, its true label, and what both systems predicted."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from sentiment_core.dashboard.components.html import render
from sentiment_core.labels import LABEL_WORDS

VERSIONS = {"original": " As originally written.", "edited": " Rewritten to say the opposite."}


def reader_html(row: Any, partner: Any | None, texts: Mapping[str, str], names: tuple[str, str]) -> Markup:
    """A row of `pairs.paired`; below it the other one of its pair, the words that differ underlined."""
    heading, text = row.outcome.capitalize(), texts.get(row.review_id)
    panes = [_pane(row, heading, names) | {"text": text, "name": "The review"}]
    if partner:
        other = texts.get(partner.review_id)
        changed = marked_changes(text, other) if text and other else None
        named = {"text": changed, "name": "The other review of the pair"}
        panes.append(_pane(partner, "The other review of this pair", names) | named)
    return render("reader", panes=panes)


def _pane(row: Any, heading: str, names: tuple[str, str]) -> dict[str, object]:
    """What `reader.html` says of a review; of each answer the actor, name, prediction, and P or NaN."""
    if kind := getattr(row, "kind", getattr(row, "phenomenon", "")):
        small = f"{kind.capitalize()}, written for this page."
    else:
        small = f"Review {row.review_id}, {row.tokens:,} tokens."
        small += " Its middle was left out for the model." if row.truncated else ""
        small += VERSIONS.get(getattr(row, "version", ""), "")
    answers = [
        ("base", names[0], _predicted(row.prediction_base, row.label), row.p_positive_base),
        ("fine", names[1], _predicted(row.prediction_fine_tuned, row.label), row.p_positive_fine_tuned),
    ]
    if kind and pd.isna(row.prediction_fine_tuned):
        heading, answers = "Our own sample review", []
    return {"heading": heading, "label": LABEL_WORDS[row.label], "small": small, "answers": answers}


def _predicted(prediction: Any, label: int) -> str:
    """With the sign of whether it is right."""
    if pd.isna(prediction):
        return "✗\u00a0Unparsed"
    return f"{'✓' if prediction == label else '✗'}\u00a0{LABEL_WORDS[int(prediction)]}"


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
