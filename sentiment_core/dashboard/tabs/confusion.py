"""Confusion matrices side by side at the page's threshold; folded: precision, recall, ROC curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.frames import read_as
from sentiment_core.artifacts.schema import AnswerForm, Metric
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.movement import threshold_slider
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, html_table
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import classification
from sentiment_core.systems import SYSTEMS, System

COMMAND = "python eval.py --run <run> --system all"
LEAST, MOST = 0.01, 99.99
"""Thresholds in percent that the slider can tell."""
MOST_FORMS = 12
"""Beginnings of free answers that are listed, the most frequent ones."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "confusion")
        look: dict[str, Any] = {"label": "Compare the fine-tuned model with", "min_width": 280}
        other = gr.Dropdown([], interactive=True, elem_id="confusion-other", **look)
    slider, at = threshold_slider("threshold"), gr.State(50.0)
    with gr.Row(equal_height=True):
        left, right = FigureSlot("matrix-before", height=380), FigureSlot("matrix-after", height=380)
    fold = gr.Accordion("Precision, recall and ROC curves", open=False, elem_id="rates-fold")
    with fold, gr.Row(equal_height=True):
        with gr.Column(min_width=300):
            rates = gr.HTML(elem_id="rates")
        with gr.Column(min_width=300):
            roc = FigureSlot("roc", height=440, level=3)
    drawn = [*left.outputs, *right.outputs, *roc.outputs, rates]

    def draw(run_id: str | None, name: str | None, system: str | None, threshold: float) -> list[object]:
        _, evals = context.evals(run_id, name)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            return [*left.hide(nothing), *right.hide(""), *roc.hide(""), ""]
        chosen = [evals.get(one or "") for one in (system, "fine-tuned")]
        sides = [Side.of(context, one, threshold) if one else None for one in chosen]
        missing = empty("This system has not been evaluated on these reviews.", COMMAND)
        before, after = (matrix_panel(side) if side else None for side in sides)
        there = [side for side in sides if side]
        unscored = empty("A ROC curve needs a system that states probabilities.")
        return [
            *left.show(before, missing), *right.show(after, missing),
            *roc.show(roc_panel(context, there), unscored), rates_html(there),
        ]  # fmt: skip

    def restart(run_id: str | None, name: str | None, _: str | None, threshold: float) -> list[object]:
        """On load, and when run or dataset change: the base model that compares like with like is chosen."""
        evals = context.evals(run_id, name)[1]
        options = [(one.record.title, system) for system, one in evals.items() if system != "fine-tuned"]
        before = context.store.before(evals)
        value = before.record.system if before else (options[0][1] if options else None)
        return [gr.Dropdown(choices=options, value=value), *draw(run_id, name, value, threshold)]

    def moved(event: gr.EventData, run_id: str | None, name: str | None, system: str | None) -> list[object]:
        threshold = min(max(float(event.at), LEAST), MOST)
        return [threshold, *draw(run_id, name, system, threshold)]

    inputs = [dataset, other, at]
    latest = QUIET | {"trigger_mode": "always_last"}
    dataset.input(restart, [run, *inputs], [other, *drawn], **latest)
    other.input(draw, [run, *inputs], drawn, **latest)
    in_order = QUIET | {"trigger_mode": "multiple", "concurrency_limit": 1}
    slider.threshold(moved, [run, dataset, other], [at, *drawn], **in_order)
    return TabPart(restart, inputs, [other, *drawn], dataset)


@dataclass(frozen=True)
class Side:
    """One system at one threshold."""

    system: System
    evaluation: Evaluation
    frame: pd.DataFrame
    scored: bool
    at: str
    """The threshold in words; empty where the system states no probabilities."""
    cells: dict[str, Any]
    """As `metrics.at_threshold` gives them."""

    @staticmethod
    def of(context: Context, evaluation: Evaluation, threshold: float) -> Side:
        """`threshold` in percent; without effect on a system that states no probabilities."""
        frame = context.store.predictions(evaluation)
        if scored := panels.is_scored(frame):
            p, at, words = frame["p_positive"], threshold / 100, f"at {threshold:.3g}\u202f%"
        else:  # answers as given: 0 and 1 lie on both sides of one half, a gap stays a gap
            p, at, words = frame["prediction"], 0.5, ""
        cells = classification.at_threshold(frame["label"], p, at)
        return Side(SYSTEMS[evaluation.record.system], evaluation, frame, scored, words, cells)


def counts_table(cells: dict[str, Any]) -> pd.DataFrame:
    """2 × 2 counts, or 2 × 3 where some answers are unparsed; rows are the true labels."""
    answers = classification.ANSWERS
    rows = [[cells[f"{truth}_{answer}"] for answer in answers] for truth in classification.CLASSES]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, "Unparsed"])
    return table if table["Unparsed"].any() else table.drop(columns="Unparsed")


def matrix_panel(side: Side) -> Panel:
    table = counts_table(side.cells)
    where = panels.dataset_phrase(side.evaluation)
    caption = f"{where}. Percentages are shares of each row; these are counts, so no interval is drawn."
    if side.scored:
        caption = f"{side.at.replace('at', 'Threshold')}. {caption}"
    title = f"{side.evaluation.record.title}: {finding(side.cells)}"
    chart = evaluation.confusion_chart(table, side.system.colour)
    data = table.rename_axis("true label").reset_index()
    return Panel(title, chart, caption, data, f"confusion-{side.system.id}")


def finding(cells: dict[str, Any]) -> str:
    """What a matrix says: its accuracy, and which way it leans."""
    negative, positive, unparsed = (
        cells[f"negative_{answer}"] + cells[f"positive_{answer}"] for answer in classification.ANSWERS
    )
    accuracy, answered = f"accuracy {percent(cells['accuracy'])}", negative + positive
    if unparsed > 0.02 * (answered + unparsed):
        return f"{accuracy}, {percent(unparsed / (answered + unparsed))} unparsed"
    for answer, count in (("positive", positive), ("negative", negative)):
        if count > 0.75 * answered:
            return f"{accuracy}; it calls {percent(count / answered)} of all reviews {answer}"
    return f"{accuracy}, {cells['negative_positive'] + cells['positive_negative']:,} errors"


def roc_panel(context: Context, sides: list[Side]) -> Panel | None:
    """The curves of the scored systems, with the thresholds marked; None without any."""
    scored = [(side, *_roc(context, side)) for side in sides if side.scored]
    found = [(side, curve, auc) for side, curve, auc in scored if auc]
    if not found:
        return None
    curves = {side.system.short_title: (side.system.colour, curve) for side, curve, _ in found}
    corner = ("false_positive_rate", "recall_positive")
    points = [
        (side.system.colour, *(side.cells[rate] for rate in corner), f"{side.system.short_title} {side.at}")
        for side, _, _ in found
    ]
    latest_first = [(side.system.short_title, auc) for side, _, auc in reversed(found)]
    title = "ROC AUC: " + "; ".join(f"{name} {auc.value:.3f}" for name, auc in latest_first)
    intervals = "; ".join(
        f"{name} {auc.low:.3f} to {auc.high:.3f}" for name, auc in latest_first if auc.low is not None
    )
    caption = (
        f"{panels.dataset_phrase(sides[-1].evaluation)}. The area under the curve is how often a positive "
        f"review outranks a negative one; 95\u202f% interval (DeLong): {intervals or 'none'}. "
        "Marks: the threshold."
    )
    data = pd.concat([curve.assign(system=side.system.id) for side, curve, _ in found], ignore_index=True)
    return Panel(title, evaluation.roc_chart(curves, points), caption, data.round(6), "roc")


def _roc(context: Context, side: Side) -> tuple[pd.DataFrame, Metric | None]:
    """The curve and the area under it; kept while the predictions are unchanged."""

    scored = side.frame["label"], side.frame["p_positive"]
    return context.store.keep(
        ("roc", side.evaluation.path), context.store.stamp(side.evaluation),
        lambda: (pd.DataFrame(classification.roc_curve(*scored)), classification.roc_auc(*scored)),
    )  # fmt: skip


def rates_html(sides: list[Side]) -> str:
    """Precision and recall of both classes at the thresholds set, and how free answers began."""
    rates = {"accuracy": "Accuracy"}
    for word in LABEL_WORDS:
        rates |= {f"{rate}_{word.lower()}": f"{word}, {rate}" for rate in ("precision", "recall")}
    records = [side.evaluation.record for side in sides]
    forms = {record.title: forms_table(record.answer_forms) for record in records if record.answer_forms}
    return render("rates", sides=sides, rates=rates, forms=forms)


def forms_table(forms: Sequence[AnswerForm]) -> str:
    """How a free answer most often began, and what it was parsed as."""
    rows = [(form.form or "(nothing)", form.count, read_as(form)) for form in forms[:MOST_FORMS]]
    return html_table(pd.DataFrame(rows, columns=["answer", "count", "parsed as"]))
