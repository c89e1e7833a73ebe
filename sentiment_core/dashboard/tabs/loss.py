"""Loss curves: how training went, several runs overlaid, and a run that trains now followed live."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence

import gradio as gr
import numpy as np
import pandas as pd

from sentiment_core.artifacts.store import ArtifactError, Run
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, notice
from sentiment_core.dashboard.components.replay import replay_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.figures import training
from sentiment_core.figures.style import THIN, percent
from sentiment_core.metrics.histogram import BINS, EDGE
from sentiment_core.metrics.intervals import wilson

COMMAND = "python train.py"
QUIET_SECONDS = 180
"""A run without run.json whose history grew within this time is training now."""
MAX_RUNS = 4
NEAR_THE_END = 0.04
"""So far below the final accuracy, an evaluation counts as nearly there."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    several = {"multiselect": True, "max_choices": MAX_RUNS}
    runs = gr.Dropdown([], label="Runs", elem_id="loss-runs", **several)
    state = gr.HTML(elem_id="loss-state")
    loss = FigureSlot("loss", height=680, make=replay_figure)
    with gr.Accordion("Learning rate and gradient norm", open=False, elem_id="schedule-fold"):
        schedule = FigureSlot("schedule", height=420, level=3)
    seen = gr.State(None)
    timer = gr.Timer(5, active=False)
    outputs = [state, *loss.outputs, *schedule.outputs, seen, timer]

    def draw(chosen: list[str]) -> list[object]:
        listed = context.store.listing().runs
        picked = [one for one in listed if one.run_id in (chosen or [])][:MAX_RUNS]
        histories, problems = _histories(context, picked)
        words = " ".join(w for w in (*problems, *(unfinished_words(one, histories) for one in picked)) if w)
        if histories:
            figures = loss.show(loss_panel(histories)) + schedule.show(schedule_panel(histories))
        else:
            none = "No run is chosen." if listed else "No training run yet."
            figures = loss.hide(empty(f"{none} This command makes one:", COMMAND)) + schedule.hide("")
        follow = gr.Timer(active=any(one.record is None for one in picked))
        head = notice(words, warn=bool(problems)) if words else ""
        return [head, *figures, context.store.signature(), follow]

    def render(run_id: str | None) -> list[object]:
        """On load and when the page's run changes: this run, and whatever trains now, are chosen."""
        listed, current = context.store.listing().runs, context.store.run(run_id)
        names = [one.run_id for one in listed]
        wanted = [current.run_id] if current else []
        wanted = wanted + [one.run_id for one in listed if is_training(one)] or names[:1]
        return [gr.Dropdown(choices=names, value=wanted), *draw(wanted)]

    def poll(chosen: list[str], last: Hashable) -> list[object] | object:
        """Costs one stat per file of the artifacts while nothing changed."""
        return gr.skip() if context.store.signature() == last else draw(chosen)

    runs.input(draw, runs, outputs, **QUIET)
    timer.tick(poll, [runs, seen], outputs, **QUIET)
    return TabPart(render, [], [runs, *outputs])


def _histories(context: Context, runs: Sequence[Run]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """What the runs have logged, by run id, and a sentence for each that has nothing to show."""
    histories, problems = {}, []
    for run in runs:
        try:
            histories[run.run_id] = context.store.history(run)
        except ArtifactError as error:
            problems.append(str(error))
    problems += [f"{run_id} has no history yet." for run_id, history in histories.items() if history.empty]
    return {run_id: history for run_id, history in histories.items() if len(history)}, problems


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
    return f"{run.run_id} was interrupted after step {step:,}; train.py --resume continues it."


def loss_panel(histories: Mapping[str, pd.DataFrame]) -> Panel:
    run_id, history = next(iter(histories.items()))
    train, checks = history[history["loss"].notna()], training.evaluations(history)
    every = int(train["step"].diff().median()) if len(train) > 1 else 1  # logged: the mean since then
    thin = f"the mean loss of every {every} steps" if every > 1 else "the loss of every step"
    caption = (
        f"Thin: {thin}; thick: its geometric exponential mean (half-life a fiftieth of the run, two "
        "points at least); diamonds: validation, joined where at most an epoch and a doubling of the "
        "reviews lie between. "
        "The loss is that of the answer’s first token among the whole vocabulary: 0.69 is a coin "
        f"toss between the two label words. n = {len(train):,} logged points, {len(checks):,} validations. "
    )
    title = f"{run_id}: {_finding(train, checks)}"
    figure = training.replay(histories) | {"edge": EDGE, "bins": BINS}
    return Panel(title, figure, caption + _reviews_words(checks), _table(histories), "loss-curves")


def _finding(train: pd.DataFrame, checks: pd.DataFrame) -> str:
    """How soon validation was nearly as good as at the end; of a run without validations, its loss."""
    if not len(checks):
        return f"training loss {train['loss'].iloc[-1]:.2f} after {len(train)} logged points"
    last = checks.iloc[-1]
    near = checks[checks["eval_accuracy"] >= last["eval_accuracy"] - NEAR_THE_END].iloc[0]
    words = f"{percent(near['eval_accuracy'])} validation accuracy after {near['seconds']:.1f} seconds"
    if near["step"] == last["step"]:
        return words
    return f"{words}, {percent(last['eval_accuracy'])} after {last['seconds']:.0f}"


def _reviews_words(checks: pd.DataFrame) -> str:
    """How many reviews were validated on and how sure the end is, where the evaluations say so."""
    if not len(checks) or checks["eval_counts"].iloc[-1] is None:
        return "No interval is drawn."
    last, n = checks.iloc[-1], int(np.sum(checks["eval_counts"].iloc[-1]))
    end = wilson(round(n * last["eval_accuracy"]), n)
    return (
        f"Validation: n = {n:,} reviews, outside the training time; 95{THIN}% interval at the end "
        f"{percent(end.low or 0)} to {percent(end.high or 0)} (Wilson). Play passes along the axis in six "
        "seconds; bars slide between evaluations, hollow ones are called wrongly, the tallest cut off."
    )


def schedule_panel(histories: Mapping[str, pd.DataFrame]) -> Panel:
    run_id, history = next(iter(histories.items()))
    rates, norms = history["learning_rate"].dropna(), history["grad_norm"].dropna()
    peak = f"the learning rate peaks at {rates.max():.3g}" if len(rates) else "no learning rate was logged"
    title = f"{run_id}: {peak}"
    if len(norms):
        title += f"; the gradient norm's median is {norms.median():.2g}, its largest {norms.max():.2g}"
    caption = f"n = {len(rates):,} logged steps; no interval is drawn. The norm is taken before clipping."
    chart = training.schedule_chart(histories)
    return Panel(title, chart, caption, _table(histories), "learning-rate")


def _table(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every logged line; the counts by log-odds stay in history.jsonl."""
    frames = [frame.drop(columns="eval_counts").assign(run=name) for name, frame in histories.items()]
    return pd.concat(frames, ignore_index=True).round(6)
