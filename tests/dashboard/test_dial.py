"""The dial on the page: its points come one by one, holding up nobody; stored answers reach the page."""

import shutil
from pathlib import Path

import pytest

from sentiment_core.artifacts import schema, store
from sentiment_core.config import ASSETS
from sentiment_core.dashboard.components import answers
from sentiment_core.dashboard.context import Context
from sentiment_core.data.reviews import review_id
from tests import waiting
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, write_assets
from tests.fake_live import LONG

TEXT = "A dreadful film, but one laughed."


@pytest.fixture
def context(tmp_path: Path) -> Context:
    context = context_of(write_assets(tmp_path, n=60, pairs=10))
    context.serving.host.get(context.store.run(RUN))  # nobody waits for the model
    return context


def test_the_points_come_one_by_one_between_known_ends(context):
    asked = answers.dial_value(TEXT, 0.6, 0.1)
    assert asked["curve"] == [0.6, None, None, None, None, 0.1]
    first, *steps = waiting.all_of(answers.turn(context, RUN, asked))
    assert first == asked | {"busy": True, "note": None}
    assert [step["curve"].count(None) for step in steps] == [3, 2, 1, 0]
    assert {(step["text"], step["curve"][0], step["curve"][-1]) for step in steps} == {(TEXT, 0.6, 0.1)}
    assert steps[-1] == answers.dial_value(TEXT, 0.6, 0.1, steps[-1]["curve"][1:-1]), "as a stored one"


def test_a_long_review_is_told_why_it_has_none(context):
    asked = answers.dial_value("word " * (LONG + 1), 0.6, 0.1)
    *_, last = waiting.all_of(answers.turn(context, RUN, asked))
    assert last["curve"] == asked["curve"]
    assert "up to 300 tokens" in last["note"]
    assert not last["busy"]


def test_stored_answers_reach_the_page_and_unfit_ones_are_told(context):
    shutil.copy(ASSETS / "sample_reviews.jsonl", context.store.root)
    run = context.store.run(RUN)
    sample = context.store.samples()[0]
    assert context.store.sample_answers(run) == context.store.sample_answers(None) == {}
    trace = schema.ReadingTrace(ends=(len(sample.text),), p_positive=(0.7,))
    answer = schema.SampleAnswer(
        review_id=review_id(sample.text), traces={"base": trace, "fine-tuned": trace}, dial=(0.6,) * 4
    )
    found = schema.SampleAnswers(
        adapter_sha256=store.adapter_sha256(run),
        prompt_hash=run.record.prompt.hash,
        answers={sample.id: answer},
    )
    path = run.path / "sample_answers.json"
    store.write_record(path, found)
    assert context.store.sample_answers(run) == {sample.id: answer}
    store.write_record(path, found.model_copy(update={"adapter_sha256": "0" * 64}))
    assert context.store.sample_answers(run) == {}
    assert any("another adapter" in problem.message for problem in context.store.problems())
