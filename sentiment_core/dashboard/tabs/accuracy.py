"""Accuracy: reviews on their way from before to after, every system with its interval, and the outcomes."""

from collections.abc import Mapping
from itertools import accumulate, pairwise

import gradio as gr
import numpy as np
import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, figure_menu, own_figure, render
from sentiment_core.dashboard.context import QUIET, VERSUS, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import Sides
from sentiment_core.dashboard.panels import WHO
from sentiment_core.dashboard.store import Store, noun
from sentiment_core.dashboard.tabs.method import settings_html
from sentiment_core.figures.evaluation import COSTS
from sentiment_core.figures.style import percent
from sentiment_core.metrics import classification, histogram
from sentiment_core.systems import SYSTEMS, first_base

RANGES = (0, 10, 22, 34, 45, 56, 68, 80, histogram.BINS)
"""Edges between bins near 0.1, 1, 10, 50, 90, 99 and 99.9 %: the rows of the table."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "accuracy")
        versus = gr.Dropdown([], elem_id="versus", **VERSUS)
    place = own_figure("movement", "movement", visible=False, render=False)
    moving = FigureSlot("movement-figure", 480, make=lambda **_: place.render())
    with moving.column:
        table = gr.HTML(elem_id="movement-table")
    zoom = gr.Checkbox(False, label="Zoom to the upper end", elem_id="zoom", container=False)
    systems, cost = FigureSlot("systems", height=480), FigureSlot("cost", height=660)
    switch = {"label": "What it takes", "elem_id": "cost-by", "elem_classes": "pills"}
    axes = [(title, name) for name, title in COSTS.items()]
    with cost.column, gr.Row():
        by = gr.Radio(axes, value="parameters", scale=3, **switch)
        upright = {"label": "Held against", "elem_id": "cost-against", "min_width": 290, "interactive": True}
        beside = gr.Dropdown([("Accuracy", "accuracy"), *axes], value="accuracy", **upright)
    outcomes = gr.HTML(elem_id="outcomes")
    covered = FigureSlot("coverage", height=400)
    notes = gr.HTML(elem_id="accuracy-notes")

    def draw(
        run_id: str | None, name: str | None, zoomed: bool, cost_by: str, held: str, other: str
    ) -> list[object]:  # fmt: skip
        (run, evals), store, reviews = context.evals(run_id, name), context.store, context.dataset(name)
        if not evals:
            nothing = [*systems.show(None, panels.UNEVALUATED), *cost.show(None), "", *covered.show(None)]
            return [*moving.show(None), "", *nothing, "", *[gr.update(visible=False)] * 2]
        sides = Sides.of(context, run_id, name, other)
        histograms, by_range, flow = before_and_after(store, sides)
        shown = [one for one in store.references() if reviews == "imdb" and not one.kind.startswith("study")]
        costs = panels.cost_panel(context, run_id, reviews, cost_by, shown, held)
        told = heatmap_html(evals) + settings_html(context, sides, run_id) + flow
        return [
            *moving.show(histograms), by_range,
            *systems.show(panels.accuracy_panel(evals, shown, zoomed=zoomed)),
            *cost.show(costs), told, *covered.show(panels.coverage_panel(store, run, evals)),
            render("accuracy_notes", records=[e.record for e in evals.values()], rivals=rivals(store, evals)),
            gr.Checkbox(visible=True), sides.menu(),
        ]  # fmt: skip

    inputs = [dataset, zoom, by, beside, versus]
    outputs = [*moving.outputs, table, *systems.outputs, *cost.outputs, outcomes, *covered.outputs, notes]
    outputs += [zoom, versus]
    drawn, visibly = context.drawn_once("accuracy", draw), QUIET | {"show_progress": "minimal"}
    gr.on([one.input for one in inputs], drawn, [run, *inputs], outputs, **visibly)
    versus.input(None, versus, None, js="(v) => qUrl({versus: v})", **QUIET)
    return TabPart(draw, inputs, outputs, dataset, [versus])


def before_and_after(store: Store, sides: Sides, *, linked: bool = True) -> tuple[Panel | None, str, str]:
    """The moving histograms, their table, the flow of outcomes; empty where what they need is missing."""
    frames = [store.predictions(one) for one in sides[:2] if one]
    if not sides.after or len(frames) < 2 or not frames[0]["review_id"].equals(frames[1]["review_id"]):
        return None, "", ""
    flow = outcomes_html(sides, *frames, linked=linked)
    if not all(map(panels.is_scored, frames)):
        return None, "", flow
    before, after = (frame["p_positive"].to_numpy() for frame in frames)
    label, called = frames[0]["label"].to_numpy(), noun(sides.after.record.dataset.name)
    panel = movement_panel(label, before, after, panels.dataset_phrase(sides.after))
    panel.figure.update(words=sides.words, versus=sides.versus, noun=called)
    return panel, table_html(panel.data, sides.versus), flow


def outcomes_html(sides: Sides, first: pd.DataFrame, second: pd.DataFrame, *, linked: bool) -> str:
    """The four outcomes of the same reviews as ribbons from before to after, each a link to its reviews; the
    plain sentence."""
    c = classification.compare(first["label"], first["prediction"], second["prediction"])
    counts = {"correct": c.both_right, "regressed": c.broken, "fixed": c.fixed, "wrong": c.both_wrong}
    before, after = (  # where each ribbon begins, in percent from the top
        dict(zip(order, accumulate([0.0, *(100 * counts[show] / c.n for show in order)]), strict=False))
        for order in (list(counts), ["correct", "fixed", "regressed", "wrong"])
    )
    told = {"sides": sides, "linked": linked, "counts": counts, "before": before, "after": after}
    return render("outcomes", c=c, p=p_words(c.mcnemar_p), **told)


def p_words(p: float) -> str:
    return "p < 10⁻¹⁵" if p < 1e-15 else f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


def rivals(store: Store, evals: Mapping[str, Evaluation]) -> list[tuple[str, classification.Comparison, str]]:
    """Every other system against the fine-tuned one on the same reviews, with McNemar's p by Holm."""
    if not (ours := evals.get("fine-tuned")):
        return []
    label, mine, ids = (store.predictions(ours)[name] for name in ("label", "prediction", "review_id"))
    frames = {each.record.title: store.predictions(each) for each in evals.values() if each is not ours}
    found = {
        title: classification.compare(label, mine, frame["prediction"])
        for title, frame in frames.items() if frame["review_id"].equals(ids)
    }  # fmt: skip
    adjusted = classification.holm([c.mcnemar_p for c in found.values()])
    return [(title, found[title], p_words(p)) for title, p in zip(found, adjusted, strict=True)]


def movement_panel(label: np.ndarray, before: np.ndarray, after: np.ndarray, where: str) -> Panel:
    """The histograms of two systems. `before`, `after`: (n,) P(positive) of the same texts."""
    counts = {side: histogram.counts(label, p) for side, p in (("before", before), ("after", after))}
    edges = [histogram.probability_of(edge) for edge in range(histogram.BINS + 1)]
    value = {
        "cells": histogram.moves(label, before, after).tolist(), "edge": histogram.EDGE,
        "bins": histogram.BINS, "edges": edges, "top": max(int(each.max()) for each in counts.values()),
    }  # fmt: skip
    data = pd.DataFrame({"p_from": edges[:-1], "p_to": edges[1:]})
    for side, by_label in counts.items():
        data[[f"negative_{side}", f"positive_{side}"]] = by_label.T
    caption = (
        f"{where}, by P(positive) on a log-odds axis. Hollow bars: misclassified at the dashed threshold. "
        "Drag the line to move the threshold; click a bar to read its examples."
    )
    return Panel(movement_title(label, before, after), value, caption, data, "movement")


def movement_title(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> str:
    """What the move did, at a threshold of one half."""
    old, new = (percent(float(np.mean((p >= 0.5) == label))) for p in (before, after))
    positive = float(np.mean(before >= 0.5))
    word, part = ("positive", positive) if positive >= 0.5 else ("negative", 1 - positive)
    if part < 0.9:
        return f"From {old} to {new} classified correctly"
    return f"Before, {percent(part)} were called {word}; after, {new} are classified correctly"


def table_html(data: pd.DataFrame, versus: str = "") -> str:
    """A `movement_panel`'s data by RANGES, each count a link to its reviews."""
    parts = [data.iloc[low:high] for low, high in pairwise(RANGES)]
    rows = [(one["p_from"].iloc[0], one["p_to"].iloc[-1], one.iloc[:, 2:].sum().to_dict()) for one in parts]
    return render("movement_table", rows=rows, versus=versus)


def heatmap_html(evals: Mapping[str, Evaluation]) -> Markup:
    """Accuracy by phenomenon, the hardest first, and system; nothing where the reviews have no phenomena.
    evals: system -> its evaluation, all on the same reviews."""
    first = [system for system in (first_base(evals), "fine-tuned") if system in evals]
    rows = [
        {"phenomenon": part.value, "system": system} | panels.shares(part.accuracy)
        for system in dict.fromkeys([*first, *evals])
        for part in evals[system].record.slices if part.by == "phenomenon"
    ]  # fmt: skip
    if not rows:
        return Markup()
    table = pd.DataFrame(rows)
    records = {system: evals[system].record for system in table["system"].unique()}
    judge = "fine-tuned" if "fine-tuned" in records else next(iter(records))
    judged = table[table["system"] == judge].sort_values("accuracy", kind="stable")
    lowest, name = judged["accuracy"].min(), WHO["fine"] if judge == "fine-tuned" else records[judge].title
    hardest = " and ".join(judged[judged["accuracy"] == lowest]["phenomenon"])
    return render(
        "challenge", title=f"Hardest for {name}: {hardest}, {percent(lowest, 0)} correct",
        menu=figure_menu(table, "challenge", pictures=()), records=records, systems=SYSTEMS,
        phenomena=judged["phenomenon"].tolist(), widest=((table["high"] - table["low"]) / 2).max(),
        cells={(row.phenomenon, row.system): row for row in table.itertuples()},
    )  # fmt: skip
