"""How it was made: the method in a picture and few words, settings, cost, limits, and the commands."""

from __future__ import annotations

from html import escape

import gradio as gr
import pandas as pd

from sentiment_core import artifacts
from sentiment_core.artifacts import ArtifactError, Run, RunRecord
from sentiment_core.charts import THIN, percent
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.parts import empty, html_table, q, seconds
from sentiment_core.dashboard.picture import layer_picture

COMMAND = "python train.py"


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(
        q('<div style="min-height:600px" class="muted">Reading the artifacts…</div>'), elem_id="method"
    )
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> str:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", COMMAND)
    record, study = run.record, study_record(context, run)
    return q(
        f"<h2>{escape(_title(record))}</h2>"
        f'<div class="columns" style="margin-top:14px"><div class="panel">{layer_picture(record)}</div>'
        f'<div class="panel">{_words(record)}</div></div>'
        f'<div class="columns" style="margin-top:12px"><div '
        f'class="panel"><h3>Settings{" beside the study’s" if study else ""}</h3>'
        f"{_settings(record, study)}</div>"
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


def _words(record: RunRecord) -> str:
    base, lora = record.base_model, record.lora
    scale = lora.alpha / lora.rank
    items = (
        (
            "The base stays as it is.",
            f"{base.name} has {base.parameters:,} weights. None of them is changed.",
        ),
        (
            "NF4 makes it small.",
            f"The matrices of its layers are stored as {base.quantization}: each weight becomes one of 16 "
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
            f"The model reads “{record.prompt.name}” with the review inside and is asked for one word. The "
            f"loss, and "
            "later the probability, look at that word’s place alone: Positive against Negative.",
        ),
        (
            "The data.",
            f"{record.data.train:,} training reviews from {record.data.source}, {record.data.validation:,} "
            f"more held back "
            f"for validation{_excluded(record)}. The test reviews were not looked at in training.",
        ),
    )
    return (
        "<h3>The method in five steps</h3><ul>"
        + "".join(f"<li><b>{escape(head)}</b> {escape(text)}</li>" for head, text in items)
        + "</ul>"
    )


def _excluded(record: RunRecord) -> str:
    parts = [
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in record.data.excluded.items() if count
    ]
    return f"; left out: {', '.join(parts)}" if parts else ""


def study_record(context: Context, run: Run) -> RunRecord | None:
    """The run made with the study's preset, unless it is the one being shown."""
    for other in context.store.finished_runs():
        if other.record and other.record.config.get("preset") == "study" and other.run_id != run.run_id:
            return other.record
    return None


def _settings(record: RunRecord, study: RunRecord | None) -> str:
    """Every setting that differs or matters, ours and the study's preset as we ran it."""
    records = {"this run": record} | ({"study’s preset": study} if study else {})
    rows: dict[str, list[str]] = {}
    for one in records.values():
        values = {
            "adapter rank, alpha, dropout": f"{one.lora.rank}, {one.lora.alpha:g}, {one.lora.dropout:g}",
            "adapted matrices": ", ".join(one.lora.targets),
            "quantization": one.base_model.quantization,
        } | {
            key.replace("_", " "): _value(value)
            for key, value in one.config.items()
            if not key.startswith("lora_")
        }
        for key in values:
            rows.setdefault(key, [])
        for key, cells in rows.items():
            cells.append(values.get(key, "–"))
    for cells in rows.values():
        cells[:0] = ["–"] * (len(records) - len(cells))
    table = pd.DataFrame([[key, *cells] for key, cells in rows.items()], columns=["setting", *records])
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Settings">{html_table(table)}</div>'


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
        *record.versions.items(),
    ]
    table = pd.DataFrame(rows, columns=["what", "value"])
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Cost">{html_table(table)}</div>'


def _live(context: Context) -> str:
    """What was measured for speed, where the benchmarks were run."""
    parts = []
    for kind, title in (("train", "Training speed"), ("score", "Scoring speed"), ("live", "Live answers")):
        try:
            benchmark = artifacts.read_benchmark(kind, context.store.root)
        except ArtifactError:
            continue
        rows = []
        for row in benchmark.rows:
            rate, wait = row.reviews_per_second, row.seconds_per_review
            told = (
                f"{rate.value:,.4g} reviews/s" if rate else f"{seconds(wait.value)} a review" if wait else "–"
            )
            rows.append((row.system, told, row.note))
        table = pd.DataFrame(rows, columns=["system", "median", "note"])
        parts.append(
            f"<details><summary>{title} on {escape(benchmark.hardware.device)}</summary>"
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
    names = context.store.datasets()
    tuned = {name: context.store.evals(run, name).get("fine-tuned") for name in names}
    known = {name: e.record.metrics["accuracy"].value for name, e in tuned.items() if e}
    if "imdb" in known and "counterfactual_imdb_test" in known:
        gap = known["imdb"] - known["counterfactual_imdb_test"]
        items.insert(
            1,
            (
                f"On reviews that people rewrote to say the opposite it is right "
                f"on {percent(known['counterfactual_imdb_test'])}, "
                f"against {percent(known['imdb'])} on the ordinary ones"
                + (": part of what it learned is style, and not judgement." if gap > 0.005 else ".")
            ),
        )
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


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
    commands = [run.record.command] if run.record else []
    for name in context.store.datasets():
        for evaluation in context.store.evals(run, name).values():
            if evaluation.record.command not in commands:
                commands.append(evaluation.record.command)
    commands.append("python app.py")
    lines = "".join(f'<pre class="cmd">{escape(command)}</pre>' for command in commands)
    return f"{lines}<p class='small muted'>A click marks a whole command for copying.</p>"
