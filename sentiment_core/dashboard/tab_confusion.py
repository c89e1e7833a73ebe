"""Confusion matrices side by side, with a threshold to move, and the ROC curves."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pandas as pd

from sentiment_core import charts, metrics
from sentiment_core.artifacts import SYSTEM_TITLES, Evaluation
from sentiment_core.charts import percent
from sentiment_core.dashboard import views
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.dashboard.parts import FigureSlot, Panel, empty
from sentiment_core.labels import LABEL_WORDS

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
            left_at = _slider("threshold-before", "base model")
        with gr.Column(min_width=300):
            right = FigureSlot("matrix-after", height=380)
            right_at = _slider("threshold-after", "fine-tuned model")
    roc = FigureSlot("roc", height=440)
    drawn = [*left.outputs, left_at, *right.outputs, right_at, *roc.outputs]

    def draw(
        run_id: str | None, name: str | None, system: str | None, at_left: float, at_right: float
    ) -> list[object]:
        _, evals = context.evals(run_id, name)
        before, after = evals.get(system or ""), evals.get("fine-tuned")
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            hidden = gr.Slider(visible=False)
            return [*left.hide(nothing), hidden, *right.hide(""), hidden, *roc.hide("")]
        values: list[object] = []
        for slot, evaluation, at, actor in (
            (left, before, at_left, "base"),
            (right, after, at_right, "fine"),
        ):
            if evaluation is None:
                values += [
                    *slot.hide(empty("This system has not been evaluated on these reviews.", COMMAND)),
                    gr.Slider(visible=False),
                ]
                continue
            frame = context.store.predictions(evaluation)
            values += [
                *slot.show(matrix_panel(evaluation, frame, at, actor)),
                gr.Slider(visible=views.is_scored(frame)),
            ]
        panel = roc_panel(context, {"base": (before, at_left), "fine": (after, at_right)})
        return [
            *values,
            *(
                roc.show(panel)
                if panel
                else roc.hide(empty("A ROC curve needs a system that states probabilities."))
            ),
        ]

    def render(
        run_id: str | None, name: str | None, system: str | None, at_left: float, at_right: float
    ) -> list[object]:
        """On load, and when run or dataset change: the base model that compares like with like is chosen."""
        _, evals = context.evals(run_id, name)
        options = [(SYSTEM_TITLES[system], system) for system in evals if system != "fine-tuned"]
        before = context.store.before(evals)
        value = before.record.system if before else (options[0][1] if options else None)
        return [gr.Dropdown(choices=options, value=value), *draw(run_id, name, value, at_left, at_right)]

    inputs = [dataset, other, left_at, right_at]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    dataset.input(render, [run, *inputs], [other, *drawn], **quiet)
    gr.on([other.input, left_at.input, right_at.input], draw, [run, *inputs], drawn, **quiet)
    return TabPart(render, inputs, [other, *drawn], dataset)


def _slider(elem_id: str, whose: str) -> gr.Slider:
    return gr.Slider(
        1, 99, 50, step=1, label=f"Threshold of the {whose}: positive from P(positive) = … %", elem_id=elem_id,
        interactive=True, visible=False, buttons=["reset"],
    )  # fmt: skip


def counts_table(cells: dict[str, object]) -> pd.DataFrame:
    """2 × 2 counts, or 2 × 3 where some answers are no label; rows are the truth."""
    rows = [[int(cells[f"{truth}_{answer}"]) for answer in metrics.ANSWERS] for truth in metrics.CLASSES]  # type: ignore[call-overload]
    table = pd.DataFrame(rows, index=list(LABEL_WORDS), columns=[*LABEL_WORDS, NO_ANSWER])
    return table if table[NO_ANSWER].any() else table.drop(columns=NO_ANSWER)


def matrix_panel(evaluation: Evaluation, frame: pd.DataFrame, threshold: float, actor: str) -> Panel:
    """One system's matrix; of a scored system at `threshold` (percent)."""
    p = frame["p_positive"].to_numpy(float)
    if views.is_scored(frame):
        cells = metrics.at_threshold(frame["label"], p, threshold / 100)
    else:  # answers as they were given: 0 and 1 lie on both sides of one half, a gap stays a gap
        given = frame["prediction"].to_numpy(dtype=float, na_value=np.nan)
        cells = metrics.at_threshold(frame["label"], given, 0.5)
    table = counts_table(cells)
    name = SYSTEM_TITLES[evaluation.record.system]
    title = f"{name}: {_finding(cells)}"
    rates = "; ".join(
        f"{word} precision {_share(cells[f'precision_{word.lower()}'])}, recall {_share(cells[f'recall_{word.lower()}'])}"
        for word in LABEL_WORDS
    )
    caption = f"{rates}. {views.dataset_phrase(evaluation)}. Percentages are of each row; counts, so no interval is drawn."
    if views.is_scored(frame) and threshold != 50:
        caption = f"At a threshold of {threshold:.0f}\u202f%. {caption}"
    data = table.rename_axis("label").reset_index()
    return Panel(
        title, charts.confusion_chart(table, actor), caption, data, f"confusion-{evaluation.record.system}"
    )


def _share(value: object) -> str:
    return "undefined" if value is None else percent(float(value))  # type: ignore[arg-type]


def _finding(cells: dict[str, object]) -> str:
    """What the matrix says: how often right, and which way it leans when wrong."""
    accuracy = f"{_share(cells['accuracy'])} right"
    unparsed = int(cells["negative_unparsed"]) + int(cells["positive_unparsed"])  # type: ignore[call-overload]
    total = sum(int(cells[f"{t}_{a}"]) for t in metrics.CLASSES for a in metrics.ANSWERS)  # type: ignore[call-overload]
    positive = int(cells["negative_positive"]) + int(cells["positive_positive"])  # type: ignore[call-overload]
    answered = total - unparsed
    if unparsed > 0.02 * total:
        return f"{accuracy}, and no answer for {percent(unparsed / total)}"
    if answered and positive / answered > 0.75:
        return f"{accuracy}; it calls {percent(positive / answered)} of all reviews positive"
    if answered and positive / answered < 0.25:
        return f"{accuracy}; it calls {percent(1 - positive / answered)} of all reviews negative"
    return f"{accuracy}, and errs both ways"


def roc_panel(context: Context, sides: dict[str, tuple[Evaluation | None, float]]) -> Panel | None:
    curves, points, words, rows = {}, [], [], []
    shown: Evaluation | None = None
    for actor, (evaluation, at) in sides.items():
        if evaluation is None or not views.is_scored(frame := context.store.predictions(evaluation)):
            continue
        shown = evaluation

        def make(frame: pd.DataFrame = frame) -> tuple[pd.DataFrame, metrics.Estimate | None]:
            curve = pd.DataFrame(metrics.roc_curve(frame["label"], frame["p_positive"]))
            return curve, metrics.roc_auc(frame["label"], frame["p_positive"])

        curve, auc = context.store.keep(("roc", evaluation.path), id(frame), make)
        if auc is None:
            continue
        cells = metrics.at_threshold(frame["label"], frame["p_positive"], at / 100)
        curves[actor] = curve
        name = (
            "fine-tuned" if actor == "fine" else SYSTEM_TITLES[evaluation.record.system].split(",")[0].lower()
        )
        points.append(
            (actor, cells["false_positive_rate"], cells["recall_positive"], f"{name} at {at:.0f}\u202f%")
        )
        interval = f" (95\u202f% interval {auc.low:.3f} to {auc.high:.3f})" if auc.low is not None else ""
        words.append((name, auc.value, interval))
        rows.append(curve.assign(system=evaluation.record.system))
    if not curves or shown is None:
        return None
    title = "; ".join(
        f"{name}: {100 * value:.1f} in 100 times a positive review scores above a negative one"
        if i == 0
        else f"{name}: {100 * value:.1f}"
        for i, (name, value, _) in enumerate(reversed(words))
    )
    title = title[0].upper() + title[1:]
    areas = "; ".join(
        f"area under the curve, {name}: {value:.3f}{interval}" for name, value, interval in words
    )
    caption = (
        f"{views.dataset_phrase(shown)}. {areas[0].upper()}{areas[1:]}. Marks: the thresholds set above."
    )
    return Panel(
        title, charts.roc_chart(curves, points), caption, pd.concat(rows, ignore_index=True).round(6), "roc"
    )
