"""Loss curves: how training went, several runs overlaid, and a run that trains now followed live."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping

import gradio as gr
import pandas as pd

from sentiment_core import history_charts
from sentiment_core.artifacts import ArtifactError, Run
from sentiment_core.chart_style import percent
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.parts import FigureSlot, Panel, empty, notice

COMMAND = "python train.py"
QUIET_SECONDS = 180
"""A run without run.json whose history grew within this time is training now."""
MAX_RUNS = 4
AXES = [("Steps", "step"), ("Reviews seen", "examples"), ("Seconds", "seconds")]


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        runs = gr.Dropdown(
            [],
            multiselect=True,
            label="Runs",
            elem_id="loss-runs",
            max_choices=MAX_RUNS,
            interactive=True,
            scale=2,
        )
        axis = gr.Radio(
            AXES, value="step", label="Along", elem_id="loss-axis", elem_classes="pills", interactive=True
        )
    state = gr.HTML(elem_id="loss-state")
    loss = FigureSlot("loss", height=540)
    with gr.Accordion("Learning rate and gradient norm", open=False, elem_id="schedule-fold"):
        schedule = FigureSlot("schedule", height=420, level=3)
    seen = gr.State(None)
    timer = gr.Timer(5, active=False)
    outputs = [state, *loss.outputs, *schedule.outputs, seen, timer]

    def draw(chosen: list[str], x: str) -> list[object]:
        picked = [r for r in context.store.listing().runs if r.run_id in (chosen or [])][:MAX_RUNS]
        histories, problems = {}, []
        for one in picked:
            try:
                history = context.store.history(one)
            except ArtifactError as error:
                problems.append(str(error))
                continue
            if len(history):
                histories[one.run_id] = history
            else:
                problems.append(f"{one.run_id} has no history yet.")
        words = " ".join([*problems, *(s for one in picked if (s := unfinished_words(one, histories)))])
        mark, active = signature(context, chosen), gr.Timer(active=any(one.record is None for one in picked))
        head = notice(words, warn=bool(problems)) if words else ""
        if not histories:
            none = "No run is chosen." if context.store.listing().runs else "No training run yet."
            return [
                head,
                *loss.hide(empty(f"{none} This command makes one:", COMMAND)),
                *schedule.hide(""),
                mark,
                active,
            ]
        return [
            head,
            *loss.show(loss_panel(histories, x)),
            *schedule.show(schedule_panel(histories, x)),
            mark,
            active,
        ]

    def render(run_id: str | None, chosen: list[str], x: str) -> list[object]:
        """On load and when the page's run changes: this run, and whatever trains now, are chosen."""
        names = [one.run_id for one in context.store.listing().runs]
        current = context.store.run(run_id)
        wanted = [current.run_id] if current else []
        wanted += [one.run_id for one in context.store.listing().runs if is_training(one)]
        wanted = wanted or names[:1]
        return [gr.Dropdown(choices=names, value=wanted), *draw(wanted, x)]

    def poll(chosen: list[str], x: str, last: Hashable) -> list[object] | object:
        """Costs one stat per chosen run while nothing changed."""
        if signature(context, chosen) == last:
            return gr.skip()
        return draw(chosen, x)

    gr.on(
        [runs.input, axis.input],
        draw,
        [runs, axis],
        outputs,
        api_visibility="private",
        show_progress="minimal",
    )
    timer.tick(poll, [runs, axis, seen], outputs, api_visibility="private", show_progress="hidden")
    return TabPart(render, [runs, axis], [runs, *outputs])


def signature(context: Context, chosen: list[str]) -> tuple:
    marks = []
    for name in chosen or []:
        for file in ("history.jsonl", "run.json"):
            path = context.store.root / "runs" / name / file
            try:
                info = path.stat()
                marks.append((name, info.st_mtime_ns, info.st_size))
            except OSError:
                marks.append((name, 0, 0))
    return tuple(marks)


def is_training(run: Run) -> bool:
    try:
        return run.record is None and time.time() - run.history_path.stat().st_mtime < QUIET_SECONDS
    except OSError:
        return False


def unfinished_words(run: Run, histories: Mapping[str, pd.DataFrame]) -> str:
    if run.record is not None or run.run_id not in histories:
        return ""
    step = int(histories[run.run_id]["step"].max())
    if is_training(run):
        return f"{run.run_id} is training now, at step {step:,}; the curves follow it."
    return f"{run.run_id} is unfinished and quiet since step {step:,}; train.py --resume goes on with it."


def loss_panel(histories: Mapping[str, pd.DataFrame], x: str) -> Panel:
    run_id, history = next(iter(histories.items()))
    train = history[history["loss"].notna()]
    checks = history[history["eval_accuracy"].notna()]
    title = f"{run_id}: "
    if len(train) > 20:
        start, end = train["loss"].iloc[0], train["loss"].tail(max(10, len(train) // 20)).mean()
        title += (
            f"training loss falls from {start:.2f} to {end:.2f}"
            if end < start
            else f"training loss ends at {end:.2f}"
        )
        half = train[train["loss"].ewm(halflife=max(2, len(train) / 50)).mean() <= (start + end) / 2]
        if end < start and len(half):
            title += f", half of that within the first {int(half.iloc[0]['examples']):,} reviews"
    else:
        title += f"{len(train)} steps so far"
    if len(checks):
        title += f"; validation accuracy reaches {percent(checks['eval_accuracy'].max())}"
    caption = (
        f"{_thin_words(train)}; thick: its exponential mean (half-life a fiftieth of the run, two points at "
        f"least); diamonds: validation. n = {len(train):,} logged points, {len(checks):,} "
        "validations; no interval is drawn. "
        "The loss is that of the answer's first token among the whole vocabulary: 0.69 is a coin toss "
        "between the two label words, more means that other words were likelier."
    )
    return Panel(
        title, history_charts.history_chart(histories, x=x), caption, table_of(histories), "loss-curves"
    )


def _thin_words(train: pd.DataFrame) -> str:
    """What a point of the thin line is: the Trainer logs the mean since it last logged."""
    every = int(train["step"].diff().median()) if len(train) > 1 else 1
    return f"Thin: the mean loss of every {every} steps" if every > 1 else "Thin: the loss of every step"


def schedule_panel(histories: Mapping[str, pd.DataFrame], x: str) -> Panel:
    run_id, history = next(iter(histories.items()))
    rates = history["learning_rate"].dropna()
    norms = history["grad_norm"].dropna()
    title = (
        f"{run_id}: the learning rate peaks at {rates.max():.3g}"
        if len(rates)
        else f"{run_id}: no learning rate was logged"
    )
    if len(norms):
        title += f"; the gradient norm's median is {norms.median():.2g}, its largest {norms.max():.2g}"
    caption = f"n = {len(rates):,} logged steps; no interval is drawn. The norm is taken before clipping."
    return Panel(
        title, history_charts.schedule_chart(histories, x=x), caption, table_of(histories), "learning-rate"
    )


def table_of(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([frame.assign(run=name) for name, frame in histories.items()], ignore_index=True).round(
        6
    )
