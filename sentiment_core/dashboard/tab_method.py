"""How it was made: the method in a picture and few words, settings, cost, limits, and the commands."""

from __future__ import annotations

from html import escape

import gradio as gr
import pandas as pd

from sentiment_core import artifacts
from sentiment_core.artifacts import ArtifactError, Run
from sentiment_core.chart_style import THIN, percent
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.html import seconds
from sentiment_core.dashboard.parts import empty, html_table, q
from sentiment_core.dashboard.picture import layer_picture
from sentiment_core.dashboard.store import dataset_title
from sentiment_core.dashboard.texts import DEFAULT_SOURCE
from sentiment_core.prompts import PROMPT, REVIEW_SLOT
from sentiment_core.report import BENCHMARKS
from sentiment_core.schema import RunRecord

COMMAND = "python train.py"


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(
        q('<div style="min-height:600px" class="muted">Reading the artifacts…</div>'), elem_id="method"
    )
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> str:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", COMMAND)
    record, study = run.record, study_run(context, run)
    return q(
        f"<h2>{escape(_title(record))}</h2>"
        f'<div class="columns" style="margin-top:14px"><div class="panel">{_picture(record)}</div>'
        f'<div class="panel">{_words(record)}</div></div>'
        f'<div class="columns" style="margin-top:12px"><div '
        f'class="panel"><h3>Settings{" beside the study’s" if study else ""}</h3>'
        f"{_settings(context, run, study)}</div>"
        f'<div class="panel"><h3>Cost and surroundings</h3>{_cost(record)}{_live(context)}</div></div>'
        f'<div class="columns" style="margin-top:12px"><div class="panel"><h3>Limits and known '
        f"biases</h3>{_limits(context, run)}</div>"
        f'<div class="panel"><h3>The commands</h3>{_commands(context, run)}</div></div>'
    )


def _title(record: RunRecord) -> str:
    share = percent(record.trainable_parameters / record.base_model.parameters)
    return (
        f"{record.trainable_parameters:,} new weights, {share} of the model, were trained "
        f"in {seconds(record.wall_seconds)}"
    )


def _picture(record: RunRecord) -> str:
    share = percent(record.trainable_parameters / record.base_model.parameters)
    words = (
        f"Slate: the base’s frozen weights. Green: the adapters, "
        f"{record.trainable_parameters:,} weights in all layers together, {share} of the model."
    )
    return (
        f"<h3>One of the model’s layers</h3>{layer_picture(record)}"
        f'<p class="small muted" style="margin:8px 0 0">{escape(words)}</p>'
    )


def _words(record: RunRecord) -> str:
    base, lora = record.base_model, record.lora
    scale = lora.alpha / lora.rank
    items = (
        (
            "The base stays as it is.",
            f"{base.name} has {base.parameters:,} weights. None of them is trained.",
        ),
        (
            "NF4 makes it small.",
            f"The matrices of its layers are rounded ({base.quantization}): each weight becomes one of 16 "
            f"values, "
            "placed where normally distributed weights are dense; every 64 weights share one scale. A "
            "matrix then takes "
            "about a quarter of its 16-bit size. For the arithmetic the values are unpacked again.",
        ),
        (
            "LoRA adds two thin matrices.",
            f"Beside a frozen matrix W stand A and B of rank {lora.rank}; the layer computes W·x "
            f"+ {scale:g}·B·A·x. "
            f"Only A and B are trained: {record.trainable_parameters:,} weights "
            f"in {', '.join(lora.targets)}.",
        ),
        (
            "One word is learned.",
            f"{_prompt_words(record)} The loss, and "
            "later the probability, look at that word’s place alone: Positive against Negative.",
        ),
        (
            "The data.",
            f"{record.data.train:,} training reviews from {dataset_title_of(record)}, "
            f"{record.data.validation:,} more held back "
            f"for validation{_excluded(record)}. The test reviews were not looked at in training.",
        ),
    )
    return (
        "<h3>The method in five steps</h3><ul>"
        + "".join(f"<li><b>{escape(head)}</b> {escape(text)}</li>" for head, text in items)
        + "</ul>"
    )


def dataset_title_of(record: RunRecord) -> str:
    return "IMDB’s training part" if "imdb" in record.data.source.lower() else record.data.source


def _prompt_words(record: RunRecord) -> str:
    """What the model is asked, word for word where the run was made with today's prompt."""
    if record.prompt.name != PROMPT.name:
        return f"The model reads the prompt “{record.prompt.name}” with the review inside."
    question = PROMPT.user.replace(REVIEW_SLOT, "").strip()
    return f"The model is told “{PROMPT.system}” It reads the review, then “{question}”"


EXCLUDED = {
    "in_test_split": "whose text also stands in the test part",
    "in_counterfactual_imdb_test": "that stand in the counterfactual pairs",
    "duplicate": "duplicates",
}
"""Reasons in `run.json` as words."""


def _excluded(record: RunRecord) -> str:
    parts = [
        f"{count:,} {EXCLUDED.get(reason, reason.replace('_', ' '))}"
        for reason, count in record.data.excluded.items()
        if count
    ]
    return f"; left out: {', '.join(parts)}" if parts else ""


def study_run(context: Context, run: Run) -> Run | None:
    """The run made with the study's preset, unless it is the one being shown."""
    for other in context.store.finished_runs():
        if other.record and other.record.config.get("preset") == "study" and other.run_id != run.run_id:
            return other
    return None


def _settings(context: Context, run: Run, study: Run | None) -> str:
    """What differs from the study's settings, and what came out; every other setting folded below."""
    runs = {"this run": run} | ({"with the study’s settings": study} if study else {})
    values = [_setting_values(one.record) for one in runs.values() if one.record]
    keys = list(dict.fromkeys(key for one in values for key in one))
    rows = [[key, *(one.get(key, "–") for one in values)] for key in keys]
    differ = [row for row in rows if study and len(set(row[1:])) > 1]
    same = [row for row in rows if row not in differ]
    results = [
        [f"right on {dataset_title(dataset)}", *(_result(context, one, dataset) for one in runs.values())]
        for dataset in context.store.datasets()
        if any(context.store.evals(one, dataset).get("fine-tuned") for one in runs.values())
    ]
    times = [["training took", *(seconds(one.record.wall_seconds) for one in runs.values() if one.record)]]
    columns = ["setting", *runs]

    def table(lines: list[list[str]]) -> str:
        return html_table(pd.DataFrame(lines, columns=columns))

    head = differ if study else same
    fold = (
        f"<details><summary>The {len(same)} settings that both share</summary>{table(same)}</details>"
        if study
        else ""
    )
    return f"{table([*head, *times, *results])}{_study_words(context, bool(study))}{fold}"


def _setting_values(record: RunRecord) -> dict[str, str]:
    return {
        "adapter rank, alpha, dropout": f"{record.lora.rank}, {record.lora.alpha:g}, {record.lora.dropout:g}",
        "adapted matrices": ", ".join(record.lora.targets),
        "quantization": record.base_model.quantization,
    } | {
        key.replace("_", " "): "as fits" if key == "micro_batch_size" and not value else _value(value)
        for key, value in record.config.items()
        if not key.startswith("lora_") and key not in ("run_id", "preset")
    }


def _result(context: Context, run: Run, dataset: str) -> str:
    evaluation = context.store.evals(run, dataset).get("fine-tuned")
    return percent(evaluation.record.metrics["accuracy"].value) if evaluation else "–"


def _study_words(context: Context, shown: bool) -> str:
    """What the study itself reports, beside what its settings reach here."""
    found = {r.kind: r.accuracy for r in context.store.references_or_none()}
    if not shown or not {"study-before", "study-after"} <= set(found):
        return ""
    words = (
        f"The study itself reports {percent(found['study-before'])} before and "
        f"{percent(found['study-after'])} after, of free answers on a test subset, "
        "model and number of reviews unknown. "
        "The right column is our model, on our data, with its settings and the two label words compared."
    )
    return f'<p class="small muted" style="margin:8px 0 0">{escape(words)}</p>'


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    return "–" if value in (None, "") else str(value)


def _cost(record: RunRecord) -> str:
    hardware = record.hardware
    device = f"{hardware.count} × {hardware.device}" if hardware.count > 1 else hardware.device
    if hardware.memory_bytes:
        device += f", {hardware.memory_bytes / 2**30:.0f}{THIN}GiB"
    rows = [
        ("training", seconds(record.wall_seconds)),
        ("compiling and warming up before", seconds(record.warmup_seconds)),
        ("hardware", device),
        ("reviews a second", f"{record.reviews_per_second:,.0f}"),
        ("tokens a second", f"{record.tokens_per_second:,.0f}"),
        ("peak memory", f"{record.peak_memory_bytes / 2**30:.1f}{THIN}GiB"),
        ("steps", f"{record.steps:,}"),
        (
            "validation accuracy",
            f"{percent(record.validation_accuracy.value)} of {record.validation_accuracy.n:,}",
        ),
        ("engine", record.engine),
        ("made", f"{record.created_at:%Y-%m-%d %H:%M} UTC"),
        ("commit", (record.commit or "–")[:12]),
        ("base model’s licence", record.base_model.licence or "–"),
    ]
    table = html_table(pd.DataFrame(rows, columns=["what", "value"]))
    versions = html_table(pd.DataFrame(list(record.versions.items()), columns=["package", "version"]))
    return f"{table}<details><summary>Versions</summary>{versions}</details>"


def _live(context: Context) -> str:
    """What was measured for speed, where the benchmarks were run."""
    parts = []
    for kind, title in BENCHMARKS.items():
        try:
            benchmark = artifacts.read_benchmark(kind, context.store.root)
        except ArtifactError:
            continue
        rows = []
        for row in benchmark.rows:
            rate, wait, right = row.reviews_per_second, row.seconds_per_review, row.validation_accuracy
            told = (
                f"{rate.value:,.4g} reviews/s" if rate else f"{seconds(wait.value)} a review" if wait else "–"
            )
            if right:
                told = f"{percent(right.value)} of {right.n:,} right, {told}"
            rows.append((row.system, told, row.note))
        table = pd.DataFrame(rows, columns=["system", "measured", "note"])
        parts.append(
            f"<details><summary>{title}, {escape(benchmark.hardware.device)}</summary>"
            f'<div class="scroll" tabindex="0" role="region" '
            f'aria-label="{title}">{html_table(table)}</div></details>'
        )
    return "".join(parts)


def _limits(context: Context, run: Run) -> str:
    items = [
        "It learned from English film reviews of one website, most of them before 2011, rated clearly good "
        "or clearly "
        "bad. Mixed reviews, other topics and other languages are outside of what it was measured on.",
        "A probability near 0 or 100 is no proof: see the reliability diagram, and the most confident "
        "mistakes.",
        _label_errors(context),
        "What the base model took from its web text, stereotypes included, is still inside it.",
    ]
    if rewritten := _rewritten(context, run):
        items.insert(1, rewritten)
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _rewritten(context: Context, run: Run) -> str:
    """How the model does on reviews that people rewrote to say the opposite, beside their originals."""
    evaluation = context.store.evals(run, "counterfactual_imdb_test").get("fine-tuned")
    parts = evaluation.record.slices if evaluation else ()
    versions = {part.value: part.accuracy for part in parts if part.by == "version"}
    edited, original = versions.get("edited"), versions.get("original")
    if edited is None or original is None:
        return ""
    words = (
        f"On {edited.n:,} reviews that people rewrote to say the opposite it is right on "
        f"{percent(edited.value)}, against {percent(original.value)} on their originals"
    )
    if None in (edited.high, original.low):
        return f"{words}."
    if edited.high < original.low:
        return f"{words}: a part of what it learned is style, and not judgement."
    return f"{words}: with so few reviews, chance may explain the gap."


def _label_errors(context: Context) -> str:
    """How far the labels themselves can be trusted, as the references report it."""
    ceiling = next((r for r in context.store.references_or_none() if r.kind == "ceiling"), None)
    if ceiling is None:
        return "The reviews’ own labels are not perfect: a part of them is disputed among human readers."
    return (
        f"The reviews’ own labels are not perfect: about {percent(1 - ceiling.accuracy)} of the test "
        f"labels are not what "
        f"a majority of human readers says (as reported: {ceiling.source})."
    )


def _commands(context: Context, run: Run) -> str:
    record = run.record
    commands = [record.command] if record else []
    for name in context.store.datasets():
        for evaluation in context.store.evals(run, name).values():
            if evaluation.record.command not in commands:
                commands.append(evaluation.record.command)
    commands.append("python app.py")
    lines = "".join(f'<pre class="cmd">{escape(command)}</pre>' for command in commands)
    words = "As they were run; a click marks a whole command for copying."
    source = str(record.config.get("dataset", "")) if record else ""
    if source and source != DEFAULT_SOURCE:
        words += (
            f" “{source}” was a local copy of the dataset; without --dataset and --train-dataset the "
            f"scripts take {DEFAULT_SOURCE} from the Hugging Face Hub."
        )
    return f"{lines}<p class='small muted'>{escape(words)}</p>"
