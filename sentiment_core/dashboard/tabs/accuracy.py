"""Accuracy: every system with its interval, and what changed review by review."""

from __future__ import annotations

import gradio as gr

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, empty
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.metrics import classification
from sentiment_core.systems import SYSTEMS

COMMAND = "python eval.py --run <run> --system all"


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "accuracy")
        references = gr.Checkbox(
            True,
            label="Show published results for context",
            elem_id="references",
            container=False,
            min_width=240,
        )
    systems = FigureSlot("systems", height=480)
    outcomes = gr.HTML(elem_id="outcomes")
    with gr.Row(equal_height=True):
        length = FigureSlot("by-length", height=380, level=3)
        reliability = FigureSlot("reliability", height=380, level=3)
    footnote = gr.HTML(elem_id="accuracy-notes")

    def draw(run_id: str | None, name: str | None, with_references: bool) -> list[object]:
        _, evals = context.evals(run_id, name)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            hidden = gr.Checkbox(visible=False)
            return [*systems.hide(nothing), "", *length.hide(""), *reliability.hide(""), "", hidden]
        before, after = context.store.before(evals), evals.get("fine-tuned")
        actors = {actor: one for actor, one in (("base", before), ("fine", after)) if one}
        frames = {actor: context.store.predictions(one) for actor, one in actors.items()}
        errors = {actor: ece.value for actor, one in actors.items() if (ece := one.record.metrics.get("ece"))}
        compared = panels.comparison(context.store, before, after)
        where = panels.dataset_phrase(after or before or next(iter(evals.values())))
        by_length = panels.length_panel(frames, where) if compared or len(frames) == 1 else None
        fitting = context.store.references() if context.dataset(name) == "imdb" else ()
        return [
            *systems.show(panels.accuracy_panel(evals, fitting if with_references else (), before)),
            outcomes_html(compared, before.record.system) if compared else "",
            *length.show(
                by_length, empty("Accuracy by length needs both models on the same reviews.", COMMAND)
            ),
            *reliability.show(
                panels.reliability_panel(frames, errors, where),
                empty("Reliability needs a system that states probabilities.", COMMAND),
            ),
            consistency_html(context, evals) + footnotes_html(evals),
            gr.Checkbox(visible=bool(fitting)),
        ]

    outputs = [*systems.outputs, outcomes, *length.outputs, *reliability.outputs, footnote, references]
    part = TabPart(draw, [dataset, references], outputs, dataset)
    gr.on(
        [dataset.input, references.input],
        draw,
        [run, *part.inputs],
        outputs,
        api_visibility="private",
        show_progress="minimal",
    )
    return part


def p_words(p: float) -> str:
    return "p < 10⁻¹⁵" if p < 1e-15 else f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


def outcomes_html(comparison: classification.Comparison, before: str) -> str:
    """The plain sentence, and fixed / regressed / both as four numbers that sum to n."""
    return render("outcomes", c=comparison, p=p_words(comparison.mcnemar_p), before=SYSTEMS[before].title)


def consistency_html(context: Context, evals: dict[str, Evaluation]) -> str:
    """Share of pairs with both reviews classified correctly, for each system; empty without pairs."""
    rows = {}
    for system, evaluation in evals.items():
        frame = context.store.predictions(evaluation)
        if "pair_id" in frame:
            rows[system] = classification.consistency(frame["label"], frame["prediction"], frame["pair_id"])
    best_first = sorted(((s, m) for s, m in rows.items() if m), key=lambda row: -row[1].value)
    if not best_first:
        return ""
    shown = "fine-tuned" if rows.get("fine-tuned") else best_first[0][0]
    return render("consistency", rows=best_first, systems=SYSTEMS, shown=shown, metric=rows[shown])


def footnotes_html(evals: dict[str, Evaluation]) -> str:
    """What the figures above leave out: unparsed answers, and texts that also stand in training."""
    found = {system: evaluation.record.metrics for system, evaluation in evals.items()}
    unparsed = {
        system: evals[system].record.unparsed for system in found if "accuracy_lenient" in found[system]
    }
    overlap = "accuracy_without_overlap" in found.get("fine-tuned", {})
    if not (unparsed or overlap):
        return ""
    return render("footnotes", metrics=found, systems=SYSTEMS, unparsed=unparsed, overlap=overlap)
