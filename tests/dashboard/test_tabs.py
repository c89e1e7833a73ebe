"""The dashboard's parts without a browser: store, model host, views, and the Blocks' promises."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import numpy as np
import pandas as pd
import pytest

from sentiment_core.artifacts import store
from sentiment_core.dashboard import app, pairs, panels, theme
from sentiment_core.dashboard.app import build, launch_options
from sentiment_core.dashboard.components import answers, trace
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.inputs import Batch
from sentiment_core.dashboard.pairs import ExampleFilter
from sentiment_core.dashboard.serving import CHUNK, ModelHost, ModelUnavailable, Scores, Serving
from sentiment_core.dashboard.store import MOST_KEPT, Store
from sentiment_core.dashboard.tabs import batch, confusion, examples, loss, method
from sentiment_core.dashboard.texts import ReviewTexts
from tests.fake_artifacts import (
    RUN,
    STUDY,
    TRAINING,
    predictions,
    write_assets,
    write_eval,
    write_run,
)
from tests.fake_live import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> Path:
    return write_assets(tmp_path_factory.mktemp("assets"), n=400, pairs=40)


def context_of(root: Path, load=FakeClassifier.load, texts=None) -> Context:
    return Context(Store(root), Serving(ModelHost(load)), ReviewTexts(texts or {}))


@pytest.fixture(scope="module")
def context(assets: Path) -> Context:
    return context_of(assets)


# ---- start


def test_launch_options_keep_to_themselves() -> None:
    options = launch_options()
    for name in ("show_error", "share", "ssr_mode", "run_history", "pwa", "enable_monitoring"):
        assert options[name] is False
    assert not theme.theme()._stylesheets
    assert "http" not in theme.css()


def test_the_queue_is_bounded_and_the_direct_route_closed(assets: Path) -> None:
    demo = build(assets, FakeClassifier.load, texts={})
    assert demo._queue.max_size == app.MAX_WAITING
    assert demo.api_open is False
    public = {f.api_name for f in demo.fns.values() if f.api_visibility == "public"}
    assert public == {"classify", "classify_batch", "metrics", "runs"}


# ---- artifacts


def test_runs_and_evaluations_are_matched(context: Context) -> None:
    store = context.store
    assert store.run(None).run_id == RUN
    assert store.run(STUDY).run_id == STUDY
    assert store.run("../../etc").run_id == RUN
    assert store.datasets() == ["imdb", "counterfactual_imdb_test"]
    assert set(store.evals(store.run(RUN), "imdb")) == {
        "baseline-scored", "baseline-recalibrated", "baseline-generated", "baseline-few-shot", "tfidf-logreg",
        "fine-tuned",
    }  # fmt: skip
    assert "fine-tuned" not in store.evals(store.run(STUDY), "imdb")


def test_a_new_evaluation_is_seen_without_a_restart(tmp_path) -> None:
    write_run(tmp_path, RUN)
    store = Store(tmp_path)
    assert store.datasets() == []
    write_eval(tmp_path, "fine-tuned", "imdb", 40, run_id=RUN)
    assert store.datasets() == ["imdb"]


def test_a_slow_value_is_made_once_and_holds_up_no_other(tmp_path) -> None:
    store, begun, go_on, made = Store(tmp_path), threading.Event(), threading.Event(), []

    def slow() -> str:
        made.append("slow")
        begun.set()
        assert go_on.wait(20)
        return "value"

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(store.keep, "slow", 1, slow) for _ in range(2)]
        assert begun.wait(20)
        assert store.keep("other", 1, lambda: "at once") == "at once"
        assert not any(one.done() for one in waiting)
        go_on.set()
        assert [one.result() for one in waiting] == ["value", "value"]
    assert made == ["slow"]


def test_errors_are_not_kept_and_the_oldest_value_goes_first(tmp_path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.keep(0, 1, lambda: 1 // 0)
    assert store.keep(0, 1, lambda: "again") == "again"
    for key in range(1, MOST_KEPT):
        store.keep(key, 1, lambda: "first")
    assert store.keep(0, 1, lambda: "new") == "again"
    store.keep(MOST_KEPT, 1, lambda: "one too many")
    assert store.keep(1, 1, lambda: "new") == "new"
    assert store.keep(0, 1, lambda: "new") == "again"
    assert store.keep(0, 2, lambda: "changed") == "changed"


# ---- views


def test_every_panel_has_finding_caption_n_and_data(context: Context) -> None:
    run = context.store.run(RUN)
    evals = context.store.evals(run, "imdb")
    before = context.store.before(evals)
    frames = {
        "base": context.store.predictions(before),
        "fine": context.store.predictions(evals["fine-tuned"]),
    }
    side = confusion.Side.of(context, evals["fine-tuned"], 50)
    histories = {run.run_id: context.store.history(run)}
    drawn = [
        panels.accuracy_panel(evals, context.store.references(), before),
        panels.length_panel(frames, "here, n = 400"),
        panels.reliability_panel(frames, {"fine": 0.02, "base": 0.3}, "here, n = 400"),
        confusion.matrix_panel(side),
        confusion.roc_panel(context, [side]),
        loss.loss_panel(histories, "step"),
        loss.schedule_panel(histories, "seconds"),
    ]
    for panel in drawn:
        assert any(c.isdigit() for c in panel.title), panel.title
        assert "n = " in panel.caption
        assert "interval" in panel.caption
        assert len(panel.data) > 0


def test_the_four_outcomes_sum_to_n(context: Context) -> None:
    evals = context.store.evals(context.store.run(RUN), "imdb")
    c = panels.comparison(context.store, context.store.before(evals), evals["fine-tuned"])
    assert c.fixed + c.broken + c.both_right + c.both_wrong == c.n == 400


def test_figures_of_25_000_reviews_are_small(tmp_path) -> None:
    for system in ("baseline-scored", "fine-tuned"):
        write_eval(tmp_path, system, "imdb", 25_000, run_id=RUN if system == "fine-tuned" else None)
    write_run(tmp_path, RUN)
    context = context_of(tmp_path)
    run, evals = context.evals(RUN, "imdb")
    before, after = context.store.before(evals), evals["fine-tuned"]
    frames = {"base": context.store.predictions(before), "fine": context.store.predictions(after)}

    drawn = (
        panels.accuracy_panel(evals, (), before),
        panels.length_panel(frames, "n"),
        panels.reliability_panel(frames, {}, "n"),
        confusion.matrix_panel(confusion.Side.of(context, after, 30)),
        confusion.roc_panel(context, [confusion.Side.of(context, after, 30)]),
    )
    assert run.run_id == RUN
    assert max(len(panel.figure.to_json()) for panel in drawn) < 100_000


def test_context_figures_are_named_as_such(context: Context) -> None:
    evals = context.store.evals(context.store.run(RUN), "imdb")
    panel = panels.accuracy_panel(evals, store.read_references(ROOT / "assets"), None)
    assert "context, as reported and not measured here" in panel.caption
    assert "The study" in panel.caption
    assert {"The study, before", "The study, after"} <= set(panel.data["title"])


def test_a_run_without_predictions_on_these_reviews_says_so(context: Context) -> None:
    evals = context.store.evals(context.store.run(STUDY), "imdb")
    assert "has not been evaluated" in panels.accuracy_panel(evals, (), context.store.before(evals)).title


def test_bins_of_few_reviews_are_in_the_data_only() -> None:
    label = np.array([0] * 60 + [1] * 60 + [1])
    p = np.array([0.05] * 60 + [0.95] * 60 + [0.5])
    frame = pd.DataFrame({"label": label, "p_positive": p})
    panel = panels.reliability_panel({"fine": frame}, {"fine": 0.1}, "n = 121")
    assert sorted(panel.data["n"]) == [1, 60, 60]
    assert len(panel.figure.data[0].x) == 2


def test_rewritten_reviews_are_told_apart_from_their_originals() -> None:
    context = context_of(ROOT / "assets")
    run = context.store.run("smollm2-135m")
    if run is None or run.run_id != "smollm2-135m":
        pytest.skip("the committed run is not there")
    html = method.method_html(context, run)
    record = context.store.evals(run, "counterfactual_imdb_test")["fine-tuned"].record
    right = {part.value: f"{part.accuracy.value:.1%}"[:-1] for part in record.slices if part.by == "version"}
    assert right["edited"] != right["original"]
    assert f"reviews that people rewrote to say the opposite its accuracy is {right['edited']}\u202f%" in html
    assert f"{right['original']}\u202f% on their originals" in html
    assert "The study itself reports 23.5\u202f% before and 49.5\u202f% after" in html
    assert "Decide if a movie review is positive or negative." in html


# ---- pairs


def test_filters_partition_and_sort() -> None:
    before, after = predictions("baseline-scored", 500), predictions("fine-tuned", 500)
    frame = pairs.paired(before, after)
    counts = pairs.counts(frame)
    right = (before["prediction"] == before["label"]), (after["prediction"] == after["label"])
    assert counts["fixed"] == int((~right[0] & right[1]).sum())
    assert counts["broken"] == int((right[0] & ~right[1]).sum())
    mistakes = frame.iloc[pairs.select(frame, ExampleFilter(name="mistakes"))]
    distance = (mistakes["p_positive_fine_tuned"] - 0.5).abs().to_numpy()
    assert (np.diff(distance) <= 1e-6).all()
    assert not mistakes["right_fine_tuned"].any()


def test_search_and_length() -> None:
    frame = pairs.paired(None, predictions("fine-tuned", 100))
    texts = {i: ("a dull film" if n % 2 else "a bright film") for n, i in enumerate(frame["review_id"])}
    assert len(pairs.select(frame, ExampleFilter(search="BRIGHT"), texts)) == 50
    assert list(pairs.select(frame, ExampleFilter(search=frame["review_id"][7]))) == [7]
    quarters = [len(pairs.select(frame, ExampleFilter(length=title))) for title in pairs.lengths(frame)]
    assert sum(quarters) == 100


def test_other_reviews_count_as_no_answer() -> None:
    frame = pairs.paired(predictions("baseline-scored", 10), predictions("fine-tuned", 20))
    assert len(frame) == 20
    assert frame["prediction_base"].isna().all()


# ---- training that runs now


def test_polling_does_nothing_until_the_history_grows(assets: Path, context: Context) -> None:
    first = context.store.signature()
    assert context.store.signature() == first
    with (assets / "runs" / TRAINING / "history.jsonl").open("a") as stream:
        stream.write(
            '{"step": 31, "epoch": 0.3, "examples": 496, "tokens": 1, "seconds": 8.0, "loss": 0.2}\n'
        )
    assert context.store.signature() != first
    training = next(run for run in context.store.listing().runs if run.run_id == TRAINING)
    assert loss.is_training(training)
    words = loss.unfinished_words(training, {TRAINING: context.store.history(training)})
    assert "training now, at step 31" in words


# ---- the live model's host


def wait_for(host: ModelHost, run=None) -> str:
    for _ in range(200):
        kind, sentence = host.state(run)
        if kind != "loading":
            return sentence
        time.sleep(0.01)
    raise AssertionError("still loading")


def test_host_loads_in_the_background_and_says_so() -> None:
    go_on = threading.Event()

    def slow(run):
        go_on.wait(20)
        return FakeClassifier(run)

    host = ModelHost(slow)
    host.start(None)
    assert host.state(None)[0] == "loading"
    go_on.set()
    assert wait_for(host).startswith("Live model ready (fake, loaded in")


@pytest.mark.parametrize(
    "error",
    [
        OSError("no weights here"),
        ValueError("bad adapter"),
        KeyError("surprise"),
        ImportError("no such name (/srv/secret/live.py)"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_a_sentence(error: Exception) -> None:
    def fail(run):
        raise error

    host = ModelHost(fail)
    host.start(None)
    sentence = wait_for(host)
    assert "could not be loaded" in sentence
    assert "surprise" not in sentence
    assert "secret" not in sentence
    with pytest.raises(ModelUnavailable):
        host.get(None)


def test_a_failed_load_is_tried_again_when_asked_to() -> None:
    outcomes = iter([OSError("no weights here"), None])

    def load(run):
        if error := next(outcomes):
            raise error
        return FakeClassifier(run)

    host = ModelHost(load)
    with pytest.raises(ModelUnavailable, match="no weights here"):
        host.get(None)
    assert host.state(None)[0] == "failed"
    host.start(None)
    assert wait_for(host).startswith("Live model ready")


def test_host_keeps_few_models(context: Context) -> None:
    host = ModelHost(FakeClassifier.load, keep=2)
    for run in (None, context.store.run(RUN), context.store.run(STUDY)):
        host.get(run)
    assert len(host._slots) == 2


def test_the_reader_shows_a_pair_and_what_differs(assets: Path) -> None:
    ids = predictions("fine-tuned", 40, paired=True)["review_id"]
    texts = {i: f"It is a {'great' if n % 2 else 'dull'} film <b>{n // 2}</b>." for n, i in enumerate(ids)}
    view = examples.Examples(context_of(assets, texts=texts))
    paired = ExampleFilter(RUN, "counterfactual_imdb_test")
    pane = view.open(paired, ids[2])[0]
    assert "It is a dull film &lt;b&gt;1&lt;/b&gt;." in pane
    assert "It is a <ins>great</ins> film &lt;b&gt;1&lt;/b&gt;." in pane
    assert f"Review {ids[3]}" in pane
    without = examples.Examples(context_of(assets)).open(paired, ids[2])[0]
    assert f"Review {ids[3]}" in without
    assert (
        "partner"
        not in view.open(ExampleFilter(RUN, "imdb"), predictions("fine-tuned", 300)["review_id"][0])[0]
    )


def test_settings_name_only_results_that_there_are(tmp_path) -> None:
    """A dataset on which neither run was evaluated is no row of dashes."""
    context = context_of(write_assets(tmp_path, n=60, pairs=10))
    assert "accuracy on" in method.method_html(context, context.store.run(RUN))
    shutil.rmtree(tmp_path / "evals")
    write_eval(tmp_path, "baseline-scored", "imdb", 20, run_id=None)
    assert context.store.datasets()
    assert "accuracy on" not in method.method_html(context, context.store.run(RUN))


# ---- live answers


def test_answers_stream_fine_tuned_first_and_then_how_they_came(context: Context) -> None:
    review = "A dreadful, boring film. But the end is warm and funny and great."
    steps = list(answers.stream(context, context.store.run(RUN), review))
    assert "Reading" in steps[0][0]
    assert "Positive" in steps[1][0]
    assert "Reading" in steps[1][0]
    assert "Both say" in steps[2][1]
    assert all(step[2] in (trace.NOTHING, gr.skip()) for step in steps[:3])
    first, both = steps[3][2], steps[4][2]
    assert len(steps) == 5
    assert [row["base"] for row in first["rows"]] == [None] * len(first["rows"])
    assert "".join(row["text"] for row in both["rows"]).replace(" ", "") == review.replace(" ", "")
    assert [row["fine"] for row in both["rows"]] == [row["fine"] for row in first["rows"]]
    assert both["title"].startswith("It made up its mind at “")


def test_a_trace_alone_streams_for_the_reader(context: Context) -> None:
    *_, last = answers.stream_trace(context, context.store.run(RUN), "Superb")
    assert [row["text"] for row in last["rows"]] == ["Superb"]


def test_a_crash_is_a_sentence_without_a_traceback(assets: Path) -> None:
    class Broken(FakeClassifier):
        def read(self, text, system):
            raise RuntimeError("secret /path/inside")

    context = context_of(assets, Broken)
    *_, last = answers.stream(context, context.store.run(RUN), "A film.")
    assert "Something went wrong" in last[1]
    assert "secret" not in str(last)


def test_a_long_review_is_answered_so_far_and_then_whole(context: Context) -> None:
    review = "A great start. " + "And on it goes. " * 90 + "Dreadful, boring, the worst."
    steps = [str(step[0]) for step in answers.stream(context, context.store.run(RUN), review)]
    first = next(i for i, shown in enumerate(steps) if "P(positive)" in shown)
    assert "so far" in steps[first]
    assert "after reading 33\u202f%" in steps[first]
    assert "Positive" in steps[first]
    assert "Negative" in steps[first + 1]
    assert "so far" not in steps[first + 1]


def test_truncation_is_said(context: Context) -> None:
    steps = list(answers.stream(context, context.store.run(RUN), "word " * 950))
    assert any("middle was left out" in str(step[1]) for step in steps)


def test_a_stopped_batch_ends_between_two_parts(context: Context) -> None:
    """The next visitor's batch must not wait for one that nobody wants any more."""
    events = context.serving.scores(context.store.run(RUN), ["great film"] * 500)
    parts = [next(event for event in events if isinstance(event, Scores)) for _ in range(2)]
    assert len(parts[-1].found["fine-tuned"]) == 2 * CHUNK
    assert parts[-1].share == 2 * CHUNK / 1000
    assert len(context.serving.queues["batches"]) == 1
    events.close()
    assert len(context.serving.queues["batches"]) == 0


def test_batch_table_has_labels_and_accuracy(context: Context) -> None:
    rows = Batch(["great film", "dreadful film", "=cmd()"], [1, 0, 0])
    found = context.serving.probabilities(context.store.run(RUN), rows.texts)
    frame = batch.table_of(rows, found)
    assert list(frame.columns) == batch.COLUMNS
    assert list(frame["fine-tuned"]) == ["Positive", "Negative", "Positive"]
    assert "Accuracy of the fine-tuned model: 66.7" in batch.summary_of(frame)
    back = pd.read_csv(batch.write_csv(frame))
    assert back["text"][2] == "'=cmd()"
