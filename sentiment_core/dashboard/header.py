"""The header: what this is in one sentence, and the three numbers that matter."""

from __future__ import annotations

import re
from html import escape

from sentiment_core.artifacts import Run
from sentiment_core.chart_style import percent
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.html import seconds
from sentiment_core.dashboard.parts import q

TITLE = "QLoRA, before and after"


def title_html(context: Context, run: Run | None) -> str:
    if run and run.record:
        size = _size(run.record.base_model.parameters)
        who = f"A {size}-parameter language model"
    else:
        who = "A small language model"
    lead = (
        f"{who} says whether a movie review is praise or blame, before and after QLoRA: fine-tuning that "
        "freezes the model in 4 bits and trains a small add-on."
    )
    return q(f'<h1>{TITLE}</h1><p class="lead">{escape(lead)}</p>')


def _size(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.3g}-billion"
    return f"{parameters / 1e6:.0f}-million" if parameters >= 1e6 else f"{parameters:,}"


def stats_html(context: Context, run: Run | None) -> str:
    """The three cards; each says what is missing where its artifact is."""
    evals = context.store.evals(run, context.dataset("imdb"))
    before, after = context.store.before(evals), evals.get("fine-tuned")
    shown = after or before
    if before and after:
        number = (
            f'<span class="base">{percent(before.record.metrics["accuracy"].value)}</span><span '
            f'class="arrow"> → </span>'
            f'<span class="fine">{percent(after.record.metrics["accuracy"].value)}</span>'
        )
    elif shown:
        number = percent(shown.record.metrics["accuracy"].value)
    else:
        number = "–"
    if shown:
        right = f"of {shown.record.dataset.n:,} reviews kept out of training judged right"
        right += ", before → after; guessing gets 50\u202f%" if before and after else ""
    else:
        right = "no evaluation yet: python eval.py makes one"
    cards = [("stat wide", number, right)]
    if run and run.record:
        record = run.record
        device = short_device(record.hardware.device)
        count = "one" if record.hardware.count == 1 else str(record.hardware.count)
        cards.append(("stat", seconds(record.wall_seconds), f"of training on {count} {device}"))
        share = percent(record.trainable_parameters / record.base_model.parameters)
        cards.append(("stat", share, f"of the weights were trained: {record.trainable_parameters:,}"))
    else:
        cards.append(("stat", "–", "no training run yet: python train.py makes one"))
        cards.append(("stat", "–", "of the weights were trained"))
    body = "".join(
        f'<div class="{kind}"><div class="num">{number if kind == "stat wide" else escape(number)}</div>'
        f"<p>{escape(text)}</p></div>"
        for kind, number, text in cards
    )
    return q(f'<div class="stats">{body}</div>')


def short_device(device: str) -> str:
    """The name without memory size and type, which stand under “How it was made”.

    >>> short_device("NVIDIA H100 80GB HBM3"), short_device("Tesla T4")
    ('NVIDIA H100', 'Tesla T4')
    """
    return re.split(r"[ -]\d+ ?Gi?B\b", device)[0]


def problems_html(context: Context) -> str:
    """What was passed over, with the folder and the remedy; nothing where all is well."""
    problems = context.store.problems()
    if not problems:
        return ""
    items = "".join(f"<li>{escape(_local(context, problem.message))}</li>" for problem in problems[:8])
    more = f"<li>and {len(problems) - 8} more</li>" if len(problems) > 8 else ""
    count = "One folder was" if len(problems) == 1 else f"{len(problems)} files or folders were"
    return q(
        f'<div class="notice warn" role="status"><p><b>{count} passed over;</b> the rest is shown.</p>'
        f"<ul>{items}{more}</ul></div>"
    )


def _local(context: Context, message: str) -> str:
    """Paths as seen from the assets folder: a visitor learns nothing about the server's disk."""
    return message.replace(str(context.store.root), context.store.root.name)
