"""Live: one review, both models, and the words that moved the fine-tuned answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import gradio as gr

from sentiment_core.dashboard import answers, tab_batch
from sentiment_core.dashboard.calls import MODEL_EVENT
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from sentiment_core.dashboard.live_stream import stream_answers, stream_words
from sentiment_core.schema import SampleReview

CHIPS = 5
SHORT = 300
"""Typed texts up to this many characters go into the address."""


@dataclass(frozen=True)
class Question:
    run_id: str | None
    review: str
    when: float
    """Tells the same review, asked twice, apart."""


@dataclass
class Latest:
    """A visitor's newest question: what still works on an older one stops, and shows nothing more."""

    question: Question | None = None


def build(context: Context, run: gr.Dropdown) -> TabPart:
    state = gr.HTML(answers.state_line("loading", "Loading the live model…"), elem_id="model-state")
    text = gr.Textbox(
        label="A movie review, in English",
        lines=4,
        max_lines=12,
        elem_id="review",
        max_length=MAX_CHARACTERS,
        placeholder="Type or paste a review, or pick one of ours below.",
    )
    samples = context.store.samples_or_none()
    with gr.Row(elem_classes="chips"):
        chips = _chips(samples)
    with gr.Row(elem_classes="chips"):
        ask = gr.Button("Ask both models", variant="primary", elem_id="ask", scale=0, min_width=170)
        more = gr.Dropdown(
            [(f"All {len(samples)} sample reviews…", "")]
            + [(f"{s.kind}: {_beginning(s.text, 9)}", s.id) for s in samples],
            value="",
            elem_id="more-samples",
            label="All sample reviews",
            container=False,
            interactive=True,
            visible=bool(samples),
            min_width=260,
        )
    cards = gr.HTML(answers.idle_cards(), elem_id="answers")
    verdict = gr.HTML("", elem_id="verdict")
    words = gr.HTML("", elem_id="words")
    latest = gr.State(Latest())
    asked = gr.State(None)
    asking, outputs = [run, text, latest], [cards, verdict, words, asked]
    busy = {"api_visibility": "private", "show_progress": "hidden", **MODEL_EVENT}

    def read(run_id: str | None, review: str, latest: Latest) -> Iterator[tuple[object, ...]]:
        """The answers; `asked` changes with the last of them, and that brings the words."""
        question = Question(run_id, review, time.monotonic())
        latest.question = question
        for shown in stream_answers(context, context.store.run(run_id), review):
            if latest.question != question:
                break
            yield *shown, question if shown[2] else gr.skip()
        yield (gr.skip(),) * len(outputs)

    def explain(question: Question, latest: Latest) -> Iterator[object]:
        for shown in stream_words(context, context.store.run(question.run_id), question.review):
            if latest.question != question:
                break
            yield shown
        yield gr.skip()  # Gradio shows the last value once more, over what may be newer

    asked.change(explain, [asked, latest], words, trigger_mode="multiple", **busy)
    ask.click(read, asking, outputs, js=_ADDRESS_OF_TEXT, **busy)
    for sample, button in chips:
        button.click(
            partial(_take, sample),
            None,
            text,
            js=f"() => {{ window.qUrl({{review: {sample.id!r}, text: null}}); return [] }}",
            api_visibility="private",
            show_progress="hidden",
        ).then(read, asking, outputs, **busy)
    by_id = {sample.id: sample for sample in samples}
    more.input(
        lambda name: _take(by_id[name]) if name in by_id else gr.skip(),
        more,
        text,
        api_visibility="private",
        js="(v) => { window.qUrl({review: v, text: null}); return v }",
        show_progress="hidden",
    ).then(read, asking, outputs, **busy)

    timer = gr.Timer(1.0, active=True)

    def poll(run_id: str | None) -> tuple[str, gr.Timer]:
        kind, sentence = context.host.state(context.store.run(run_id))
        return answers.state_line(kind, sentence), gr.Timer(active=kind == "loading")

    timer.tick(
        poll, run, [state, timer], api_visibility="private", show_progress="hidden", concurrency_limit=4
    )

    def render(run_id: str | None) -> list[object]:
        chosen = context.store.run(run_id)
        context.host.start(chosen)
        return list(poll(run_id))

    tab_batch.build(context, run)
    return TabPart(
        render,
        [],
        [state, timer],
        extra={"text": text, "read": read, "asking": asking, "answers": outputs, "busy": busy},
    )


_ADDRESS_OF_TEXT = (
    f"(run, text, latest) => {{ window.qUrl({{text: text && text.length <= {SHORT} ? text : null, "
    "review: null}); return [run, text, latest] }"
)


def _take(sample: SampleReview) -> str:
    return sample.text


def _chips(samples: tuple[SampleReview, ...]) -> list[tuple[SampleReview, gr.Button]]:
    """A few samples of different kinds as buttons under the box."""
    kinds: dict[str, list[SampleReview]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    order = ("positive", "negative", "sarcastic", "negated", "mixed")
    picked = [s for place in range(2) for kind in order for s in kinds.get(kind, [])[place : place + 1]][
        :CHIPS
    ]
    if not picked:
        return []
    gr.HTML('<div class="q"><span class="small muted">Try one:</span></div>', elem_id="try")
    return [
        (
            s,
            gr.Button(
                f"{s.kind.capitalize()}: {_beginning(s.text, 3)}",
                size="sm",
                elem_classes="chip",
                elem_id=f"sample-{s.id}",
                scale=0,
                min_width=0,
            ),
        )
        for s in picked
    ]


def _beginning(text: str, words: int) -> str:
    return f"“{' '.join(text.split()[:words]).rstrip('.,;:!?')}…”"


def welcome_text(context: Context) -> str:
    """What stands in the box when a visitor comes with nothing: a plain negative review of ours."""
    samples = context.store.samples_or_none()
    return next((s.text for s in samples if s.kind == "negative"), "")
