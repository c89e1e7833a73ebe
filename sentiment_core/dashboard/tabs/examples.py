"""Example predictions: test reviews with both answers, filters, search, and a reader pane."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
import pandas as pd

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import pairs
from sentiment_core.dashboard.components.answers import stream_trace
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import empty, notice, waiting
from sentiment_core.dashboard.components.reader import predicted, reader_hint, reader_html, sample_html
from sentiment_core.dashboard.components.trace import NOTHING, trace_figure
from sentiment_core.dashboard.context import QUIET, Context, TabPart, dataset_switch
from sentiment_core.dashboard.pairs import ANY_LENGTH, ExampleFilter
from sentiment_core.dashboard.serving import MODEL_EVENT, ModelUnavailable
from sentiment_core.dashboard.texts import HOW_TO
from sentiment_core.labels import LABEL_WORDS

log = logging.getLogger(__name__)

COMMAND = "python eval.py --run <run> --system all"
PAGE = 25
EXCERPT = 70
COLUMNS = ["review", "true label", "base model", "fine-tuned"]
WAIT_SECONDS = 30.0
"""For the texts, when the page is opened; only this tab waits."""
OWN_SAMPLE = "Or read one of our own sample reviews"
EXPLAIN = "Watch both models read it"
READING = "Reading predictions, and looking for the texts…"
PICK = "Pick a row to read the review."
NOT_EVALUATED = "This run’s fine-tuned model has not answered these reviews yet. This command does that:"
NO_PREDICTIONS = "No predictions yet. This command makes them:"
NO_TEXTS = f"The review texts are not at hand; the table shows ids and figures. {HOW_TO}"
LATEST = QUIET | {"trigger_mode": "always_last"}


def build(context: Context, run: gr.Dropdown) -> TabPart:
    message = gr.HTML(waiting(READING, 500), elem_id="examples-message")
    dataset = dataset_switch(context, "examples")
    samples = [(f"{s.kind}: {' '.join(s.text.split()[:8])}…", s.id) for s in context.store.samples()]
    with gr.Column(visible=False) as body:
        names = [(one.title, name) for name, one in pairs.FILTERS.items()]
        name = gr.Radio(names, label="Show", elem_id="filters", value="all")
        with gr.Row():
            box: dict[str, Any] = {"placeholder": "words, or an id", "max_lines": 1, "min_width": 200}
            search = gr.Textbox(label="Search", elem_id="search", **box)
            length = gr.Dropdown([ANY_LENGTH], label="Length", elem_id="length", min_width=180)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                table = gr.DataFrame(
                    pd.DataFrame(columns=COLUMNS), elem_id="examples-table", label="Reviews",
                    show_label=False, datatype="str", interactive=False, wrap=True, max_height=620,
                    column_widths=["32%", "21%", "22%", "25%"], buttons=[],
                )  # fmt: skip
                with gr.Row(elem_classes="chips"):
                    small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 100}
                    back = gr.Button("Previous", elem_id="page-back", **small)
                    place = gr.HTML(elem_id="page-place")
                    forth = gr.Button("Next", elem_id="page-forth", **small)
            with gr.Column(scale=5, min_width=300):
                own: dict[str, Any] = {"label": OWN_SAMPLE, "elem_id": "own-sample"}
                sample = gr.Dropdown(samples, value=None, visible=False, **own)
                reader = gr.HTML(reader_hint(PICK), elem_id="reader")
                explain = gr.Button(EXPLAIN, visible=False, elem_id="explain-review")
                trace = trace_figure("reader-trace")
    page = gr.State(0)
    opened = gr.Textbox("", visible="hidden", elem_id="opened", label="Review in the reader")
    view = Examples(context)
    filters = [dataset, name, length, search]
    listed, reading = [table, place, page], [reader, explain, trace, opened]
    outputs = [message, body, name, length, sample, *listed, *reading]

    def render_all(*values: Any) -> list[object]:
        """Of the run and the filters; where the address names a review, its id comes last."""
        return view.whole(ExampleFilter(*values[:5]), *values[5:])

    def turned(step: int) -> Callable[..., list[object]]:
        return lambda *values: view.rows(ExampleFilter(*values[:-1], page=values[-1] + step))

    def pick(event: gr.SelectData, *values: Any) -> list[object]:
        wanted = ExampleFilter(*values)
        return view.open(wanted, view.id_at(wanted, event.index[0]))

    def explained(run_id: str, review_id: str) -> Iterator[object]:
        text = view.text_of(review_id)
        if text is not None:
            yield from stream_trace(context, context.store.run(run_id), text)

    changed = [name.input, length.input, search.change]
    gr.on(changed, lambda *values: view.rows(ExampleFilter(*values)), [run, *filters], listed, **LATEST)
    dataset.input(render_all, [run, *filters], outputs, **LATEST)
    for button, step in ((back, -1), (forth, 1)):
        button.click(turned(step), [run, *filters, page], listed, **LATEST)
    to_address = "(id) => { window.qUrl({review: id, text: null}); return [] }"
    picked = table.select(pick, [run, *filters, page], reading, **LATEST)
    picked.then(None, opened, None, js=to_address, api_visibility="private")
    sample.input(view.open_sample, [run, sample], reading, **LATEST | MODEL_EVENT)
    visibly = QUIET | MODEL_EVENT | {"show_progress": "minimal"}
    explain.click(explained, [run, opened], trace, **visibly)
    return TabPart(render_all, filters, outputs, dataset)


class Examples:
    """What the tab shows for a run, a dataset and a filter; holds no state of a visitor."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def frame(self, wanted: ExampleFilter) -> pd.DataFrame | None:
        """Both systems' answers (see `pairs.paired`), or None without an evaluation of the fine-tuned one."""
        store = self.context.store
        before, after = self.both(wanted)
        if after is None:
            return None
        first, second = store.predictions(before) if before else None, store.predictions(after)
        key = ("paired", after.path, before and before.path)
        return store.keep(key, store.stamp(after, before), lambda: pairs.paired(first, second))

    def both(self, wanted: ExampleFilter) -> tuple[Evaluation | None, Evaluation | None]:
        _, evals = self.context.evals(wanted.run_id, wanted.dataset)
        return self.context.store.before(evals), evals.get("fine-tuned")

    def texts(self, frame: pd.DataFrame, wait: float = 0.0) -> Mapping[str, str]:
        """Texts at hand, if they cover this dataset; else none."""
        texts = self.context.texts.wait(wait)
        return texts if len(frame) and frame["review_id"].iloc[0] in texts else {}

    def text_of(self, review_id: str) -> str | None:
        own = {s.id: s.text for s in self.context.store.samples()}
        return own.get(review_id) or self.context.texts.wait(0).get(review_id)

    def page(self, frame: pd.DataFrame, wanted: ExampleFilter) -> tuple[pd.DataFrame, int, int]:
        """The rows of one page, its number after all, and how many rows pass in total."""
        positions = pairs.select(frame, wanted, self.texts(frame))
        page = min(max(wanted.page, 0), max(0, (len(positions) - 1) // PAGE))
        return frame.iloc[positions[page * PAGE : (page + 1) * PAGE]], page, len(positions)

    def id_at(self, wanted: ExampleFilter, row: int) -> str:
        """The id of a page's row; "" where there is none."""
        frame = self.frame(wanted)
        ids = () if frame is None else self.page(frame, wanted)[0]["review_id"].tolist()
        return ids[row] if row < len(ids) else ""

    def whole(self, wanted: ExampleFilter, review_id: str = "") -> list[object]:
        """Everything in the tab; where no review is asked for, the first one is open."""
        frame = self.frame(wanted)
        if frame is None:
            why = NOT_EVALUATED if self.context.store.datasets() else NO_PREDICTIONS
            return [empty(why, COMMAND), gr.Column(visible=False), *[gr.skip()] * 10]
        texts = self.texts(frame, WAIT_SECONDS)
        counts = pairs.counts(frame)
        names = [(f"{one.title} · {counts[name]:,}", name) for name, one in pairs.FILTERS.items()]
        lengths = [ANY_LENGTH, *pairs.lengths(frame)]
        return [
            "" if texts else notice(NO_TEXTS),
            gr.Column(visible=True),
            gr.Radio(choices=names, value=wanted.name if wanted.name in pairs.FILTERS else "all"),
            gr.Dropdown(choices=lengths, value=wanted.length if wanted.length in lengths else ANY_LENGTH),
            gr.Dropdown(visible=bool(self.context.store.samples()) and not texts),
            *self.rows(wanted),
            *self.open(wanted, review_id or self.id_at(wanted, 0)),
        ]

    def rows(self, wanted: ExampleFilter) -> list[object]:
        """One page of the table, the words between the buttons, and the page's number."""
        frame = self.frame(wanted)
        if frame is None:
            return [pd.DataFrame(columns=COLUMNS), "", 0]
        (part, page, total), texts = self.page(frame, wanted), self.texts(frame)
        table = [_table_row(row, texts.get(str(row.review_id))) for row in part.itertuples()]
        place = render("page_place", first=page * PAGE + 1, rows=len(part), total=total)
        return [pd.DataFrame(table, columns=COLUMNS), place, page]

    def open(self, wanted: ExampleFilter, review_id: str) -> list[object]:
        """The reader pane for a review, as `_reading` gives it."""
        frame = self.frame(wanted)
        if frame is None or not review_id:
            return _reading(reader_hint(PICK))
        found = frame[frame["review_id"] == review_id]
        if found.empty:
            return _reading(reader_hint(f"This review is not among the predictions shown. {PICK}"))
        row, texts = next(found.itertuples()), self.texts(frame)
        text, other = texts.get(review_id), pairs.partner(frame, row)
        before, _ = self.both(wanted)
        base_name = before.record.title if before else "Base model"
        html = reader_html(row, text, base_name, other, texts.get(other.review_id) if other else None)
        return _reading(html, review_id, explain=text is not None)

    def open_sample(self, run_id: str, sample_id: str) -> list[object]:
        """One of our own reviews in the reader, with the live model's answers."""
        sample = next((s for s in self.context.store.samples() if s.id == sample_id), None)
        if sample is None:
            return _reading(reader_hint(PICK))
        why, found = "", {}
        try:
            found = self.context.serving.probabilities(self.context.store.run(run_id), [sample.text])
        except ModelUnavailable as error:
            why = notice(str(error))
        except Exception:
            log.exception("classifying a sample failed")
        base, fine = (found.get(system, [None])[0] for system in ("base", "fine-tuned"))
        return _reading(sample_html(sample, base, fine) + why, sample.id, explain=fine is not None)


def _reading(html: str, review_id: str = "", *, explain: bool = False) -> list[object]:
    """The reader's html, the button below it, no trace yet, the id."""
    return [html, gr.Button(visible=explain), NOTHING, review_id]


def _table_row(row: Any, text: str | None) -> tuple[str, str, str, str]:
    """`row`: one of `pairs.paired`."""
    return (
        _excerpt(text) or f"{row.review_id}, {row.tokens:,} tokens",
        LABEL_WORDS[row.label],
        predicted(row.prediction_base, row.label, row.p_positive_base),
        predicted(row.prediction_fine_tuned, row.label, row.p_positive_fine_tuned),
    )


def _excerpt(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= EXCERPT else flat[:EXCERPT].rsplit(" ", 1)[0] + "…"
