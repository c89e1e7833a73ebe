"""Confusion matrices side by side, with a threshold to move, and the ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.frames import read_as
from sentiment_core.artifacts.schema import Metric
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, html_table
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import classification
from sentiment_core.systems import SYSTEMS, System

COMMAND = "python eval.py --run <run> --system all"
UNPARSED = "Unparsed"
MOST_FORMS = 12
"""Beginnings of free answers that are listed, the most frequent ones."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "confusion")
        other = gr.Dropdown(
            [],
            label="Compare the fine-tuned model with",
            elem_id="confusion-other",
            interactive=True,
            min_width=280,
        )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            left = FigureSlot("matrix-before", height=380)
            left_at = _slider("threshold-before")
        with gr.Column(min_width=300):
            right = FigureSlot("matrix-after", height=380)
            right_at = _slider("threshold-after")
    with gr.Row(equal_height=True):
        with gr.Column(min_width=300):
            roc = FigureSlot("roc", height=440, level=3)
        with gr.Column(min_width=300):
            rates = gr.HTML(elem_id="rates")
    drawn = [*left.outputs, left_at, *right.outputs, right_at, *roc.outputs, rates]

    def draw(run_id: str | None, name: str | None, system: str | None, *thresholds: float) -> list[object]:
        _, evals = context.evals(run_id, name)
        hidden = gr.Slider(visible=False)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            return [*left.hide(nothing), hidden, *right.hide(""), hidden, *roc.hide(""), ""]
        sides = [
            Side.of(context, evals.get(one or ""), at)
            for one, at in zip((system, "fine-tuned"), thresholds, strict=True)
        ]
        values: list[object] = []
        for slot, side in zip((left, right), sides, strict=True):
            missing = empty("This system has not been evaluated on these reviews.", COMMAND)
            values += slot.show(matrix_panel(side) if side else None, missing)
            values.append(gr.Slider(visible=side.scored, label=side.slider_label) if side else hidden)
        present = [side for side in sides if side]
        unscored = empty("A ROC curve needs a system that states probabilities.")
        return [*values, *roc.show(roc_panel(context, present), unscored), rates_html(present)]

    def restart(run_id: str | None, name: str | None, _: str | None, *thresholds: float) -> list[object]:
        """On load, and when run or dataset change: the base model that compares like with like is chosen."""
        _, evals = context.evals(run_id, name)
        options = [(SYSTEMS[system].title, system) for system in evals if system != "fine-tuned"]
        before = context.store.before(evals)
        value = before.record.system if before else (options[0][1] if options else None)
        return [gr.Dropdown(choices=options, value=value), *draw(run_id, name, value, *thresholds)]

    inputs = [dataset, other, left_at, right_at]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    dataset.input(restart, [run, *inputs], [other, *drawn], **quiet)
    gr.on([other.input, left_at.input, right_at.input], draw, [run, *inputs], drawn, **quiet)
    return TabPart(restart, inputs, [other, *drawn], dataset)


def _slider(elem_id: str) -> gr.Slider:
    return gr.Slider(1, 99, 50, step=1, elem_id=elem_id, interactive=True, visible=False, buttons=["reset"])


@dataclass(frozen=True)
class Side:
    """One system at one threshold."""

    evaluation: Evaluation
    frame: pd.DataFrame
    threshold: float
    """In percent; without effect where the system states no probabilities."""
    cells: dict[str, Any]
    """As `metrics.at_threshold` gives them."""

    @staticmethod
    def of(context: Context, evaluation: Evaluation | None, threshold: float) -> Side | None:
        if evaluation is None:
            return None
        frame = context.store.predictions(evaluation)
        if panels.is_scored(frame):
            p, at = frame["p_positive"], threshold / 100
        else:  # answers as given: 0 and 1 lie on both sides of one half, a gap stays a gap
            p, at = frame["prediction"], 0.5
        return Side(evaluation, frame, threshold, classification.at_threshold(frame["label"], p, at))

    @property
    def scored(self) -> bool:
        return panels.is_scored(self.frame)

    @property
    def system(self) -> System:
        return SYSTEMS[self.evaluation.record.system]

    @property
    def name(self) -> str:
        return self.system.short_title

    @property
    def slider_label(self) -> str:
        return f"{self.name}: threshold on P(positive), %"

    @property
    def at(self) -> str:
        """The threshold in words; empty where it has no effect."""
        return f"at {self.threshold:.0f}\u202f%" if self.scored else ""


def counts_table(cells: dict[str, Any]) -> pd.DataFrame:
    """2 × 2 counts, or 2 × 3 where some answers are unparsed; rows are the true labels."""
    rows = [
        [cells[f"{truth}_{answer}"] for answer in classification.ANSWERS] for truth in classification.CLASSES
    ]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, UNPARSED])
    return table if table[UNPARSED].any() else table.drop(columns=UNPARSED)


def matrix_panel(side: Side) -> Panel:
    table = counts_table(side.cells)
    caption = (
        f"{panels.dataset_phrase(side.evaluation)}. Percentages are shares of each row; these are counts, "
        "so no interval is drawn."
    )
    if side.scored:
        caption = f"Threshold {side.threshold:.0f}\u202f%. {caption}"
    title = f"{side.system.title}: {finding(side.cells)}"
    chart = evaluation.confusion_chart(table, side.system.colour)
    data = table.rename_axis("true label").reset_index()
    return Panel(title, chart, caption, data, f"confusion-{side.system.id}")


def finding(cells: dict[str, Any]) -> str:
    """What a matrix says: its accuracy, and which way it leans."""
    negative, positive, unparsed = (
        sum(cells[f"{truth}_{answer}"] for truth in classification.CLASSES)
        for answer in classification.ANSWERS
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
    found = [(side, *_roc(context, side)) for side in sides if side.scored]
    found = [(side, curve, auc) for side, curve, auc in found if auc]
    if not found:
        return None
    curves = {side.name: (side.system.colour, curve) for side, curve, _ in found}
    points = [
        (side.system.colour, side.cells["false_positive_rate"], side.cells["recall_positive"],
         f"{side.name} {side.at}")
        for side, _, _ in found
    ]  # fmt: skip
    latest_first = [(side.name, auc) for side, _, auc in reversed(found)]
    title = "ROC AUC: " + "; ".join(f"{name} {auc.value:.3f}" for name, auc in latest_first)
    intervals = "; ".join(
        f"{name} {auc.low:.3f} to {auc.high:.3f}" for name, auc in latest_first if auc.low is not None
    )
    caption = (
        f"{panels.dataset_phrase(sides[-1].evaluation)}. The area under the curve is how often a positive "
        f"review outranks a negative one; 95\u202f% interval (DeLong): {intervals or 'none'}. "
        "Marks: the thresholds set above."
    )
    data = pd.concat([curve.assign(system=side.system.id) for side, curve, _ in found], ignore_index=True)
    return Panel(title, evaluation.roc_chart(curves, points), caption, data.round(6), "roc")


def _roc(context: Context, side: Side) -> tuple[pd.DataFrame, Metric | None]:
    """The curve and the area under it; kept while the predictions are unchanged."""

    def make() -> tuple[pd.DataFrame, Metric | None]:
        label, p_positive = side.frame["label"], side.frame["p_positive"]
        return pd.DataFrame(classification.roc_curve(label, p_positive)), classification.roc_auc(
            label, p_positive
        )

    return context.store.keep(("roc", side.evaluation.path), context.store.stamp(side.evaluation), make)


def rates_html(sides: list[Side]) -> str:
    """Precision and recall of both classes at the thresholds set, and how free answers began."""
    rates = {"accuracy": "Accuracy"}
    for word in LABEL_WORDS:
        rates |= {f"{rate}_{word.lower()}": f"{word}, {rate}" for rate in ("precision", "recall")}
    forms = {side.system.title: table for side in sides if (table := forms_table(side))}
    return render("rates", sides=sides, rates=rates, forms=forms)


def forms_table(side: Side) -> str:
    """How a free answer most often began, and what it was parsed as; empty for a scored system."""
    forms = side.evaluation.record.answer_forms
    if not forms:
        return ""
    rows = [(form.form or "(nothing)", form.count, read_as(form)) for form in forms[:MOST_FORMS]]
    return html_table(pd.DataFrame(rows, columns=["answer", "count", "parsed as"]))
