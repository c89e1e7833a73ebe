"""What is committed under assets/ is what its predictions say, small, and holds nobody's text or paths."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from sentiment_core import config
from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import PREDICTION_COLUMNS
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.figures import evaluation as figures
from tests.fake_artifacts import RUN, recomputed, write_eval, write_run

LISTING = store.list_artifacts(config.ASSETS)
LARGEST_FILE = 40_000_000  # an adapter in half precision; GitHub takes less than 100 MB
LONGEST_VALUE = 60
"""Characters of a group's name or of an answer's form; a review is longer."""
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(work|root|home|tmp|mnt|Users|var|opt)/")


def by_name(items: tuple) -> dict:
    return {"argvalues": items, "ids": [item.path.name for item in items]}


DRAWN_BY_MULTINOMIAL = ("balanced_accuracy", "macro_f1")
"""Their resamples take logarithms, which differ in the last digit between machines and turn single draws.
Seen between two machines: 5 % of the interval's width."""


def same(one: object, other: object) -> bool:
    """Equal, numbers up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


# ---- the committed ones


def test_every_folder_can_be_read() -> None:
    assert [problem.message for problem in LISTING.problems] == []


@pytest.mark.parametrize("evaluation", **by_name(LISTING.evals))
def test_every_stored_number_follows_from_the_predictions(evaluation: Evaluation) -> None:
    """Every measured field of the record follows from the predictions."""
    record, found = evaluation.record, recomputed(evaluation)
    assert set(record.metrics) == set(found["metrics"])
    for name, metric in record.metrics.items():
        again = found["metrics"][name]
        assert (metric.n, metric.higher_is_better) == (again.n, again.higher_is_better), name
        assert same(metric.value, again.value), f"{name}.value"
        for bound in ("low", "high"):
            one, other = getattr(metric, bound), getattr(again, bound)
            if name in DRAWN_BY_MULTINOMIAL:
                assert abs(one - other) <= 0.1 * (metric.high - metric.low), f"{name}.{bound}"
            else:
                assert same(one, other), f"{name}.{bound}"
    assert record.confusion == found["confusion"]
    assert record.unparsed == found["unparsed"]
    assert record.draw_accuracies == found["draw_accuracies"]
    by_group = [part for part in record.slices if part.by not in ("tokens", "truncated", "confidence")]
    for one, other in zip(by_group, found["slices"], strict=True):  # older ones had three more kinds
        assert same(one.model_dump(), other.model_dump()), (one, other)


@pytest.mark.parametrize("evaluation", **by_name(LISTING.evals))
def test_predictions_hold_ids_and_no_text(evaluation: Evaluation) -> None:
    """Ids identify the reviews, and no column can hold their text."""
    frame, record = evaluation.predictions(), evaluation.record  # which checks one against the other
    assert frame["review_id"].str.fullmatch("[0-9a-f]{16}").all()
    for column in set(frame) - set(PREDICTION_COLUMNS):
        longest = frame[column].astype(str).str.len().max()
        assert longest <= LONGEST_VALUE, f"column {column!r} holds {longest} characters; is it text?"
    for form in record.answer_forms:
        assert len(form.form) <= LONGEST_VALUE, form.form


@pytest.mark.parametrize("run", **by_name(LISTING.runs))
def test_every_run_is_finished_and_has_its_adapter_and_history(run: store.Run) -> None:
    assert run.record is not None
    assert list(run.adapter_path.glob("*.safetensors"))
    assert not store.read_history(run.path).empty


def test_every_evaluated_run_is_committed() -> None:
    runs = {run.run_id for run in LISTING.runs}
    assert {e.record.run_id for e in LISTING.evals if e.record.run_id} <= runs


def test_files_are_small_and_name_no_machine() -> None:
    for path in config.ASSETS.rglob("*"):
        if not path.is_file() or config.ASSETS / "browser" in path.parents:  # exports are not committed
            continue
        assert path.stat().st_size < LARGEST_FILE, path
        if path.suffix in (".json", ".jsonl", ".md"):
            found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.name} names a folder of the machine it was made on: {found}"


def test_figures_draw_the_stored_numbers() -> None:
    records = [e.record for e in LISTING.evals]
    rows = [(r.system, *r.metrics["accuracy"].model_dump().values()) for r in records]
    table = pd.DataFrame(rows, columns=["system", "accuracy", "low", "high", "n", "_"])
    drawn = reversed(figures.systems_chart(table.assign(title=table["system"])).data)
    for row, mark in zip(rows, drawn, strict=True):
        (x,), (above,), (below,) = mark.x, mark.error_x.array, mark.error_x.arrayminus
        assert (x, x - below, x + above) == pytest.approx(tuple(100 * part for part in row[1:4]))
    for record in records:
        cells = list(record.confusion.model_dump().values())
        counts = pd.DataFrame([cells[:3], cells[3:]], index=["n", "p"], columns=["n", "p", "unparsed"])
        (matrix,) = figures.confusion_chart(counts, "base").data
        assert matrix.customdata.tolist() == [cells[:3], cells[3:]]
        assert matrix.z.sum(axis=1) == pytest.approx([100, 100])
        if not record.draw_accuracies:  # there a metric is a mean of draws, and the matrix the first one
            recalls = [100 * record.metrics[f"recall_{name}"].value for name in ("negative", "positive")]
            assert recalls == pytest.approx([matrix.z[0, 0], matrix.z[1, 1]])


def test_an_evaluation_of_version_1_reads_as_the_present_one(tmp_path: Path) -> None:
    """Version 1 also stored the reliability diagram's bins."""
    write_eval(tmp_path, "fine-tuned", "imdb", 120, run_id=RUN)
    (evaluation,) = store.list_artifacts(tmp_path).evals
    path = evaluation.path / "eval.json"
    content = json.loads(path.read_text())
    assert content["schema_version"] == 2
    bins = [{"low": 0.0, "high": 1.0, "n": 120, "mean_p_positive": 0.5, "share_positive": 0.5}]
    path.write_text(json.dumps(content | {"schema_version": 1, "reliability": bins}))
    assert store.read_eval(evaluation.path).record == evaluation.record
    path.write_text(json.dumps(content | {"reliability": bins}))
    with pytest.raises(store.ArtifactError, match="'reliability'"):
        store.read_eval(evaluation.path)


def test_a_run_of_version_1_reads_as_the_present_one(tmp_path: Path) -> None:
    """Version 1 had other names for two engines."""
    record = write_run(tmp_path, RUN)
    path = tmp_path / "runs" / RUN / "run.json"
    for engine, former in (("nf4", "plain"), ("dequantized", "resident"), ("packed", "packed")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1, "engine": former}))
        assert store.read_run(path.parent).record == record.model_copy(update={"engine": engine})


def test_runs_on_one_base_store_the_same_answers_of_it() -> None:
    """The base is what it was before any adapter."""
    samples = store.read_sample_reviews(config.ASSETS)
    by_base: dict[str, list] = {}
    for run in LISTING.runs:
        if run.record and (run.path / "sample_answers.json").exists():
            answers = store.read_sample_answers(run, samples)
            before = [p for key in sorted(answers) for p in answers[key].traces["base"].p_positive]
            by_base.setdefault(run.record.base_model.name, []).append(before)
    assert len(by_base["smollm2-135m"]) > 1
    for first, *others in by_base.values():
        for other in others:
            assert other == pytest.approx(first, abs=1e-4), "made on other processors"
