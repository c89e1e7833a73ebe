"""The header: what this is in one sentence, and the three numbers that matter."""

from __future__ import annotations

import re

from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.context import Context

TITLE = "QLoRA, before and after"
MOST_PROBLEMS = 8
"""Problems that are told one by one; the rest are counted."""


def title_html(run: Run | None) -> str:
    """The page's name and what it shows, with the size of the run's model."""
    return render("title", title=TITLE, model=run and run.record and run.record.base_model)


def stats_html(context: Context, run: Run | None) -> str:
    """The three cards; each says what is missing where its artifact is."""
    evals = context.store.evals(run, context.dataset("imdb"))
    both = {"base": context.store.before(evals), "fine": evals.get("fine-tuned")}
    records = {actor: one.record for actor, one in both.items() if one}
    return render("stats", evals=records, record=run and run.record, short_device=short_device)


def short_device(device: str) -> str:
    """The name without memory size and type, which stand under “Method”.

    >>> short_device("NVIDIA H100 80GB HBM3"), short_device("Tesla T4")
    ('NVIDIA H100', 'Tesla T4')
    """
    return re.split(r"[ -]\d+ ?Gi?B\b", device)[0]


def problems_html(context: Context) -> str:
    """What was passed over, with the folder and the remedy; nothing where all is well."""
    problems = context.store.problems()
    if not problems:
        return ""
    root = context.store.root  # a visitor learns nothing about the server's disk
    told = [problem.message.replace(str(root), root.name) for problem in problems[:MOST_PROBLEMS]]
    return render("problems", told=told, n=len(problems))
