"""Accuracy: every system with its interval, and what changed review by review."""

from __future__ import annotations

from html import escape

import gradio as gr

from sentiment_core import metrics
from sentiment_core.artifacts import Evaluation
from sentiment_core.chart_style import percent
from sentiment_core.dashboard import views
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.dashboard.html import points
from sentiment_core.dashboard.parts import FigureSlot, empty, q
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
    fates = gr.HTML(elem_id="fates")
    with gr.Row(equal_height=True):
        length = FigureSlot("by-length", height=380, level=3)
        reliability = FigureSlot("reliability", height=380, level=3)
    footnote = gr.HTML(elem_id="accuracy-notes")

    def render(run_id: str | None, name: str | None, with_references: bool) -> list[object]:
        _chosen, evals = context.evals(run_id, name)
        if not evals:
            nothing = empty("No evaluation yet. This command scores the test reviews:", COMMAND)
            hidden = gr.Checkbox(visible=False)
            return [*systems.hide(nothing), "", *length.hide(""), *reliability.hide(""), "", hidden]
        before, after = context.store.before(evals), evals.get("fine-tuned")
        fitting = context.store.references_or_none() if context.dataset(name) == "imdb" else ()
        shown = fitting if with_references else ()
        panel = views.accuracy_panel(evals, shown, before)
        pairs = {}
        if before:
            pairs["base"] = context.store.predictions(before)
        if after:
            pairs["fine"] = context.store.predictions(after)
        paired = len(pairs) == 2 and views.same_reviews(pairs["base"], pairs["fine"])
        where = views.dataset_phrase(after or before or next(iter(evals.values())))
        by_length = views.length_panel(pairs, where) if paired or len(pairs) == 1 else None
        errors = {actor: stored(e, "ece") for actor, e in (("base", before), ("fine", after))}
        reliable = views.reliability_panel(pairs, errors, where)
        nothing_long = empty("Accuracy by length needs both models on the same reviews.", COMMAND)
        nothing_scored = empty("Reliability needs a system that states probabilities.", COMMAND)
        return [
            *systems.show(panel),
            changes_html(context, before, after) if paired else "",
            *(length.show(by_length) if by_length else length.hide(nothing_long)),
            *(reliability.show(reliable) if reliable else reliability.hide(nothing_scored)),
            consistency_html(context, evals) + footnotes_html(evals),
            gr.Checkbox(visible=bool(fitting)),
        ]

    outputs = [*systems.outputs, fates, *length.outputs, *reliability.outputs, footnote, references]
    part = TabPart(render, [dataset, references], outputs, dataset)
    gr.on(
        [dataset.input, references.input],
        render,
        [run, *part.inputs],
        outputs,
        api_visibility="private",
        show_progress="minimal",
    )
    return part


def stored(evaluation: Evaluation | None, name: str) -> float | None:
    metric = evaluation.record.metrics.get(name) if evaluation else None
    return metric.value if metric else None


def p_words(p: float) -> str:
    return "p < 10⁻¹⁵" if p < 1e-15 else f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


def changes_html(context: Context, before: Evaluation, after: Evaluation) -> str:
    """The plain sentence, and fixed / broken / both as four numbers that sum to n."""
    c = views.comparison(context.store, before, after)
    d = c.difference
    sure = (
        "far more than chance explains"
        if c.mcnemar_p < 0.001
        else ("more than chance explains" if c.mcnemar_p < 0.05 else "which chance alone could explain")
    )
    verb = "raised" if d.value > 0 else "changed"
    sentence = (
        f"On the same {c.n:,} reviews, fine-tuning {verb} accuracy by {points(d.value)} "
        f"(95\u202f% interval {points(d.low)} to {points(d.high)}), {sure} (exact "
        f"McNemar, {p_words(c.mcnemar_p)})."
    )
    cells = (
        ("fixed", "fixed", c.fixed, "wrong before, right after"),
        ("broken", "broken", c.broken, "right before, wrong after"),
        ("right", "both right", c.both_right, "right before and after"),
        ("wrong", "both wrong", c.both_wrong, "wrong before and after"),
    )
    squares = "".join(
        f'<div class="fate {kind}"><div class="num">{count:,}</div><p><b>{word}</b>: {text} '
        f"({percent(count / c.n)})</p></div>"
        for kind, word, count, text in cells
    )
    ratio = f"Fine-tuning fixed {c.fixed:,} reviews and broke {c.broken:,}"
    if c.broken and c.fixed >= 2 * c.broken:
        ratio = f"For every review it broke, fine-tuning fixed about {c.fixed / c.broken:.0f}"
    note = (
        f"Before: {SYSTEMS[before.record.system].title.lower()}. The four numbers sum to n = {c.n:,}; "
        "the interval is over pairs of answers to the same review."
    )
    return q(
        f'<div class="panel"><h2>{escape(ratio)}</h2><p style="margin:8px 0 0">{escape(sentence)}</p>'
        f'<div class="fates">{squares}</div><p class="small" style="margin:0">{escape(note)}</p></div>'
    )


def consistency_html(context: Context, evals: dict[str, Evaluation]) -> str:
    """Both reviews of a pair right, for each system; empty without pairs."""
    rows = []
    for system, evaluation in evals.items():
        frame = context.store.predictions(evaluation)
        if "pair_id" not in frame:
            continue
        metric = metrics.consistency(frame["label"], frame["prediction"], frame["pair_id"])
        if metric:
            rows.append((SYSTEMS[system].title, metric))
    if not rows:
        return ""
    rows.sort(key=lambda row: -row[1].value)
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th><td class="n">{percent(m.value)}</td>'
        f'<td class="n">{percent(m.low)} to {percent(m.high)}</td></tr>'
        for title, m in rows
    )
    tuned = next((m for title, m in rows if title == SYSTEMS["fine-tuned"].title), rows[0][1])
    title = f"Both reviews of a pair are right in {percent(tuned.value)} of the pairs"
    return q(
        f'<div class="panel pairs"><h2>{escape(title)}</h2>'
        '<p class="muted" style="margin:6px 0 10px">Each pair holds a review '
        "and the same review rewritten by people, as little as possible, to say the opposite. Guessing "
        "gets both in "
        f"25\u202f% of the pairs.</p><table><thead><tr><th scope='col'>system</th><th scope='col' "
        f"class='n'>both right</th>"
        f"<th scope='col' class='n'>95\u202f% interval</th></tr></thead><tbody>{body}</tbody></table>"
        f'<p class="small" style="margin:8px 0 0">n = {tuned.n:,} pairs; Wilson intervals.</p></div>'
    )


def footnotes_html(evals: dict[str, Evaluation]) -> str:
    """What the figures above leave out: answers that are no label, and texts that also stand in training."""
    notes = []
    for system, evaluation in evals.items():
        found = evaluation.record.metrics
        if lenient := found.get("accuracy_lenient"):
            notes.append(
                f"{SYSTEMS[system].title}: {evaluation.record.unparsed:,} answers are no label; of the other "
                f"{lenient.n:,}, {percent(lenient.value)} are right "
                f"(95\u202f% interval {percent(lenient.low)} to {percent(lenient.high)})."
            )
        if system == "fine-tuned" and (clean := found.get("accuracy_without_overlap")):
            notes.append(
                f"{SYSTEMS[system].title}: {found['accuracy'].n - clean.n:,} of the test texts also stand in "
                "the dataset's own training part; our training left them out. Without them "
                f"{percent(clean.value, 2)} of {clean.n:,} are right."
            )
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return q(f'<ul class="small muted notes">{items}</ul>') if notes else ""
