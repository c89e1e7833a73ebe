"""Tables and the measured part of a record: complete, typed, refusing what cannot be meant, quick."""

import pytest

from sentiment_core.artifacts import frames
from sentiment_core.artifacts.schema import Confusion, EvalRecord
from tests.fake_artifacts import predictions


def test_a_scored_system_fills_every_measured_field() -> None:
    frame = predictions("fine-tuned", 200, paired=True)
    parts = frames.summarize(frame)
    assert set(parts) == {"metrics", "confusion", "unparsed", "slices", "draw_accuracies"}
    assert set(parts) < set(EvalRecord.model_fields)
    assert {"accuracy", "roc_auc", "ece", "consistency"} <= set(parts["metrics"])
    assert "accuracy_lenient" not in parts["metrics"]
    assert [(part.by, part.value) for part in parts["slices"]] == [
        ("version", "original"),
        ("version", "revised"),
    ]
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
