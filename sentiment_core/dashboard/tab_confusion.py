"""Confusion matrices side by side, with a threshold to move, and the ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core import charts, metrics
from sentiment_core.artifacts import Evaluation
from sentiment_core.chart_style import percent
from sentiment_core.dashboard import views
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.dashboard.parts import FigureSlot, Panel, empty, html_table, q
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.systems import SYSTEMS
from sentiment_core.tables import read_as

COMMAND = "python eval.py --run <run> --system all"
NO_ANSWER = "no answer"


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
            left_at = _slider("threshold-before", "Left matrix")
        with gr.Column(min_width=300):
            right = FigureSlot("matrix-after", height=380)
            right_at = _slider("threshold-after", "Right matrix")
    with gr.Row(equal_height=True):
        with gr.Column(min_width=300):
            roc = FigureSlot("roc", height=440, level=3)
        with gr.Column(min_width=300):
            rates = gr.HTML(elem_id="rates")
    drawn = [*left.outputs, left_at, *right.outputs, right_at, *roc.outputs, rates]

    def draw(
        run_id: str | None, name: str | None, system: str | None, at_left: float, at_right: float
    ) -> list[object]:
        _, evals = context.evals(run_id, name)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            hidden = gr.Slider(visible=False)
            return [*left.hide(nothing), hidden, *right.hide(""), hidden, *roc.hide(""), ""]
        values: list[object] = []
        sides = [
            Side.of(context, evals.get(system or ""), at_left),
            Side.of(context, evals.get("fine-tuned"), at_right),
        ]
        for slot, side in zip((left, right), sides, strict=True):
            if side is None:
                missing = empty("This system has not been evaluated on these reviews.", COMMAND)
                values += [*slot.hide(missing), gr.Slider(visible=False)]
            else:
                label = _slider_label(SYSTEMS[side.system].short_title)
                values += [*slot.show(matrix_panel(side)), gr.Slider(visible=side.scored, label=label)]
        present = [side for side in sides if side]
        panel = roc_panel(context, present)
        unscored = empty("A ROC curve needs a system that states probabilities.")
        return [*values, *(roc.show(panel) if panel else roc.hide(unscored)), rates_html(present)]

    def render(
        run_id: str | None, name: str | None, system: str | None, at_left: float, at_right: float
    ) -> list[object]:
        """On load, and when run or dataset change: the base model that compares like with like is chosen."""
        _, evals = context.evals(run_id, name)
        options = [(SYSTEMS[system].title, system) for system in evals if system != "fine-tuned"]
        before = context.store.before(evals)
        value = before.record.system if before else (options[0][1] if options else None)
        return [gr.Dropdown(choices=options, value=value), *draw(run_id, name, value, at_left, at_right)]

    inputs = [dataset, other, left_at, right_at]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    dataset.input(render, [run, *inputs], [other, *drawn], **quiet)
    gr.on([other.input, left_at.input, right_at.input], draw, [run, *inputs], drawn, **quiet)
    return TabPart(render, inputs, [other, *drawn], dataset)


def _slider_label(whose: str) -> str:
    return f"{whose}: call it positive from this P(positive) on, %"


def _slider(elem_id: str, whose: str) -> gr.Slider:
    return gr.Slider(
        1,
        99,
        50,
        step=1,
        label=_slider_label(whose),
        elem_id=elem_id,
        interactive=True,
        visible=False,
        buttons=["reset"],
    )


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
        if views.is_scored(frame):
            p, at = frame["p_positive"], threshold / 100
        else:  # answers as given: 0 and 1 lie on both sides of one half, a gap stays a gap
            p, at = frame["prediction"], 0.5
        return Side(evaluation, frame, threshold, metrics.at_threshold(frame["label"], p, at))

    @property
    def scored(self) -> bool:
        return views.is_scored(self.frame)

    @property
    def system(self) -> str:
        return self.evaluation.record.system

    @property
    def title(self) -> str:
        return SYSTEMS[self.system].title

    @property
    def actor(self) -> str:
        return SYSTEMS[self.system].colour


def counts_table(cells: dict[str, Any]) -> pd.DataFrame:
    """2 × 2 counts, or 2 × 3 where some answers are no label; rows are the truth."""
    rows = [[cells[f"{truth}_{answer}"] for answer in metrics.ANSWERS] for truth in metrics.CLASSES]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, NO_ANSWER])
    return table if table[NO_ANSWER].any() else table.drop(columns=NO_ANSWER)


def matrix_panel(side: Side) -> Panel:
    table = counts_table(side.cells)
    caption = (
        f"{views.dataset_phrase(side.evaluation)}. The percentages are shares of each row; these are "
        f"counts, so no "
        "interval is drawn."
    )
    if side.scored:
        caption = f"Threshold {side.threshold:.0f}\u202f%. {caption}"
    title = f"{side.title}: {finding(side.cells)}"
    chart = charts.confusion_chart(table, side.actor)
    return Panel(title, chart, caption, table.rename_axis("label").reset_index(), f"confusion-{side.system}")


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def finding(cells: dict[str, Any]) -> str:
    """What a matrix says: how often right, and which way it leans."""
    accuracy = f"{_share(cells['accuracy'])} right"
    unparsed = cells["negative_unparsed"] + cells["positive_unparsed"]
    positive = cells["negative_positive"] + cells["positive_positive"]
    answered = positive + cells["negative_negative"] + cells["positive_negative"]
    if unparsed > 0.02 * (answered + unparsed):
        return f"{accuracy}, and no answer to {percent(unparsed / (answered + unparsed))}"
    if positive > 0.75 * answered:
        return f"{accuracy}; it calls {percent(positive / answered)} of all reviews positive"
    if positive < 0.25 * answered:
        return f"{accuracy}; it calls {percent(1 - positive / answered)} of all reviews negative"
    return f"{accuracy}, {cells['negative_positive'] + cells['positive_negative']:,} mistakes"


def roc_panel(context: Context, sides: list[Side]) -> Panel | None:
    """The curves of the scored systems, with the thresholds marked; None without any."""
    curves, points, found, rows = {}, [], [], []
    for side in (side for side in sides if side.scored):
        frame = side.frame
        curve, auc = context.store.keep(
            ("roc", side.evaluation.path),
            context.store.stamp(side.evaluation),
            lambda frame=frame: (
                pd.DataFrame(metrics.roc_curve(frame["label"], frame["p_positive"])),
                metrics.roc_auc(frame["label"], frame["p_positive"]),
            ),
        )
        if auc is None:
            continue
        name = SYSTEMS[side.system].short_title
        curves[name] = (side.actor, curve)
        label = f"{name} at {side.threshold:.0f}\u202f%"
        points.append((side.actor, side.cells["false_positive_rate"], side.cells["recall_positive"], label))
        found.append((name, auc))
        rows.append(curve.assign(system=side.system))
    if not curves:
        return None
    best = "; ".join(f"{name} {percent(auc.value)}" for name, auc in reversed(found))
    title = f"How often a positive review outranks a negative one: {best}"
    areas = "; ".join(
        f"{name} {auc.value:.3f}" + (f" ({auc.low:.3f} to {auc.high:.3f})" if auc.low is not None else "")
        for name, auc in reversed(found)
    )
    caption = (
        f"{views.dataset_phrase(sides[-1].evaluation)}. Area under the curve with 95\u202f% interval "
        f"(DeLong): {areas}. "
        "Marks: the thresholds set above."
    )
    data = pd.concat(rows, ignore_index=True).round(6)
    return Panel(title, charts.roc_chart(curves, points), caption, data, "roc")


def rates_html(sides: list[Side]) -> str:
    """Precision and recall of both classes at the thresholds set."""
    lines = [("right", "accuracy")]
    for word in LABEL_WORDS:
        lines.append((f"{word}, precision", f"precision_{word.lower()}"))
        lines.append((f"{word}, recall", f"recall_{word.lower()}"))
    heads = "".join(
        f'<th scope="col" class="n">{escape(SYSTEMS[side.system].short_title)}'
        + (f"<br>at {side.threshold:.0f}\u202f%" if side.scored else "")
        + "</th>"
        for side in sides
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="n">{_share(side.cells[key])}</td>' for side in sides)
        + "</tr>"
        for name, key in lines
    )
    return q(
        '<div class="panel"><h3>At these thresholds</h3>'
        f'<table><thead><tr><th scope="col">share</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
        '<p class="small muted" style="margin:10px 0 0">Precision: of the reviews called so, how many are. '
        "Recall: of "
        "those that are, how many were called so. A higher threshold makes “positive” rarer and "
        "surer.</p>"
        f"{''.join(forms_html(side) for side in sides)}</div>"
    )


def forms_html(side: Side) -> str:
    """How a free answer most often began, and what it was read as; empty for a scored system."""
    forms = side.evaluation.record.answer_forms
    if not forms:
        return ""
    table = pd.DataFrame(
        [(form.form or "(nothing)", form.count, read_as(form)) for form in forms[:12]],
        columns=["it answered", "times", "read as"],
    )
    return f'<h3 style="margin:16px 0 8px">What it answered: {escape(side.title)}</h3>{html_table(table)}'
