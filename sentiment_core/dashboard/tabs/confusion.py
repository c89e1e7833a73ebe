"""Confusion matrices side by side at the page's threshold; below: precision, recall, ROC AUC."""

from typing import Any, NamedTuple, Self

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, own_figure, render
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.store import noun
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import classification
from sentiment_core.systems import SYSTEMS, System


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "confusion")
        label = "Compare the fine-tuned model with"
        other = gr.Dropdown([], label=label, interactive=True, elem_id="confusion-other", min_width=280)
    slider = own_figure("threshold", "threshold", "element, (at) => trigger('threshold', {at})")
    at = gr.State(50.0)
    with gr.Row(equal_height=True):
        left, right = FigureSlot("matrix-before", height=380), FigureSlot("matrix-after", height=380)
    rates = gr.HTML(elem_id="rates")
    drawn = [other, *left.outputs, *right.outputs, rates]

    def draw(run_id: str | None, name: str | None, system: str | None, threshold: float) -> list[object]:
        evals, read = context.evals(run_id, name)[1], context.store.predictions
        others = [(one.record.title, of) for of, one in evals.items() if of != "fine-tuned"]
        system = system if system in evals else next((of for _, of in others), None)
        menu = gr.Dropdown(choices=others, value=system)
        chosen = (evals.get(one or "") for one in (system, "fine-tuned"))
        sides = [Side.cut(one, read(one), threshold) if one else None for one in chosen]
        before, after = (matrix_panel(side) if side else None for side in sides)
        html = render("rates", sides=[side for side in sides if side]) if evals else ""
        missing = panels.UNEVALUATED if evals else ""  # one is enough
        return [menu, *left.show(before, panels.UNEVALUATED), *right.show(after, missing), html]

    def moved(event: gr.EventData, run_id: str | None, name: str | None, system: str | None) -> list[object]:
        return [event.at, *draw(run_id, name, system, event.at)]

    inputs, changed = [dataset, other, at], [dataset.input, other.input]
    gr.on(changed, draw, [run, *inputs], drawn, **QUIET | {"trigger_mode": "always_last"})
    in_order = QUIET | {"trigger_mode": "multiple", "concurrency_limit": 1}
    slider.threshold(moved, [run, dataset, other], [at, *drawn], **in_order)
    return TabPart(draw, inputs, drawn, dataset)


class Side(NamedTuple):
    """One system at one threshold."""

    evaluation: Evaluation
    system: System
    at: str  # the threshold in words; empty where the system states no probabilities
    cells: dict[str, Any]  # as `classification.at_threshold` gives them

    @classmethod
    def cut(cls, evaluation: Evaluation, frame: pd.DataFrame, threshold: float = 50) -> Self:
        """`threshold` in percent; without effect on a system that states no probabilities."""
        p, at, words = frame["p_positive"], threshold / 100, f"at {threshold:.3g}\u202f%"
        if not panels.is_scored(frame):  # as given: 0 and 1 lie on both sides of one half, a gap stays a gap
            p, at, words = frame["prediction"], 0.5, ""
        system = SYSTEMS[evaluation.record.system]
        return cls(evaluation, system, words, classification.at_threshold(frame["label"], p, at))


def matrix_panel(side: Side) -> Panel:
    record, draws = side.evaluation.record, len(side.evaluation.record.draw_accuracies)
    truths, answers = classification.CLASSES, classification.ANSWERS
    rows = [[side.cells[f"{truth}_{answer}"] for answer in answers] for truth in truths]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, "Unparsed"])
    if not table["Unparsed"].any():
        table = table.drop(columns="Unparsed")
    where = side.at and f"{side.at.replace('at', 'Threshold')}. "
    where += panels.dataset_phrase(side.evaluation)
    caption = f"{where}. Percentages are shares of each row; these are counts, so no interval is drawn."
    name = f"{record.title}, first of {draws} draws" if draws else record.title
    answered, right = (counts := table.to_numpy())[:, :2].sum(0), counts.trace()
    n, parsed, most, texts = counts.sum(), answered.sum(), answered.argmax(), noun(record.dataset.name)
    finding = f", {parsed - right:,} errors"
    if parsed < 0.98 * n:
        finding = f", {percent(1 - parsed / n)} unparsed"
    elif answered[most] > 0.75 * parsed:
        finding = f"; it calls {percent(answered[most] / parsed)} of all {texts} {truths[most]}"
    title = f"{name}: accuracy {percent(right / n)}{finding}"
    chart, data = evaluation.confusion_chart(table, side.system.colour), table.rename_axis("true label")
    return Panel(title, chart, caption, data.reset_index(), f"confusion-{record.system}")
