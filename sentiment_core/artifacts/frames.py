"""Predictions in; the measured part of an `EvalRecord`, or two systems side by side, out. Gaps are NaN."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from sentiment_core.artifacts.schema import AnswerForm, Confusion, Metric, draw_columns, group_columns
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.labels import UNPARSED
from sentiment_core.metrics import classification, slices
from sentiment_core.metrics.intervals import floats, mean_of_draws, wilson

OVERLAP_SETTING = "overlap_ids"
"""Key of `EvalRecord.settings` with the review ids that `accuracy_without_overlap` leaves out."""

POSITION, REVIEW_ID, LABEL, TOKENS, TRUNCATED = "position", "review_id", "label", "tokens", "truncated"
BASE, FINE_TUNED = "base", "fine_tuned"
OUTCOME = "outcome"
OUTCOMES = ("fixed", "broken", "both right", "both wrong")


def summarize(predictions: pd.DataFrame, *, overlap_ids: Collection[str] = ()) -> dict[str, Any]:
    """What follows from the predictions in an `EvalRecord`: its metrics, confusion, unparsed and slices.

    Args:
        predictions: columns PREDICTION_COLUMNS plus any of further draws and groups.
        overlap_ids: reviews whose text also stands in the training data. They stay in every metric but
            one, `accuracy_without_overlap`, which is there only when ids are given; store them under
            `settings[OVERLAP_SETTING]`, so that it can be recomputed.
    """
    label, answer = predictions["label"], predictions["prediction"]
    found = _metrics(predictions, overlap_ids)
    draws = [found, *(_metrics(draw, overlap_ids, resamples=1) for draw in _further_draws(predictions))]
    accuracies = tuple(draw["accuracy"].value for draw in draws)
    if len(draws) > 1:
        values = {name: [draw[name].value for draw in draws if name in draw] for name in found}
        found = {name: mean_of_draws(metric, values[name]) for name, metric in found.items()}
    return {
        "metrics": found,
        "confusion": Confusion(**classification.confusion(label, answer)),
        "unparsed": int(answer.isna().sum()),
        "slices": tuple(slices.slices(predictions, group_columns(predictions))),
        "draw_accuracies": accuracies if len(draws) > 1 else (),
    }


def _metrics(
    frame: pd.DataFrame, overlap_ids: Collection[str], *, resamples: int = 1000
) -> dict[str, Metric]:
    label, answer = frame["label"], frame["prediction"]
    p_positive = floats(frame["p_positive"], "p_positive").astype("float32")  # as it is stored
    pairs = frame.get("pair_id")
    found = classification.evaluate(label, answer, p_positive, pair_id=pairs, resamples=resamples)
    kept = ~frame["review_id"].isin(list(overlap_ids)).to_numpy()
    if len(overlap_ids) and kept.any():
        right = (label == answer).fillna(False).to_numpy(dtype=bool)
        found["accuracy_without_overlap"] = wilson(int(right[kept].sum()), int(kept.sum()))
    return found


def _further_draws(predictions: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The predictions with each further draw's in place of the first one's."""
    for column in draw_columns(predictions):
        p = predictions[column].to_numpy()
        yield predictions.assign(p_positive=p, prediction=answers(p))


def answers(p_positive: np.ndarray) -> ExtensionArray:
    """(n,) P(positive) -> (n,) 0 or 1, as Int8; numbers that overflowed (NaN) are no answer."""
    prediction = pd.array((p_positive >= 0.5).astype(np.int8), dtype="Int8")
    prediction[np.isnan(p_positive)] = pd.NA
    return prediction


def recompute(evaluation: Evaluation) -> dict[str, Any]:
    """`summarize` on a stored evaluation, with the settings that it was made with."""
    overlap_ids = evaluation.record.settings.get(OVERLAP_SETTING, ())
    return summarize(evaluation.predictions(), overlap_ids=overlap_ids)


def of(name: str, system: str) -> str:
    """A column of one of the two systems: of("right", BASE) is "right_base"."""
    return f"{name}_{system}"


def join_predictions(base: pd.DataFrame, fine_tuned: pd.DataFrame) -> pd.DataFrame:
    """Two prediction tables side by side, joined by position (an id can occur twice) and checked by id.

    Returns:
        position, review_id, label, tokens, truncated (these two as the fine-tuned system saw them),
        prediction_* and p_positive_* for base and fine_tuned, then the group columns of `base`.
    Raises:
        ValueError: the two are not of the same reviews in the same order.
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
    columns |= {name: base[name] for name in group_columns(base)}
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
    table[OUTCOME] = pd.Categorical.from_codes(code, categories=pd.Index(OUTCOMES))
    return table


def read_as(form: AnswerForm) -> str:
    """What a free answer of this form was read as, in words.

    A form is an answer's first words: where exactly one label word stands in them and the answer is still
    no label, the other word follows further on (see `baselines.parse_answer`).
    """
    if form.parsed != UNPARSED:
        return form.parsed
    words = set(re.findall(r"\b(?:negative|positive)\b", form.form.lower()))
    return "no label: names both further on" if len(words) == 1 else "no label"
