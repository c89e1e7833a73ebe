"""The reader pane: one review in full, its label, and what both systems said."""

from __future__ import annotations

import difflib
import re
from html import escape
from typing import Any

import pandas as pd

from sentiment_core.chart_style import percent
from sentiment_core.dashboard.answers import word_of
from sentiment_core.dashboard.parts import q
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.schema import SampleReview


def reader_hint(sentence: str) -> str:
    return q(f'<div class="reader muted" style="min-height:200px">{escape(sentence)}</div>')


def answer_words(prediction: object, p_positive: float) -> str:
    """An answer and its stated probability, short enough for a cell."""
    if pd.isna(prediction):
        return "no answer"
    word = LABEL_WORDS[int(prediction)]  # type: ignore[call-overload]
    return (
        word if pd.isna(p_positive) else f"{word} {percent(p_positive if prediction else 1 - p_positive, 0)}"
    )


def _table(rows: list[tuple[str, str, str, str, str]]) -> str:
    """Rows of (actor, name, answer, probability, right or wrong)."""
    body = "".join(
        f'<tr><th scope="row"><span class="{actor}">{escape(name)}</span></th><td>{answer}</td><td '
        f'class="n">{p}</td>'
        f"<td>{fate}</td></tr>"
        for actor, name, answer, p, fate in rows
    )
    return (
        "<table><thead><tr><th scope='col'>system</th><th scope='col'>answer</th><th scope='col' "
        "class='n'>P(positive)</th>"
        f"<th scope='col'>is</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _pane(title: str, small: str, table: str, text: str | None, more: str = "") -> str:
    body = (
        f'<div class="text" dir="auto" tabindex="0" role="region" aria-label="The '
        f'review">{escape(text)}</div>'
        if text
        else '<p class="muted" style="margin-top:12px">Its text is not at hand.</p>'
    )
    return q(
        f'<div class="reader"><h3>{escape(title)}</h3><p class="small muted" style="margin:4px 0 '
        f'10px">{escape(small)}</p>'
        f"{table}{body}{more}</div>"
    )


def reader_html(row: Any, text: str | None, base_name: str, more: str = "") -> str:
    """A review of the test set. `row`: one of `tables.predictions_table`; `more`: HTML below the text."""
    fate = {"fixed": "Fixed by fine-tuning", "broken": "Broken by fine-tuning"}.get(row.outcome)
    cut = " Its middle was left out for the model." if row.truncated else ""
    rows = _system_rows(row, base_name)
    version = {"original": " As it was written.", "edited": " As it was rewritten to say the opposite."}
    cut += version.get(getattr(row, "version", ""), "")
    title = f"{fate or row.outcome.capitalize()}: the label is {LABEL_WORDS[row.label]}"
    return _pane(title, f"Review {row.review_id}, {row.tokens:,} tokens.{cut}", _table(rows), text, more)


def partner_html(row: Any, text: str | None, beside: str | None) -> str:
    """The other review of a pair, below the one that is read, with the words marked that differ from it."""
    which = {"original": "As it was written", "edited": "Rewritten to say the opposite"}.get(
        getattr(row, "version", ""), "The other review of this pair"
    )
    rows = _system_rows(row, "Base model")
    body = (
        f'<div class="text" dir="auto" tabindex="0" role="region" aria-label="The other review of the pair">'
        f"{marked_changes(beside, text)}</div>"
        if text and beside
        else ""
    )
    note = '<p class="small muted" style="margin:8px 0 0">Underlined: what differs.</p>' if body else ""
    return (
        f'<div class="partner"><h3>{which}: the label is {LABEL_WORDS[row.label]}</h3>'
        f'<p class="small muted" style="margin:4px 0 10px">Review {escape(row.review_id)}, {row.tokens:,} '
        f"tokens.</p>{_table(rows)}{body}{note}</div>"
    )


def marked_changes(before: str, after: str) -> str:
    """`after` as HTML, the words that `before` has not in <ins>.

    >>> marked_changes("A good film.", "A bad <b> film.")
    'A <ins>bad &lt;b&gt;</ins> film.'
    """
    old, new = before.split(), re.findall(r"\S+\s*", after)
    found = difflib.SequenceMatcher(None, old, [word.strip() for word in new], autojunk=False)
    out = []
    for kind, _, _, start, end in found.get_opcodes():
        part = "".join(new[start:end])
        words = escape(part.rstrip(), quote=False)
        blank = part[len(part.rstrip()) :]
        out.append((words if kind == "equal" or not words else f"<ins>{words}</ins>") + blank)
    return "".join(out)


def _system_rows(row: Any, base_name: str) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            actor,
            name,
            answer_words(answer, float("nan")),
            "–" if pd.isna(p) else percent(float(p)),
            "right" if right else "wrong",
        )
        for actor, name, answer, p, right in (
            ("base", base_name, row.prediction_base, row.p_positive_base, row.right_base),
            (
                "fine",
                "Fine-tuned",
                row.prediction_fine_tuned,
                row.p_positive_fine_tuned,
                row.right_fine_tuned,
            ),
        )
    ]


def sample_html(sample: SampleReview, base: float | None, fine: float | None) -> str:
    """One of our own reviews; the probabilities are the live model's, None where there is no answer."""
    rows = [
        (actor, name, word_of(p), percent(p), "right" if (p >= 0.5) == bool(sample.label) else "wrong")
        for actor, name, p in (("base", "Base model, live", base), ("fine", "Fine-tuned, live", fine))
        if p is not None
    ]
    title = f"The label is {LABEL_WORDS[sample.label]}"
    return _pane(title, f"Our own sample review, {sample.kind}.", _table(rows) if rows else "", sample.text)
