"""What the live model said, as HTML: two cards, where they disagree, and the words that moved it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from sentiment_core.chart_style import percent
from sentiment_core.dashboard.html import seconds
from sentiment_core.dashboard.parts import q
from sentiment_core.labels import LABEL_WORDS

ACTOR_NAMES = {"base": "Base model", "fine": "Fine-tuned"}
SO_FAR = ' <span class="so-far">so far</span>'
STRONG = 0.1
"""Words that move the log-odds by less, the odds by less than a tenth, are left plain."""
MAX_WORDS = 40
"""Only the words that moved most are tinted, so that the eye finds them."""


def word_of(p_positive: float) -> str:
    return LABEL_WORDS[int(p_positive >= 0.5)]


def _bar(p: float) -> str:
    low, width = (50, 100 * (p - 0.5)) if p >= 0.5 else (100 * p, 100 * (0.5 - p))
    tone = "positive" if p >= 0.5 else "negative"
    return (
        f'<div class="bar"><i '
        f'style="left:{low:.1f}%;width:{max(width, 0.6):.1f}%;background:var(--q-{tone})"></i><b></b>'
        '</div><div class="scale" aria-hidden="true"><span>0</span><span>50</span><span>100</span></div>'
    )


def card(actor: str, p: float | None, small: str = "", so_far: str = "") -> str:
    """One model's card; without a probability a quiet placeholder of the same size.

    Args:
        so_far: what a first answer rests on, where the model reads on.
    """
    name = ACTOR_NAMES[actor]
    if p is None:
        body = f'<div class="num muted" aria-hidden="true">–</div><p class="small">{escape(small)}</p>'
        side = ""
    else:
        tone = "positive" if p >= 0.5 else "negative"
        body = (
            f'<div class="num {tone}">{word_of(p)}{SO_FAR if so_far else ""}</div>{_bar(p)}'
            f'<p class="small" style="margin:8px 0 0">P(positive) = {percent(p)}{escape(so_far)}</p>'
        )
        side = f"<span>{escape(small)}</span>"
    return (
        f'<section class="answer" '
        f'style="--actor:var(--q-{actor})"><h3><b>{name}</b>{side}</h3>{body}</section>'
    )


def answer_card(actor: str, answer: Any) -> str:
    if answer.read < 1:
        return card(
            actor, answer.p_positive, f"{seconds(answer.seconds)}, reading on…",
            f" after reading {percent(answer.read, 0)}",
        )  # fmt: skip
    return card(actor, answer.p_positive, f"{seconds(answer.seconds)}, {answer.tokens:,} tokens")


def cards(base: str, fine: str) -> str:
    return q(f'<div class="answers" aria-live="polite">{base}{fine}</div>')


def idle_cards(text: str = "Type a review, or pick a sample.") -> str:
    return cards(card("base", None, text), card("fine", None, text))


def verdict(base: Any, fine: Any) -> str:
    """One line between the models: whether they agree; and whether the review was cut."""
    before, after = word_of(base.p_positive), word_of(fine.p_positive)
    if before != after:
        line = f"<b>≠ The two disagree:</b> the base model says {before}, the fine-tuned model {after}."
        kind = " differ"
    else:
        line, kind = f"= Both say {after}.", ""
    if fine.truncated or base.truncated:
        line += " The review is longer than the model reads: its middle was left out."
    return q(f'<p class="verdict{kind}">{line}</p>')


def tinted(text: str, weights: Sequence[Any], method: str, planned: int = 0) -> str:
    """The review once more, with the words that moved the fine-tuned answer, and one sentence about them.

    Args:
        planned: how many words will be tried; more than there are weights while that goes on.
    """
    moved = sorted((w for w in weights if abs(w.weight) >= STRONG), key=lambda w: -abs(w.weight))[:MAX_WORDS]
    top = abs(moved[0].weight) if moved else 1.0
    out, place = [], 0
    for w in sorted(moved, key=lambda w: w.start):
        if w.start < place:
            continue
        out.append(escape(text[place : w.start]))
        side = "up" if w.weight > 0 else "down"
        out.append(
            f'<mark class="{side}" style="--w:{abs(w.weight) / top:.2f}" title="{_odds(w.weight)}">'
            f"{escape(text[w.start : w.end])}</mark>"
        )
        place = w.end
    out.append(escape(text[place:]))
    tried = f"{len(weights)} words tried" if len(weights) != 1 else "1 word tried"
    if len(weights) < planned:
        tried = f"{len(weights)} of {planned} words tried so far"
    return q(
        f'<h3 style="margin:4px 0 6px">{escape(_sentence(text, moved))}</h3>'
        f'<div class="words" dir="auto" tabindex="0" role="region" aria-label="The review with the words '
        f"that moved "
        f'the answer">{"".join(out)}</div>'
        '<p class="small muted" style="margin:6px 0 0"><mark class="up" style="--w:.7">solid line</mark> '
        "pulls towards "
        'positive, <mark class="down" style="--w:.7">dashed line</mark> towards negative; the stronger the '
        "tint, the "
        f'more. <span id="tried">{tried}.</span> Method: {escape(method.rstrip("."))}.</p>'
        f"{_table(text, moved)}"
    )


def _odds(weight: float) -> str:
    """A weight in log-odds as what it does to the odds of Positive: 1.34 -> "odds × 3.8".

    >>> _odds(-0.7) == "odds ÷\u00a02.0"
    True
    """
    return f"odds {'×' if weight > 0 else '÷'}\u00a0{math.exp(min(abs(weight), 20)):,.1f}"


def _quoted(text: str, w: Any) -> str:
    word = " ".join(text[w.start : w.end].split())
    return f"“{word[:40]}”"


def _sentence(text: str, moved: Sequence[Any]) -> str:
    if not moved:
        return "No single word moved the odds of the fine-tuned answer by a tenth"
    parts = []
    for side, verb in ((1, "up"), (-1, "down")):
        best = next((w for w in moved if w.weight * side > 0), None)
        if best:
            parts.append(
                (abs(best.weight), f"{_quoted(text, best)} pulled it {verb} most ({_odds(best.weight)})")
            )
    said = "; ".join(part for _, part in sorted(parts, key=lambda p: -p[0]))
    return f"What moved the fine-tuned answer: {said}"


def _table(text: str, moved: Sequence[Any]) -> str:
    if not moved:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(text[w.start : w.end])}</th><td class="n">{_odds(w.weight)}</td></tr>'
        for w in moved[:15]
    )
    return (
        "<details><summary>The words as a table</summary><div class='scroll' tabindex='0' role='region' "
        "aria-label='Words and weights'><table><thead><tr><th scope='col'>words</th><th scope='col' "
        "class='n'>"
        f"what it does to the odds of Positive</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def state_line(kind: str, sentence: str) -> str:
    return q(
        f'<p class="small" role="status" style="margin:0"><span '
        f'class="dot {kind}"></span>{escape(sentence)}</p>'
    )
