"""Batch: up to 1,000 reviews from a CSV or pasted lines, with progress, a table, a CSV and accuracy."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr
import pandas as pd

from sentiment_core import intervals
from sentiment_core.artifacts import Run
from sentiment_core.chart_style import percent
from sentiment_core.dashboard.answers import word_of
from sentiment_core.dashboard.calls import MODEL_EVENT
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.host import ModelUnavailable
from sentiment_core.dashboard.inputs import MAX_ROWS, Batch, InputRefused, read_batch, safe_cell
from sentiment_core.dashboard.parts import notice, q
from sentiment_core.labels import LABEL_WORDS

log = logging.getLogger(__name__)

COLUMNS = ["row", "text", "label", "base", "base P(positive)", "fine-tuned", "fine-tuned P(positive)"]
SHOWN_CHARACTERS = 160
STOPPED = "Stopped."
BROKE = "Something went wrong while reading these reviews; the server's log has the details."


def build(context: Context, run: gr.Dropdown) -> None:
    with gr.Accordion(f"Many reviews at once (up to {MAX_ROWS:,})", open=False, elem_id="batch"):
        gr.HTML(
            '<div class="q"><p class="muted">A CSV with a column <code>text</code>, and <code>label</code> '
            "if you "
            "have it (0/1, neg/pos or negative/positive); or one review per line.</p></div>"
        )
        with gr.Row():
            with gr.Column(scale=0, min_width=220):
                file = gr.UploadButton("Choose a CSV file", file_types=[".csv"], elem_id="batch-file")
                chosen = gr.HTML(no_file(), elem_id="batch-chosen")
                clear = gr.Button("Remove the file", size="sm", visible=False, elem_id="batch-clear")
            lines = gr.Textbox(
                label="Or one review per line", lines=5, max_lines=12, elem_id="batch-lines", min_width=280
            )
        with gr.Row(elem_classes="chips"):
            go = gr.Button("Ask both models", variant="primary", elem_id="batch-go", scale=0, min_width=170)
            stop = gr.Button("Stop", elem_id="batch-stop", scale=0, min_width=90)
        summary = gr.HTML("", elem_id="batch-summary", min_height=20)
        table = gr.DataFrame(
            pd.DataFrame(columns=COLUMNS),
            datatype=["number", "str", "str", "str", "number", "str", "number"],
            interactive=False,
            visible=False,
            elem_id="batch-table",
            wrap=True,
            max_height=420,
            label="Answers",
            column_widths=[60, 330, 90, 90, 140, 100, 150],
        )
        download = gr.DownloadButton("Download as CSV", visible=False, elem_id="batch-download", scale=0)
    wish = gr.State(Wish())

    def answer(
        run_id: str | None,
        path: str | None,
        pasted: str,
        wish: Wish,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[object, object, object]:
        hidden = gr.DataFrame(visible=False), gr.DownloadButton(visible=False)
        wish.stop = False

        def go_on(share: float, desc: str) -> None:
            if wish.stop:
                raise Stopped
            progress(share, desc=desc)

        try:
            batch = read_batch(path, pasted)
            frame = classify_rows(context, context.store.run(run_id), batch, go_on)
        except Stopped:
            return notice(STOPPED), *hidden
        except (InputRefused, ModelUnavailable) as error:
            return notice(str(error), warn=True), *hidden
        except Exception:
            log.exception("batch failed")
            return notice(BROKE, warn=True), *hidden
        shown = frame.assign(
            text=[t if len(t) <= SHOWN_CHARACTERS else t[:SHOWN_CHARACTERS] + "…" for t in frame["text"]]
        )
        return (
            notice(summary_of(frame)),
            gr.DataFrame(shown, visible=True),
            gr.DownloadButton(value=write_csv(frame), visible=True),
        )

    file.upload(
        lambda path: (q(f'<p class="small">{escape(Path(path).name[:60])}</p>'), gr.Button(visible=True)),
        file, [chosen, clear], api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    clear.click(
        lambda: (None, no_file(), gr.Button(visible=False)), None, [file, chosen, clear],
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    begun = go.click(
        lambda: (
            notice("Asking both models…"),
            gr.DataFrame(visible=False),
            gr.DownloadButton(visible=False),
        ),
        None,
        [summary, table, download],
        api_visibility="private",
        show_progress="hidden",
    )
    begun.then(
        answer,
        [run, file, lines, wish],
        [summary, table, download],
        api_visibility="private",
        show_progress="full",
        show_progress_on=[summary],
        **MODEL_EVENT,
    )
    stop.click(_stop, wish, summary, api_visibility="private", show_progress="hidden")


@dataclass
class Wish:
    """Whether a visitor wants the batch under way to stop; looked at between its parts."""

    stop: bool = False


class Stopped(Exception):
    """The visitor wants no more of this batch."""


def _stop(wish: Wish) -> str:
    wish.stop = True
    return notice(STOPPED)


def no_file() -> str:
    return q('<p class="small muted">No file chosen.</p>')


def classify_rows(
    context: Context, run: Run | None, batch: Batch, progress: Callable[..., object]
) -> pd.DataFrame:
    """One row per review, columns COLUMNS (without those of a model that is not there).

    Args:
        progress: called with the share done and `desc`, what is being done; what it raises ends the work.
    """
    found = context.calls.probabilities(run, batch.texts, lambda done, words: progress(done, desc=words))
    frame = pd.DataFrame({"row": range(1, len(batch.texts) + 1), "text": batch.texts})
    if batch.labels is not None:
        frame["label"] = [LABEL_WORDS[label] for label in batch.labels]
    for system in ("base", "fine-tuned"):
        if system in found:
            frame[system] = [word_of(p) for p in found[system]]  # type: ignore[index]
            frame[f"{system} P(positive)"] = [round(p, 4) for p in found[system]]  # type: ignore[index]
    return frame


def summary_of(frame: pd.DataFrame) -> str:
    """How many, how they split, and the accuracy where labels came along."""
    sentences = [f"{len(frame):,} reviews."]
    for system in ("fine-tuned", "base"):
        if system not in frame:
            continue
        if "label" in frame:
            share = intervals.wilson(int((frame[system] == frame["label"]).sum()), len(frame))
            sentences.append(
                f"The {system} model is right on {percent(share.value)} "
                f"(95\u202f% interval {percent(share.low)} to {percent(share.high)})."
            )
        else:
            positive = int((frame[system] == LABEL_WORDS[1]).sum())
            sentences.append(
                f"The {system} model calls {positive:,} positive and {len(frame) - positive:,} negative."
            )
    return " ".join(sentences)


def write_csv(frame: pd.DataFrame) -> str:
    """A CSV in the temporary folder, its cells safe to open in a spreadsheet."""
    folder = Path(tempfile.mkdtemp(prefix="sentiment-"))
    path = folder / "answers.csv"
    frame.assign(text=frame["text"].map(safe_cell)).to_csv(path, index=False)
    return str(path)
