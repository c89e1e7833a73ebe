"""Example predictions: test reviews with both answers, filters, search, and a reader pane."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import gradio as gr
import pandas as pd

from sentiment_core.dashboard import pairs
from sentiment_core.dashboard.answers import stream_words
from sentiment_core.dashboard.context import Context, TabPart, dataset_switch
from sentiment_core.dashboard.parts import empty, notice, q
from sentiment_core.dashboard.reader import (
    answer_words,
    partner_html,
    reader_hint,
    reader_html,
    sample_html,
)
from sentiment_core.dashboard.serving import MODEL_EVENT, ModelUnavailable
from sentiment_core.dashboard.texts import HOW_TO
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.systems import SYSTEMS

log = logging.getLogger(__name__)

COMMAND = "python eval.py --run <run> --system all"
PAGE = 25
EXCERPT = 70
COLUMNS = ["review", "label", "base model", "fine-tuned"]
ANY = "any length"
WAIT_SECONDS = 30.0
"""For the texts, when the page is opened; only this tab waits."""
PICK = "Pick a row to read the review."


def build(context: Context, run: gr.Dropdown) -> TabPart:
    waiting = '<p class="muted" style="min-height:500px">Reading predictions, and looking for the texts…</p>'
    message = gr.HTML(q(waiting), elem_id="examples-message")
    dataset = dataset_switch(context, "examples")
    with gr.Column(visible=False) as body:
        chosen = gr.Radio(
            [(one.title, name) for name, one in pairs.FILTERS.items()],
            label="Show",
            elem_id="filters",
            interactive=True,
            value="all",
        )
        with gr.Row():
            search = gr.Textbox(
                label="Search", placeholder="words, or an id", max_lines=1, elem_id="search", min_width=200
            )
            length = gr.Dropdown(
                [ANY], value=ANY, label="Length", elem_id="length", interactive=True, min_width=180
            )
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                table = gr.DataFrame(
                    pd.DataFrame(columns=COLUMNS),
                    datatype="str",
                    interactive=False,
                    elem_id="examples-table",
                    wrap=True,
                    label="Reviews",
                    show_label=False,
                    max_height=620,
                    column_widths=["34%", "19%", "22%", "25%"],
                    buttons=[],
                )
                with gr.Row(elem_classes="chips"):
                    back = gr.Button("Previous", size="sm", scale=0, min_width=100, elem_id="page-back")
                    place = gr.HTML(elem_id="page-place")
                    forth = gr.Button("Next", size="sm", scale=0, min_width=100, elem_id="page-forth")
            with gr.Column(scale=5, min_width=300):
                sample = gr.Dropdown(
                    [
                        (f"{s.kind}: {' '.join(s.text.split()[:8])}…", s.id)
                        for s in context.store.samples_or_none()
                    ],
                    value=None,
                    label="Or read one of our own sample reviews",
                    elem_id="own-sample",
                    interactive=True,
                    visible=False,
                )
                reader = gr.HTML(reader_hint(PICK), elem_id="reader")
                explain = gr.Button(
                    "Show the words that moved the answer", visible=False, elem_id="explain-review"
                )
                words = gr.HTML(elem_id="reader-words")
    page = gr.State(0)
    opened = gr.Textbox("", visible="hidden", elem_id="opened", label="Review in the reader")
    view = Examples(context)
    filters = [dataset, chosen, length, search]
    listed = [table, place, page]
    reading = [reader, explain, words, opened]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}

    def first(run_id: str, name: str, which: str, size: str, words: str) -> list[object]:
        return view.rows(run_id, name, which, size, words, 0)

    def render(
        run_id: str, name: str, which: str, size: str, words: str, review_id: str = ""
    ) -> list[object]:
        return view.whole(run_id, name, which or "all", size, words, review_id)

    def pick(
        run_id: str, name: str, which: str, size: str, words: str, at: int, event: gr.SelectData
    ) -> list[object]:
        row = event.index[0] if isinstance(event.index, (list, tuple)) else event.index
        return view.open(run_id, view.id_at(run_id, name, which, size, words, at, int(row)), name)

    def moved(run_id: str, review_id: str) -> Iterator[str]:
        text = view.text_of(review_id)
        if text is not None:
            yield from stream_words(context, context.store.run(run_id), text)

    outputs = [message, body, chosen, length, sample, *listed, *reading]
    gr.on([chosen.input, length.input, search.change], first, [run, *filters], listed, **quiet)
    dataset.input(render, [run, *filters], outputs, **quiet)
    back.click(lambda *v: view.rows(*v[:-1], v[-1] - 1), [run, *filters, page], listed, **quiet)
    forth.click(lambda *v: view.rows(*v[:-1], v[-1] + 1), [run, *filters, page], listed, **quiet)
    table.select(pick, [run, *filters, page], reading, **quiet).then(
        None,
        opened,
        None,
        js="(id) => { window.qUrl({review: id, text: null}); return [] }",
        api_visibility="private",
    )
    sample.input(view.open_sample, [run, sample], reading, **(quiet | MODEL_EVENT))
    explain.click(
        moved,
        [run, opened],
        words,
        api_visibility="private",
        show_progress="minimal",
        **MODEL_EVENT,
    )
    return TabPart(render, filters, outputs, dataset)


class Examples:
    """What the tab shows for a run, a dataset and a filter; holds no state of a visitor."""

    def __init__(self, context: Context) -> None:
        self.context = context

    # ---- data

    def frame(self, run_id: str | None, dataset: str | None) -> pd.DataFrame | None:
        """Both systems' answers (see `pairs.paired`), or None without an evaluation of the fine-tuned one."""
        store = self.context.store
        _, evals = self.context.evals(run_id, dataset)
        after, before = evals.get("fine-tuned"), store.before(evals)
        if after is None:
            return None
        second = store.predictions(after)
        first = store.predictions(before) if before else None
        return store.keep(
            ("paired", after.path, before and before.path),
            store.stamp(after, before),
            lambda: pairs.paired(first, second),
        )

    def texts(self, frame: pd.DataFrame, wait: float = 0.0) -> Mapping[str, str]:
        """Texts at hand, if they cover this dataset; else none."""
        texts = self.context.texts.wait(wait)
        return texts if len(frame) and frame["review_id"].iloc[0] in texts else {}

    def positions(self, frame: pd.DataFrame, which: str, size: str, words: str) -> object:
        return pairs.select(frame, which, length=size, search=words, texts=self.texts(frame))

    def id_at(self, run_id: str, dataset: str, which: str, size: str, words: str, page: int, row: int) -> str:
        frame = self.frame(run_id, dataset)
        if frame is None:
            return ""
        positions = self.positions(frame, which, size, words)
        at = page * PAGE + row
        return str(frame["review_id"].iloc[positions[at]]) if 0 <= at < len(positions) else ""

    # ---- views

    def whole(
        self, run_id: str, dataset: str, which: str, size: str, words: str, review_id: str
    ) -> list[object]:
        """Everything in the tab; where no review is asked for, the first one is open."""
        frame = self.frame(run_id, dataset)
        if frame is None:
            why = "This run’s fine-tuned model has not answered these reviews yet. This command does that:"
            if not self.context.store.datasets():
                why = "No predictions yet. This command makes them:"
            nothing = empty(why, COMMAND)
            return [nothing, gr.Column(visible=False), *[gr.skip()] * 10]
        texts = self.texts(frame, WAIT_SECONDS)
        counts = pairs.counts(frame)
        chips = [(f"{one.title} · {counts[name]:,}", name) for name, one in pairs.FILTERS.items()]
        sizes = [ANY, *(title for title, _, _ in pairs.length_edges(frame))]
        size = size if size in sizes else ANY
        words_of_texts = (
            ""
            if texts
            else notice(f"The review texts are not at hand; the table shows ids and figures. {HOW_TO}")
        )
        if not review_id:
            review_id = self.id_at(run_id, dataset, which, size, words, 0, 0)
        return [
            words_of_texts,
            gr.Column(visible=True),
            gr.Radio(choices=chips, value=which if which in pairs.FILTERS else "all"),
            gr.Dropdown(choices=sizes, value=size),
            gr.Dropdown(visible=not texts and bool(self.context.store.samples_or_none())),
            *self.rows(run_id, dataset, which, size, words, 0),
            *(
                self.open(run_id, review_id, dataset)
                if review_id
                else [reader_hint(PICK), gr.Button(visible=False), "", ""]
            ),
        ]

    def rows(self, run_id: str, dataset: str, which: str, size: str, words: str, page: int) -> list[object]:
        """One page of the table, the words between the buttons, and the page's number."""
        frame = self.frame(run_id, dataset)
        if frame is None:
            return [pd.DataFrame(columns=COLUMNS), "", 0]
        positions = self.positions(frame, which, size, words)
        page = min(max(page, 0), max(0, (len(positions) - 1) // PAGE))
        part = positions[page * PAGE : (page + 1) * PAGE]
        texts = self.texts(frame)
        shown = pd.DataFrame(
            [
                (
                    _excerpt(texts.get(row.review_id)) or f"{row.review_id}, {row.tokens:,} tokens",
                    LABEL_WORDS[row.label],
                    _marked(row.right_base, answer_words(row.prediction_base, row.p_positive_base)),
                    _marked(
                        row.right_fine_tuned,
                        answer_words(row.prediction_fine_tuned, row.p_positive_fine_tuned),
                    ),
                )
                for row in frame.iloc[part].itertuples()
            ],
            columns=COLUMNS,
        )
        where = (
            f"{page * PAGE + 1:,}–{page * PAGE + len(part):,} of {len(positions):,}"
            if len(part)
            else "no review fits"
        )
        return [shown, q(f'<p class="small muted" style="margin:6px 0 0">{where}</p>'), page]

    def open(self, run_id: str, review_id: str, dataset: str) -> list[object]:
        """The reader pane for a review: html, the explain button, no words yet, the id."""
        frame = self.frame(run_id, dataset)
        found = frame[frame["review_id"] == review_id] if frame is not None else pd.DataFrame()
        if found.empty:
            return [
                reader_hint("This review is not among the predictions shown. " + PICK),
                gr.Button(visible=False),
                "",
                "",
            ]
        row, texts = next(found.itertuples()), self.texts(frame)
        text = texts.get(review_id)
        other = pairs.partner(frame, row)
        more = "" if other is None else partner_html(other, texts.get(other.review_id), text)
        _, evals = self.context.evals(run_id, dataset)
        before = self.context.store.before(evals)
        base_name = SYSTEMS[before.record.system].title if before else "Base model"
        return [reader_html(row, text, base_name, more), gr.Button(visible=text is not None), "", review_id]

    def open_sample(self, run_id: str, sample_id: str) -> list[object]:
        """One of our own reviews in the reader, with the live model's answers."""
        sample = next((s for s in self.context.store.samples_or_none() if s.id == sample_id), None)
        if sample is None:
            return [reader_hint(PICK), gr.Button(visible=False), "", ""]
        run = self.context.store.run(run_id)
        try:
            found = self.context.serving.probabilities(run, [sample.text])
        except ModelUnavailable as error:
            return [
                sample_html(sample, None, None) + notice(str(error)),
                gr.Button(visible=False),
                "",
                sample.id,
            ]
        except Exception:
            log.exception("classifying a sample failed")
            return [sample_html(sample, None, None), gr.Button(visible=False), "", sample.id]
        base, fine = (found.get(system, [None])[0] for system in ("base", "fine-tuned"))
        return [sample_html(sample, base, fine), gr.Button(visible=fine is not None), "", sample.id]

    def text_of(self, review_id: str) -> str | None:
        own = {s.id: s.text for s in self.context.store.samples_or_none()}
        return own.get(review_id) or self.context.texts.wait(0).get(review_id)


def _marked(right: bool, answer: str) -> str:
    """An answer with the sign of whether it is right."""
    return f"{'✓' if right else '✗'} {answer}"


def _excerpt(text: str | None) -> str:
    if not text:
        return ""
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[:EXCERPT].rsplit(" ", 1)[0] + "…"
