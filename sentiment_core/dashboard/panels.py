"""Evaluations → panels: the numbers of each figure, its finding in words, and its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core.artifacts.schema import Metric, Reference
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard.components.html import parameters
from sentiment_core.dashboard.components.parts import Panel
from sentiment_core.dashboard.store import Store, dataset_title
from sentiment_core.figures import evaluation
from sentiment_core.figures.style import percent
from sentiment_core.metrics import classification, intervals, slices

INTERVAL = "Bars are 95\u202f% intervals"
MIN_BIN = 20
"""Reviews that a bin of the reliability diagram needs to be drawn: of fewer, a share says nothing."""

WHO = {"fine": "the fine-tuned model", "base": "the base model"}


def is_scored(frame: pd.DataFrame) -> bool:
    return bool(frame["p_positive"].notna().all()) and len(frame) > 0


def dataset_phrase(evaluation: Evaluation) -> str:
    dataset = evaluation.record.dataset
    title = dataset_title(dataset.name)
    where = title if title != dataset.name or dataset.split == "all" else f"{title}, {dataset.split} split"
    return f"{where}, n = {dataset.n:,}"


def _columns(share: Metric, name: str = "accuracy") -> dict[str, Any]:
    return {name: share.value, "low": share.low, "high": share.high, "n": share.n}


def accuracy_panel(
    evals: Mapping[str, Evaluation], references: Sequence[Reference], before: Evaluation | None
) -> Panel:
    """Every system, and published results where asked for, from best to worst."""
    rows = [
        {"title": one.record.measured_title, "system": system}
        | _columns(one.record.metrics["accuracy"])
        | {"selected_on": "validation" if one.record.run_id else "nothing", "note": "measured here"}
        for system, one in evals.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows + [_reference_row(one) for one in references if one.accuracy is not None])
    table = table.sort_values("accuracy", ascending=False, ignore_index=True)
    table = table.astype(dict.fromkeys(("accuracy", "low", "high"), float))
    first = next(iter(evals.values()))
    caption = (
        f"{dataset_phrase(first)}. {INTERVAL} (Wilson): drawn for many test sets of this kind, "
        "such bars hold the true accuracy in 95 of 100. Unparsed answers count as wrong."
    )
    if any(one.record.draw_accuracies for one in evals.values()):
        caption += " Few-shot is a mean over draws of examples; its bars count draws and reviews."
    if references:
        caption += f" {_references_words(references)}"
    title, name = _accuracy_finding(table, before, evals.get("fine-tuned")), first.record.dataset.name
    return Panel(title, evaluation.systems_chart(table), caption, table, f"accuracy-{name}")


def _reference_row(reference: Reference) -> dict[str, Any]:
    name = reference.name.removesuffix(" fine-tuning")  # short: it stands beside its mark
    if reference.parameters:
        name += f", {parameters(reference.parameters)}"
    unknown = {"low": np.nan, "high": np.nan, "n": pd.NA}
    note = f"as reported: {reference.protocol}; {reference.source}"
    said = {"selected_on": reference.selected_on, "note": note}
    return {"title": name, "system": "", "accuracy": reference.accuracy} | unknown | said


def _accuracy_finding(table: pd.DataFrame, before: Evaluation | None, after: Evaluation | None) -> str:
    if after and before:
        old, new = (one.record.metrics["accuracy"].value for one in (before, after))
        verb = "lifts" if new > old else "moves"
        return f"Fine-tuning {verb} accuracy from {percent(old)} to {percent(new)}"
    best = table[table["system"] != ""].iloc[0]
    title = f"{best['title']}: accuracy {percent(best['accuracy'])}"
    unknown = "; this run’s fine-tuned model has not been evaluated on these reviews"
    return title if after else title + unknown


def _references_words(references: Sequence[Reference]) -> str:
    """What the open squares are: context, never measured here."""
    words = "Open squares are context, as reported and not measured here; their protocols differ."
    ambiguity = [f" {one.name}: {one.protocol}." for one in references if one.kind == "label-ambiguity"]
    return words + "".join(ambiguity)


def length_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy by quarter of review length. `frames`: actor -> predictions of the same reviews."""
    rows = [
        {"actor": actor, "part": part.value.removesuffix(" tokens")} | _columns(part.accuracy)
        for actor, frame in frames.items()
        for part in slices.slices(frame)
        if part.by == "tokens"
    ]
    return pd.DataFrame(rows, columns=["actor", "part", "accuracy", "low", "high", "n"])


def reliability_panel(
    frames: Mapping[str, pd.DataFrame], errors: Mapping[str, float], where: str
) -> Panel | None:
    """Predicted probability against the observed positive rate. `errors`: actor -> stored ECE."""
    rows = [
        {"actor": actor, "mean_p_positive": one["mean_p_positive"]}
        | _columns(intervals.wilson(round(one["n"] * one["share_positive"]), one["n"]), "share_positive")
        for actor, frame in frames.items() if is_scored(frame)
        for one in classification.reliability_table(frame["label"], frame["p_positive"])
    ]  # fmt: skip
    if not rows:
        return None
    table = pd.DataFrame(rows)
    said = [f"{100 * errors[actor]:.1f} points for {who}" for actor, who in WHO.items() if actor in errors]
    title = "Expected calibration error: " + ", ".join(said) if said else "Predicted and observed rates"
    width = f"{classification.CALIBRATION_BINS} equal-width bins"
    caption = (
        f"{where}, {width} of predicted P(positive); those with fewer than {MIN_BIN} reviews stand in the "
        f"data only. {INTERVAL} (Wilson) of the observed positive rate; the dashed line is perfect "
        f"calibration. Expected calibration error: {width}, top-label confidence."
    )
    drawn = table[table["n"] >= MIN_BIN]
    return Panel(title, evaluation.reliability_chart(drawn), caption, table, "reliability")


def comparison(
    store: Store, before: Evaluation | None, after: Evaluation | None
) -> classification.Comparison | None:
    """Both systems on the same reviews in the same order, kept while they are unchanged; None without."""
    if not (before and after):
        return None
    first, second = store.predictions(before), store.predictions(after)
    if not first["review_id"].equals(second["review_id"]):
        return None
    key, stamp = ("comparison", before.path, after.path), store.stamp(before, after)
    answers = first["label"], first["prediction"], second["prediction"]
    return store.keep(key, stamp, lambda: classification.compare(*answers))
