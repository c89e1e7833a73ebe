"""Accuracy: reviews on their way from before to after, every system with its interval, and the outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components import movement
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, empty, waiting
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.store import Store
from sentiment_core.metrics import classification

COMMAND = "python eval.py --run <run> --system all"
NOTHING_MOVES: tuple[dict[str, Any], str] = {}, '<div class="nothing"></div>'


def build(context: Context, run: gr.Dropdown) -> TabPart:
    dataset = dataset_switch(context, "accuracy")
    with gr.Column(elem_classes="figure", elem_id="movement-figure"):
        histograms = movement.movement_figure("movement")
        table = gr.HTML(waiting("Reading the artifacts…", 480), elem_id="movement-table")
    with gr.Row():
        label = "Show published results for context"
        references = gr.Checkbox(True, label=label, elem_id="references", container=False, min_width=240)
    systems = FigureSlot("systems", height=480)
    outcomes = gr.HTML(elem_id="outcomes")
    with gr.Accordion("Reliability", open=False, elem_id="slices-fold"):
        reliability = FigureSlot("reliability", height=380, level=3)
    footnote = gr.HTML(elem_id="accuracy-notes")

    def draw(run_id: str | None, name: str | None, with_references: bool) -> list[object]:
        _, evals = context.evals(run_id, name)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            hidden = gr.Checkbox(visible=False)
            return [*NOTHING_MOVES, *systems.hide(nothing), "", *reliability.hide(""), "", hidden]
        before, after = context.store.before(evals), evals.get("fine-tuned")
        actors = {actor: one for actor, one in (("base", before), ("fine", after)) if one}
        frames = {actor: context.store.predictions(one) for actor, one in actors.items()}
        errors = {actor: ece.value for actor, one in actors.items() if (ece := one.record.metrics.get("ece"))}
        compared = panels.comparison(context.store, before, after)
        where = panels.dataset_phrase(after or before or next(iter(evals.values())))
        calibration = panels.reliability_panel(frames, errors, where)
        moved, outcomes_words = NOTHING_MOVES, ""
        if compared and before and after:
            moved = movement_outputs(context.store, before, after, where)
            outcomes_words = outcomes_html(compared, before.record.title)
        published = tuple(one for one in context.store.references() if not one.kind.startswith("study"))
        fitting = published if context.dataset(name) == "imdb" else ()
        unscored = empty("Reliability needs a system that states probabilities.", COMMAND)
        return [
            *moved,
            *systems.show(panels.accuracy_panel(evals, fitting if with_references else (), before)),
            outcomes_words,
            *reliability.show(calibration, unscored),
            consistency_html(context, evals) + length_html(frames) + footnotes_html(evals),
            gr.Checkbox(visible=bool(fitting)),
        ]

    inputs, changed = [dataset, references], [dataset.input, references.input]
    outputs = [histograms, table, *systems.outputs, outcomes, *reliability.outputs, footnote, references]
    gr.on(changed, draw, [run, *inputs], outputs, **QUIET | {"show_progress": "minimal"})
    return TabPart(draw, inputs, outputs, dataset)


def movement_outputs(
    store: Store, before: Evaluation, after: Evaluation, where: str
) -> tuple[dict[str, Any], str]:
    """The histograms and their table; nothing unless both systems state probabilities."""
    first, second = store.predictions(before), store.predictions(after)
    if not (panels.is_scored(first) and panels.is_scored(second)):
        return NOTHING_MOVES
    told = first["label"].to_numpy(), first["p_positive"].to_numpy(), second["p_positive"].to_numpy()
    return store.keep(
        ("movement", before.path, after.path), store.stamp(before, after),
        lambda: (movement.movement_value(*told, where), movement.table_html(*told)),
    )  # fmt: skip


def outcomes_html(c: classification.Comparison, title: str) -> str:
    """The four outcomes as ribbons from before to after, each a link to its reviews; the plain sentence."""
    p = c.mcnemar_p
    words = f"{p:.1e}" if p < 0.001 else f"{p:.3f}"
    p_words = "p < 10⁻¹⁵" if p < 1e-15 else f"p = {words}"
    counts = {"correct": c.both_right, "regressed": c.broken, "fixed": c.fixed, "wrong": c.both_wrong}
    before, after = (
        dict(zip(order, accumulate([0.0, *(100 * counts[show] / c.n for show in order)]), strict=False))
        for order in (list(counts), ["correct", "fixed", "regressed", "wrong"])
    )
    return render("outcomes", c=c, p=p_words, title=title, counts=counts, before=before, after=after)


def consistency_html(context: Context, evals: dict[str, Evaluation]) -> str:
    """Share of pairs with both reviews classified correctly, for each system; empty without pairs."""
    rows = []
    for one in evals.values():
        frame = context.store.predictions(one)
        if "pair_id" in frame:
            share = classification.consistency(frame["label"], frame["prediction"], frame["pair_id"])
            rows += [(one.record, share)] if share else []
    if not rows:
        return ""
    rows.sort(key=lambda row: -row[1].value)
    shown = next((row for row in rows if row[0].system == "fine-tuned"), rows[0])
    return render("consistency", rows=rows, shown=shown)


def length_html(frames: Mapping[str, pd.DataFrame]) -> str:
    """Folded: both models' accuracy by quarter of length; empty without quarters."""
    rows = panels.length_table(frames)
    return render("length", who=panels.WHO, rows=list(rows.itertuples())) if len(rows) > len(frames) else ""


def footnotes_html(evals: dict[str, Evaluation]) -> str:
    """What the figures above leave out: unparsed answers, and texts that also stand in training."""
    records = [one.record for one in evals.values()]
    unparsed = [record for record in records if "accuracy_lenient" in record.metrics]
    tuned = [record for record in records if record.system == "fine-tuned"]
    overlap = [record for record in tuned if "accuracy_without_overlap" in record.metrics]
    return render("footnotes", unparsed=unparsed, overlap=overlap) if unparsed or overlap else ""
