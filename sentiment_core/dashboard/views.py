"""Evaluations → panels: the numbers of each figure, its finding in words, and its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sentiment_core import charts, intervals, metrics, slices
from sentiment_core.artifacts import Evaluation
from sentiment_core.chart_style import percent
from sentiment_core.dashboard.parts import Panel
from sentiment_core.dashboard.store import Store, dataset_title
from sentiment_core.schema import Reference

INTERVAL = "Bars are 95\u202f% intervals"
MIN_BIN = 20
"""Reviews that a bin of the reliability diagram needs to be drawn: of fewer, a share says nothing."""


def is_scored(frame: pd.DataFrame) -> bool:
    return bool(frame["p_positive"].notna().all()) and len(frame) > 0


def dataset_phrase(evaluation: Evaluation) -> str:
    dataset = evaluation.record.dataset
    title = dataset_title(dataset.name)
    where = title if title != dataset.name or dataset.split == "all" else f"{title}, {dataset.split} split"
    return f"{where}, n = {dataset.n:,}"


# ---- accuracy of all systems


def accuracy_panel(
    evals: Mapping[str, Evaluation], references: Sequence[Reference], before: Evaluation | None
) -> Panel:
    """Every system, and published results where asked for, from best to worst."""
    rows = []
    for system, evaluation in evals.items():
        title, metric = evaluation.record.title, evaluation.record.metrics["accuracy"]
        rows.append((title, system, metric.value, metric.low, metric.high, metric.n, "measured here"))
    for reference in references:
        size = f", {_size(reference.parameters)}" if reference.parameters else ""
        note = f"as reported: {reference.protocol}; {reference.source}"
        name = reference.name
        if reference.kind in ("study-before", "study-after"):  # short: it stands beside its mark
            name = name.removesuffix(" fine-tuning")
        rows.append((f"{name}{size}", "", reference.accuracy, np.nan, np.nan, pd.NA, note))
    columns = ["title", "system", "accuracy", "low", "high", "n", "note"]
    table = pd.DataFrame(rows, columns=columns).sort_values("accuracy", ascending=False, ignore_index=True)
    table[["accuracy", "low", "high"]] = table[["accuracy", "low", "high"]].astype(float)
    first = next(iter(evals.values()))
    after = evals.get("fine-tuned")
    if after and before:
        old, new = before.record.metrics["accuracy"].value, after.record.metrics["accuracy"].value
        verb = "lifts" if new > old else "moves"
        title = f"Fine-tuning {verb} accuracy from {percent(old)} to {percent(new)}"
    else:
        best = table[table["system"] != ""].iloc[0]
        title = f"{best['title']}: {percent(best['accuracy'])} right"
        if not after:
            title += "; this run’s fine-tuned model has not been evaluated on these reviews"
    caption = (
        f"{dataset_phrase(first)}. {INTERVAL} (Wilson): drawn for many test sets of this kind, "
        "such bars hold the true accuracy in 95 of 100. An answer that is no label counts as wrong."
    )
    if references:
        caption += f" {_references_words(references)}"
    return Panel(title, charts.systems_chart(table), caption, table, f"accuracy-{first.record.dataset.name}")


def _references_words(references: Sequence[Reference]) -> str:
    """What the open squares are: context, never measured here."""
    kinds = {reference.kind for reference in references}
    words = "Open squares are context, as reported and not measured here; their protocols differ."
    if kinds & {"study-before", "study-after"}:
        words += (
            " “The study” is the small project that this one does again: model and number of reviews unknown."
        )
    if "ceiling" in kinds:
        words += " Label errors bound what any system could reach, roughly."
    return words


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.3g}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"


# ---- parts of the reviews


def length_panel(pairs: Mapping[str, pd.DataFrame], where: str) -> Panel | None:
    """Accuracy by quarter of review length. `pairs`: actor -> predictions of the same reviews."""
    rows = []
    for actor, frame in pairs.items():
        for part in slices.slices(frame):
            if part.by == "tokens":
                a = part.accuracy
                rows.append((actor, part.value.removesuffix(" tokens"), a.value, a.low, a.high, a.n))
    table = pd.DataFrame(rows, columns=["actor", "part", "accuracy", "low", "high", "n"])
    if table["part"].nunique() < 2:
        return None
    shown = table[table["actor"] == ("fine" if "fine" in pairs else next(iter(pairs)))]
    best, worst = shown.loc[shown["accuracy"].idxmax()], shown.loc[shown["accuracy"].idxmin()]
    who = "The fine-tuned model" if "fine" in pairs else "The model"
    if best["low"] > worst["high"]:
        title = (
            f"{who} is right on {percent(best['accuracy'])} of the reviews with {best['part']} tokens, "
            f"on {percent(worst['accuracy'])} of those with {worst['part']}"
        )
    else:
        low, high = worst["accuracy"], best["accuracy"]
        start = "Length hardly matters" if high - low < 0.02 else "Length makes no clear difference"
        title = f"{start}: {who[0].lower()}{who[1:]} is right on {percent(low)} to {percent(high)}"
    caption = f"{where}, cut into quarters by length in tokens. {INTERVAL} (Wilson) for each quarter alone."
    chart = charts.slices_chart(table, x_title="tokens in the review")
    return Panel(title, chart, caption, table, "accuracy-by-length")


def reliability_panel(
    pairs: Mapping[str, pd.DataFrame], errors: Mapping[str, float | None], where: str
) -> Panel | None:
    """Stated probability against the share that was positive. `errors`: actor -> stored ECE."""
    rows = []
    for actor, frame in pairs.items():
        if not is_scored(frame):
            continue
        for one in metrics.reliability_table(frame["label"], frame["p_positive"]):
            if one["n"]:
                share = intervals.wilson(round(one["n"] * one["share_positive"]), one["n"])
                rows.append((actor, one["mean_p_positive"], share.value, share.low, share.high, one["n"]))
    if not rows:
        return None
    columns = ["actor", "mean_p_positive", "share_positive", "low", "high", "n"]
    table = pd.DataFrame(rows, columns=columns)
    said = [
        f"{'the fine-tuned' if actor == 'fine' else 'the base'} model by {100 * errors[actor]:.1f} points"
        for actor in ("fine", "base")
        if errors.get(actor) is not None
    ]
    title = (
        "Stated confidence is off on average: " + ", ".join(said)
        if said
        else "What the models state, and what is so"
    )
    caption = (
        f"{where}, {metrics.CALIBRATION_BINS} equal bins of stated P(positive); those with fewer than "
        f"{MIN_BIN} reviews stand in the data only. {INTERVAL} (Wilson) of the share that was positive; on "
        "the dashed line a probability means what it says. The title's figure is the expected calibration "
        "error."
    )
    drawn = table[table["n"] >= MIN_BIN]
    return Panel(title, charts.reliability_chart(drawn), caption, table, "reliability")


# ---- before and after, review by review


def comparison(store: Store, before: Evaluation, after: Evaluation) -> metrics.Comparison:
    """Both systems on the same reviews; kept while the predictions are unchanged."""
    first, second = store.predictions(before), store.predictions(after)
    return store.keep(
        ("comparison", before.path, after.path),
        store.stamp(before, after),
        lambda: metrics.compare(first["label"], first["prediction"], second["prediction"]),
    )


def same_reviews(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Whether both frames hold the same reviews in the same order."""
    first, second = before["review_id"].to_numpy(), after["review_id"].to_numpy()
    return len(first) == len(second) and bool((first == second).all())
