"""Tables: what rows and columns they have, what they refuse, and that 25,000 rows are quick."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_artifacts import RUN, STUDY, TRAINING, predictions, write_assets

from sentiment_core import artifacts, schema, systems, tables


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> artifacts.Listing:
    return artifacts.list_artifacts(write_assets(tmp_path_factory.mktemp("assets"), n=200, pairs=20))


def test_systems_table_has_a_row_per_evaluation_in_a_fixed_order(listing: artifacts.Listing) -> None:
    table = tables.systems_table(listing.evals)
    assert list(table[tables.DATASET].unique()) == ["imdb", "counterfactual_imdb_test"]
    assert list(table[tables.SYSTEM]) == [*systems.SYSTEMS] * 2
    record = next(e.record for e in listing.evals if e.record.eval_id == table.loc[0, tables.EVAL_ID])
    assert table.loc[0, "accuracy"] == record.metrics["accuracy"].value
    assert table["consistency"].isna().all()


def test_systems_table_narrows_to_a_dataset_and_a_run(listing: artifacts.Listing) -> None:
    assert set(tables.systems_table(listing.evals, "imdb", RUN)[tables.SYSTEM]) == set(systems.SYSTEMS)
    assert "fine-tuned" not in set(tables.systems_table(listing.evals, "imdb", STUDY)[tables.SYSTEM])
    assert tables.systems_table(listing.evals, "nowhere").empty


def test_a_baseline_of_another_base_model_is_not_this_runs(listing: artifacts.Listing) -> None:
    other = listing.evals[0].record.model_copy(
        update={
            "eval_id": "other",
            "system": "baseline-scored",
            "run_id": None,
            "base_model": next(e.record.base_model for e in listing.evals if e.record.base_model).model_copy(
                update={"name": "another"}
            ),
        }
    )
    evals = (*listing.evals, artifacts.Evaluation(Path("other"), other))
    assert "other" in set(tables.systems_table(evals)[tables.EVAL_ID])
    assert "other" not in set(tables.systems_table(evals, None, RUN)[tables.EVAL_ID])


def test_metrics_and_slices_are_one_row_each(listing: artifacts.Listing) -> None:
    table = tables.metrics_table(listing.evals[0])
    assert list(table[tables.METRIC]) == list(listing.evals[0].record.metrics)
    part = schema.Slice(by="tokens", value="1–9 tokens", accuracy=schema.Metric(value=0.5, n=2))
    sliced = artifacts.Evaluation(
        Path("x"), listing.evals[0].record.model_copy(update={"slices": (part, part)})
    )
    assert list(tables.slices_table([sliced])[tables.ACCURACY]) == [0.5, 0.5]
    assert tables.slices_table([]).empty


def test_references_come_weakest_first(tmp_path: Path) -> None:
    from fake_artifacts import write_small_files

    write_small_files(tmp_path)
    table = tables.references_table(reversed(artifacts.read_references(tmp_path)))
    assert table["accuracy"].is_monotonic_increasing


def test_history_is_smoothed_on_training_lines_only(listing: artifacts.Listing) -> None:
    run = next(run for run in listing.runs if run.run_id == RUN)
    table = tables.history_table(run, 0.5)
    losses = table["loss"].dropna().to_list()
    assert table[tables.LOSS_SMOOTHED].notna().equals(table["loss"].notna())
    assert table[tables.LOSS_SMOOTHED].dropna().iloc[1] == pytest.approx((losses[0] * 0.5 + losses[1]) / 1.5)
    assert tables.history_table(run, 0)[tables.LOSS_SMOOTHED].dropna().to_list() == pytest.approx(losses)
    with pytest.raises(ValueError, match=r"smoothing is 1\.5"):
        tables.history_table(run, 1.5)


def test_history_of_a_run_without_lines(listing: artifacts.Listing, tmp_path: Path) -> None:
    assert not tables.history_table(next(r for r in listing.runs if r.run_id == TRAINING)).empty
    assert tables.history_table(artifacts.Run(tmp_path, None)).empty


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
    table = tables.predictions_table(base, tuned)
    assert list(table[tables.OUTCOME]) == ["fixed", "broken", "both right", "both wrong", "fixed"]
    assert list(table["confidence_fine_tuned"]) == [0.75, 0.75, 0.75, 0.5, 1.0]
    assert table["confidence_base"].isna().all()
    assert table["prediction_base"].isna().sum() == 1
    assert list(table["version"]) == list("xyxyx")
    assert list(table[tables.POSITION]) == [0, 1, 2, 3, 4]


def test_only_the_same_reviews_can_be_joined(listing: artifacts.Listing) -> None:
    frame = predictions("fine-tuned", 20)
    with pytest.raises(ValueError, match="20 and 19 reviews"):
        tables.join_predictions(frame, frame.iloc[:19])
    with pytest.raises(ValueError, match="review_id at review 0"):
        tables.join_predictions(frame, frame.iloc[::-1])
    with pytest.raises(ValueError, match="label at review 3"):
        tables.join_predictions(frame, frame.assign(label=frame["label"].where(frame.index != 3, 0)))
    small = next(e for e in listing.evals if e.record.dataset.name != "imdb")
    large = next(e for e in listing.evals if e.record.dataset.name == "imdb")
    with pytest.raises(ValueError, match=large.record.eval_id):
        tables.paired_predictions(small, large)
    assert len(tables.paired_predictions(large, large)) == 200


def test_25_000_rows_are_quick() -> None:
    base, tuned = predictions("baseline-scored", 25_000), predictions("fine-tuned", 25_000)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        tables.predictions_table(base, tuned)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
