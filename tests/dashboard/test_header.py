"""The header says what happened in this run, from its artifacts."""

from types import SimpleNamespace

import gradio as gr
import pytest
from markupsafe import Markup

from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import AlsoInfo
from sentiment_core.config import ASSETS
from sentiment_core.dashboard import app
from sentiment_core.dashboard.components import header, parts
from sentiment_core.metrics.intervals import wilson
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, STUDY, write_assets, write_run


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return context_of(write_assets(tmp_path_factory.mktemp("assets"), n=200, pairs=20))


def test_header_figures_come_from_the_artifacts():
    context = context_of(ASSETS)
    run = context.store.run("smollm2-135m")
    html = words(header.head_html(context, run)[1])
    for dataset, metric in (("imdb", "accuracy"), ("counterfactual_imdb_test", "consistency")):
        evals = context.store.evals(run, dataset)
        before, after = (evals[one].record.metrics[metric] for one in ("baseline-scored", "fine-tuned"))
        assert f"{100 * before.value:.1f} → {100 * after.value:.1f} %" in html
        assert f"{100 * after.low:.1f}–{100 * after.high:.1f} %" in html
    assert f"{run.record.wall_seconds:.0f} s of training one {run.record.hardware.device}" in html


def test_the_title_tells_what_the_base_said(context):
    committed = context_of(ASSETS)
    for run in committed.store.finished_runs():
        title = words(header.head_html(committed, run)[0])
        if (base := run.record.base_model.name).startswith("qwen"):
            assert "every film" not in title, "these could tell"
            continue
        assert title.startswith("It called nearly every film good. Then it was fine-tuned for")
        told = {
            "smollm2-135m": "135-million-parameter language model called 99",
            "gemma-3-270m": "268-million",
        }
        assert f"{parts.duration(run.record.wall_seconds)}. A {told[base]}" in title
    plain = words(header.head_html(context, context.store.run(RUN))[0])
    assert "nearly every film" not in plain
    assert "movie reviews the right label. QLoRA trained 3.6 % as many new weights" in plain


def test_runs_have_names_for_people(context, tmp_path):
    titles = {RUN: "Our recipe, 41\u202fs", STUDY: "The study’s settings, 15\u202fmin"}
    assert header.run_titles(context) == titles
    for run_id in ("one", "two"):
        write_run(tmp_path, run_id)
    assert header.run_titles(context_of(tmp_path)) == {"one": "one, 41\u202fs", "two": "two, 41\u202fs"}


def test_more_texts_and_a_mean_are_told_and_the_page_opens_with_neither(tmp_path):
    plain = write_run(tmp_path, "plain")
    also = AlsoInfo(source="counterfactual-train", fingerprint="f" * 16, train=1_704)
    made: dict[str, dict] = {"robust": {"data": plain.data.model_copy(update={"also": also})}}
    made["soup"] = {"parts": {"plain": "0" * 64, "robust": "1" * 64}}
    for run_id, told in made.items():
        write_run(tmp_path, run_id)
        told |= {"run_id": run_id, "validation_accuracy": wilson(990, 1000)}
        store.write_record(tmp_path / "runs" / run_id / "run.json", plain.model_copy(update=told))
    context = context_of(tmp_path)
    stories = header.run_titles(context, story=True)
    assert stories["robust"].startswith("Our recipe + counterfactual pairs, SmolLM2-135M, ")
    assert stories["robust"].endswith(", 25,104 reviews")
    assert stories["soup"].startswith("Our recipe, mean of 2 runs, ")
    assert context.store.run(None).run_id == "plain", "although less accurate in validation"


def words(html: str) -> str:
    """The visible text, all blanks alike."""
    return Markup(html).striptags().replace("\u202f", " ")


def test_a_shared_link_and_a_space_say_what_can_be_done(tmp_path, monkeypatch):
    assert app.launch_options()["head"].count(header.ABOUT) == 3
    monkeypatch.setenv("SPACE_ID", "me/space")
    shown = {type(block).__name__ for block in app.build(tmp_path, load_classifier=None).blocks.values()}
    assert "DuplicateButton" in shown


def test_only_an_address_that_names_a_tab_opens_one(tmp_path):
    """Else who went to another tab while the page loaded is taken back."""
    demo = app.build(write_assets(tmp_path), load_classifier=None)
    opened = next(one.fn for one in demo.fns.values() if one.name == "opened")
    bare, named = (opened(SimpleNamespace(query_params=query))[0] for query in ({}, {"tab": "accuracy"}))
    assert bare == gr.skip()
    assert named.selected == "accuracy"
