"""Accuracy: every system with its interval, and what changed review by review."""

from __future__ import annotations

import gradio as gr

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import FigureSlot, empty
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.metrics import classification

COMMAND = "python eval.py --run <run> --system all"


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "accuracy")
        label = "Show published results for context"
        references = gr.Checkbox(True, label=label, elem_id="references", container=False, min_width=240)
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
        calibration = panels.reliability_panel(frames, errors, where)
        published = tuple(one for one in context.store.references() if not one.kind.startswith("study"))
        fitting = published if context.dataset(name) == "imdb" else ()
        one_sided = empty("Accuracy by length needs both models on the same reviews.", COMMAND)
        unscored = empty("Reliability needs a system that states probabilities.", COMMAND)
        return [
            *systems.show(panels.accuracy_panel(evals, fitting if with_references else (), before)),
            outcomes_html(compared, before) if compared and before else "",
            *length.show(by_length, one_sided),
            *reliability.show(calibration, unscored),
            consistency_html(context, evals) + footnotes_html(evals),
            gr.Checkbox(visible=bool(fitting)),
        ]

    inputs, changed = [dataset, references], [dataset.input, references.input]
    outputs = [*systems.outputs, outcomes, *length.outputs, *reliability.outputs, footnote, references]
    gr.on(changed, draw, [run, *inputs], outputs, **QUIET | {"show_progress": "minimal"})
    return TabPart(draw, inputs, outputs, dataset)


def outcomes_html(comparison: classification.Comparison, before: Evaluation) -> str:
    """The plain sentence, and fixed / regressed / both as four numbers that sum to n."""
    p = comparison.mcnemar_p
    words = f"{p:.1e}" if p < 0.001 else f"{p:.3f}"
    p_words = "p < 10⁻¹⁵" if p < 1e-15 else f"p = {words}"
    return render("outcomes", c=comparison, p=p_words, before=before.record.title)


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


def footnotes_html(evals: dict[str, Evaluation]) -> str:
    """What the figures above leave out: unparsed answers, and texts that also stand in training."""
    records = [one.record for one in evals.values()]
    unparsed = [record for record in records if "accuracy_lenient" in record.metrics]
    tuned = [record for record in records if record.system == "fine-tuned"]
    overlap = [record for record in tuned if "accuracy_without_overlap" in record.metrics]
    return render("footnotes", unparsed=unparsed, overlap=overlap) if unparsed or overlap else ""
