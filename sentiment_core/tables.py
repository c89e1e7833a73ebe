"""Runs and evaluations as tidy DataFrames: one row per thing, columns named here, fractions not percent.

Pure functions on what `artifacts` read; gaps are NaN, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core import artifacts, schema
from sentiment_core.artifacts import Evaluation, Run
from sentiment_core.labels import UNPARSED as UNPARSED_ANSWER
from sentiment_core.schema import HISTORY_COLUMNS, PREDICTION_COLUMNS, AnswerForm, Reference
from sentiment_core.systems import SYSTEMS

EVAL_ID, SYSTEM, TITLE, RUN_ID, BASE_MODEL = "eval_id", "system", "title", "run_id", "base_model"
DATASET, N, HARDWARE, UNPARSED, SPEED = "dataset", "n", "hardware", "unparsed", "reviews_per_second"
METRIC, VALUE, LOW, HIGH, HIGHER_IS_BETTER = "metric", "value", "low", "high", "higher_is_better"
BY, ACCURACY = "by", "accuracy"
HEADLINE_METRICS = ("accuracy", "accuracy_lenient", "roc_auc", "ece", "consistency")
"""Metrics of `systems_table`, each as three columns: name, name_low, name_high."""

LOSS_SMOOTHED = "loss_smoothed"

POSITION, REVIEW_ID, LABEL, TOKENS, TRUNCATED = "position", "review_id", "label", "tokens", "truncated"
BASE, FINE_TUNED = "base", "fine_tuned"
OUTCOME = "outcome"
OUTCOMES = ("fixed", "broken", "both right", "both wrong")


def of(name: str, system: str) -> str:
    """A prediction column of one of the two systems: of("right", BASE) is "right_base"."""
    return f"{name}_{system}"


# ---- evaluations


def systems_table(
    evals: Iterable[Evaluation], dataset: str | None = None, run_id: str | None = None
) -> pd.DataFrame:
    """One row per evaluation: larger datasets first, then in the order of SYSTEMS, then by run.

    Args:
        dataset: only this one.
        run_id: only this run's evaluations and those without an adapter, if they are of the same base
            model or of none.
    Returns:
        eval_id, system, title, run_id, base_model, dataset, n, hardware, reviews_per_second, unparsed, and
        HEADLINE_METRICS with their bounds.
    """
    records = [e.record for e in evals if dataset in (None, e.record.dataset.name)]
    if run_id is not None:
        bases = {r.base_model.name for r in records if r.run_id == run_id and r.base_model}
        records = [
            r
            for r in records
            if r.run_id == run_id
            or (r.run_id is None and (not bases or r.base_model is None or r.base_model.name in bases))
        ]
    records.sort(
        key=lambda r: (-r.dataset.n, r.dataset.name, list(SYSTEMS).index(r.system), r.run_id or "", r.eval_id)
    )
    columns = [EVAL_ID, SYSTEM, TITLE, RUN_ID, BASE_MODEL, DATASET, N, HARDWARE, SPEED, UNPARSED]
    columns += [m + suffix for m in HEADLINE_METRICS for suffix in ("", "_low", "_high")]
    return pd.DataFrame([_system_row(record) for record in records], columns=columns)


def _system_row(record: schema.EvalRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        EVAL_ID: record.eval_id,
        SYSTEM: record.system,
        TITLE: SYSTEMS[record.system].title,
        RUN_ID: record.run_id,
        BASE_MODEL: record.base_model.name if record.base_model else None,
        DATASET: record.dataset.name,
        N: record.dataset.n,
        HARDWARE: hardware_name(record.hardware),
        SPEED: record.reviews_per_second,
        UNPARSED: record.unparsed,
    }
    for name in HEADLINE_METRICS:
        metric = record.metrics.get(name)
        row[name] = metric.value if metric else np.nan
        row[f"{name}_low"] = np.nan if metric is None or metric.low is None else metric.low
        row[f"{name}_high"] = np.nan if metric is None or metric.high is None else metric.high
    return row


def hardware_name(hardware: schema.Hardware) -> str:
    """For example "2 × NVIDIA H200"."""
    return hardware.device if hardware.count == 1 else f"{hardware.count} × {hardware.device}"


def metrics_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row per metric: metric, value, low, high, n, higher_is_better."""
    rows = [{METRIC: name, **metric.model_dump()} for name, metric in evaluation.record.metrics.items()]
    table = pd.DataFrame(rows, columns=[METRIC, VALUE, LOW, HIGH, N, HIGHER_IS_BETTER])
    return table.astype({VALUE: float, LOW: float, HIGH: float})


def read_as(form: AnswerForm) -> str:
    """What a free answer of this form was read as, in words.

    A form is an answer's first words: where exactly one label word stands in them and the answer is still
    no label, the other word follows further on (see `baselines.parse_answer`).
    """
    if form.parsed != UNPARSED_ANSWER:
        return form.parsed
    words = set(re.findall(r"\b(?:negative|positive)\b", form.form.lower()))
    return "no label: names both further on" if len(words) == 1 else "no label"


def slices_table(evals: Iterable[Evaluation]) -> pd.DataFrame:
    """One row per evaluation and slice: eval_id, system, dataset, by, value, accuracy, low, high, n."""
    rows = [
        {
            EVAL_ID: evaluation.record.eval_id,
            SYSTEM: evaluation.record.system,
            DATASET: evaluation.record.dataset.name,
            BY: part.by,
            VALUE: part.value,
            ACCURACY: part.accuracy.value,
            LOW: part.accuracy.low,
            HIGH: part.accuracy.high,
            N: part.accuracy.n,
        }
        for evaluation in evals
        for part in evaluation.record.slices
    ]
    return pd.DataFrame(rows, columns=[EVAL_ID, SYSTEM, DATASET, BY, VALUE, ACCURACY, LOW, HIGH, N])


def references_table(references: Iterable[Reference]) -> pd.DataFrame:
    """One row per published result, weakest first: the fields of Reference."""
    rows = [reference.model_dump() for reference in references]
    return pd.DataFrame(rows, columns=list(Reference.model_fields)).sort_values(
        ACCURACY, kind="stable", ignore_index=True
    )


# ---- training


def history_table(run: Run, smoothing: float = 0.6) -> pd.DataFrame:
    """Every line of a run's history: run_id, HISTORY_COLUMNS, and loss_smoothed on training lines.

    Args:
        smoothing: weight of the past in an exponential moving average, in [0, 1); 0 leaves the loss as it
            is. The average's start is corrected for the missing past, so it does not begin at 0.
    """
    return smooth(artifacts.read_history(run.path), smoothing).assign(**{RUN_ID: run.run_id})[
        [RUN_ID, *HISTORY_COLUMNS, LOSS_SMOOTHED]
    ]


def smooth(history: pd.DataFrame, smoothing: float) -> pd.DataFrame:
    """`history` with a column loss_smoothed; see `history_table`."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it must be at least 0 and below 1")
    loss = history["loss"].astype(float).dropna()
    return history.assign(**{LOSS_SMOOTHED: loss.ewm(alpha=1 - smoothing, adjust=True).mean()})


# ---- predictions of two systems on the same reviews


def paired_predictions(eval_a: Evaluation, eval_b: Evaluation) -> pd.DataFrame:
    """`join_predictions` of two evaluations of one dataset.

    Raises:
        ValueError: the two are not of the same reviews in the same order.
    """
    try:
        return join_predictions(eval_a.predictions(), eval_b.predictions())
    except ValueError as error:
        raise ValueError(f"{eval_a.record.eval_id} and {eval_b.record.eval_id}: {error}") from None


def join_predictions(base: pd.DataFrame, fine_tuned: pd.DataFrame) -> pd.DataFrame:
    """Two prediction tables side by side, joined by position (an id can occur twice) and checked by id.

    Returns:
        position, review_id, label, tokens, truncated (these two as the fine-tuned system saw them),
        prediction_* and p_positive_* for base and fine_tuned, then the group columns of `base`.
    """
    if len(base) != len(fine_tuned):
        raise ValueError(f"they have {len(base)} and {len(fine_tuned)} reviews; evaluate both on one dataset")
    for column in (REVIEW_ID, LABEL):
        differs = np.flatnonzero(base[column].to_numpy() != fine_tuned[column].to_numpy())
        if differs.size:
            raise ValueError(f"they differ in {column} at review {differs[0]}; evaluate both on one dataset")
    columns = {POSITION: np.arange(len(base)), REVIEW_ID: base[REVIEW_ID], LABEL: base[LABEL]}
    columns |= {name: fine_tuned[name].to_numpy() for name in (TOKENS, TRUNCATED)}
    for system, frame in ((BASE, base), (FINE_TUNED, fine_tuned)):
        columns |= {of(name, system): frame[name].array for name in ("prediction", "p_positive")}
    columns |= {name: base[name] for name in base if name not in PREDICTION_COLUMNS}
    return pd.DataFrame(columns, index=base.index).reset_index(drop=True)


def predictions_table(base: pd.DataFrame, fine_tuned: pd.DataFrame) -> pd.DataFrame:
    """`join_predictions` for browsing: also right_*, confidence_* and outcome.

    An unparsed answer is not right. confidence is that of the answer given, P(answer), or of the likelier
    label where the answer is none; NaN where not scored. outcome is one of OUTCOMES, as a category.
    """
    table = join_predictions(base, fine_tuned)
    for system in (BASE, FINE_TUNED):
        answer = table[of("prediction", system)].to_numpy(dtype=float, na_value=np.nan)
        p = table[of("p_positive", system)].to_numpy(dtype=float)
        given = np.where(answer == 1, p, np.where(answer == 0, 1 - p, np.maximum(p, 1 - p)))
        table[of("right", system)] = answer == table[LABEL].to_numpy()
        table[of("confidence", system)] = given
    before, after = table[of("right", BASE)], table[of("right", FINE_TUNED)]
    code = np.select([~before & after, before & ~after, before & after], [0, 1, 2], default=3)
    table[OUTCOME] = pd.Categorical.from_codes(code, categories=list(OUTCOMES))
    return table
