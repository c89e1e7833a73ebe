"""Live: one review, both models, and how their answers came while reading."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from sentiment_core.artifacts.schema import SampleReview
from sentiment_core.dashboard.components import answers
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.trace import trace_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from sentiment_core.dashboard.serving import MODEL_EVENT, Latest
from sentiment_core.dashboard.tabs import batch

KINDS = ("positive", "negative", "sarcastic", "negated", "mixed")
SHORT = 300
"""Typed texts up to this many characters go into the address."""

TEXT_TO_ADDRESS = f"""(run, text, latest) => {{
  window.qUrl({{text: text && text.length <= {SHORT} ? text : null, review: null}});
  return [run, text, latest];
}}"""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    samples = context.store.samples()
    state = gr.HTML(
        render("state", kind="loading", sentence="Loading the live model…"), elem_id="model-state"
    )
    text = gr.Textbox(
        label="A movie review, in English", elem_id="review",
        placeholder="Type or paste a review, or pick one of ours below.",
        lines=4, max_lines=12, max_length=MAX_CHARACTERS,
    )  # fmt: skip
    with gr.Row(elem_classes="chips"):
        chips = _chips(samples)
    with gr.Row(elem_classes="chips"):
        go = gr.Button("Classify", variant="primary", elem_id="ask", scale=0, min_width=170)
        more = gr.Dropdown(
            [(f"All {len(samples)} sample reviews…", "")]
            + [(f"{s.kind}: {_beginning(s.text, 9)}", s.id) for s in samples],
            value="", label="All sample reviews", elem_id="more-samples",
            container=False, interactive=True, visible=bool(samples), min_width=260,
        )  # fmt: skip
    cards = gr.HTML(answers.cards(), elem_id="answers")
    shown = [cards, gr.HTML(elem_id="verdict"), trace_figure("trace")]
    batch.build(context, run)
    timer = gr.Timer(1.0)

    def ask(run_id: str | None, review: str, latest: Latest) -> Iterator[object]:
        question = latest.question = object()
        for step in answers.stream(context, context.store.run(run_id), review):
            if latest.question is not question:
                break
            yield step
        yield [gr.skip()] * len(shown)  # Gradio shows the last value once more, over what may be newer

    def ask_if_any(run_id: str | None, review: str, latest: Latest) -> Iterator[object]:
        yield from ask(run_id, review, latest) if review else [[gr.skip()] * len(shown)]

    def take(sample_id: str) -> object:
        return next((sample.text for sample in samples if sample.id == sample_id), gr.skip())

    def poll(run_id: str | None) -> list[object]:
        kind, sentence = context.serving.host.state(context.store.run(run_id))
        return [render("state", kind=kind, sentence=sentence), gr.Timer(active=kind == "loading")]

    def start(run_id: str | None) -> list[object]:
        context.serving.host.start(context.store.run(run_id))
        return poll(run_id)

    asking: dict[str, Any] = QUIET | MODEL_EVENT
    asking |= {"inputs": [run, text, gr.State(Latest())], "outputs": shown}
    asking["trigger_mode"] = "multiple"  # a newer question ends the older one instead of waiting for it
    go.click(ask, js=TEXT_TO_ADDRESS, **asking)
    for sample_id, button in chips.items():
        address = f"() => {{ window.qUrl({{review: {sample_id!r}, text: null}}); return [] }}"
        button.click(partial(take, sample_id), None, text, js=address, **QUIET).then(ask, **asking)
    address = "(id) => { window.qUrl({review: id, text: null}); return id }"
    more.input(take, more, text, js=address, **QUIET).then(ask, **asking)
    timer.tick(poll, run, [state, timer], concurrency_limit=4, **QUIET)
    opened = {"text": text, "ask": lambda loaded: loaded.then(ask_if_any, **asking)}
    return TabPart(start, [], [state, timer], extra=opened)


def _chips(samples: tuple[SampleReview, ...]) -> dict[str, gr.Button]:
    """Sample id -> its button, for a few samples of different kinds; inside a row under the box."""
    by_kind = [[s for s in samples if s.kind == kind] for kind in KINDS]
    picked = [s for turn in range(2) for some in by_kind for s in some[turn : turn + 1]][:5]
    if picked:
        gr.HTML(render("small", text="Try one:", muted=True), elem_id="try")
    look: dict[str, Any] = {"size": "sm", "elem_classes": "chip", "scale": 0, "min_width": 0}
    titles = {s.id: f"{s.kind.capitalize()}: {_beginning(s.text, 3)}" for s in picked}
    return {name: gr.Button(title, elem_id=f"sample-{name}", **look) for name, title in titles.items()}


def _beginning(text: str, words: int) -> str:
    return f"“{' '.join(text.split()[:words]).rstrip('.,;:!?')}…”"


def welcome_text(context: Context) -> str:
    """What stands in the box when a visitor comes with nothing: a plain negative review of ours."""
    return next((s.text for s in context.store.samples() if s.kind == "negative"), "")
