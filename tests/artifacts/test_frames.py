"""Tables and the measured part of a record: complete, typed, refusing what cannot be meant, quick."""

import numpy as np
import pandas as pd
import pytest

from sentiment_core.artifacts import frames
from sentiment_core.artifacts.schema import Confusion, EvalRecord
from tests.fake_artifacts import predictions


def test_predictions_table_by_hand() -> None:
    def frame(answers: list[int | None], p: list[float]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "review_id": ["a", "b", "c", "d", "a"],
                "label": [1, 1, 0, 0, 1],
                "prediction": pd.array(answers, dtype="Int8"),
                "p_positive": np.array(p, dtype=np.float32),
                "tokens": 5,
                "truncated": False,
                "version": list("xyxyx"),
            }
        )

    base = frame([0, 1, 0, 1, None], [np.nan] * 5)
    tuned = frame([1, 0, 0, 1, 1], [0.75, 0.25, 0.25, 0.5, 1.0])
    table = frames.predictions_table(base, tuned)
    assert list(table[frames.OUTCOME]) == ["fixed", "broken", "both right", "both wrong", "fixed"]
    assert list(table["confidence_fine_tuned"]) == [0.75, 0.75, 0.75, 0.5, 1.0]
    assert table["confidence_base"].isna().all()
    assert table["prediction_base"].isna().sum() == 1
    assert list(table["version"]) == list("xyxyx")
    assert list(table[frames.POSITION]) == [0, 1, 2, 3, 4]


def test_only_the_same_reviews_can_be_joined() -> None:
    frame = predictions("fine-tuned", 20)
    with pytest.raises(ValueError, match="20 and 19 reviews"):
        frames.join_predictions(frame, frame.iloc[:19])
    with pytest.raises(ValueError, match="review_id at review 0"):
        frames.join_predictions(frame, frame.iloc[::-1])
    with pytest.raises(ValueError, match="label at review 3"):
        frames.join_predictions(frame, frame.assign(label=frame["label"].where(frame.index != 3, 0)))
    assert len(frames.join_predictions(frame, frame)) == 20


def test_a_scored_system_fills_every_measured_field() -> None:
    frame = predictions("fine-tuned", 200, paired=True)
    parts = frames.summarize(frame)
    assert set(parts) == {"metrics", "confusion", "unparsed", "slices", "draw_accuracies"}
    assert set(parts) < set(EvalRecord.model_fields)
    assert {"accuracy", "roc_auc", "ece", "consistency"} <= set(parts["metrics"])
    assert "accuracy_lenient" not in parts["metrics"]
    assert {part.by for part in parts["slices"]} == {"tokens", "truncated", "confidence", "version"}
    assert parts == frames.summarize(frame)


def test_a_free_answering_system_has_no_probabilities() -> None:
    parts = frames.summarize(predictions("baseline-generated", 90))
    assert parts["unparsed"] == 10
    assert isinstance(parts["confusion"], Confusion)
    assert parts["metrics"]["accuracy_lenient"].n == 80
    assert "ece" not in parts["metrics"]


def test_overlapping_reviews_are_left_out_of_one_metric_only() -> None:
    frame = predictions("fine-tuned", 100)
    overlap = frame["review_id"][:20].to_list()
    parts, plain = frames.summarize(frame, overlap_ids=overlap), frames.summarize(frame)
    without = parts["metrics"].pop("accuracy_without_overlap")
    assert parts == plain
    assert without.n == 80
    assert without.value == pytest.approx((frame["prediction"] == frame["label"])[20:].mean())
    everything = frames.summarize(frame, overlap_ids=set(frame["review_id"]))
    assert "accuracy_without_overlap" not in everything["metrics"]


def test_a_metric_is_the_same_before_and_after_its_scores_are_stored() -> None:
    """p_positive is stored as float32."""
    frame = predictions("fine-tuned", 200, paired=True)
    doubled = frame.assign(p_positive=frame["p_positive"].astype(float) + 1e-12)
    assert frames.summarize(doubled) == frames.summarize(frame)
    assert frames.summarize(frame)["metrics"]["consistency"].n == 100
