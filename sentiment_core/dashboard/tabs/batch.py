"""Batch: a visitor's own texts, before and after: with labels the panels of an evaluation, and a download."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import gradio as gr
import numpy as np
import pandas as pd
from gradio.processing_utils import save_bytes_to_cache

from sentiment_core.artifacts.frames import answers
from sentiment_core.artifacts.schema import DatasetInfo, EvalRecord
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard import inputs, pairs
from sentiment_core.dashboard.components.answers import waiting_note, word_of
from sentiment_core.dashboard.components.parts import FigureSlot, Panel, notice, render, seconds
from sentiment_core.dashboard.context import QUIET, Context
from sentiment_core.dashboard.host import Which
from sentiment_core.dashboard.inputs import MAX_ROWS, Batch, InputRefused
from sentiment_core.dashboard.panels import accuracy_panel
from sentiment_core.dashboard.serving import LOOK_AGAIN, MODEL_EVENT, Latest, Refused, Scores, Waiting
from sentiment_core.dashboard.tabs.accuracy import outcomes_html
from sentiment_core.dashboard.tabs.confusion import Side, matrix_panel
from sentiment_core.labels import LABEL_WORDS
from sentiment_core.metrics import intervals

SYSTEM_IDS: Mapping[Which, str] = {"base": "baseline-scored", "fine-tuned": "fine-tuned"}
NO_LABELS = ("No labels", "")


def build(context: Context, run: gr.Dropdown) -> None:
    with gr.Accordion(f"Your data, before and after (up to {MAX_ROWS:,} texts)", open=False, elem_id="batch"):
        gr.HTML(render("batch_help"))
        with gr.Row():
            with gr.Column(scale=0, min_width=220):
                kinds = [".csv", ".tsv", ".parquet"]
                file = gr.UploadButton("Choose a file", file_types=kinds, elem_id="batch-file")
                chosen = gr.HTML(elem_id="batch-chosen")
                hidden = {"visible": False, "interactive": True}
                text = gr.Dropdown([""], value="", label="Texts are in", elem_id="batch-text", **hidden)
                label = gr.Dropdown([NO_LABELS], label="Labels are in", elem_id="batch-label", **hidden)
            look = {"lines": 5, "max_lines": 12, "min_width": 280, "elem_id": "batch-lines"}
            lines = gr.Textbox(label="Or, instead of a file, one text per line", **look)
        with gr.Row(elem_classes="chips"):
            go = gr.Button("Classify", variant="primary", elem_id="batch-go", scale=0, min_width=170)
            stop = gr.Button("Stop", elem_id="batch-stop", scale=0, min_width=90)
        summary = gr.HTML("", elem_id="batch-summary", min_height=20)
        with gr.Column(visible=False, elem_id="batch-results") as results:
            download = gr.DownloadButton("Download both answers (CSV)", elem_id="batch-download", scale=0)
            slots, flow = [FigureSlot("own-systems", 240)], gr.HTML(elem_id="own-outcomes")
            with gr.Row(equal_height=True):
                slots += [FigureSlot(f"own-matrix-{actor}", 380) for actor in ("before", "after")]
            examples = gr.HTML(elem_id="batch-examples")
    latest, figures = gr.State(Latest()), chain.from_iterable(slot.outputs for slot in slots)
    outputs = [summary, results, *figures, flow, examples, download]

    def only(sentence: str, *, warn: bool = False) -> list[object]:
        """A sentence in place of the results."""
        return [notice(sentence, warn=warn), gr.Column(visible=False), *[gr.skip()] * (len(outputs) - 2)]

    async def answer(
        run_id: str | None, path: str | None, pasted: str, text: str | None, label: str | None,
        latest: Latest, progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[list[object]]:  # fmt: skip
        found, answered, began, shown = dict[Which, list[float]](), 0, 0.0, time.monotonic()
        try:
            batch = await asyncio.to_thread(inputs.read_batch, path, pasted, text, label)
        except InputRefused as error:
            yield only(str(error), warn=True)
            return
        question = latest.question = object()
        async for event in context.serving.scores(context.store.run(run_id), batch.texts):
            if latest.question is not question:
                break
            if time.monotonic() - shown > LOOK_AGAIN:  # Gradio ends here what was asked by one who has left
                shown = time.monotonic()
                yield [gr.skip()] * len(outputs)
            match event:
                case Refused(sentence):
                    yield only(sentence, warn=True)
                    return
                case Waiting():
                    progress(0.0, desc=waiting_note(event))
                    began = time.monotonic()
                case Scores(found, share, answered):
                    left = (time.monotonic() - began) * (1 / share - 1)
                    told = f"{answered:,} of {len(batch.texts):,} texts by both models"
                    progress(share, desc=f"{told}, about {seconds(left)} left")
        found = {system: p[:answered] for system, p in found.items()}
        stopped = f"Stopped after {answered:,} of {len(batch.texts):,}. " * (answered < len(batch.texts))
        batch = Batch(batch.texts[:answered], batch.labels and batch.labels[:answered])
        yield await asyncio.to_thread(whole, batch, found, stopped) if answered else only("Stopped.")

    def whole(batch: Batch, found: dict[Which, list[float]], stopped: str) -> list[object]:
        frame = table_of(batch, found)
        said, path = notice(stopped + summary_of(frame)), write_csv(frame, download.GRADIO_CACHE)
        panels, *told = before_and_after(batch, found)
        shown = (slot.show(panel) for slot, panel in zip_longest(slots, panels))
        return [said, gr.Column(visible=True), *chain.from_iterable(shown), *told, path]

    def cancel(latest: Latest) -> None:
        latest.question = None  # which `answer` notices, and tells what there is

    def named(path: str) -> list[object]:
        name, menus = Path(path).name[:60], [gr.Dropdown(visible=False)] * 2
        try:
            frame = inputs.read_upload(path)
            names = [(str(column), str(column)) for column in frame]
            values = zip((names, [NO_LABELS, *names]), inputs.columns_of(frame), strict=True)
            menus = [gr.Dropdown(choices=some, value=value, visible=True) for some, value in values]
            said = render("small", text=f"{name}: {len(frame):,} rows", muted=False)
        except InputRefused as error:
            said = notice(f"{name}: {error}", warn=True)
        return [said, *menus]

    file.upload(named, file, [chosen, text, label], **QUIET)
    go.click(lambda: only("Asking both models…"), None, outputs, **QUIET).then(
        answer, [run, file, lines, text, label, latest], outputs,
        api_visibility="private", show_progress="full", show_progress_on=[summary], **MODEL_EVENT,
    )  # fmt: skip
    stop.click(cancel, latest, None, **QUIET)


def before_and_after(batch: Batch, found: Mapping[Which, Sequence[float]]) -> tuple[list[Panel], str, str]:
    """What an evaluation shows of stored reviews: panels and the flow of outcomes where there
    are labels, examples where both models answered."""
    told = {name: scored(name, batch, found[one]) for one, name in SYSTEM_IDS.items() if one in found}
    evals, frames = {name: one for name, (one, _) in told.items()}, [frame for _, frame in told.values()]
    sides, both = pairs.Sides(evals["baseline-scored"], evals.get("fine-tuned")), len(frames) == 2
    drawn: list[Panel] = []
    if batch.labels:
        drawn = [accuracy_panel(evals, ()), *map(matrix_panel, map(Side.cut, evals.values(), frames))]
    flow = outcomes_html(sides, *frames, linked=False) if both and batch.labels else ""
    return drawn, flow, examples_html(batch, pairs.paired(*frames), sides) if both else ""


def scored(system: str, batch: Batch, p_positive: Sequence[float]) -> tuple[Evaluation, pd.DataFrame]:
    """An evaluation that is nowhere stored, with what the panels show of one, and its predictions as an
    artifact has them; label -1 where nobody knows it."""
    p = np.array(p_positive, dtype=np.float32)
    frame = pd.DataFrame({"label": batch.labels or -1, "prediction": answers(p), "p_positive": p})
    accuracy = intervals.wilson(int((frame["prediction"] == frame["label"]).sum()), len(frame))
    dataset = DatasetInfo(name="Your texts", split="all", n=len(frame), fingerprint="", source="")
    about = {"system": system, "run_id": None, "dataset": dataset, "metrics": {"accuracy": accuracy}}
    record = EvalRecord.model_construct(**about)
    return Evaluation(Path(), record), frame.assign(review_id=frame.index.astype(str))


def examples_html(batch: Batch, frame: pd.DataFrame, sides: pairs.Sides) -> str:
    """Each filter's first 25 texts, folded; without labels only those filters that need none."""
    wanted = [name for name in pairs.FILTERS if batch.labels or name in ("all", "unsure")]
    groups = [(pairs.FILTERS[show], pairs.select(frame, pairs.ExampleFilter(show=show))) for show in wanted]
    groups.sort(key=lambda group: group[1].empty)
    return render("batch_examples", groups=groups, texts=batch.texts, sides=sides, listed=25)


def table_of(batch: Batch, found: Mapping[Which, Sequence[float]]) -> pd.DataFrame:
    """A row per text: its number, text, label where known, and of each model label and P(positive)."""
    frame = pd.DataFrame({"row": range(1, len(batch.texts) + 1), "text": batch.texts})
    if batch.labels is not None:
        frame["label"] = [LABEL_WORDS[label] for label in batch.labels]
    for system in sorted(found):
        frame[system] = [word_of(p) for p in found[system]]
        frame[f"{system} P(positive)"] = [round(p, 4) for p in found[system]]
    return frame


def summary_of(frame: pd.DataFrame) -> str:
    """How many, and how many of them each model calls positive."""
    positive = {name: (frame[name] == LABEL_WORDS[1]).sum() for name in SYSTEM_IDS if name in frame}
    told = (f" The {name} model predicts {n:,} positive." for name, n in positive.items())
    return f"{len(frame):,} texts.{''.join(told)}"


def write_csv(frame: pd.DataFrame, cache: str) -> str:
    """A CSV where Gradio keeps files for a while, its cells safe to open in a spreadsheet."""
    content = frame.assign(text=frame["text"].map(inputs.safe_cell)).to_csv(index=False).encode()
    return save_bytes_to_cache(content, "answers.csv", cache)
