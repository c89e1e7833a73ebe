"""Several runs on several base models: their stories, what each took, and any two held against each other."""

import json
import re
import shutil
from copy import deepcopy

import pytest
from markupsafe import Markup

from sentiment_core.config import ASSETS
from sentiment_core.dashboard import pairs, panels, report
from sentiment_core.dashboard.components import header
from sentiment_core.dashboard.pairs import ExampleFilter, Sides
from sentiment_core.dashboard.tabs import accuracy, confusion, examples, live, loss, method
from sentiment_core.figures.evaluation import COSTS
from sentiment_core.metrics import classification
from tests.dashboard.test_header import words
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import LADDER, RUN, TEACHER, write_assets, write_eval, write_ladder

LARGE, TAUGHT = "coder-1.5b", "taught"


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return context_of(write_ladder(tmp_path_factory.mktemp("ladder")))


# ---- the run menu


def test_each_run_has_a_story_and_a_large_base_is_not_what_the_page_opens_with(context):
    titles, stories = header.run_titles(context), header.run_titles(context, story=True)
    assert titles[LARGE] == "Our recipe, Qwen2.5-Coder-1.5B, 5\u202fmin"
    assert stories[TAUGHT] == "Taught by Qwen2.5-Coder-1.5B, SmolLM2-135M, 2\u202fmin, 23,400 reviews"
    assert len({*titles.values()}) == len({*stories.values()}) == len(LADDER)
    assert context.store.run(None).run_id == RUN, "the story without a teacher, although less accurate"
    assert context.store.run(LARGE).run_id == LARGE


def test_of_runs_that_share_base_and_preset_the_one_called_like_its_base_keeps_the_name():
    committed = header.run_titles(context_of(ASSETS))
    assert committed["smollm2-135m"].startswith("Our recipe, ")
    assert committed["smollm2-135m-study"].startswith("The study’s settings, ")


def test_a_taught_run_says_who_taught_it(context):
    run = context.store.run(TAUGHT)
    assert "QLoRA by labels and by what a fine-tuned Qwen2.5-Coder-1.5B says of 48,882 more reviews" in words(
        header.head_html(context, run)[0]
    )
    assert "and a teacher’s 5 min" in words(header.head_html(context, run)[1])
    panel = loss.loss_panel({TAUGHT: context.store.history(run)}, run.record)
    assert "Stages: coder-1.5b learned 23,400 labels in 280 seconds; it answered" in panel.caption
    again = run.record.model_copy(update={"teacher": TEACHER.model_copy(update={"teacher": TEACHER})})
    assert "280 seconds, and from coder-1.5b; it answered 48,882 unlabelled" in loss.stages(again)
    assert not loss.stages(context.store.run(RUN).record)


@pytest.mark.parametrize("run_id", LADDER)
def test_header_and_tabs_follow_the_run_to_its_own_base(context, run_id):
    run, base = context.store.run(run_id), LADDER[run_id][0]
    evals = context.store.evals(run, "imdb")
    assert evals["baseline-scored"].record.base_model == base
    assert evals["fine-tuned"].record.run_id == run_id
    before, after = (
        100 * evals[one].record.metrics["accuracy"].value for one in ("baseline-scored", "fine-tuned")
    )
    assert f"{before:.1f} → {after:.1f} %" in words(header.head_html(context, run)[1])
    assert base.name in method.method_html(context, run)
    assert "study’s settings differ" not in method.method_html(context, run), "that is a run on another base"
    matrix = confusion.Side.cut(one := evals["baseline-scored"], context.store.predictions(one))
    assert matrix.cells["accuracy"] == pytest.approx(before / 100)
    frame = examples.tested(context, ExampleFilter.of(run_id), "imdb").frame
    assert frame["right_base"].mean() == pytest.approx(before / 100)


def test_a_report_of_two_runs_is_one_file_that_asks_for_nothing(context, tmp_path, capsys):
    output = tmp_path / "made" / "report.html"
    flags = ["--assets", str(context.store.root), "--output", str(output)]
    assert report.main([TAUGHT, "--versus", RUN, *flags]) == 0
    content = output.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", content)
    assert content.count("Plotly.newPlot(") == content.count("Data as CSV") >= 6
    assert content.count("plotly.js v") == 1
    titles = header.run_titles(context)
    for name in (RUN, TAUGHT):
        assert re.search(rf"“{re.escape(titles[name])}”\. .*accuracy", content)
    assert "exact McNemar" in content
    assert "?tab=" not in content
    assert report.main(["nobody", *flags]) == 2
    assert f"no evaluations of nobody (runs: {', '.join(sorted(LADDER))})" in capsys.readouterr().err


OURS = ("ours, bf16", "ours, int8", "ours, fp32")


def test_the_page_says_how_long_an_answer_takes_where_it_was_measured(tmp_path):
    """In the number format that serves, which is the fastest; on each machine with figures of this base."""
    root = write_ladder(tmp_path, n=20)
    record = json.loads((ASSETS / "benchmarks" / "live.json").read_text())
    (root / "benchmarks").mkdir()
    context, device = context_of(root), record["hardware"]["device"]

    def measured(name: str, base: str, times: float = 1, **hardware) -> None:
        told = record | {"base_model": base, "hardware": record["hardware"] | hardware}
        rows = deepcopy(record["rows"])
        for row in rows:
            row["seconds_per_review"]["value"] *= times
        (root / "benchmarks" / f"{name}.json").write_text(json.dumps(told | {"rows": rows}))

    best = 1000 * min(row["seconds_per_review"]["value"] for row in record["rows"] if row["system"] in OURS)
    large = context.store.run(LARGE)
    measured("live", "another")
    assert live.pace_html(context, large) == ""
    measured("live-large", LADDER[LARGE][0].name)
    assert live.pace_html(context, context.store.run(RUN)) == ""
    told = words(live.pace_html(context, large))
    assert told == f"An answer took {best:.0f} ms in the fastest number format, on {device}."
    measured("live-slow", LADDER[LARGE][0].name, 2, device="A slow one")
    told = words(live.pace_html(context, large))
    pace = f"{best:.0f} ms to {2 * best:.0f} ms in the fastest number format"
    assert told == f"An answer took {pace}, on A slow one or {device}."


# ---- what it takes


@pytest.mark.parametrize("by", COSTS)
def test_what_it_takes_is_told_of_the_least_and_the_best(context, by):
    panel = panels.cost_panel(context, RUN, "imdb", by, context.store.references())
    runs = panel.data[panel.data["run"] != ""].set_index("run")
    assert set(runs.index) == {*LADDER}
    assert runs.loc[LARGE, ["gpu_seconds", "peak_memory_gb"]].tolist() == [280, 9]
    assert runs.loc[LARGE, "trainable_share"] == pytest.approx(100 * 4_884_480 / LADDER[LARGE][0].parameters)
    assert (runs["before_low"] < runs["before_accuracy"]).all()
    assert (runs["low"] < runs["accuracy"]).all()
    least = runs[runs[by] == runs[by].min()]["accuracy"].idxmax()  # of the smallest the most accurate
    for row in (runs.loc[least], runs.loc[LARGE]):
        change = f"{100 * row['before_accuracy']:.1f} % → {100 * row['accuracy']:.1f} %"
        assert change in panel.title.replace("\u202f", " ")
    assert panel.title.count("→") == len({least, LARGE})
    assert runs.loc[[least, LARGE], "on_front"].all()
    assert "n = 2,000" in panel.caption
    assert "95\u202f% intervals" in panel.caption


@pytest.mark.parametrize("against", COSTS)
def test_any_two_costs_are_held_against_each_other_and_their_front_is_in_the_table(context, against):
    panel = panels.cost_panel(context, RUN, "imdb", "gpu_seconds", context.store.references(), against)
    runs = panel.data.set_index("run")
    assert set(runs.index) == {*LADDER}, "published results have neither"
    for name, run in runs.iterrows():
        others = runs.drop(name)
        beaten = (others["gpu_seconds"] <= run["gpu_seconds"]) & (others[against] <= run[against])
        alike = (others["gpu_seconds"] == run["gpu_seconds"]) & (others[against] == run[against])
        assert run["on_front"] == (not (beaten & ~alike).any()), name
    assert runs.loc[LARGE, ["adapter_mb", "answer_ms"]].tolist() == pytest.approx([9.76896, 5])
    assert set(runs["answered_on"]) == {"Synthetic GPU"}
    assert "Less is better on both" in panel.caption


@pytest.mark.parametrize("by", COSTS)
def test_every_committed_run_stands_on_the_axis_and_each_bases_best_is_named(by):
    panel = panels.cost_panel(context_of(ASSETS), "smollm2-135m-study", "imdb", by, ())
    low, high = panel.figure.layout.xaxis.range
    arrows = [trace for trace in panel.figure.data if trace.name in set(panel.data["title"])]
    assert len(arrows) == len(panel.data) == 14
    assert all(low < x < high for trace in arrows for x in trace.x)
    notes = panel.figure.layout.annotations
    named = {re.sub("(?:, )?<br>", ", ", one.text).replace(" , +", " +") for one in notes if one.textangle}
    best = panel.data.loc[panel.data.groupby("base")["accuracy"].idxmax(), "title"]
    assert {*best, *panel.data[panel.data["run"] == "smollm2-135m-study"]["title"]} <= named
    assert len(named) < len(arrows)
    places = {trace.name: trace.x[0] for trace in arrows}
    from_left = dict(enumerate(sorted(named, key=places.__getitem__), 1))
    assert {int(one.text): one.x for one in notes if one.text.isdecimal()} == {
        number: places[title] for number, title in from_left.items()
    }, "on a phone a number stands for each title"
    told = re.findall(r">(\d+) (.*?)</span>", panel.caption)
    assert told == [(str(n), title) for n, title in from_left.items()]
    lowest = 1 - 2**-panel.figure.layout.yaxis.autorangeoptions.clipmin
    assert 0.3 < lowest < panel.data["before_accuracy"].min(), "titles do not stretch the axis"


def test_the_committed_adapters_are_as_large_as_their_files():
    panel = panels.cost_panel(context_of(ASSETS), None, "imdb", "adapter_mb", ())
    found = panel.data.set_index("run")["adapter_mb"]["smollm2-135m"]
    assert 1e6 * found == (ASSETS / "runs/smollm2-135m/adapter/adapter_model.safetensors").stat().st_size
    assert panel.title.startswith("7.63 MB: 51.3"), "Gemma has the smallest"


def test_the_committed_runs_stand_beside_published_results_and_doubtful_labels():
    context = context_of(ASSETS)
    panel = panels.cost_panel(context, "smollm2-135m", "imdb", "parameters", context.store.references())
    assert panel.title.startswith("135M parameters: 50.2\u202f% → 9")
    assert {"smollm2-135m", "smollm2-135m-study"} <= {*panel.data["run"]}
    assert {"DistilBERT", "GPT-4, zero-shot"} <= {*panel.data["title"]}
    assert "Label ambiguity" not in {*panel.data["title"]}, "it is no system"
    band = panel.figure.layout.shapes[0]
    assert (2**-band.y0, 2**-band.y1) == pytest.approx((725 / 25_000, 173 / 25_000))
    assert "725 lack a majority of votes" in panel.figure.layout.annotations[0].text
    assert "no bound on accuracy follows" in panel.caption
    assert panels.cost_panel(context, None, "imdb", "parameters", ()).figure.layout.shapes == ()


# ---- two runs


def test_two_runs_are_compared_on_the_same_reviews(context):
    sides = Sides.of(context, LARGE, "imdb", TAUGHT)
    first, second = (context.store.predictions(one) for one in sides[:2])
    assert (sides.before.record.run_id, sides.after.record.run_id) == (TAUGHT, LARGE)
    found = classification.compare(first["label"], first["prediction"], second["prediction"])
    panel, table, flow = accuracy.before_and_after(context.store, sides)
    assert panel.figure["versus"] == TAUGHT
    assert f"<b>{found.fixed:,}</b>" in flow
    assert f"<b>{found.broken:,}</b>" in flow
    assert "exact McNemar" in flow
    assert "ine-tuning" not in flow, "both are fine-tuned"
    assert "&#34;versus&#34;: &#34;taught&#34;" in flow, "a ribbon leads to this comparison's reviews"
    assert "&#34;versus&#34;: &#34;taught&#34;" in table
    wanted = ExampleFilter.of(LARGE, "imdb", "", json.dumps({"versus": TAUGHT, "show": "regressed"}))
    shown = examples.tested(context, wanted, wanted.dataset)
    assert pairs.counts(shown.frame, wanted)["fixed"] == found.fixed
    assert len(pairs.select(shown.frame, wanted)) == found.broken
    assert ExampleFilter.of(asked=wanted.asking(show="fixed")).versus == TAUGHT


def test_a_run_is_compared_with_any_system_on_the_same_reviews(tmp_path):
    context = context_of(write_assets(tmp_path, n=200, pairs=20))
    others = Sides.of(context, RUN, "imdb", "").others
    assert {"nbsvm", "tfidf-logreg", "baseline-generated"} < {*others.values()}
    assert "baseline-scored" not in others.values(), "that is its base model"
    sides = Sides.of(context, RUN, "imdb", "tfidf-logreg")
    assert (sides.before.record.system, sides.after.record.system) == ("tfidf-logreg", "fine-tuned")
    assert sides.names[0] == "“TF-IDF + logistic regression”"
    first, second = (context.store.predictions(one) for one in sides[:2])
    found = classification.compare(first["label"], first["prediction"], second["prediction"])
    flow = accuracy.before_and_after(context.store, sides)[2]
    assert f"<b>{found.fixed:,}</b>" in flow
    assert method.settings_html(context, sides, RUN) == Markup(), "it is no run, which has settings"
    wanted = ExampleFilter.of(RUN, "imdb", "", json.dumps({"versus": "tfidf-logreg", "show": "regressed"}))
    assert len(pairs.select(examples.tested(context, wanted, wanted.dataset).frame, wanted)) == found.broken


def test_only_settings_that_differ_are_listed(context):
    told = words(method.settings_html(context, Sides.of(context, TAUGHT, "imdb", RUN), TAUGHT))
    assert "learning rate0.0010.0005" in told
    assert "training time41 s2 min" in told
    for same in ("base model", "epochs", "training examples", "seed"):
        assert same not in told
    assert method.settings_html(context, Sides.of(context, TAUGHT, "imdb", ""), TAUGHT) == Markup()


@pytest.mark.parametrize("versus", ["", "nobody", "<b>", TAUGHT])
def test_a_run_beside_itself_or_nobody_is_beside_its_base(context, versus):
    sides = Sides.of(context, TAUGHT, "imdb", versus)
    assert sides.versus == ""
    assert sides.before.record.system == "baseline-scored"
    assert TAUGHT not in sides.others.values()
    assert len(sides.others) == len(LADDER)


def test_a_run_that_answered_other_reviews_is_not_offered(tmp_path):
    root = write_ladder(tmp_path, n=40)
    shutil.rmtree(root / "evals" / f"{TAUGHT}-fine-tuned-imdb")
    write_eval(root, "fine-tuned", "imdb", 30, run_id=TAUGHT)
    sides = Sides.of(context_of(root), LARGE, "imdb", TAUGHT)
    assert sides.versus == ""
    assert TAUGHT not in sides.others.values()
