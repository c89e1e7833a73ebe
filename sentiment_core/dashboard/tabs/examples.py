"""Example predictions: reviews with both answers, filters, search, and a reader beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import pairs
from sentiment_core.dashboard.components.answers import stream_trace
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import empty, waiting
from sentiment_core.dashboard.components.reader import reader_hint, reader_html
from sentiment_core.dashboard.components.trace import NOTHING, trace_figure, value_of
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import FILTERS, ExampleFilter
from sentiment_core.dashboard.serving import MODEL_EVENT
from sentiment_core.dashboard.texts import HOW_TO

COMMAND = "python eval.py --run <run> --system all"
PAGE = 25
"""Rows."""
EXCERPT = 160
"""Characters; the page shows two lines of them."""
WAIT_SECONDS = 30.0
"""For the texts, when the page is opened; only this tab waits."""
EXPLAIN = "Watch both models read it"
READING = "Reading predictions, and looking for the texts…"
PICK = "Pick a row to read the review."
NOT_SHOWN = f"This review is not among those shown. {PICK}"
NOT_EVALUATED = "This run’s fine-tuned model has not answered these reviews yet. This command does that:"
NO_PREDICTIONS = "No predictions yet. This command makes them:"
LATEST = QUIET | {"trigger_mode": "always_last"}
SHOW_TO_ADDRESS = "(...given) => { qUrl({show: JSON.parse(given[3]).show, review: null}); return given }"
REVIEW_TO_ADDRESS = "(...given) => { qUrl({review: given[4], text: null}); return given }"


def build(context: Context, run: gr.Dropdown) -> TabPart:
    dataset = dataset_switch(context, "examples")
    message = gr.HTML(waiting(READING, 500), elem_id="examples-message")
    with gr.Column(visible=False) as body:
        with gr.Row(elem_id="examples-filters"):
            chips = gr.HTML(elem_id="filters")
            box: dict[str, Any] = {"placeholder": "Search: words, or an id", "max_lines": 1, "scale": 0}
            search = gr.Textbox(label="Search", elem_id="search", container=False, min_width=200, **box)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                listed = gr.HTML(elem_id="examples-list")
            with gr.Column(scale=5, min_width=300, elem_id="examples-reader"):
                reader = gr.HTML(reader_hint(PICK), elem_id="reader")
                explain = gr.Button(EXPLAIN, visible=False, elem_id="explain-review")
                trace = trace_figure("reader-trace")
    asked = gr.Textbox("", visible="hidden", elem_id="examples-filter", label="Filter, as JSON")
    opened = gr.Textbox("", visible="hidden", elem_id="opened", label="Review in the reader")
    view = Examples(context)
    filters, reading = [dataset, search, asked], [reader, explain, trace]
    outputs = [message, body, dataset, chips, listed, *reading, opened]

    def explained(run_id: str, review_id: str) -> Iterator[object]:
        text = view.text_of(review_id)
        if text is not None:
            yield from stream_trace(context, context.store.run(run_id), text)

    def render_all(*values: str) -> list[object]:
        return view.whole(ExampleFilter.of(*values[:4]), *values[4:])

    def read(*values: str) -> list[object]:
        return view.open(ExampleFilter.of(*values[:4]), values[4])

    gr.on([dataset.input, search.change], render_all, [run, *filters], outputs, **LATEST)
    asked.input(render_all, [run, *filters], outputs, js=SHOW_TO_ADDRESS, **LATEST)
    opened.input(read, [run, *filters, opened], reading, js=REVIEW_TO_ADDRESS, **LATEST)
    visibly = QUIET | MODEL_EVENT | {"show_progress": "minimal"}
    explain.click(explained, [run, opened], trace, **visibly)
    asked_and_opened = {"asked": asked, "opened": opened}
    return TabPart(render_all, [*filters, opened], outputs, dataset, asked_and_opened)


class Reviews(NamedTuple):
    """What the rows are."""

    frame: pd.DataFrame
    """As `pairs.paired` gives it."""
    texts: Mapping[str, str] = {}
    answers: Mapping[str, Mapping[Any, Any]] = {}
    """Review id -> system -> reading trace, where it is stored."""

    @property
    def own(self) -> bool:
        return "kind" in self.frame

    @property
    def answered(self) -> bool:
        return bool(self.frame[pairs.P_FINE].notna().any())


class Examples:
    """What the tab shows for a run, a dataset and a filter; holds no state of a visitor."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def reviews(self, wanted: ExampleFilter, wait: float = 0.0) -> Reviews | None:
        """Test reviews where their texts are at hand, else our own samples; None without any answers."""
        tested, texts = self.tested(wanted), self.context.texts.wait(wait)
        if tested is not None and len(tested) and tested["review_id"].iloc[0] in texts:
            return Reviews(tested, texts)
        own = self.own(wanted)
        if len(own.frame) and (own.answers or tested is not None):
            return own
        return None if tested is None else Reviews(tested)

    def own(self, wanted: ExampleFilter) -> Reviews:
        """Our own samples, with the answers that are stored with the run."""
        samples, stored = self.context.store.samples(), self.answers(wanted)
        return Reviews(pairs.of_samples(samples, stored), {s.id: s.text for s in samples}, stored)

    def tested(self, wanted: ExampleFilter) -> pd.DataFrame | None:
        """Both systems' answers (see `pairs.paired`), or None without an evaluation of the fine-tuned one."""
        store = self.context.store
        before, after = self.both(wanted)
        if after is None:
            return None
        first, second = store.predictions(before) if before else None, store.predictions(after)
        key = ("paired", after.path, before and before.path)
        return store.keep(key, store.stamp(after, before), lambda: pairs.paired(first, second))

    def answers(self, wanted: ExampleFilter) -> Mapping[str, Mapping[Any, Any]]:
        stored = getattr(self.context.store, "sample_answers", lambda run: {})
        found = stored(self.context.store.run(wanted.run_id))
        return {name: answer.traces for name, answer in found.items()}

    def both(self, wanted: ExampleFilter) -> tuple[Evaluation | None, Evaluation | None]:
        _, evals = self.context.evals(wanted.run_id, wanted.dataset)
        return self.context.store.before(evals), evals.get("fine-tuned")

    def text_of(self, review_id: str) -> str | None:
        own = {s.id: s.text for s in self.context.store.samples()}
        return own.get(review_id) or self.context.texts.wait(0).get(review_id)

    def whole(self, wanted: ExampleFilter, review_id: str = "") -> list[object]:
        """Everything in the tab; where no review is asked for, the first one is open."""
        shown = self.reviews(wanted, WAIT_SECONDS)
        if shown is None:
            why = NOT_EVALUATED if self.context.store.datasets() else NO_PREDICTIONS
            return [empty(why, COMMAND), gr.Column(visible=False), *[gr.skip()] * 7]
        if not shown.answered:
            wanted = replace(wanted, show="all")
        positions = pairs.select(shown.frame, wanted, shown.texts)
        page = min(max(wanted.page, 0), max(0, (len(positions) - 1) // PAGE))
        part = shown.frame.iloc[positions[page * PAGE : (page + 1) * PAGE]]
        review_id = review_id or next(iter(part["review_id"]), "")
        choice = len(self.context.store.datasets()) > 1 and bool(self.context.texts.wait(0))
        place = {"page": page, "first": page * PAGE + 1, "total": len(positions), "n": len(shown.frame)}
        place["last"] = place["first"] + len(part) - 1
        rows = [_row(row, shown.texts) for row in part.itertuples()]
        listed = render("examples", rows=rows, **place, shown=shown, wanted=wanted, opened=review_id,
                        what=FILTERS[wanted.show].finding, how_to=HOW_TO)  # fmt: skip
        return [
            "",
            gr.Column(visible=True),
            gr.Radio(visible=choice),
            chips_html(shown, wanted),
            listed,
            *self.open(wanted, review_id),
            review_id,
        ]

    def open(self, wanted: ExampleFilter, review_id: str) -> list[object]:
        """The reader's HTML, whether the button below it is there, and the trace where it is stored."""
        tested = self.tested(wanted)
        known = [self.reviews(wanted), self.own(wanted), Reviews(tested) if tested is not None else None]
        found = next((one for one in known if one and (one.frame["review_id"] == review_id).any()), None)
        if not found:
            return [reader_hint(PICK if not review_id else NOT_SHOWN), gr.Button(visible=False), NOTHING]
        frame, texts, answers = found
        row = next(frame[frame["review_id"] == review_id].itertuples())
        text, other = texts.get(review_id), pairs.partner(frame, row)
        before, _ = self.both(wanted)
        base_name = before.record.title if before and not found.own else "Base model"
        html = reader_html(row, text, base_name, other, texts.get(other.review_id) if other else None)
        traced = answers.get(review_id)
        return [
            html,
            gr.Button(visible=bool(text) and not traced),
            value_of(text, traced) if text and traced else NOTHING,
        ]


def chips_html(shown: Reviews, wanted: ExampleFilter) -> Markup:
    """A chip for each filter with its count, and one that lifts a range of P(positive)."""
    counts = pairs.counts(shown.frame, wanted)
    chips = [
        (one.title, counts[name], wanted.asking(show=name), name == wanted.show)
        for name, one in FILTERS.items()
    ]
    return render("chips", chips=chips if shown.answered else [], wanted=wanted)


def _row(row: Any, texts: Mapping[str, str]) -> dict[str, object]:
    """What `examples.html` says of a row of `pairs.paired`; in percent, None where not scored."""
    base, fine = (
        None if pd.isna(p) else 100 * float(p) for p in (row.p_positive_base, row.p_positive_fine_tuned)
    )
    excerpt = _excerpt(texts.get(row.review_id)) or row.review_id
    return {"id": row.review_id, "excerpt": excerpt, "label": row.label, "base": base, "fine": fine}


def _excerpt(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= EXCERPT else flat[:EXCERPT].rsplit(" ", 1)[0] + "…"
