"""The reader pane: one review in full, its true label, and what both systems predicted."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from sentiment_core import tables
from sentiment_core.chart_style import percent
from sentiment_core.dashboard.html import render
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.schema import SampleReview

OUTCOMES = {"fixed": "Fixed by fine-tuning", "broken": "Regressed"}
VERSIONS = {"original": "As originally written", "edited": "Rewritten to say the opposite"}


class Answer(NamedTuple):
    """One system's row in the pane; `actor` is "base" or "fine"."""

    actor: str
    name: str
    predicted: str
    p_positive: float | None
    """None where the answer was not scored."""
    right: bool


class Pane(NamedTuple):
    """A review's heading, true label, small print and answers; its text is given apart."""

    heading: str
    label: str
    small: str
    answers: list[Answer]


def reader_hint(sentence: str) -> Markup:
    return render("placeholder", sentence=sentence, height=200, boxed=True)


def reader_html(
    row: Any, text: str | None, base_name: str, partner: Any = None, partner_text: str | None = None
) -> Markup:
    """A review of the test set; below it the other one of its pair, the words that differ underlined.

    Args:
        row: a row of `pairs.paired`; `partner` as well, None where there is no pair.
        base_name: what the system before fine-tuning is called.
    """
    pane = _pane(row, OUTCOMES.get(row.outcome, row.outcome.capitalize()), base_name)
    if version := _version(row):
        pane = pane._replace(small=f"{pane.small} {version}.")
    if partner is None:
        return render("reader", pane=pane, text=text, partner=None)
    other = _pane(partner, _version(partner) or "The other review of this pair", base_name)
    changed = marked_changes(text, partner_text) if text and partner_text else None
    return render("reader", pane=pane, text=text, partner=other, changed=changed)


def sample_html(sample: SampleReview, base: float | None, fine: float | None) -> Markup:
    """One of our own reviews; the probabilities are the live model's, None where there is no answer."""
    answers = [
        Answer(actor, name, predicted_word(p >= 0.5), p, (p >= 0.5) == bool(sample.label))
        for actor, name, p in (("base", "Base model, live", base), ("fine", "Fine-tuned, live", fine))
        if p is not None
    ]
    small = f"{sample.kind.capitalize()}, written for this page."
    pane = Pane("Our own sample review", LABEL_WORDS[sample.label], small, answers)
    return render("reader", pane=pane, text=sample.text, partner=None)


def predicted_word(prediction: object, p_positive: float = math.nan) -> str:
    """A prediction, with its probability where it is scored: short enough for a cell."""
    if pd.isna(prediction):
        return "Unparsed"
    word = LABEL_WORDS[int(prediction)]  # type: ignore[call-overload]
    return (
        word if pd.isna(p_positive) else f"{word} {percent(p_positive if prediction else 1 - p_positive, 0)}"
    )


def _version(row: Any) -> str | None:
    return VERSIONS.get(getattr(row, "version", ""))


def _pane(row: Any, heading: str, base_name: str) -> Pane:
    answers = []
    for actor, name, system in (("base", base_name, tables.BASE), ("fine", "Fine-tuned", tables.FINE_TUNED)):
        prediction, p, right = (
            getattr(row, tables.of(column, system)) for column in ("prediction", "p_positive", "right")
        )
        stated = None if pd.isna(p) else float(p)
        answers.append(Answer(actor, name, predicted_word(prediction), stated, bool(right)))
    small = f"Review {row.review_id}, {row.tokens:,} tokens."
    if row.truncated:
        small += " Its middle was left out for the model."
    return Pane(heading, LABEL_WORDS[row.label], small, answers)


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
        if words and kind != "equal":
            out.append(Markup("<ins>{}</ins>").format(words))
            part = part[len(words) :]
        out.append(part)
    return Markup().join(out)
