"""Accuracy: reviews on their way from before to after, every system with its interval, and the outcomes."""

from itertools import accumulate

import gradio as gr
import pandas as pd

from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components import challenge, movement
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, empty, own_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import Sides
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.tabs.method import settings_html
from sentiment_core.figures.evaluation import COSTS
from sentiment_core.metrics import classification


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "accuracy")
        free = {"allow_custom_value": True, "interactive": True}  # an address may name any run
        versus = gr.Dropdown([], value="", label="Compare with", elem_id="versus", min_width=260, **free)
    moving = FigureSlot(
        "movement-figure", 480, 2, lambda _: own_figure("movement", "movement", visible=False)
    )
    with moving.column:
        table = gr.HTML(elem_id="movement-table")
    with gr.Row():
        switches = {"container": False, "min_width": 220}
        references = gr.Checkbox(True, label="Show published results", elem_id="references", **switches)
        zoom = gr.Checkbox(False, label="Zoom to the upper end", elem_id="zoom", **switches)
    systems, cost = FigureSlot("systems", height=480), FigureSlot("cost", height=660)
    switch = {"label": "What it takes", "elem_id": "cost-by", "elem_classes": "pills"}
    with cost.column:
        by = gr.Radio([(title, name) for name, title in COSTS.items()], value="parameters", **switch)
    outcomes = gr.HTML(elem_id="outcomes")
    covered = FigureSlot("coverage", height=400)
    with gr.Accordion("Reliability", open=False, elem_id="slices-fold"):
        reliability = FigureSlot("reliability", height=380, level=3)
    notes = gr.HTML(elem_id="accuracy-notes")

    def draw(
        run_id: str | None, name: str | None, published: bool, zoomed: bool, cost_by: str, other: str
    ) -> list[object]:  # fmt: skip
        evals = context.evals(run_id, name)[1]
        if not evals:
            nothing = [*systems.hide(panels.UNEVALUATED), *cost.hide(""), "", *covered.hide("")]
            hidden = gr.Checkbox(visible=False), gr.Checkbox(visible=False), gr.Dropdown(visible=False)
            return [*moving.hide(""), "", *nothing, *reliability.hide(""), "", *hidden]
        before, after = context.store.before(evals), evals.get("fine-tuned")
        where = panels.dataset_phrase(after or next(iter(evals.values())))
        sides = Sides.of(context, run_id, name, other)
        histograms, by_range, flow = before_and_after(context.store, sides, where)
        fitting = context.store.references() if context.dataset(name) == "imdb" else ()
        shown = [one for one in fitting if published and not one.kind.startswith("study")]
        actors = {actor: one for actor, one in (("base", before), ("fine", after)) if one}
        surest = panels.coverage_panel(context.store, context.store.run(run_id), actors, where)
        calibration = panels.reliability_panel(context.store, actors, where)
        unscored = empty("Reliability needs a system that states probabilities.", panels.COMMAND)
        costs = panels.cost_panel(context, run_id, context.dataset(name), cost_by, shown)
        told = challenge.heatmap_html(evals) + settings_html(context, sides, run_id) + flow
        return [
            *moving.show(histograms), by_range,
            *systems.show(panels.accuracy_panel(evals, shown, before, zoomed=zoomed)),
            *cost.show(costs), told, *covered.show(surest), *reliability.show(calibration, unscored),
            render("accuracy_notes", records=[one.record for one in evals.values()]),
            gr.Checkbox(visible=bool(fitting)), gr.Checkbox(visible=True),
            gr.Dropdown(choices=[*sides.others.items()], value=sides.versus, visible=len(sides.others) > 1),
        ]  # fmt: skip

    inputs = [dataset, references, zoom, by, versus]
    outputs = [*moving.outputs, table, *systems.outputs, *cost.outputs, outcomes, *covered.outputs]
    outputs += [*reliability.outputs, notes, references, zoom, versus]
    changed = [one.input for one in inputs]
    drawn, visibly = context.drawn_once("accuracy", draw), QUIET | {"show_progress": "minimal"}
    gr.on(changed, drawn, [run, *inputs], outputs, **visibly)
    versus.input(None, versus, None, js="(v) => qUrl({versus: v})", **QUIET)
    return TabPart(draw, inputs, outputs, dataset, {"versus": versus})


def before_and_after(
    store: Store, sides: Sides, where: str, *, linked: bool = True
) -> tuple[Panel | None, str, str]:
    """The moving histograms, their table, the flow of outcomes; empty where what they need is missing."""
    before, after = sides[:2]
    if not (before and after):
        return None, "", ""
    first, second = store.predictions(before), store.predictions(after)

    def compared() -> tuple[Panel | None, str, str]:
        if not first["review_id"].equals(second["review_id"]):
            return None, "", ""
        flow = outcomes_html(first, second, sides, linked=linked)
        if not (panels.is_scored(first) and panels.is_scored(second)):
            return None, "", flow
        told = first["label"].to_numpy(), first["p_positive"].to_numpy(), second["p_positive"].to_numpy()
        panel = movement.movement_panel(*told, where)
        panel.figure.update(words=sides.words, versus=sides.versus)
        return panel, movement.table_html(panel.data, sides.versus), flow

    key = "compared", before.path, after.path, sides.words, linked
    return store.keep(key, store.stamp(before, after), compared)


def outcomes_html(first: pd.DataFrame, second: pd.DataFrame, sides: Sides, *, linked: bool) -> str:
    """The four outcomes of the same reviews as ribbons from before to after, each a link to its reviews; the
    plain sentence."""
    c = classification.compare(first["label"], first["prediction"], second["prediction"])
    p = f"p = {c.mcnemar_p:.1e}" if c.mcnemar_p < 0.001 else f"p = {c.mcnemar_p:.3f}"
    p = "p < 10⁻¹⁵" if c.mcnemar_p < 1e-15 else p
    counts = {"correct": c.both_right, "regressed": c.broken, "fixed": c.fixed, "wrong": c.both_wrong}
    before, after = (  # where each ribbon begins, in percent from the top
        dict(zip(order, accumulate([0.0, *(100 * counts[show] / c.n for show in order)]), strict=False))
        for order in (list(counts), ["correct", "fixed", "regressed", "wrong"])
    )
    told = {"sides": sides, "linked": linked, "counts": counts, "before": before, "after": after}
    return render("outcomes", c=c, p=p, **told)
