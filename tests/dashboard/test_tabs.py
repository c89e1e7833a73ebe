"""The dashboard's parts without a browser: store, model host, views, and the Blocks' promises."""

import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from sentiment_core.artifacts import store
from sentiment_core.dashboard import pairs, panels, serving, texts
from sentiment_core.dashboard.api import found_by
from sentiment_core.dashboard.app import build, launch_options
from sentiment_core.dashboard.components import answers, parts
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.host import ModelHost, ModelUnavailable
from sentiment_core.dashboard.inputs import Batch
from sentiment_core.dashboard.pairs import ExampleFilter, Sides
from sentiment_core.dashboard.serving import Serving
from sentiment_core.dashboard.store import MOST_KEPT, TARGETS, Store, actors_of
from sentiment_core.dashboard.tabs import accuracy, batch, confusion, examples, loss, method
from sentiment_core.dashboard.texts import ReviewTexts
from sentiment_core.data.reviews import load_reviews, review_id
from sentiment_core.data.sources import CHALLENGE
from sentiment_core.figures.style import percent
from sentiment_core.metrics.histogram import least_log_odds
from sentiment_core.systems import SYSTEMS
from tests import waiting
from tests.fake_artifacts import RUN, STUDY, predictions, write_assets, write_eval, write_run
from tests.fake_live import FakeClassifier
from tests.own_reviews import frame

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
    assert not parts.theme()._stylesheets
    assert "http" not in parts.css()


def test_the_queue_is_bounded_and_the_direct_route_closed(assets: Path) -> None:
    demo = build(assets, FakeClassifier.load, texts={})
    assert demo._queue.max_size == 2000
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
    assert set(store.evals(store.run(RUN), "imdb")) == set(SYSTEMS)
    assert set(others := store.evals(store.run(STUDY), "imdb")) == set(SYSTEMS) - {"fine-tuned"}
    assert "has not been evaluated" in panels.accuracy_panel(others, ()).title


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
    after, metrics = evals["fine-tuned"], evals["fine-tuned"].record.metrics
    ece = {"metrics": metrics | {"ece": metrics["accuracy"]}}
    calibrated = replace(after, record=after.record.model_copy(update=ece))
    side = confusion.Side.cut(after, context.store.predictions(after))
    histories = {run.run_id: context.store.history(run)}
    drawn = [
        panels.accuracy_panel(evals, context.store.references()),
        panels.coverage_panel(context.store, run, {"fine-tuned": calibrated}),
        confusion.matrix_panel(side),
        loss.loss_panel(histories),
    ]
    assert "(15 equal-width bins, top-label confidence): " in drawn[1].caption
    for panel in drawn:
        assert any(c.isdigit() for c in panel.title), panel.title
        assert "n = " in panel.caption
        assert "interval" in panel.caption
        assert len(panel.data) > 0


def test_the_flow_leads_to_the_reviews_of_each_outcome(context: Context) -> None:
    evals = context.store.evals(context.store.run(RUN), "imdb")
    before, after = actors_of(evals).values()
    *_, html = accuracy.before_and_after(context.store, Sides(before, after))
    counts = pairs.counts(pairs.paired(*map(context.store.predictions, (before, after))), ExampleFilter())
    for show in ("fixed", "regressed", "correct", "wrong"):
        assert html.count(f"?tab=examples&amp;show={show}") == 2  # the ribbon, and its name
        assert html.count(unescaped := f"&#34;show&#34;: &#34;{show}&#34;") == 2, unescaped
        assert f"<b>{counts[show]:,}</b> ({percent(counts[show] / 400)})" in html
    widths = [float(w) for w in re.findall(r"v([0-9.]+)C", html)]
    assert sum(widths) == pytest.approx(100)


def test_without_probabilities_nothing_moves(context: Context) -> None:
    evals = context.store.evals(context.store.run(RUN), "imdb")
    before, after = evals["baseline-generated"], evals["fine-tuned"]
    panel, table, flow = accuracy.before_and_after(context.store, Sides(before, after))
    assert (panel, table) == (None, "")
    assert "the same 400 reviews" in flow
    assert accuracy.before_and_after(context.store, Sides(None, after)) == (None, "", "")


def test_an_encoder_that_wins_stands_in_the_title_and_every_system_is_tested_against_ours(
    tmp_path: Path,
) -> None:
    root = write_assets(tmp_path, n=400)
    for name, better in (("tiny-bert", 0.0), ("large-bert", 2.0)):
        write_eval(root, "encoder-lora", "imdb", 400, run_id=None, better=better, encoder=name)
    context = context_of(root)
    evals = context.store.evals(context.store.run(RUN), "imdb")
    assert {"encoder-lora", "encoder-lora large-bert", "encoder-lora tiny-bert"} <= set(evals)
    title = panels.accuracy_panel(evals, ()).title
    assert "; Encoder with LoRA, large-bert reaches" in title
    found = {title: (compared, p) for title, compared, p in accuracy.rivals(context.store, evals)}
    assert len(found) == len(evals) - 1
    compared, p = found["Encoder with LoRA, large-bert"]
    assert compared.fixed > compared.broken
    m = sum(one.mcnemar_p >= compared.mcnemar_p for one, _ in found.values())
    assert p == accuracy.p_words(compared.mcnemar_p * m), "Holm: as many times as tests are left"
    losing = {name: evals[name] for name in ("baseline-scored", "encoder-lora tiny-bert", "fine-tuned")}
    assert "reaches" not in panels.accuracy_panel(losing, ()).title


@pytest.mark.parametrize("system", ["baseline-recalibrated", "baseline-few-shot", "tfidf-logreg"])
def test_every_scored_system_follows_the_threshold(context: Context, system: str) -> None:
    one = context.store.evals(context.store.run(RUN), "imdb")[system]
    metrics = one.record.metrics | {"roc_auc": one.record.metrics["accuracy"]}
    one = replace(one, record=one.record.model_copy(update={"metrics": metrics}))
    frame = context.store.predictions(one)
    low, high = (confusion.Side.cut(one, frame, threshold) for threshold in (0.1, 99.9))
    assert low.cells["recall_positive"] > high.cells["recall_positive"]
    assert "Threshold 99.9" in confusion.matrix_panel(high).caption
    html = parts.render("rates", sides=[low, high])
    assert html.count(f"{metrics['roc_auc'].value:.3f}<br>(") == 2, "whatever the threshold"


def test_rewritten_reviews_are_told_apart_from_their_originals() -> None:
    context = context_of(ROOT / "assets")
    run = context.store.run("smollm2-135m")
    assert run
    assert run.run_id == "smollm2-135m"
    html = method.method_html(context, run)
    record = context.store.evals(run, "counterfactual_imdb_test")["fine-tuned"].record
    right = {part.value: f"{part.accuracy.value:.1%}"[:-1] for part in record.slices if part.by == "version"}
    assert right["edited"] != right["original"]
    assert f"reviews that people rewrote to say the opposite its accuracy is {right['edited']}\u202f%" in html
    assert f"{right['original']}\u202f% on their originals" in html
    assert "Decide if a movie review is positive or negative." in html


# ---- pairs


def test_filters_partition_and_sort() -> None:
    before, after = predictions("baseline-scored", 500), predictions("fine-tuned", 500)
    frame = pairs.paired(before, after)
    counts = pairs.counts(frame, ExampleFilter())
    right = (before["prediction"] == before["label"]), (after["prediction"] == after["label"])
    assert counts["fixed"] == int((~right[0] & right[1]).sum())
    assert counts["regressed"] == int((right[0] & ~right[1]).sum())
    assert sum(counts[name] for name in ("fixed", "regressed", "correct", "wrong")) == counts["all"] == 500
    fixed = pairs.select(frame, ExampleFilter())
    moved = (fixed["p_positive_fine_tuned"] - fixed["p_positive_base"]).abs().to_numpy()
    assert len(moved) == counts["fixed"]
    assert (np.diff(moved) <= 0).all()
    mistakes = pairs.select(frame, ExampleFilter(show="mistakes"))
    distance = (mistakes["p_positive_fine_tuned"] - 0.5).abs().to_numpy()
    assert (np.diff(distance) <= 1e-6).all()
    assert not mistakes["right_fine_tuned"].any()


def test_the_bars_of_a_histogram_hold_each_review_once() -> None:
    """What another figure asks for: a range of one system's probabilities, and one true label."""
    frame = pairs.paired(predictions("baseline-scored", 200), predictions("fine-tuned", 200))
    edges = [0.0, 0.1, 0.5, 0.9, 1.0]
    for side, column in (("before", "p_positive_base"), ("after", "p_positive_fine_tuned")):
        bars = [
            pairs.select(frame, ExampleFilter.of(asked=json.dumps(
                {"side": side, "low": low, "high": high, "label": label}
            )))
            for low, high in itertools.pairwise(edges) for label in (0, 1)
        ]  # fmt: skip
        assert sorted(pd.concat(bars).index) == list(range(200))
        first = bars[0]
        assert (first[column] < 0.1).all()
        assert (first["label"] == 0).all()


@pytest.mark.parametrize(
    "asked", ["", "[]", "{", "null", '{"show": ["fixed"], "low": "1", "high": NaN, "x": 1}']
)
def test_nonsense_asked_for_is_passed_over(asked: str) -> None:
    assert ExampleFilter.of(RUN, "imdb", "", asked) == ExampleFilter(run_id=RUN, dataset="imdb")


def test_a_filter_is_the_same_after_a_turn_through_the_page() -> None:
    wanted = ExampleFilter.of(asked='{"side": "after", "low": 0.25, "label": 1, "page": 3}')
    assert wanted.show == "all"
    assert ExampleFilter.of(asked=wanted.asking(page=3)) == wanted
    assert ExampleFilter.of(asked=wanted.asking(show="wrong")).page == 0


def test_an_unparsed_answer_is_wrong_and_says_what_came_of_it() -> None:
    after = pd.DataFrame({
        "review_id": list("abcda"), "label": [1, 1, 0, 0, 1], "tokens": 5, "version": list("xyxyx"),
        "prediction": pd.array([1, 0, 0, 1, 1], dtype="Int8"), "p_positive": [0.75, 0.25, 0.25, 0.5, 1.0],
    })  # fmt: skip
    answered = pd.array([0, 1, 0, 1, None], dtype="Int8")
    frame = pairs.paired(after.assign(prediction=answered, p_positive=np.nan), after)
    assert list(frame["outcome"]) == ["fixed", "regressed", "both right", "both wrong", "fixed"]
    assert frame["p_positive_base"].isna().all()
    assert frame["prediction_base"].isna().sum() == 1
    assert list(frame["version"]) == list("xyxyx")
    assert list(frame["moved"]) == [0] * 5
    assert list(frame["sure"]) == [0.25, 0.25, 0.25, 0, 0.5]


# ---- the live model's host


def test_host_loads_in_the_background_and_knows_how_long_it_may_take() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(run):
        begun.set()
        go_on.wait(20)
        return FakeClassifier(run)

    host = ModelHost(slow)
    host.start(None)
    assert host.left(None) is None
    host._took = 60.0
    assert begun.wait(20)
    assert 0 < host.left(None) <= 60
    go_on.set()
    assert host.get(None).number_format == "fake"
    assert host.left(None) == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no weights here"), "no weights here"), (ValueError("bad adapter"), "bad adapter"),
        (KeyError("surprise"), ""), (ImportError("no such name (/srv/surprise/live.py)"), ""),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_is_a_sentence_and_tried_again_when_asked_to(
    error: Exception, told: str
) -> None:
    outcomes = iter([error, None])

    def load(run):
        if failed := next(outcomes):
            raise failed
        return FakeClassifier(run)

    host = ModelHost(load)
    with pytest.raises(ModelUnavailable, match=f"could not be loaded.*{told}") as refused:
        host.get(None)
    assert "surprise" not in str(refused.value)
    host.start(None)
    assert host.get(None).number_format == "fake"


def test_host_keeps_few_models(context: Context, tmp_path: Path) -> None:
    host = ModelHost(FakeClassifier.load)
    for run in (None, context.store.run(RUN), context.store.run(STUDY)):
        host.get(run)
    assert len(host._slots) == 2
    record = context.store.run(RUN).record
    base = record.base_model.model_copy(update={"parameters": 1_500_000_000})
    host.get(store.Run(tmp_path / "large", record.model_copy(update={"base_model": base, "run_id": "large"})))
    assert len(host._slots) == 1, "a large one is alone"


def test_the_reader_shows_both_of_a_pair(assets: Path) -> None:
    ids = predictions("fine-tuned", 40, paired=True)["review_id"]
    texts = {i: f"It is a {'great' if n % 2 else 'dull'} film <b>{n // 2}</b>." for n, i in enumerate(ids)}
    context = context_of(assets, texts=texts)
    paired = ExampleFilter.of(RUN, "counterfactual_imdb_test")
    pane = examples.in_reader(context, paired, ids[2])[0]
    assert "It is a dull film &lt;b&gt;1&lt;/b&gt;." in pane
    assert "It is a great film &lt;b&gt;1&lt;/b&gt;." in pane
    assert f"Id {ids[3]}" in pane
    without = examples.in_reader(context_of(assets), paired, ids[2])[0]
    assert f"Id {ids[3]}" in without
    assert "partner" not in examples.in_reader(context, ExampleFilter.of(RUN, "imdb"), ids[0])[0]


@pytest.fixture
def imdb_on_the_hub(tmp_path, monkeypatch) -> list[dict[str, Any]]:
    """A stand-in for the Hub's download, and what was asked of it; nothing is at hand."""
    asked: list[dict[str, Any]] = []

    def download(repo: str, *, local_dir: Path, filename: str, tqdm_class: Any, **more: Any) -> str:
        asked.append({"repo": repo, "filename": filename, **more})
        if len(asked) == 1:
            raise OSError("no route to the Hub\nand so on")
        with tqdm_class(total=4, desc=filename, unit="B") as bar:
            for _ in range(4):
                bar.update(1)
        path = local_dir / filename
        path.parent.mkdir(parents=True)
        frame(40, seed=0)[["text", "label"]].to_parquet(path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setitem(texts.IMDB, "local_dir", tmp_path / "cache")
    monkeypatch.delenv(texts.VARIABLE, raising=False)
    return asked


def test_imdbs_texts_come_by_a_click_with_a_bar_and_a_failure_says_why(tmp_path, imdb_on_the_hub) -> None:
    ids = [review_id(text) for text in frame(40, seed=0)["text"]]
    for system, run_id in (("baseline-scored", None), ("fine-tuned", RUN)):
        write_eval(tmp_path, system, "imdb", 40, run_id=run_id, review_id=ids)
    write_run(tmp_path, RUN)
    context = replace(context_of(tmp_path), texts=ReviewTexts())
    asked, shares = ExampleFilter.of(RUN, "imdb"), []
    before = str(examples.whole(context, asked))
    assert texts.FETCH in before
    assert imdb_on_the_hub == [], "nobody has clicked"
    context.texts.fetch(shares.append)
    told = str(examples.whole(context, asked))
    assert "They could not be fetched from the Hub: no route to the Hub. To read them from a copy" in told
    context.texts.fetch(shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert texts.FETCH not in str(after := examples.whole(context, asked)[5])
    assert "these are our own" not in str(after)
    one = imdb_on_the_hub[1]
    assert (one["repo"], one["repo_type"], len(one["revision"])) == ("stanfordnlp/imdb", "dataset", 40)
    assert set(ids) <= set(ReviewTexts().wait(20)), "the next start finds them"
    assert len(imdb_on_the_hub) == 2


def test_a_space_fetches_imdbs_texts_by_itself(imdb_on_the_hub, monkeypatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/space")
    found = ReviewTexts()
    found.wait(20)
    while (fetching := next((t for t in threading.enumerate() if t.name == "imdb"), None)) is not None:
        fetching.join()
    assert len(imdb_on_the_hub) == 1
    assert "no route to the Hub" in found.how_to
    monkeypatch.setenv(texts.VARIABLE, CHALLENGE)
    ReviewTexts().wait(20)
    assert not any(t.name == "imdb" for t in threading.enumerate()), "another source was chosen"


@pytest.fixture
def challenged(tmp_path, monkeypatch) -> Context:
    """Both models have answered both sets; only the challenge set's texts are at hand."""
    known = load_reviews("challenge", "all").frame[["review_id", "label", "phenomenon", "pair_id"]]
    for system, run_id in (("baseline-scored", None), ("fine-tuned", RUN)):
        write_eval(tmp_path, system, "challenge", 240, run_id=run_id, **known)
    monkeypatch.setattr("sentiment_core.dashboard.texts._sources", list)
    return replace(context_of(write_assets(tmp_path, n=300, pairs=10)), texts=ReviewTexts())


def test_the_heatmap_shows_every_share_and_names_the_hardest(challenged) -> None:
    store = challenged.store
    evals = store.evals(store.run(RUN), "challenge")
    frame, html = store.predictions(evals["fine-tuned"]), accuracy.heatmap_html(evals)
    hits = (frame["prediction"] == frame["label"]).groupby(frame["phenomenon"]).sum()
    shown = re.findall(r'title="(\d+) of 20; [^>]*>(\d+)\s%</td>', html)
    assert shown[1::2] == [(str(hit), str(5 * hit)) for hit in sorted(hits)]
    assert f"Hardest for the fine-tuned model: {hits.idxmin()}" in html
    assert accuracy.heatmap_html(store.evals(None, "imdb")) == ""


def test_examples_open_on_it_where_imdb_is_not_at_hand(challenged) -> None:
    asked = ExampleFilter.of(RUN, "imdb", "", '{"show": "all"}')
    _, _, switch, _, chips, listed, reader, *_, opened = examples.whole(challenged, asked, "sample-11")
    assert opened in challenged.texts.wait(0), "the sample is one of Live's"
    assert switch.value == "challenge"
    assert "240 of 240 reviews" in listed
    assert "SENTIMENT_DATASET" in listed
    assert "All <span>240</span>" in chips
    assert ", written for this page" in reader


# ---- live answers


def test_answers_stream_fine_tuned_first_and_then_how_they_came(context: Context) -> None:
    review = "A dreadful, boring film. But the end is warm and funny and great."
    context.serving.host.get(context.store.run(RUN))
    steps = waiting.all_of(answers.stream(context, context.store.run(RUN), review))
    assert {(step["text"], step["run"]) for step in steps} == {(review, RUN)}
    assert [("fine" in step, "base" in step) for step in steps[:3]] == [(0, 0), (1, 0), (1, 1)]
    assert steps[1]["note"] == answers.READING
    assert all(step["trace"] is answers.NO_TRACE for step in steps[:3])
    first, both = steps[3]["trace"], steps[4]["trace"]
    assert len(steps) == 5
    assert [row["base"] for row in first["rows"]] == [None] * len(first["rows"])
    assert "".join(row["text"] for row in both["rows"]).replace(" ", "") == review.replace(" ", "")
    assert [row["fine"] for row in both["rows"]] == [row["fine"] for row in first["rows"]]
    *_, alone = waiting.all_of(answers.stream(context, context.store.run(RUN), "Superb"))
    assert [row["text"] for row in alone["trace"]["rows"]] == ["Superb"]


def test_a_visitors_text_is_a_value_that_no_template_evaluates(context: Context) -> None:
    review = "<img src=x onerror=alert(1)> bad <script>alert(2)</script> great"
    *_, last = waiting.all_of(answers.stream(context, context.store.run(RUN), review))
    assert "".join(row["text"] for row in last["trace"]["rows"]).replace(" ", "") == review.replace(" ", "")
    for name in ("live", "trace", "dial", "movement", "replay", "threshold"):
        assert not re.search(r"[{}$]", parts.own_figure(name, name).html_template)


def test_a_question_asked_while_the_model_loads_is_answered_once_there(assets: Path, monkeypatch) -> None:
    """Longer than the time limit of one question; the time that the last loading took is the estimate."""
    monkeypatch.setattr(serving, "LOOK_AGAIN", 0.01)
    begun, go_on = threading.Event(), threading.Event()
    context = context_of(assets, lambda run: begun.set() or (go_on.wait(20) and FakeClassifier(run)))

    async def visit() -> dict[str, Any]:
        steps = answers.stream(context, None, "A great film")
        assert [(await anext(steps))["note"] for _ in range(3)] == [answers.LOADING] * 3
        assert begun.wait(20)
        context.serving.host._took = 100.0
        assert (await anext(steps))["note"].startswith("Your turn in about 100")
        go_on.set()
        return [step async for step in steps][-1]

    last = waiting.run(visit())
    assert last["base"]["p"] == last["trace"]["rows"][-1]["base"]


def test_a_target_is_set_by_validation_and_told_with_what_came_of_it(context: Context) -> None:
    run = context.store.run(RUN)
    cooler = replace(run, record=run.record.model_copy(update={"temperature": 2.0}))
    warm, cold = context.store.certainties(run), context.store.certainties(cooler)
    assert list(warm) == list(cold) == list(TARGETS)
    assert [logit(one) for one in warm.values()] == pytest.approx([2 * logit(one) for one in cold.values()])
    validated = context.store.history(run).dropna(subset=["eval_counts"])
    nearest = (validated["eval_accuracy"] - run.record.validation_accuracy.value).abs().idxmin()
    assert logit(warm[0.99]) == pytest.approx(least_log_odds(validated["eval_counts"][nearest], 0.99))
    evals = context.store.evals(run, "imdb")
    panel = panels.coverage_panel(context.store, run, {"fine-tuned": evals["fine-tuned"]})
    marks = panel.data.dropna(subset=["target"])
    assert marks["target"].tolist() == list(TARGETS)
    frame = context.store.predictions(evals["fine-tuned"])
    sure = np.maximum(frame["p_positive"], 1 - frame["p_positive"]) >= warm[0.98]
    assert marks["coverage"].iloc[1] == pytest.approx(sure.mean())
    assert "1,000 validation answers" in panel.caption
    (root := context.store.root / "runs" / RUN / "history.jsonl").write_text(
        root.read_text().split("\n")[0] + "\n"
    )
    assert context.store.certainties(run) == {}


def test_own_texts_get_the_panels_of_an_evaluation_and_their_examples(context: Context) -> None:
    own = ["great <b>film</b>", "dreadful film", "bad, boring", "great, and bad, and worst"]
    found = waiting.run(found_by(context.serving.scores(context.store.run(RUN), own)))
    drawn, flow, examples = batch.before_and_after(Batch(own, [1, 0, 0, 1]), found)
    assert "lifts accuracy from 50.0\u202f% to 75.0\u202f%" in drawn[0].title
    assert len(drawn) == 3
    assert "fixed 2 reviews" in flow or "fixed about 2" in flow
    assert "(exact McNemar, p = 1.000)" in flow
    assert "data-ask" not in flow, "there are no such reviews on the examples tab"
    folds = dict(re.findall(r"<summary><b>(.*?)</b> (\d+)", examples))
    assert [folds[name] for name in ("Fixed", "Regressed", "Both correct", "Both wrong")] == [
        "2",
        "1",
        "1",
        "0",
    ]
    assert "great &lt;b&gt;film" in examples
    drawn, flow, examples = batch.before_and_after(Batch(own), found)
    assert (drawn, flow) == ([], "")
    assert set(re.findall(r"<summary><b>(.*?)</b>", examples)) == {"All", "Lowest confidence"}


def test_texts_count_as_answered_once_both_models_have_answered_them(context: Context, monkeypatch) -> None:
    texts, run = [f"{'great ' * n} film" for n in range(60)], context.store.run(RUN)
    monkeypatch.setattr(serving, "TOGETHER", 24)
    events = waiting.all_of(context.serving.scores(run, texts))
    told = [one for one in events if isinstance(one, serving.Scores)]
    assert [one.answered for one in told] == [0, 0, 24, 24, 48, 60]
    for system, found in told[-1].found.items():
        assert found == [FakeClassifier(run)._p(text, system) for text in texts]


def test_both_answers_come_as_a_csv_that_no_spreadsheet_runs(context: Context, tmp_path) -> None:
    rows = Batch(["great film", "dreadful film", "=cmd()"], [1, 0, 0])
    found = waiting.run(found_by(context.serving.scores(context.store.run(RUN), rows.texts)))
    frame = batch.table_of(rows, found)
    assert list(frame["fine-tuned"]) == ["Positive", "Negative", "Positive"]
    said = batch.summary_of(frame)
    assert said.startswith("3 texts. The base model predicts ")
    assert said.endswith(" The fine-tuned model predicts 2 positive.")
    back = pd.read_csv(batch.write_csv(frame, str(tmp_path)))
    assert back["text"][2] == "'=cmd()"
