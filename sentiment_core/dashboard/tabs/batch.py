"""Batch: up to 1,000 reviews from a CSV or pasted lines, with progress, a table, a CSV and accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import gradio as gr
import pandas as pd

from sentiment_core.dashboard.components.answers import waiting_note, word_of
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import notice
from sentiment_core.dashboard.context import QUIET, Context
from sentiment_core.dashboard.host import Which
from sentiment_core.dashboard.inputs import MAX_ROWS, Batch, InputRefused, read_batch, safe_cell
from sentiment_core.dashboard.serving import MODEL_EVENT, Latest, Refused, Scores, Waiting
from sentiment_core.figures.style import percent
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import intervals

COLUMNS = ["row", "text", "label", "base", "base P(positive)", "fine-tuned", "fine-tuned P(positive)"]
STOPPED = "Stopped."


def build(context: Context, run: gr.Dropdown) -> None:
    with gr.Accordion(f"Many reviews at once (up to {MAX_ROWS:,})", open=False, elem_id="batch"):
        gr.HTML(render("batch_help"))
        with gr.Row():
            with gr.Column(scale=0, min_width=220):
                file = gr.UploadButton("Choose a CSV file", file_types=[".csv"], elem_id="batch-file")
                chosen = gr.HTML(render("small", text="No file chosen.", muted=True), elem_id="batch-chosen")
                clear = gr.Button("Remove the file", size="sm", visible=False, elem_id="batch-clear")
            lines = gr.Textbox(
                label="Or one review per line", lines=5, max_lines=12, elem_id="batch-lines", min_width=280
            )
        with gr.Row(elem_classes="chips"):
            go = gr.Button("Classify", variant="primary", elem_id="batch-go", scale=0, min_width=170)
            stop = gr.Button("Stop", elem_id="batch-stop", scale=0, min_width=90)
        summary = gr.HTML("", elem_id="batch-summary", min_height=20)
        table = gr.DataFrame(
            pd.DataFrame(columns=COLUMNS), label="Answers", elem_id="batch-table",
            datatype=["number", "str", "str", "str", "number", "str", "number"],
            column_widths=[60, 330, 90, 90, 140, 100, 150],
            interactive=False, visible=False, wrap=True, max_height=420,
        )  # fmt: skip
        download = gr.DownloadButton("Download as CSV", visible=False, elem_id="batch-download", scale=0)
    latest = gr.State(Latest())
    results = [summary, table, download]

    async def answer(
        run_id: str | None, path: str | None, pasted: str, latest: Latest,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[object]:  # fmt: skip
        question = latest.question = object()
        found: dict[Which, list[float]] = {}
        try:
            batch = read_batch(path, pasted)
        except InputRefused as error:
            return only(str(error), warn=True)
        async for event in context.serving.scores(context.store.run(run_id), batch.texts):
            if latest.question is not question:
                return only(STOPPED)
            match event:
                case Refused(sentence):
                    return only(sentence, warn=True)
                case Waiting():
                    progress(0.0, desc=waiting_note(event))
                case Scores(found, system, share):
                    progress(share, desc=f"{percent(share)} of both models' answers, now the {system} one's")
        frame = table_of(batch, found)
        excerpts = frame.assign(text=[shorten(text, 160, placeholder="…") for text in frame["text"]])
        download = gr.DownloadButton(value=write_csv(frame), visible=True)
        return [notice(summary_of(frame)), gr.DataFrame(excerpts, visible=True), download]

    def cancel(latest: Latest) -> str:
        latest.question = None
        return notice(STOPPED)

    def named(path: str | None) -> list[object]:
        words = Path(path).name[:60] if path else "No file chosen."
        return [render("small", text=words, muted=not path), gr.Button(visible=bool(path))]

    file.upload(named, file, [chosen, clear], **QUIET)
    clear.click(lambda: [None, *named(None)], None, [file, chosen, clear], **QUIET)
    go.click(lambda: only("Asking both models…"), None, results, **QUIET).then(
        answer, [run, file, lines, latest], results,
        api_visibility="private", show_progress="full", show_progress_on=[summary], **MODEL_EVENT,
    )  # fmt: skip
    stop.click(cancel, latest, summary, **QUIET)


def only(sentence: str, *, warn: bool = False) -> list[object]:
    """A sentence in place of the results."""
    return [notice(sentence, warn=warn), gr.DataFrame(visible=False), gr.DownloadButton(visible=False)]


def table_of(batch: Batch, found: Mapping[Which, Sequence[float]]) -> pd.DataFrame:
    """One row per review, columns COLUMNS (without those of a model that is not there)."""
    frame = pd.DataFrame({"row": range(1, len(batch.texts) + 1), "text": batch.texts})
    if batch.labels is not None:
        frame["label"] = [LABEL_WORDS[label] for label in batch.labels]
    for system in sorted(found):
        frame[system] = [word_of(p) for p in found[system]]
        frame[f"{system} P(positive)"] = [round(p, 4) for p in found[system]]
    return frame


def summary_of(frame: pd.DataFrame) -> str:
    """How many, how they split, and the accuracy where labels came along."""
    sentences = [f"{len(frame):,} reviews."]
    for system in (name for name in ("fine-tuned", "base") if name in frame):
        if "label" in frame:
            share = intervals.wilson(int((frame[system] == frame["label"]).sum()), len(frame))
            # pyrefly: ignore[bad-argument-type] Wilson's always has both ends
            interval = f"95\u202f% interval {percent(share.low)} to {percent(share.high)}"
            sentences.append(f"Accuracy of the {system} model: {percent(share.value)} ({interval}).")
        else:
            positive = int((frame[system] == LABEL_WORDS[1]).sum())
            split = f"{positive:,} positive and {len(frame) - positive:,} negative"
            sentences.append(f"The {system} model predicts {split}.")
    return " ".join(sentences)


def write_csv(frame: pd.DataFrame) -> str:
    """A CSV in the temporary folder, its cells safe to open in a spreadsheet."""
    path = Path(tempfile.mkdtemp(prefix="sentiment-")) / "answers.csv"
    frame.assign(text=frame["text"].map(safe_cell)).to_csv(path, index=False)
    return str(path)
