"""Example predictions: reviews with both answers, filters, search, and a reader beside them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd
from markupsafe import Markup

from sentiment_core.dashboard import pairs
from sentiment_core.dashboard.components.answers import NO_TRACE, stream
from sentiment_core.dashboard.components.parts import empty, own_figure, render
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import FILTERS, ExampleFilter, Sides
from sentiment_core.dashboard.panels import COMMAND
from sentiment_core.dashboard.serving import MODEL_EVENT
from sentiment_core.dashboard.texts import FETCH, FETCHING
from sentiment_core.data.sources import CHALLENGE
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS

PAGE = 25  # rows
WAIT_SECONDS = 30.0  # for the texts, when the page is opened; only this tab waits
PICK = "Pick a row to read the review."
LATEST = QUIET | {"trigger_mode": "always_last"}
ASKED = "(...v) => { const {show, versus} = JSON.parse(v[3]); qUrl({show, versus, review: 0}); return v }"
REVIEW = "(...v) => { qUrl({review: v[4], text: null}); return v }"  # both to the address
VERSIONS = {"original": " As originally written.", "edited": " Rewritten to say the opposite."}


def build(context: Context, run: gr.Dropdown) -> TabPart:
    dataset = dataset_switch(context, "examples")
    at_first = render("placeholder", sentence="Reading predictions, and looking for the texts…", height=500)
    message = gr.HTML(at_first, elem_id="examples-message")
    with gr.Column(visible=False) as body:
        with gr.Row(elem_id="examples-filters"):
            chips = gr.HTML(elem_id="filters")
            search = gr.Textbox(
                label="Search", placeholder="Search: words, or an id", max_lines=1, elem_id="search",
                container=False, scale=0, min_width=200,
            )  # fmt: skip
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                listed = gr.HTML(elem_id="examples-list")
            with gr.Column(scale=5, min_width=300, elem_id="examples-reader"):
                reader = gr.HTML(empty(PICK), elem_id="reader")
                explain = gr.Button("Watch both models read it", visible=False, elem_id="explain-review")
                trace = own_figure("trace", "reader-trace", value=NO_TRACE)
    asked = gr.Textbox("", visible="hidden", elem_id="examples-filter", label="Filter, as JSON")
    opened = gr.Textbox("", visible="hidden", elem_id="opened", label="Review in the reader")
    fetch = gr.Button(visible="hidden", elem_id="fetch-texts")
    view = Examples(context)
    filters, reading = [run, dataset, search, asked], [reader, explain, trace]
    outputs = [message, body, dataset, chips, listed, *reading, opened]

    def render_all(*values: str) -> list[object]:
        return view.whole(ExampleFilter.of(*values[:4]), *values[4:])

    def read(*values: str) -> list[object]:
        return view.open(ExampleFilter.of(*values[:4]), values[4])

    def fetched(*values: str, progress: gr.Progress = gr.Progress()) -> list[object]:  # noqa: B008
        context.texts.fetch(lambda share: progress(share, desc="Fetching IMDB’s test reviews"))
        return render_all(values[0], context.dataset(None) or "", *values[2:])

    async def explained(run_id: str, review_id: str) -> AsyncIterator[object]:
        if text := context.texts.wait(0).get(review_id):
            async for shown in stream(context, context.store.run(run_id), text):
                yield shown["trace"]

    gr.on([dataset.input, search.change], render_all, filters, outputs, **LATEST)
    asked.input(render_all, filters, outputs, js=ASKED, **LATEST)
    opened.input(read, [*filters, opened], reading, js=REVIEW, **LATEST)
    barred: dict[str, Any] = QUIET | {"show_progress": "full", "show_progress_on": [listed]}
    fetch.click(fetched, filters, outputs, **barred)
    explain.click(explained, [run, opened], trace, **QUIET | MODEL_EVENT | {"show_progress": "minimal"})
    return TabPart(render_all, [*filters[1:], opened], outputs, dataset, {"asked": asked, "opened": opened})


class Reviews(NamedTuple):
    """What the rows are."""

    frame: pd.DataFrame  # as `pairs.paired` gives it
    texts: Mapping[str, str]
    sides: Sides
    dataset: str  # its name


class Examples:
    """What the tab shows for a run, a dataset and a filter; holds no state of a visitor."""

    def __init__(self, context: Context) -> None:
        self.context, self.store = context, context.store

    def tested(self, wanted: ExampleFilter, dataset: str | None = None) -> Reviews | None:
        """Both systems' answers to a data set, or None without an evaluation of the fine-tuned one."""
        store, name = self.store, dataset or wanted.dataset
        before, after, *_ = sides = Sides.of(self.context, wanted.run_id, name, wanted.versus)
        if after is None:
            return None
        first, second = store.predictions(before) if before else None, store.predictions(after)
        key = ("paired", after.path, before and before.path)
        frame = store.keep(key, store.stamp(after, before), lambda: pairs.paired(first, second))
        texts = self.context.texts.wait(0)
        at_hand = texts if frame["review_id"].get(0) in texts else {}
        return Reviews(frame, at_hand, sides, dataset=after.record.dataset.name)

    def whole(self, wanted: ExampleFilter, review_id: str = "") -> list[object]:
        """Everything in the tab: the reviews asked for, the challenge set where their texts are not at hand.
        Where no review is asked for, the first one is open."""
        self.context.texts.wait(WAIT_SECONDS)
        tested = [one for one in (self.tested(wanted), self.tested(wanted, CHALLENGE)) if one]
        if not tested:
            why = "This run’s fine-tuned model has not answered these reviews yet. This command does that:"
            why = why if self.store.datasets() else "No predictions yet. This command makes them:"
            return [empty(why, COMMAND), gr.Column(visible=False), *[gr.skip()] * 7]
        shown = next((one for one in tested if one.texts), tested[0])
        found = pairs.select(shown.frame, wanted, shown.texts)
        page = min(max(wanted.page, 0), max(0, (len(found) - 1) // PAGE))
        part = found[page * PAGE : (page + 1) * PAGE]
        if not self._holding(wanted, review_id):  # as where the address names one of Live's samples
            review_id = next(iter(part["review_id"]), "")
        values = {"shown": shown, "wanted": wanted, "filters": FILTERS}
        largest, how_to = self.tested(wanted, self.context.dataset(None)), self.context.texts.how_to
        chips = render("chips", **values, counts=pairs.counts(shown.frame, wanted))
        listed = render(
            "examples", **values, rows=list(part.itertuples()), page=page, before=page * PAGE,
            total=len(found), opened=review_id, how_to="" if largest and largest.texts else how_to,
            fetch=how_to != FETCHING and FETCH,
        )  # fmt: skip
        switch = gr.Radio(value=shown.dataset, visible=len(self.store.datasets()) > 1)
        reader = self.open(wanted, review_id)
        return ["", gr.Column(visible=True), switch, chips, listed, *reader, review_id]

    def _holding(self, wanted: ExampleFilter, review_id: str) -> Reviews | None:
        """Those among which this review is."""
        known = self.tested(wanted), self.tested(wanted, CHALLENGE)
        return next((one for one in known if one and (one.frame["review_id"] == review_id).any()), None)

    def open(self, wanted: ExampleFilter, review_id: str) -> list[object]:
        """The reader's HTML, whether the button below it is there, and no trace yet."""
        if not (shown := self._holding(wanted, review_id)):
            return [empty(PICK), gr.Button(visible=False), NO_TRACE]
        frame, texts, sides, _ = shown
        row = next(frame[frame["review_id"] == review_id].itertuples())
        html = reader_html(row, pairs.partner(frame, row), texts, sides.names)
        return [html, gr.Button(visible=review_id in texts), NO_TRACE]


def reader_html(row: Any, partner: Any | None, texts: Mapping[str, str], names: tuple[str, str]) -> Markup:
    """A row of `pairs.paired`; below it the other one of its pair."""
    told = (row, row.outcome.capitalize()), (partner, "The other review of this pair")
    panes = [_pane(one, heading, names) | {"text": texts.get(one.review_id)} for one, heading in told if one]
    return render("reader", panes=panes)


def _pane(row: Any, heading: str, names: tuple[str, str]) -> dict[str, object]:
    """What `reader.html` says of a review; of each answer the system, prediction and P(positive)."""
    if phenomenon := getattr(row, "phenomenon", ""):
        small = f"{phenomenon.capitalize()}, written for this page."
    else:
        small = f"Review {row.review_id}, {row.tokens:,} tokens."
        small += " Its middle was left out for the model." if row.truncated else ""
        small += VERSIONS.get(getattr(row, "version", ""), "")
    given = (row.prediction_base, row.p_positive_base), (row.prediction_fine_tuned, row.p_positive_fine_tuned)
    answers = []
    for actor, name, (prediction, p) in zip(("base", "fine"), names, given, strict=True):
        right = not pd.isna(prediction) and prediction == row.label
        word = "Unparsed" if pd.isna(prediction) else LABEL_WORDS[int(prediction)]
        named, predicted = Markup('<span class="{}">{}</span>').format(actor, name), "✓" if right else "✗"
        answers.append((named, f"{predicted}\u00a0{word}", percent(p) if p == p else "–"))
    return {"heading": heading, "label": LABEL_WORDS[row.label], "small": small, "answers": answers}
