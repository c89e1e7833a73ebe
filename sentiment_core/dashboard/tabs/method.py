"""Method: what QLoRA does in a picture and few words, settings, cost, limits, and the commands."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain

import gradio as gr
from markupsafe import Markup

from sentiment_core.artifacts import store
from sentiment_core.artifacts.report import BENCHMARKS
from sentiment_core.artifacts.schema import BenchmarkRecord, Metric, RunRecord
from sentiment_core.artifacts.store import ArtifactError, Run
from sentiment_core.dashboard.components.html import fragment, render, seconds
from sentiment_core.dashboard.components.parts import empty, waiting
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.store import dataset_title
from sentiment_core.dashboard.texts import DEFAULT_SOURCE
from sentiment_core.figures.style import percent
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

COMMAND = "python train.py"
MATRICES = {
    "Attention": {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"},
    "Feed-forward": {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"},
}


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(waiting("Reading the artifacts…", 600), elem_id="method")
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> Markup:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", COMMAND)
    record, study = run.record, study_run(context, run)
    share = record.trainable_parameters / record.base_model.parameters
    return render(
        "method", record=record, share=share, picture=layer_picture(record, share),
        prompt=PROMPT if record.prompt.name == PROMPT.name else None,
        question=PROMPT.user.replace(REVIEW_SLOT, "").strip(),
        settings=_settings(context, run, study), study=study,
        references={reference.kind: reference for reference in context.store.references()},
        benchmarks=_benchmarks(context), versions=_version_accuracies(context, run),
        commands=_commands(context, run), default_source=DEFAULT_SOURCE,
    )  # fmt: skip


def layer_picture(record: RunRecord, share: float) -> Markup:
    """An inline SVG of one layer in the page's own colours (CSS variables), with its description."""
    targets = set(record.lora.targets)
    every = "all-linear" in targets
    groups = {
        title: [(f"{word} · {name}", every or name in targets) for name, word in matrices.items()]
        for title, matrices in MATRICES.items()
    }
    if others := sorted(targets.difference(["all-linear"], *MATRICES.values())):
        groups["Other layers"] = [(name, True) for name in others]
    beside = "each" if every else len(targets)
    return fragment("picture", groups=groups, beside=beside, rank=record.lora.rank, share=share)


def study_run(context: Context, run: Run) -> Run | None:
    """The run made with the study's preset, unless it is the one being shown."""
    others = ((one, one.record) for one in context.store.finished_runs() if one.run_id != run.run_id)
    return next((one for one, record in others if record and record.config.get("preset") == "study"), None)


def _settings(context: Context, run: Run, study: Run | None) -> dict[str, list[tuple]]:
    """Rows of (name, this run's value, the study run's): "shown", and "folded" what both runs share."""
    runs = [one for one in (run, study) if one]
    values = [_setting_values(one.record) for one in runs if one.record]
    rows = [(key, *(one.get(key, "–") for one in values)) for key in dict.fromkeys(chain(*values))]
    same = [row for row in rows if study and len(set(row[1:])) == 1]
    times = ("training time", *(seconds(one.record.wall_seconds) for one in runs if one.record))
    results = [
        (f"accuracy on {dataset_title(dataset)}", *accuracies)
        for dataset in context.store.datasets()
        if set(accuracies := [_accuracy(context, one, dataset) for one in runs]) != {"–"}
    ]
    return {"shown": [*(row for row in rows if row not in same), times, *results], "folded": same}


def _setting_values(record: RunRecord) -> dict[str, str]:
    lora = record.lora
    return {
        "adapter rank, alpha, dropout": f"{lora.rank}, {lora.alpha:g}, {lora.dropout:g}",
        "adapted matrices": ", ".join(lora.targets),
        "quantization": record.base_model.quantization,
    } | {
        key.replace("_", " "): "as fits" if key == "micro_batch_size" and not value else _value(value)
        for key, value in record.config.items()
        if not key.startswith("lora_") and key not in ("run_id", "preset")
    }


def _value(value: object) -> str:
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


def _benchmarks(context: Context) -> dict[str, BenchmarkRecord]:
    """Title -> what was measured for speed, where the benchmarks were run."""
    found = {}
    for kind, title in BENCHMARKS.items():
        with suppress(ArtifactError):
            found[title] = store.read_benchmark(kind, context.store.root)
    return found


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
