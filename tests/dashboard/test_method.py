"""Method: pictures from the run's own weights, the study told once, settings that matter."""

import re

import pytest
from markupsafe import Markup

from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import WeightSample
from sentiment_core.config import ASSETS
from sentiment_core.dashboard.tabs import method
from sentiment_core.dashboard.tabs.method import method_html
from tests.dashboard.test_header import words
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, write_run

SAMPLE = WeightSample(
    matrix="model.layers.0.q_proj", shape=(64, 128), block=64, counts=(1, 5, 1), error=0.09,
    levels=tuple(n / 8 - 1 for n in range(16)),
)  # fmt: skip
GENERATED = store.read_eval(ASSETS / "evals" / "imdb--baseline-generated--smollm2-135m")


@pytest.fixture(scope="module")
def page():
    context = context_of(ASSETS)
    return Markup(method_html(context, context.store.run("smollm2-135m")))


def test_the_study_is_explained_with_our_own_answers(page):
    text = words(page)
    assert "How to measure 23.5 % when guessing gets 50 %" in text
    assert "■ 37 right, × 31 wrong, □ 32 no label" in text
    counted = {(form.form, form.parsed): form.count for form in GENERATED.record.answer_forms}
    for (form, parsed), read in {
        ("the review is positive, …", "positive"): "positive",
        ("this review is negative.", "negative"): "negative",
        ("the review is positive, …", "unparsed"): "no label: neither word, or both",
    }.items():
        assert f"“{form}”{read}{counted[form, parsed]:,}" in text
    assert "On its first 200 rows the same answers of ours have 1.5 %" in text
    assert "Neither can be checked" in text
    assert page.count('class="cross"') == 31


def test_the_base_can_tell_a_little_and_says_positive_anyway(page):
    assert "its ROC AUC is 0.726" in page
    assert "rounded twice, it is not quite the published model" in page


def test_the_matrix_is_drawn_to_scale():
    run = store.read_run(ASSETS / "runs" / "smollm2-135m")
    shapes = store.read_adapter_shapes(run)
    assert shapes["model.layers.15.self_attn.q_proj"] == (576, 576, 16)
    assert shapes["model.layers.15.mlp.up_proj"] == (1536, 576, 16)
    drawn = method.pictures(run)[0]
    sides = [float(side) for side in re.findall(r' (?:width|height)="([\d.]+)"', drawn)]
    assert max(sides) / min(sides) == pytest.approx(576 / 16, rel=0.01)


def test_a_histogram_only_where_the_run_holds_its_weights(tmp_path):
    record = write_run(tmp_path, RUN)
    run = store.read_run(tmp_path / "runs" / RUN)
    assert method.pictures(run) == [], "an old run without adapter"
    store.write_record(run.path / "run.json", record.model_copy(update={"weights": SAMPLE}))
    [drawn] = method.pictures(store.read_run(run.path))
    assert drawn.count('class="level"') == 16
    assert "n = 7 weights" in drawn


def test_evenly_spaced_levels_stand_beside_nf4s_where_the_run_has_them(page):
    assert "rounding error 9.4 %, 10.7 % with evenly spaced ones" in words(page)


def test_code_and_adapter_are_linked_where_their_address_is_known(monkeypatch):
    context = context_of(ASSETS)
    run = context.store.run("smollm2-135m")
    space = "https://huggingface.co/spaces/me/it/tree/main"
    for given, space_id, address in (
        ("", "", None), ("", "me/it", space), ("https://git.example/it/", "me/it", "https://git.example/it"),
        ("javascript:alert(1)", "", None),
    ):  # fmt: skip
        monkeypatch.setenv("SENTIMENT_REPOSITORY", given)
        monkeypatch.setenv("SPACE_ID", space_id)
        links = re.findall(r'href="([^"]*)"[^>]*>(?:assets/runs|train\.py)', method_html(context, run))
        assert links == ([f"{address}/assets/runs/smollm2-135m", address] if address else [])


def test_commands_are_without_the_folders_of_the_machine_they_ran_on(page):
    commands = re.findall(r'<pre class="cmd">(.*?)</pre>', page)
    assert commands[0] == (
        "python train.py --run-id smollm2-135m --dataset imdb --exclude counterfactual_imdb_test.parquet"
    )
    assert len(commands) == len(set(commands)) > 2
    assert not any("--assets" in one or "--work" in one for one in commands)


def test_benchmarks_of_one_model_name_it_on_every_runs_page():
    context = context_of(ASSETS)
    told = words(method_html(context, context.store.run("qwen2.5-coder-1.5b-robust")))
    assert "Reviews of 200 words by smollm2-135m on" in told
    assert "By smollm2-135m in the same minutes on" in told


def test_memory_as_in_the_paper():
    full, ours = map(sum, zip(*method.memory_bytes(65e9, 64e9, 0.2e9).values(), strict=True))
    assert full == pytest.approx(780e9)
    assert ours < 48e9, "fits the 48 GB GPU of the paper"


def test_settings_equal_to_the_default_are_left_out(page):
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td></tr>', page)
    assert ("learning rate", "0.001", "0.0002") in rows
    assert not {"lora rank", "seed", "weight decay"} & {name for name, *_ in rows}
