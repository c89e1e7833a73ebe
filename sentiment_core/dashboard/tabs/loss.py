"""Loss curves: how training went, several runs overlaid, and a run that trains now followed live."""

import time
from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.schema import RunRecord
from sentiment_core.artifacts.store import ArtifactError, Run
from sentiment_core.dashboard.components.header import run_titles
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, notice, own_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.dashboard.store import noun
from sentiment_core.figures import training
from sentiment_core.figures.style import THIN, percent
from sentiment_core.metrics import histogram, intervals

QUIET_SECONDS = 180  # a run without run.json whose history grew within this time is training now
NEAR_THE_END = 0.04  # so far below the final accuracy, an evaluation counts as nearly there


def build(context: Context, run: gr.Dropdown) -> TabPart:
    most = len(training.RUN_STYLES)
    runs = gr.Dropdown([], label="Runs", elem_id="loss-runs", multiselect=True, max_choices=most)
    state = gr.HTML(elem_id="loss-state")
    loss = FigureSlot("loss", height=680, make=partial(own_figure, "replay"))
    seen = gr.State(None)
    timer = gr.Timer(5, active=False)
    outputs = [state, *loss.outputs, seen, timer]

    def listing(chosen: Sequence[str | None]) -> dict[str, Run]:
        """Those here, and of the chosen ones those from the Hub."""
        hub = [run for run in map(context.store.run, chosen) if run and run.hub]
        return {one.run_id: one for one in (*context.store.listing().runs, *hub)}

    def draw(chosen: list[str]) -> list[object]:
        listed = listing(chosen or ())
        picked = [listed[run_id] for run_id in chosen or [] if run_id in listed][:most]
        histories, words = _histories(context, picked)
        curves = loss_panel(histories, picked[0].record) if histories else None
        none = f"{'No run is chosen' if listed else 'No training run yet'}. This command makes one:"
        figures = loss.show(curves, empty(none, "python train.py"))
        head = notice(words, warn=len(histories) < len(picked)) if words else ""
        unfinished = any(one.record is None for one in picked)
        return [head, *figures, context.store.signature(), gr.Timer(active=unfinished)]

    def render(run_id: str | None) -> list[object]:
        """On load and when the page's run changes: this run, and whatever trains now, are chosen."""
        listed, current = listing([run_id]), context.store.run(run_id)
        titles = run_titles(context, current)
        training_now = [name for name, one in listed.items() if is_training(one)]
        wanted = ([current.run_id] if current else []) + training_now or [*listed][:1]
        choices = [(titles.get(name, name), name) for name in listed]
        return [gr.Dropdown(choices=choices, value=wanted, multiselect=True), *draw(wanted)]

    def poll(chosen: list[str], last: Hashable) -> list[object] | object:
        """Costs one stat per file of the artifacts while nothing changed."""
        return gr.skip() if context.store.signature() == last else draw(chosen)

    runs.input(draw, runs, outputs, **QUIET)
    timer.tick(poll, [runs, seen], outputs, **QUIET)
    return TabPart(render, [], [runs, *outputs])


def _histories(context: Context, runs: Sequence[Run]) -> tuple[dict[str, pd.DataFrame], str]:
    """What the runs have logged, by their names, and what is to be said of those unread or unfinished."""
    titles, histories, said = run_titles(context, *runs), {}, []
    for run in runs:
        try:
            history = context.store.history(run)
        except ArtifactError as error:
            said.append(str(error))
            continue
        if history.empty:
            said.append(f"{run.run_id} has no history yet.")
            continue
        histories[titles.get(run.run_id, run.run_id)] = history
        step = f"step {history['step'].max():,.0f}"
        if is_training(run):
            said.append(f"{run.run_id} is training now, at {step}; the curves follow it.")
        elif run.record is None:
            said.append(f"{run.run_id} was interrupted after {step}; train.py --resume continues it.")
    return histories, " ".join(said)


def is_training(run: Run) -> bool:
    path = run.history_path
    return run.record is None and path.exists() and time.time() - path.stat().st_mtime < QUIET_SECONDS


def loss_panel(histories: Mapping[str, pd.DataFrame], record: RunRecord | None = None) -> Panel:
    name, history = next(iter(histories.items()))
    train, checks = training.split(history)
    validated, texts = ", without an interval", noun(record.data.source) if record else "texts"
    if checks.empty:
        finding = f"training loss {train['loss'].iloc[-1]:.2f} after {len(train)} logged points"
    else:  # how soon validation was nearly as good as at the end, and how sure that is
        last = checks.iloc[-1]
        near = checks[checks["eval_accuracy"] >= last["eval_accuracy"] - NEAR_THE_END].iloc[0]
        finding = f"{percent(near['eval_accuracy'])} validation accuracy after {near['seconds']:.1f} seconds"
        if near["step"] != last["step"]:
            finding += f", {percent(last['eval_accuracy'])} after {last['seconds']:.0f}"
        if last["eval_counts"] is not None:
            n = sum(map(sum, last["eval_counts"]))
            end = intervals.wilson(round(n * last["eval_accuracy"]), n)
            validated = f" on n = {n:,} {texts}, outside the training time; 95{THIN}% interval at the end "
            validated += f"{percent(end.low or 0)} to {percent(end.high or 0)} (Wilson)"
    caption = (
        f"Thin: logged training loss (n = {len(train):,}); thick: its exponential mean; 0.69 is chance. "
        f"Diamonds: validation{validated}. Hollow bars: misclassified.{stages(record) if record else ''}"
    )
    figure = training.replay(histories) | {"edge": histogram.EDGE, "bins": histogram.BINS, "noun": texts}
    # every logged line; the counts by log-odds stay in history.jsonl
    frames = [frame.drop(columns="eval_counts").assign(run=name) for name, frame in histories.items()]
    data = pd.concat(frames, ignore_index=True).round(6)
    return Panel(f"{name}: {finding}", figure, caption, data, "loss-curves")


def stages(record: RunRecord) -> str:
    """Of which runs it is the mean, who taught it, and who that one; nothing of a run from labels alone. A
    teacher's loss is not drawn: its answers became targets, see `training.teacher`."""
    mean = f" Mean of the adapters of {' and '.join(record.parts)}; times add up." if record.parts else ""
    if (teacher := record.teacher) is None:
        return mean
    taught = f" learned {teacher.train:,} labels in {teacher.wall_seconds:.0f} seconds"
    if teacher.teacher:
        taught += f", and from {teacher.teacher.run_id}"
    return (
        f"{mean} Stages: {teacher.run_id}{taught}; it answered {teacher.reviews:,} unlabelled "
        f"{noun(teacher.source)} ({teacher.source}, {teacher.split}); this run learned "
        f"{record.data.labelled:,} labels and those answers, at temperature {teacher.temperature:g}."
    )
