"""Evaluations → panels: the numbers of each figure, its finding in words, and its caption."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.schema import Metric, Reference
from sentiment_core.artifacts.store import Evaluation, Run
from sentiment_core.dashboard.components.header import run_titles
from sentiment_core.dashboard.components.parts import Panel, empty, parameters
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.store import DATASET_TITLES, Store, actors_of, noun
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.metrics import classification

COMMAND = "python eval.py --run <run> --system all"
UNEVALUATED = empty("No evaluation yet. This command scores the test set:", COMMAND)
INTERVAL = "Bars are 95\u202f% intervals"
AMBIGUITY = "{}: of 25,000 labels<br>{} lack a majority of votes,<br>{} have it against them"
COST_UNITS = {"parameters": "parameters", "gpu_seconds": "GPU seconds", "peak_memory_gb": "GB at most"}
COST_UNITS |= {"trainable_share": "% of the weights", "adapter_mb": "MB", "answer_ms": "ms an answer"}
WHO = {"fine": "the fine-tuned model", "base": "the base model"}


def is_scored(frame: pd.DataFrame) -> bool:
    return bool(frame["p_positive"].notna().all()) and len(frame) > 0


def dataset_phrase(evaluation: Evaluation) -> str:
    dataset = evaluation.record.dataset
    return f"{DATASET_TITLES.get(dataset.name, dataset.name)}, n = {dataset.n:,}"


def shares(accuracy: Metric) -> dict[str, Any]:
    """An accuracy with its interval as a row of a figure's data."""
    return {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high, "n": accuracy.n}


def accuracy_panel(
    evals: Mapping[str, Evaluation], references: Sequence[Reference], *, zoomed: bool = False
) -> Panel:
    """Every system, and published results where asked for, from best to worst; `zoomed` to the best ones."""
    records = [one.record for one in evals.values()]
    drawn, texts = [one for one in records if one.draw_accuracies], noun(records[0].dataset.name)
    rows = [
        {"title": record.title + (f", {len(record.draw_accuracies)} draws" if record in drawn else "")}
        | {"system": record.system} | shares(record.metrics["accuracy"])
        | {"selected_on": record.settings.get("selected_on", "validation" if record.run_id else "nothing")}
        | {"note": "measured here"}
        for record in records
    ]  # fmt: skip
    table = pd.DataFrame(rows + [_reference_row(one) for one in references if one.accuracy is not None])
    table = table.sort_values("accuracy", ascending=False, ignore_index=True)
    table = table.astype(dict.fromkeys(("accuracy", "low", "high"), float))
    caption = (
        f"{dataset_phrase(next(iter(evals.values())))}. {INTERVAL} (Wilson): over "
        "many test sets of this kind, 95 of 100 contain the true accuracy. Unparsed answers count as wrong."
    )
    if drawn:
        titles = "; ".join(record.measured_title for record in drawn)
        caption += f" {titles}: these intervals cover draws of examples and of {texts}."
    if references:
        caption += " Open squares are context, as reported and not measured here; their protocols differ."
    start = max(0, 10 * int(10 * table["accuracy"].max() - 0.3)) if zoomed else 0
    if start:
        caption += f" The axis is cut: it begins at {start}\u202f%, and ◂ stands for what lies below."
    actors, best = actors_of(evals), table[table["system"] != ""].iloc[0]
    title = f"{best['title']}: accuracy {percent(best['accuracy'])}"
    if len(actors) == 2:
        old, new = (one.record.metrics["accuracy"].value for one in actors.values())
        verb = "lifts" if new > old else "moves"
        title = f"Fine-tuning {verb} accuracy from {percent(old)} to {percent(new)}"
        if best["accuracy"] > new:
            title += f"; {best['title']} reaches {percent(best['accuracy'])}"
    elif "fine" not in actors:
        title += f"; this run’s fine-tuned model has not been evaluated on these {texts}"
    chart = evaluation.systems_chart(table, start)
    return Panel(title, chart, caption, table, f"accuracy-{records[0].dataset.name}")


def _reference_row(one: Reference) -> dict[str, Any]:
    return {
        "title": one.name.removesuffix(" fine-tuning"),  # short: it stands beside its mark
        "system": "", "accuracy": one.accuracy, "low": np.nan, "high": np.nan, "n": pd.NA,
        "selected_on": one.selected_on, "note": f"as reported: {one.protocol}; {one.source}",
    }  # fmt: skip


def cost_panel(
    context: Context, run_id: str | None, dataset: str | None, by: str, published: Sequence[Reference],
    against: str = "accuracy",
) -> Panel | None:  # fmt: skip
    """What each run took, by one of COSTS, and brought; None without one measured before and after.
    against: what it is held against, "accuracy" or another of COSTS."""
    rows, titles, where, doubt = [], run_titles(context), "", None
    for run in context.store.finished_runs():
        actors, record = actors_of(context.store.evals(run, dataset)), run.record
        if record and len(actors) == 2:
            old, new = (shares(one.record.metrics["accuracy"]) for one in actors.values())
            base = record.base_model
            row = {"title": titles[run.run_id], "run": run.run_id}
            row |= {"base": base.name, "parameters": base.parameters}
            row |= {"gpu_seconds": record.wall_seconds * record.hardware.count}
            row |= {"trainable_share": 100 * record.trainable_parameters / base.parameters}
            files = filter(Path.is_file, run.adapter_path.glob("*.safetensors"))  # no link to itself
            adapter = sum(one.stat().st_size for one in files) or 2 * record.trainable_parameters  # as stored
            row |= {"peak_memory_gb": record.peak_memory_bytes / 1e9, "adapter_mb": adapter / 1e6}
            tested, trained_on = actors["fine"].record, record.hardware.title
            row |= {"answer_ms": 1000 * tested.hardware.count / max(tested.reviews_per_second, 1e-6)}
            row |= {"trained_on": trained_on, "answered_on": tested.hardware.title}
            rows.append(row | {f"before_{name}": value for name, value in old.items()} | new)
            where = dataset_phrase(actors["fine"])
    if not rows:
        return None
    sign = 1 if (arrows := against == "accuracy") else -1  # less of a cost is better
    ranked = sorted(rows, key=lambda row: (-sign * row[against], row[by]))  # the best first
    rows, reached = sorted(ranked, key=lambda row: row[by]), -np.inf
    best = {row["base"]: row["run"] for row in reversed(ranked)}
    for row in rows:
        row["on_front"], reached = sign * row[against] > reached, max(reached, sign * row[against])
        row["named"] = row["on_front"] or row["run"] in (run_id, best[row["base"]])
    named = enumerate((row["title"] for row in rows if row["named"]), 1)
    key = Markup().join(Markup("<span class=titles>{} {}</span>").format(*one) for one in named)
    finding = "; ".join(dict.fromkeys(  # of the best that took least, and of the best
        f"{_told(row, by)}: {_told(row, against)}" for row in (rows[0], ranked[0])
    ))  # fmt: skip
    scale = "▲ fine-tuned. Less is better on both axes, which are logarithmic"
    if arrows:
        scale = "■ base model, ▲ fine-tuned, □ published, as reported and not measured here. "
        scale += f"{INTERVAL} (Wilson). Upwards, each halving of the error is the same step"
    caption = (
        f"{where}. {scale}; what would hide each other stands apart. Dotted: the runs that none beats on "
        "both axes; named are these, each base’s best, and the chosen one. Times leave out compiling, "
        "validation, and a teacher’s training."
    )
    for one in published if arrows else ():
        counts = [int(n) for n in re.findall(r"(\d+) (?:lack|have) a majority", one.protocol)]
        if one.kind == "label-ambiguity" and len(counts) == 2:
            low, high = (1 - n / 25_000 for n in counts)
            doubt = low, high, AMBIGUITY.format(one.name, *counts)
            caption += f" {one.name}: {one.protocol}. {one.checked}"
        elif one.accuracy:
            rows.append(_reference_row(one) | {"run": "", "parameters": one.parameters})
    chart = evaluation.cost_chart(table := pd.DataFrame(rows), by, doubt, run_id, against)
    return Panel(finding, chart, key + caption, table, f"cost-{dataset}")


def _told(row: Mapping[str, Any], name: str) -> str:
    """What a run of `cost_panel` took or, by accuracy, brought."""
    if name == "accuracy":
        return f"{percent(row['before_accuracy'])} → {percent(row['accuracy'])}"
    amount = parameters(row[name]) if name == "parameters" else f"{float(f'{row[name]:.3g}'):,g}"
    return f"{amount} {COST_UNITS[name]}"


def coverage_panel(store: Store, run: Run | None, evals: Mapping[str, Evaluation]) -> Panel | None:
    """Accuracy when only the surest answers are given, of the base model, the fine-tuned or both."""
    actors = actors_of(evals)
    frames = {who: frame for who, one in actors.items() if is_scored(frame := store.predictions(one))}
    rows = [
        {"actor": actor, "coverage": share} | shares(accuracy)
        for actor, frame in frames.items()
        for share, accuracy in classification.coverage(frame["label"], frame["p_positive"])
    ]  # fmt: skip
    if not rows:
        return None
    table, marks = pd.DataFrame(rows), []
    last = table[table["actor"] == table["actor"].iloc[-1]]
    most = last[last["coverage"] <= 0.8].iloc[-1] if len(last) > 1 else last.iloc[-1]
    title = f"Of the surest {percent(most['coverage'], 0)} of answers, {percent(most['accuracy'])} are right"
    where = dataset_phrase([*actors.values()][-1])
    caption = f"{where}. Certainty: P(positive) or 1 − P(positive), the larger. Bands: 95\u202f% intervals "
    caption += f"(Wilson).{_calibration(actors, frames)}"
    if "fine" in frames and run and run.record and (chosen := store.certainties(run)):
        label, p = frames["fine"]["label"], frames["fine"]["p_positive"]
        found = {target: classification.above_certainty(label, p, least) for target, least in chosen.items()}
        marks = [{"target": t, "coverage": one[0]} | shares(one[1]) for t, one in found.items() if one]
        told = "; ".join(f"{percent(t, 0)} from a certainty of {percent(c)}" for t, c in chosen.items())
        n = run.record.validation_accuracy.n
        caption += f" Marks: targets that {n:,} validation answers met ({told}), and what came of them here."
    chart = evaluation.coverage_chart(table, pd.DataFrame(marks, columns=["target", "coverage", "accuracy"]))
    return Panel(title, chart, caption, pd.concat([table, pd.DataFrame(marks)]), "coverage")


def _calibration(actors: Mapping[str, Evaluation], frames: Mapping[str, pd.DataFrame]) -> str:
    """The models' calibration errors, of the fine-tuned one with and without its temperature."""
    found = [(who, actors[actor].record.metrics.get("ece")) for actor, who in WHO.items() if actor in actors]
    said = ", ".join(f"{100 * ece.value:.1f} points for {who}" for who, ece in found if ece)
    how = f"{classification.CALIBRATION_BINS} equal-width bins, top-label confidence"
    told = f" Expected calibration error ({how}): {said}." if said else ""
    if "fine" in frames and (temperature := actors["fine"].record.settings.get("temperature")):
        fine = frames["fine"]
        raw = classification.ece_without(fine["label"], fine["p_positive"], temperature)
        told += f" Fine-tuned log-odds are divided by a temperature of {temperature:.2f}, fitted on the run’s"
        told += f" validation answers; without it the error is {100 * raw:.1f} points."
    return told
