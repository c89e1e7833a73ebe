"""Example predictions: reviews with both answers, filters, search, and a reader beside them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd
from markupsafe import Markup

from sentiment_core.dashboard.components.answers import NO_TRACE, stream
from sentiment_core.dashboard.components.parts import empty, own_figure, render
from sentiment_core.dashboard.context import QUIET, VERSUS, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import FILTERS, ExampleFilter, Sides, counts, paired, select
from sentiment_core.dashboard.panels import COMMAND
from sentiment_core.dashboard.serving import MODEL_EVENT
from sentiment_core.dashboard.texts import FETCH, FETCHING
from sentiment_core.data.sources import CHALLENGE
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS

PAGE = 25  # rows
WAIT_SECONDS = 30.0  # for the texts, when the page is opened; only this tab waits
PICK = "Pick a row to read it."
LATEST = QUIET | {"trigger_mode": "always_last"}
ASKED = "(...v) => { const {show, versus} = JSON.parse(v[3]); qUrl({show, versus, review: 0}); return v }"
HELD = "(versus, asked) => figs.examine({...JSON.parse(asked || '{}'), versus, page: 0})"
REVIEW = "(...v) => { qUrl({review: v[4], text: null}); return v }"  # both to the address
VERSIONS = {"original": " As originally written.", "edited": " Rewritten to say the opposite."}


def build(context: Context, run: gr.Dropdown) -> TabPart:
    with gr.Row():
        dataset = dataset_switch(context, "examples")
        versus = gr.Dropdown([], elem_id="examples-versus", **VERSUS)
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
    filters, reading = [run, dataset, search, asked], [reader, explain, trace]
    outputs = [message, body, dataset, versus, chips, listed, *reading, opened]

    def render_all(*values: str) -> list[object]:
        return whole(context, ExampleFilter.of(*values[:4]), *values[4:])

    def read(*values: str) -> list[object]:
        return in_reader(context, ExampleFilter.of(*values[:4]), values[4])

    def fetched(*values: str, progress: gr.Progress = gr.Progress()) -> list[object]:  # noqa: B008
        context.texts.fetch(lambda share: progress(share, desc="Fetching IMDB’s test reviews"))
        return render_all(values[0], context.dataset(None) or "", *values[2:])

    async def explained(run_id: str, review_id: str) -> AsyncIterator[object]:
        if text := context.texts.wait(0).get(review_id):
            async for shown in stream(context, context.store.run(run_id), text):
                yield shown["trace"]

    gr.on([dataset.input, search.change], render_all, filters, outputs, **LATEST)
    versus.input(None, [versus, asked], None, js=HELD, **QUIET)
    asked.input(render_all, filters, outputs, js=ASKED, **LATEST)
    opened.input(read, [*filters, opened], reading, js=REVIEW, **LATEST)
    fetch.click(fetched, filters, outputs, **QUIET | {"show_progress": "full", "show_progress_on": [listed]})
    explain.click(explained, [run, opened], trace, **QUIET | MODEL_EVENT | {"show_progress": "minimal"})
    return TabPart(render_all, [*filters[1:], opened], outputs, dataset, [opened, asked])


class Reviews(NamedTuple):
    """What the rows are."""

    frame: pd.DataFrame  # as `pairs.paired` gives it
    texts: Mapping[str, str]
    sides: Sides
    dataset: str  # its name


def tested(context: Context, wanted: ExampleFilter, dataset: str | None) -> Reviews | None:
    """Both systems' answers to a data set, or None without an evaluation of the fine-tuned one."""
    store = context.store
    before, after, *_ = sides = Sides.of(context, wanted.run_id, dataset, wanted.versus)
    if after is None:
        return None
    first, second = store.predictions(before) if before else None, store.predictions(after)
    key = ("paired", after.path, before and before.path)
    frame = store.keep(key, store.stamp(after, before), lambda: paired(first, second))
    texts = context.texts.wait(0)
    at_hand = texts if frame["review_id"].get(0) in texts else {}
    return Reviews(frame, at_hand, sides, dataset=after.record.dataset.name)


def answered(context: Context, wanted: ExampleFilter) -> list[Reviews]:
    """The reviews asked for, and our own, the challenge set."""
    return [one for name in (wanted.dataset, CHALLENGE) if (one := tested(context, wanted, name))]


def whole(context: Context, wanted: ExampleFilter, review_id: str = "") -> list[object]:
    """Everything in the tab: the reviews asked for, the challenge set where their texts are not at hand.
    Where no review is asked for, the first one is open."""
    context.texts.wait(WAIT_SECONDS)
    known, datasets, how_to = answered(context, wanted), context.store.datasets(), context.texts.how_to
    if not known:
        why = "The fine-tuned model has not answered this test set yet. This command does that:"
        return [empty(why, COMMAND), gr.Column(visible=False), *[gr.skip()] * 8]
    shown = next((one for one in known if one.texts), known[0])
    found = select(shown.frame, wanted, shown.texts)
    page = min(max(wanted.page, 0), max(0, (len(found) - 1) // PAGE))
    part = found[page * PAGE : (page + 1) * PAGE]
    if not any(one.frame["review_id"].eq(review_id).any() for one in known):
        review_id = next(iter(part["review_id"]), "")  # as where the address names one of Live's samples
    values = {"shown": shown, "wanted": wanted, "filters": FILTERS}
    chips = render("chips", **values, counts=counts(shown.frame, wanted))
    largest = tested(context, wanted, context.dataset(None))
    listed = render(
        "examples", **values, rows=list(part.itertuples()), page=page, before=page * PAGE,
        total=len(found), opened=review_id, how_to="" if largest and largest.texts else how_to,
        fetch=how_to != FETCHING and context.dataset(None) == "imdb" and FETCH,
    )  # fmt: skip
    switch = gr.Radio(value=shown.dataset, visible=len(datasets) > 1)
    reader = in_reader(context, wanted, review_id)
    return ["", gr.Column(visible=True), switch, shown.sides.menu(), chips, listed, *reader, review_id]


def in_reader(context: Context, wanted: ExampleFilter, review_id: str) -> list[object]:
    """The reader's HTML, whether the button below it is there, and no trace yet."""
    for rows, texts, sides, _ in answered(context, wanted):
        for row in rows[rows["review_id"] == review_id].itertuples():
            pair = rows[rows["pair_id"] == row.pair_id] if "pair_id" in rows else rows[:0]
            others = pair[pair["review_id"] != review_id].itertuples()
            told = [(row, str(row.outcome).capitalize())]
            told += [(one, "The other review of this pair") for one in others]
            panes = [_pane(one, heading, texts, sides.names) for one, heading in told]
            return [render("reader", panes=panes), gr.Button(visible=review_id in texts), NO_TRACE]
    return [empty(PICK), gr.Button(visible=False), NO_TRACE]


def _pane(row: Any, heading: str, texts: Mapping[str, str], names: tuple[str, str]) -> dict[str, object]:
    """What `reader.html` says of a review; of each answer the system, prediction and P(positive)."""
    if phenomenon := getattr(row, "phenomenon", ""):
        small = f"{phenomenon.capitalize()}, written for this page."
    else:
        small = f"Id {row.review_id}, {row.tokens:,} tokens."
        small += " Its middle was left out for the model." if row.truncated else ""
        small += VERSIONS.get(getattr(row, "version", ""), "")
    answers = []
    for actor, name, of in zip(("base", "fine"), names, ("base", "fine_tuned"), strict=True):
        prediction, p, right = (getattr(row, f"{one}_{of}") for one in ("prediction", "p_positive", "right"))
        word = "Unparsed" if pd.isna(prediction) else LABEL_WORDS[int(prediction)]
        named, predicted = Markup('<span class="{}">{}</span>').format(actor, name), "✓" if right else "✗"
        answers.append((named, f"{predicted}\u00a0{word}", percent(p) if p == p else "–"))
    told = {"heading": heading, "label": LABEL_WORDS[row.label], "small": small, "answers": answers}
    return told | {"text": texts.get(row.review_id)}
