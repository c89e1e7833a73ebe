"""Method: the weights in pictures, how a model measures below chance, settings, limits, and the commands."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts import report
from sentiment_core.artifacts.schema import OTHER_FORM, Confusion
from sentiment_core.artifacts.store import ArtifactError, Run, read_adapter_shapes, read_benchmark
from sentiment_core.config import TrainConfig, repository
from sentiment_core.dashboard.components.header import NEARLY_EVERY, PAIRS, before_and_after, share_positive
from sentiment_core.dashboard.components.parts import empty, fragment, render, seconds
from sentiment_core.dashboard.context import Context, TabPart
from sentiment_core.dashboard.pairs import Sides
from sentiment_core.dashboard.store import DATASET_TITLES
from sentiment_core.figures.style import percent
from sentiment_core.labels import UNPARSED
from sentiment_core.metrics import classification, intervals
from sentiment_core.models.base_models import EMBEDDED
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

T = TypeVar("T")
TOLD_ELSEWHERE = ("run_id", "preset", "dataset", "exclude", "soup")  # by the commands and the data's words
FOLDERS = re.compile(r" --(?:assets|work)[ =](?:'[^']*'|\S+)")  # of a command: they change no result
READ_AS = {UNPARSED: "no label: neither word, or both"}
FIRST_ROWS = 200  # of a subset that was not shuffled, as a notebook takes it to be quick
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: its level, the 8-bit scale of 64, the 32-bit scale of 256 scales (Dettmers et al. 2023)."""


def build(context: Context, run: gr.Dropdown) -> TabPart:
    page = gr.HTML(render("placeholder", sentence="Reading the artifacts…", height=600), elem_id="method")
    return TabPart(lambda run_id: [method_html(context, context.store.run(run_id))], [], [page])


def method_html(context: Context, run: Run | None) -> Markup:
    if run is None or run.record is None:
        return empty("No finished training run yet. This command makes one:", "python train.py")
    record, root, base = run.record, context.store.root, run.record.base_model.name
    imdb = context.dataset("imdb")
    tuned, pairs = (context.store.evals(run, name).get("fine-tuned") for name in (imdb, PAIRS))
    made = [(one, one.record) for one in context.store.finished_runs() if one.record and one != run]
    alike = [one for one, its in made if (its.config.get("preset"), its.base_model.name) == ("study", base)]
    traced = _if_usable(read_benchmark, "trace", root)
    sets = [context.store.evals(run, name) for name in context.store.datasets()]
    told = [record, *(one.record for found in sets for one in found.values())]
    return render(
        "method", record=record, pictures=pictures(run), study_panel=study_panel(context, run),
        before=before_and_after(context, run, imdb).get("base"), nearly_every=NEARLY_EVERY,
        share_positive=share_positive, prompt=PROMPT if record.prompt.name == PROMPT.name else None,
        question=PROMPT.user.replace(REVIEW_SLOT, "").strip(), embedded=EMBEDDED.get(base),
        settings=_settings(context, [run, *alike[:1]]),
        edited=pairs and pairs_compared(context.store.predictions(pairs)),
        sure=tuned and overconfidence(context.store.predictions(tuned)),
        suspect=all_wrong(context, imdb), live=_if_usable(read_benchmark, "live", root),
        commands=list(dict.fromkeys([FOLDERS.sub("", one.command) for one in told] + ["python app.py"])),
        references={one.kind: one for one in context.store.references()}, repository=repository(),
        trace_sentence=traced and traced.base_model == base and _if_usable(report.trace_sentence, root),
        seeds=_if_usable(report.seeds_sentence, root), exports=_if_usable(report.export_rows, run, root),
        soak=_if_usable(report.soak_rows, root), in_browser=_if_usable(read_benchmark, "browser", root),
    )  # fmt: skip


def _if_usable(read: Callable[..., T], *given: Any) -> T | None:
    """What is read of a benchmark; None where it is of no use, which the header tells."""
    with suppress(ValueError, LookupError, TypeError):
        return read(*given)


def pairs_compared(frame: pd.DataFrame) -> classification.Comparison | None:
    """Whether the edited texts of pairs are answered as well as the originals; None without both."""
    right = frame.assign(right=(frame["prediction"] == frame["label"]).fillna(False).astype(int))
    wide = right.pivot_table(index="pair_id", columns="version", values="right", aggfunc="first")
    if not {"original", "edited"} <= {*wide} or (wide := wide.dropna()).empty:
        return None
    return classification.compare(np.ones(len(wide)), wide["original"], wide["edited"])


def overconfidence(frame: pd.DataFrame) -> dict[str, float] | None:
    """Mean confidence, accuracy, and errors that were stated with at least 99 %; None if not scored."""
    if frame["p_positive"].isna().any():
        return None
    sure, right = (0.5 + (frame["p_positive"] - 0.5).abs()), frame["prediction"] == frame["label"]
    return {"mean": sure.mean(), "accuracy": right.mean(), "errors": int(((sure >= 0.99) & ~right).sum())}


def all_wrong(context: Context, dataset: str | None) -> tuple[int, int]:
    """Reviews that every trained system answers wrong, whose label is thus suspect, and how many systems."""
    runs = [None, *context.store.finished_runs()]
    found = (one for run in runs for one in context.store.evals(run, dataset).values())
    trained = {one.path: one for one in found if not one.record.system.startswith("baseline")}
    frames = [context.store.predictions(one) for one in trained.values()]
    wrong = [set(frame["review_id"][frame["prediction"] != frame["label"]]) for frame in frames]
    return len(set.intersection(*wrong)) if wrong else 0, len(wrong)


def _settings(context: Context, runs: list[Run]) -> list[tuple[str, ...]]:
    """Rows of (name, each run's value): what is not the default, and results."""
    records = [run.record for run in runs if run.record]
    configs, usual = [record.config for record in records], vars(TrainConfig())
    names = dict.fromkeys(name for config in configs for name in config if name not in TOLD_ELSEWHERE)
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), *(_value(name, config.get(name)) for config in configs))
        for name in names if any(config.get(name) != usual.get(name) for config in configs)
    ]  # fmt: skip
    rows.append(("training examples", *(f"{record.data.labelled:,}" for record in records)))
    rows.append(("training time", *(seconds(record.wall_seconds) for record in records)))
    for dataset in context.store.datasets():
        evals = [context.store.evals(run, dataset).get("fine-tuned") for run in runs]
        if any(evals):
            found = (percent(one.record.metrics["accuracy"].value) if one else "–" for one in evals)
            rows.append((f"accuracy on {DATASET_TITLES.get(dataset, dataset)}", *found))
    return rows


def settings_html(context: Context, sides: Sides, run_id: str | None) -> Markup:
    """What differs between two runs, as a small table; empty where a run stands beside another system."""
    names = (sides.versus, run_id) if sides.before and sides.before.record.run_id else ()
    runs = [run for run in map(context.store.run, names) if run]
    rows = [row for row in _settings(context, runs) if len({*row[1:]}) > 1] if runs else []
    return render("settings", names=sides.names, rows=rows) if runs else Markup()


def _value(key: str, value: object) -> str:
    if key == "micro_batch_size" and not value:
        return "as fits"
    if isinstance(value, float):
        return f"{value:g}"
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "–" if value is None else words or "–"


def pictures(run: Run) -> list[Markup]:
    """The matrix, the levels and the memory, each where the run's artifacts hold what it needs."""
    record, found, shapes = run.record, [], {}
    with suppress(ArtifactError):  # which the header tells
        shapes = read_adapter_shapes(run)
    if record and shapes:
        sample = record.weights.matrix if record.weights else ""
        name = sample if sample in shapes else list(shapes)[len(shapes) // 2]
        found.append(fragment("matrix", name=name, shape=shapes[name], lora=record.lora))
        adapted = sum(outputs * inputs for outputs, inputs, _ in shapes.values())
        rows = memory_bytes(record.base_model.parameters, adapted, record.trainable_parameters)
        found.append(fragment("memory", rows=rows, record=record))
    if record and record.weights:
        found.insert(1, fragment("levels", sample=record.weights))
    return found


def memory_bytes(parameters: int, matrices: int, trainable: int) -> dict[str, tuple[float, float]]:
    """What -> bytes when all weights are trained in 16 bits, and with QLoRA; activations are left out.

    Trained in 16 bits a weight takes 12 bytes; so Dettmers et al. 2023 arrive at 780 GB for 65 billion.
    Of the base's `parameters` NF4 rounds `matrices`; `trainable` ones of the adapter are kept in 32 bits.
    """
    return {
        "base weights": (2 * parameters, matrices * NF4_BITS / 8 + 2 * (parameters - matrices)),
        "adapter": (0, 4 * trainable),
        "gradients": (2 * parameters, 4 * trainable),
        "Adam’s two moments": (8 * parameters, 8 * trainable),
    }


def study_panel(context: Context, run: Run) -> Markup | None:
    """None without the study's figures or our free answers to the same test split."""
    references = {one.kind: one.accuracy for one in context.store.references()}
    generated = context.store.evals(run, "imdb").get("baseline-generated")
    if generated is None or not {"study-before", "study-after"} <= references.keys():
        return None
    record, first = generated.record, first_rows(context.store.predictions(generated))
    forms = {form.parsed: form for form in reversed(record.answer_forms) if form.form != OTHER_FORM}
    found = [forms[read] for read in ("positive", "negative", "unparsed") if read in forms]
    frequent = [(f"“{one.form}”", READ_AS.get(one.parsed, one.parsed), f"{one.count:,}") for one in found]
    return fragment(
        "study", before=references["study-before"], after=references["study-after"], record=record,
        forms=frequent, squares=waffle(record.confusion), first=first, rows=FIRST_ROWS,
    )  # fmt: skip


def waffle(cells: Confusion) -> dict[str, int]:
    """Right, wrong and no label in squares of 100."""
    counts = {
        "right": cells.negative_negative + cells.positive_positive,
        "wrong": cells.negative_positive + cells.positive_negative,
        "no label": cells.negative_unparsed + cells.positive_unparsed,
    }
    ends = np.cumsum([*counts.values()]) * 100 / sum(counts.values())
    return dict(zip(counts, np.diff(ends.round(), prepend=0).astype(int).tolist(), strict=True))


def first_rows(predictions: pd.DataFrame) -> intervals.Metric | None:
    """Accuracy on the first rows where these are all negative, as in a split that is sorted by label."""
    head = predictions.head(FIRST_ROWS)
    if len(head) < FIRST_ROWS or head["label"].any():
        return None
    return intervals.wilson(int((head["prediction"] == head["label"]).sum()), FIRST_ROWS)
