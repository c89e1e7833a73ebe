"""Method: the weights in pictures, how a model measures below chance, settings, limits, and the commands."""

import dataclasses
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gradio as gr
from markupsafe import Markup

from sentiment_core.artifacts import report
from sentiment_core.artifacts.store import Run, read_benchmark
from sentiment_core.config import TrainConfig, repository
from sentiment_core.dashboard.components.header import NEARLY_EVERY, PAIRS, before_and_after, share_positive
from sentiment_core.dashboard.components.html import render, seconds
from sentiment_core.dashboard.components.parts import empty, waiting
from sentiment_core.dashboard.components.study import study_panel
from sentiment_core.dashboard.components.weights import pictures
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.pairs import Sides
from sentiment_core.dashboard.store import dataset_title
from sentiment_core.dashboard.texts import DEFAULT_SOURCE
from sentiment_core.figures.style import percent
from sentiment_core.models.base_models import EMBEDDED
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

T = TypeVar("T")
COMMAND = "python train.py"
TOLD_ELSEWHERE = ("run_id", "preset", "dataset", "exclude")
"""Settings that the commands and the data's description hold."""
FOLDERS = re.compile(r" --(?:assets|work)[ =](?:'[^']*'|\S+)")
"""Flags of a recorded command that say where files lay, which changes no result."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(waiting("Reading the artifacts…", 600), elem_id="method")
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> Markup:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", COMMAND)
    record, evals = run.record, before_and_after(context, run, context.dataset("imdb"))
    pairs = before_and_after(context, run, PAIRS).get("fine")
    rewritten, root, base = pairs.slices if pairs else (), context.store.root, record.base_model.name
    made = [(one, one.record) for one in context.store.finished_runs() if one.record and one != run]
    alike = [one for one, its in made if (its.config.get("preset"), its.base_model.name) == ("study", base)]
    traced = _if_usable(read_benchmark, "trace", root)
    return render(
        "method", record=record, pictures=pictures(run), study_panel=study_panel(context, run),
        before=evals.get("base"), share_positive=share_positive, nearly_every=NEARLY_EVERY,
        prompt=PROMPT if record.prompt.name == PROMPT.name else None,
        question=PROMPT.user.replace(REVIEW_SLOT, "").strip(), embedded=EMBEDDED.get(base),
        settings=_settings(context, [run, *alike[:1]]),
        versions={one.value: one.accuracy for one in rewritten if one.by == "version"},
        commands=_commands(context, run),
        references={one.kind: one for one in context.store.references()},
        default_source=DEFAULT_SOURCE, repository=repository(),
        trace_sentence=traced and traced.base_model == base and _if_usable(report.trace_sentence, root),
        seeds=_if_usable(report.seeds_sentence, root), exports=_if_usable(report.export_rows, run, root),
        soak=_if_usable(report.soak_rows, root), in_browser=_if_usable(read_benchmark, "browser", root),
    )  # fmt: skip


def _if_usable(read: Callable[..., T], *given: Any) -> T | None:
    """What is read of a benchmark; None where it is of no use, which the header tells."""
    with suppress(ValueError, LookupError, TypeError):
        return read(*given)


def _settings(context: Context, runs: list[Run]) -> list[tuple[str, ...]]:
    """Rows of (name, each run's value): what is not the default, and results."""
    records = [run.record for run in runs if run.record]
    configs, usual = [record.config for record in records], dataclasses.asdict(TrainConfig())
    names = dict.fromkeys(name for config in configs for name in config if name not in TOLD_ELSEWHERE)
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), *(_value(name, config.get(name)) for config in configs))
        for name in names if any(config.get(name) != usual.get(name) for config in configs)
    ]  # fmt: skip
    rows.append(("training reviews", *(f"{record.data.train:,}" for record in records)))
    rows.append(("training time", *(seconds(record.wall_seconds) for record in records)))
    for dataset in context.store.datasets():
        evals = [context.store.evals(run, dataset).get("fine-tuned") for run in runs]
        if any(evals):
            found = (percent(one.record.metrics["accuracy"].value) if one else "–" for one in evals)
            rows.append((f"accuracy on {dataset_title(dataset)}", *found))
    return rows


def settings_html(context: Context, sides: Sides, run_id: str | None) -> Markup:
    """What differs between two runs, as a small table; empty where a run stands beside its base model."""
    runs = [run for run in map(context.store.run, (sides.versus, run_id) if sides.versus else ()) if run]
    rows = [row for row in _settings(context, runs) if len({*row[1:]}) > 1] if runs else []
    return render("settings", names=sides.names, rows=rows) if runs else Markup()


def _value(key: str, value: object) -> str:
    if key == "micro_batch_size" and not value:
        return "as fits"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "–" if value is None else words or "–"


def _commands(context: Context, run: Run) -> list[str]:
    """Of the run and its evaluations as they were run, without this machine's folders, then the page's."""
    evals = [e for name in context.store.datasets() for e in context.store.evals(run, name).values()]
    records = [run.record, *(evaluation.record for evaluation in evals)]
    given = [FOLDERS.sub("", record.command) for record in records if record]
    return list(dict.fromkeys([*given, "python app.py"]))
