"""Confusion matrices side by side at the page's threshold; folded: precision, recall, ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.frames import read_as
from sentiment_core.artifacts.schema import AnswerForm, Metric
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, own_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.store import Store
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import classification
from sentiment_core.systems import SYSTEMS, System

MOST_FORMS = 12
"""Beginnings of free answers that are listed, the most frequent ones."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "confusion")
        label = "Compare the fine-tuned model with"
        other = gr.Dropdown([], label=label, interactive=True, elem_id="confusion-other", min_width=280)
    slider = own_figure("threshold", "threshold", "element, (at) => trigger('threshold', {at})")
    at = gr.State(50.0)
    with gr.Row(equal_height=True):
        left, right = FigureSlot("matrix-before", height=380), FigureSlot("matrix-after", height=380)
    fold = gr.Accordion("Precision, recall and ROC curves", open=False, elem_id="rates-fold")
    with fold, gr.Row():
        with gr.Column(min_width=300):
            rates = gr.HTML(elem_id="rates")
        with gr.Column(min_width=300):
            roc = FigureSlot("roc", height=440, level=3)
    drawn = [*left.outputs, *right.outputs, *roc.outputs, rates]

    def draw(run_id: str | None, name: str | None, system: str | None, threshold: float) -> list[object]:
        evals = context.evals(run_id, name)[1]
        if not evals:
            return [*left.hide(panels.UNEVALUATED), *right.hide(""), *roc.hide(""), ""]
        chosen = (evals.get(one or "") for one in (system, "fine-tuned"))
        sides = [Side.of(context.store, one, threshold) if one else None for one in chosen]
        before, after = (matrix_panel(side) if side else None for side in sides)
        there = [side for side in sides if side]
        missing = empty("This system has not been evaluated on these reviews.", panels.COMMAND)
        unscored = empty("A ROC curve needs a system that states probabilities.")
        return [
            *left.show(before, missing), *right.show(after, missing),
            *roc.show(roc_panel(context, there), unscored), rates_html(there),
        ]  # fmt: skip

    def restart(run_id: str | None, name: str | None, _: str | None, threshold: float) -> list[object]:
        """On load, and when run or dataset change: the base model that compares like with like is chosen."""
        evals = context.evals(run_id, name)[1]
        options = [(one.record.title, system) for system, one in evals.items() if system != "fine-tuned"]
        value = next((system for _, system in options), None)
        return [gr.Dropdown(choices=options, value=value), *draw(run_id, name, value, threshold)]

    def moved(event: gr.EventData, run_id: str | None, name: str | None, system: str | None) -> list[object]:
        return [event.at, *draw(run_id, name, system, event.at)]

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

    evaluation: Evaluation
    frame: pd.DataFrame
    at: str  # the threshold in words; empty where the system states no probabilities
    cells: dict[str, Any]  # as `classification.at_threshold` gives them

    @property
    def system(self) -> System:
        return SYSTEMS[self.evaluation.record.system]

    @staticmethod
    def of(store: Store, evaluation: Evaluation, threshold: float) -> Side:
        return Side.cut(evaluation, store.predictions(evaluation), threshold)

    @staticmethod
    def cut(evaluation: Evaluation, frame: pd.DataFrame, threshold: float = 50) -> Side:
        """`threshold` in percent; without effect on a system that states no probabilities."""
        p, at, words = frame["p_positive"], threshold / 100, f"at {threshold:.3g}\u202f%"
        if not panels.is_scored(frame):  # as given: 0 and 1 lie on both sides of one half, a gap stays a gap
            p, at, words = frame["prediction"], 0.5, ""
        return Side(evaluation, frame, words, classification.at_threshold(frame["label"], p, at))


def matrix_panel(side: Side) -> Panel:
    record, draws = side.evaluation.record, len(side.evaluation.record.draw_accuracies)
    truths, answers = classification.CLASSES, classification.ANSWERS
    rows = [[side.cells[f"{truth}_{answer}"] for answer in answers] for truth in truths]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, "Unparsed"])
    if not table["Unparsed"].any():
        table = table.drop(columns="Unparsed")
    where = panels.dataset_phrase(side.evaluation)
    caption = f"{where}. Percentages are shares of each row; these are counts, so no interval is drawn."
    if side.at:
        caption = f"{side.at.replace('at', 'Threshold')}. {caption}"
    name = f"{record.title}, first of {draws} draws" if draws else record.title
    title, chart = f"{name}: {finding(table)}", evaluation.confusion_chart(table, side.system.colour)
    data = table.rename_axis("true label").reset_index()
    return Panel(title, chart, caption, data, f"confusion-{record.system}")


def finding(table: pd.DataFrame) -> str:
    """What a matrix says: its accuracy, and which way it leans."""
    counts = table.to_numpy()
    answered, right = counts[:, :2].sum(0), counts.trace()
    n, parsed, most = counts.sum(), answered.sum(), answered.argmax()
    accuracy = f"accuracy {percent(right / n)}"
    if parsed < 0.98 * n:
        return f"{accuracy}, {percent(1 - parsed / n)} unparsed"
    if answered[most] > 0.75 * parsed:
        share, word = percent(answered[most] / parsed), classification.CLASSES[most]
        return f"{accuracy}; it calls {share} of all reviews {word}"
    return f"{accuracy}, {parsed - right:,} errors"


def roc_panel(context: Context, sides: list[Side]) -> Panel | None:
    """The curves of the scored systems, with the thresholds marked; None without any."""
    scored = [(side, *_roc(context, side)) for side in sides if side.at]
    found = [(side, curve, auc) for side, curve, auc in scored if auc]
    if not found:
        return None
    curves = {
        side.system.short_title: evaluation.Roc(side.system.colour, curve, side.cells, side.at)
        for side, curve, _ in found
    }
    latest_first = [(side.system.short_title, auc) for side, _, auc in reversed(found)]
    title = "ROC AUC: " + "; ".join(f"{name} {auc.value:.3f}" for name, auc in latest_first)
    bounds = [f"{name} {auc.low:.3f} to {auc.high:.3f}" for name, auc in latest_first if auc.low is not None]
    caption = (
        f"{panels.dataset_phrase(sides[-1].evaluation)}. The area under the curve is how often a positive "
        f"review outranks a negative one; 95\u202f% interval (DeLong): {'; '.join(bounds) or 'none'}. "
        "Marks: the threshold."
    )
    data = pd.concat([curve.assign(system=side.system.id) for side, curve, _ in found], ignore_index=True)
    return Panel(title, evaluation.roc_chart(curves), caption, data.round(6), "roc")


def _roc(context: Context, side: Side) -> tuple[pd.DataFrame, Metric | None]:
    """The curve and the area under it; kept while the predictions are unchanged."""
    scored = side.frame["label"], side.frame["p_positive"]
    return context.store.keep(
        ("roc", side.evaluation.path), context.store.stamp(side.evaluation),
        lambda: (pd.DataFrame(classification.roc_curve(*scored)), classification.roc_auc(*scored)),
    )  # fmt: skip


def rates_html(sides: list[Side]) -> str:
    """Precision and recall of both classes at the threshold, and how free answers most often began."""

    def row(one: AnswerForm) -> tuple[str, str, str]:
        return one.form or "(nothing)", f"{one.count:,}", read_as(one)

    records = (side.evaluation.record for side in sides)
    forms = {one.title: [*map(row, one.answer_forms[:MOST_FORMS])] for one in records if one.answer_forms}
    return render("rates", sides=sides, forms=forms)
