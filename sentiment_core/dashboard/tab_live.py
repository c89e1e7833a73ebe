"""Live: one review, both models, and the words that moved the fine-tuned answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from sentiment_core.artifacts import Run, SampleReview
from sentiment_core.dashboard import answers, tab_batch
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.host import ModelUnavailable
from sentiment_core.dashboard.inputs import MAX_CHARACTERS, InputRefused, clean_text
from sentiment_core.dashboard.parts import notice

log = logging.getLogger(__name__)

MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}
"""Every event that uses the model shares one place: one inference at a time."""
CHIPS = 5
SHORT = 300
"""Typed texts up to this many characters go into the address."""
READING = "Reading…"
NOT_TUNED = "No fine-tuned model yet: python train.py makes one."
BROKE = (
    "Something went wrong while reading this review; the server's log has the details. Please try another."
)

Shown = tuple[str, str, str]
"""Cards, verdict, tinted words."""


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
            [(f"All {len(samples)} sample reviews, in our own words…", "")]
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
    outputs = [cards, verdict, words]
    busy = {"api_visibility": "private", "show_progress": "hidden", **MODEL_QUEUE}

    def read(run_id: str | None, review: str) -> Iterator[Shown]:
        yield from stream_kept(context, context.store.run(run_id), review)

    gr.on([ask.click], read, [run, text], outputs, js=_ADDRESS_OF_TEXT, **busy)
    for sample, button in chips:
        button.click(
            partial(_take, sample),
            None,
            text,
            js=f"() => {{ window.qUrl({{review: {sample.id!r}, text: null}}); return [] }}",
            api_visibility="private",
            show_progress="hidden",
        ).then(read, [run, text], outputs, **busy)
    by_id = {sample.id: sample for sample in samples}
    more.input(
        lambda name: _take(by_id[name]) if name in by_id else gr.skip(),
        more,
        text,
        api_visibility="private",
        js="(v) => { window.qUrl({review: v, text: null}); return v }",
        show_progress="hidden",
    ).then(read, [run, text], outputs, **busy)

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
        render, [], [state, timer], extra={"text": text, "read": read, "answers": outputs, "busy": busy}
    )


_ADDRESS_OF_TEXT = (
    f"(run, text) => {{ window.qUrl({{text: text && text.length <= {SHORT} ? text : null, review: null}}); "
    "return [run, text] }"
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


def stream_kept(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """`stream_answers`; what it says of our own sample reviews is kept, what visitors type is not."""
    key = (run.run_id if run else "", review)
    kept = context.answered.get(key)
    if kept is not None:
        yield kept
        return
    last = None
    for shown in stream_answers(context, run, review):
        last = shown
        yield shown
    complete = last is not None and "<mark" in last[2]
    if complete and any(review == sample.text for sample in context.store.samples_or_none()):
        context.answered[key] = last


def stream_answers(context: Context, run: Run | None, review: str) -> Iterator[Shown]:
    """The fine-tuned answer first, then the base model's, then the words; refusals as one sentence."""
    try:
        review = clean_text(review)
    except InputRefused as error:
        yield answers.idle_cards(), notice(str(error), warn=True), ""
        return
    yield answers.idle_cards(READING), "", ""
    base = fine = None
    try:
        for what, value in context.calls.answers(run, review):
            if what == "fine":
                fine = value
                yield (
                    answers.cards(answers.card("base", None, READING), answers.answer_card("fine", fine)),
                    "",
                    "",
                )
            elif what == "base":
                base = value
                yield _both(base, fine)
            else:
                cards, verdict, _ = _both(base, fine)
                yield cards, verdict, answers.tinted(review, value, context.calls.method(run))
    except ModelUnavailable as error:
        yield answers.idle_cards("No answer."), notice(str(error), warn=True), ""
    except Exception:
        log.exception("live answer failed")
        yield answers.idle_cards("No answer."), notice(BROKE, warn=True), ""


def _both(base: Any, fine: Any) -> Shown:
    """Both cards and the verdict while the words are looked for; without a fine-tuned model one card."""
    left = answers.answer_card("base", base)
    if fine is None:
        return answers.cards(left, answers.card("fine", None, NOT_TUNED)), "", ""
    shown = answers.cards(left, answers.answer_card("fine", fine))
    return shown, answers.verdict(base, fine), notice("Looking for the words that moved the answer…")
