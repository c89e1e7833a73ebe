"""Live: one review, both models, and how their answers came while reading."""

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from textwrap import shorten
from typing import Any
from urllib.parse import urlsplit

import gradio as gr

from sentiment_core.artifacts.store import Run, browser_bytes, read_benchmark
from sentiment_core.dashboard.components import answers
from sentiment_core.dashboard.components.parts import own_figure, render, seconds
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from sentiment_core.dashboard.serving import MODEL_EVENT, Latest
from sentiment_core.dashboard.store import noun
from sentiment_core.dashboard.tabs import batch
from sentiment_core.figures.style import percent

WELCOME = "sample-11"  # what stands in the box when a visitor comes with nothing
DARES = {
    "Sarcasm": "sample-34", "It starts badly": "sample-21", "Change two words": "sample-50",
    "No film at all": "sample-49", "One great performance": "sample-24", "All negations": "sample-40",
    "A complaint": "sample-35",
}  # fmt: skip
"""Titles of the chips, which give no answer away -> one of our samples each."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    first, texts = context.store.run(None), {one.id: one.text for one in context.store.samples()}
    stored = stored_answers(context, first)
    with gr.Row(elem_id="live"):
        with gr.Column(elem_id="live-text", min_width=300):
            text = gr.Textbox(
                texts.get(stored["welcome"], ""), **stored["box"], elem_id="review",
                lines=6, max_lines=12, max_length=MAX_CHARACTERS,
            )  # fmt: skip
            with gr.Row(elem_id="dares", elem_classes="chips"):
                look: dict[str, Any] = {"elem_classes": "chip", "size": "sm", "scale": 0, "min_width": 0}
                for title, name in DARES.items():
                    if name in texts:
                        chip = gr.Button(title, elem_id=name, **look)
                        chip.click(None, None, text, js=f"() => figs.pick({name!r})", **QUIET)
            with gr.Row(elem_classes="chips"):
                go = gr.Button("Classify", variant="primary", elem_id="ask", scale=0, min_width=120)
                menu = {"container": False, "interactive": True, "min_width": 160}
                listed = [(f"All {len(texts)} samples…", ""), *((shorten(texts[id], 60), id) for id in texts)]
                named = {"label": f"All sample {stored['noun']}", "visible": bool(texts)}
                more = gr.Dropdown(listed, value="", elem_id="more-samples", **named, **menu)
                always = ("Always answer", 0.0)  # else the certainty that an answer needs
                sure = gr.Dropdown([always], value=0.0, label="Target accuracy", elem_id="sure", **menu)
        with gr.Column(elem_id="live-answers", min_width=300):
            events = "element, props, watch, trigger /* 'ask', 'opened' */"
            cards = own_figure("live", "answers", events, value={"text": None}, stored=json.dumps(stored))
            pace = gr.HTML(elem_id="pace")
    own_figure("trace", "trace", "element, ...figs.shown('trace')")
    turned = own_figure("dial", "dial", "element, props, watch, trigger /* 'turn' */", value={"curve": []})
    batch.build(context, run)

    async def ask(run_id: str | None, review: str, latest: Latest) -> AsyncIterator[object]:
        question = latest.question = object()
        async with aclosing(answers.stream(context, context.store.run(run_id), review, latest)) as steps:
            async for shown in steps:
                if latest.question is not question:
                    yield gr.skip()  # Gradio shows the last value once more, over what may be newer
                    return
                yield shown  # whole to the end: the page applies a burst of messages to one object

    def draw(run_id: str | None) -> list[object]:
        run = context.store.run(run_id)
        stored, found = stored_answers(context, run), context.store.certainties(run)
        targets = [always, *((f"Target: {percent(p, 0)} right", least) for p, least in found.items())]
        chosen = gr.Dropdown(choices=targets, value=0.0, visible=bool(found))
        worded = gr.Textbox(**stored["box"]), gr.Dropdown(label=f"All sample {stored['noun']}")
        return [gr.HTML(stored=json.dumps(stored)), pace_html(context, run), chosen, *worded]

    asking: dict[str, Any] = QUIET | MODEL_EVENT
    newer = {"trigger_mode": "multiple"}  # a newer question ends the older one instead of waiting for it
    to_text = "(run, text, latest) => [run, figs.at.text, latest]"  # the box may lag behind its own chips
    cards.ask(ask, [run, text, gr.State(Latest())], cards, js=to_text, **asking, **newer)
    cards.opened(None, None, text, js="() => figs.at.text", **QUIET)
    to_dial = "(run) => [run, figs.at.view.dial]"
    turned.turn(partial(answers.turn, context), [run, turned], turned, js=to_dial, **asking)
    go.click(None, None, None, js="() => { figs.ask(); return [] }", **QUIET)
    more.input(None, more, text, js="(id) => figs.pick(id)", **QUIET)
    sure.change(None, sure, None, js="(p) => { figs.set('sure', p); return [] }", **QUIET)
    return TabPart(draw, [], [cards, pace, sure, text, more])


def stored_answers(context: Context, run: Run | None) -> dict[str, Any]:
    """Our samples with this run's stored answers: {run, noun, box, samples, welcome, idle, local}."""
    found = context.store.sample_answers(run)
    samples = {
        one.id: one.model_dump(include={"id", "text", "label"})
        | (answers.stored_value(one.text, found[one.id]) if one.id in found else {})
        for one in context.store.samples()
    }
    size = run and browser_bytes(run, context.store.root)
    called = noun(run.record.data.source) if run and run.record else "reviews"
    label = "A movie review, in English" if called == "reviews" else "A text"
    placeholder = f"Type or paste a {called[:-1]}, or pick one of ours below."
    return {
        "run": run and run.run_id, "samples": [*samples.values()], "idle": answers.IDLE,
        "noun": called, "box": {"label": label, "placeholder": placeholder},
        "welcome": WELCOME if WELCOME in samples else next(iter(samples), ""),
        "local": {"url": f"browser/{run.run_id}/", "bytes": size} if run and size else None,
    }  # fmt: skip


def pace_html(context: Context, run: Run | None) -> str:
    """How long an answer took in benchmarks of this run's base, if any were, or which engine answers."""
    if address := os.environ.get("SENTIMENT_ENDPOINT"):
        text = f"Answers are computed by the engine at {urlsplit(address).hostname}."
        return render("small", text=text, muted=True)
    base, root = run.record.base_model.name if run and run.record else None, context.store.root
    best: dict[float, str] = {}
    for path in root.glob("benchmarks/live*.json"):
        with suppress(ValueError):  # which the header tells
            record = read_benchmark(path.stem, root)
            ours = [row.seconds_per_review for row in record.rows if re.fullmatch(r"ours, \w+", row.system)]
            if record.base_model == base and (times := [one.value for one in ours if one]):
                best[min(times)] = record.hardware.title
    if not best:
        return ""
    took = " to ".join(map(seconds, sorted({min(best), max(best)}))) + " in the fastest number format"
    where = " or ".join(sorted(set(best.values())))
    return render("small", text=f"An answer took {took}, on {where}.", muted=True)
