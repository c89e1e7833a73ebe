"""The header: what happened in one sentence, and the three figures that matter."""

from __future__ import annotations

import re

from sentiment_core.artifacts.schema import EvalRecord
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.context import Context

TITLE = "QLoRA, before and after"
PAIRS = "counterfactual_imdb_test"
NEARLY_EVERY = 0.9
"""A base that calls at least this share of the reviews positive called "nearly every film good"."""
MOST_PROBLEMS = 8
"""Problems that are told one by one; the rest are counted."""


def title_html(context: Context, run: Run | None) -> str:
    """What happened, in one sentence and its figures; in plain words for a base that could tell."""
    records = _records(context, run, context.dataset("imdb"))
    share = share_positive(records["base"]) if "base" in records else None
    shown = {"evals": records, "record": run and run.record, "share": share}
    return render("title", plain=TITLE, nearly_every=NEARLY_EVERY, **shown)


def stats_html(context: Context, run: Run | None) -> str:
    """Accuracy, contrast consistency, time; each says what is missing where its artifact is."""
    pairs = _records(context, run, PAIRS)
    shown = {"evals": _records(context, run, context.dataset("imdb")), "record": run and run.record}
    pairs = {actor: one for actor, one in pairs.items() if "consistency" in one.metrics}
    return render("stats", pairs=pairs, short_device=short_device, **shown)


def _records(context: Context, run: Run | None, dataset: str | None) -> dict[str, EvalRecord]:
    """Actor -> its record on the dataset, the base model first."""
    evals = context.store.evals(run, dataset)
    both = {"base": context.store.before(evals), "fine": evals.get("fine-tuned")}
    return {actor: one.record for actor, one in both.items() if one}


def share_positive(record: EvalRecord) -> float:
    """The share of all reviews that were called positive."""
    cells = record.confusion
    return (cells.negative_positive + cells.positive_positive) / record.dataset.n


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
