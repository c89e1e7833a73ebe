"""A run's model card: its code loads the adapter without this program, its figures are the artifacts'."""

from __future__ import annotations

import re
import shutil

import pytest
from huggingface_hub import ModelCard
from scipy.special import expit, logit

import train
from sentiment_core.artifacts.store import read_eval, read_run, write_eval
from sentiment_core.config import EvalConfig
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.evaluation.runner import evaluate
from sentiment_core.models.base_models import EMBEDDED, published_as, resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.publishing.__main__ import main
from tests.own_reviews import write_dataset

REVIEW = "A film that moves."


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "own", train=120, test=40)


@pytest.fixture(scope="module")
def assets(tiny_model, dataset, tmp_path_factory):
    """Assets with one run, as train.py leaves them."""
    root = tmp_path_factory.mktemp("published")
    flags = {
        "dataset": dataset, "base-model": tiny_model, "run-id": "tiny", "validation": 40, "epochs": 1,
        "learning-rate": 4e-3, "max-length-tokens": 256, "assets": root / "assets", "work": root / "work",
    }  # fmt: skip
    assert train.main([f"--{name}={value}" for name, value in flags.items()]) == 0
    return root / "assets"


@pytest.fixture
def run(assets, tmp_path):
    shutil.copytree(assets, tmp_path / "assets")
    return read_run(tmp_path / "assets" / "runs" / "tiny")


def card(run) -> ModelCard:
    return ModelCard.load(run.adapter_path / "README.md")


def test_the_base_is_named_as_the_hub_knows_it(tiny_model):
    pinned = EMBEDDED["smollm2-135m"].hub_revision
    assert published_as(resolve(None)) == ("HuggingFaceTB/SmolLM2-135M-Instruct", pinned)
    assert published_as(resolve("org/model@v1")) == ("org/model", "v1")
    assert published_as(resolve(str(tiny_model))) == ("tiny-llama", None)


def test_the_cards_own_lines_load_what_was_trained(run, tiny_model, monkeypatch, tmp_path):
    [code] = re.findall("```python\n(.*?)```", card(run).text, re.DOTALL)
    (tmp_path / "tiny-llama").symlink_to(tiny_model)  # what the Hub is for a base that is there
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    loaded = load_base(resolve(str(tiny_model)))
    base = SentimentScorer(loaded)([REVIEW])
    ours = SentimentScorer(loaded, load_adapter(loaded.model, run.adapter_path))([REVIEW])
    assert abs(base - ours) > 0.01, "the adapter acts"
    temperature = run.record.temperature
    assert temperature != 1, "it was fitted"
    assert found["p_positive"] == pytest.approx(expit(logit(ours[0]) / temperature), abs=1e-3)


def test_the_card_tells_what_was_measured_of_this_training_alone(run, dataset, tiny_model, tmp_path, capsys):
    root = tmp_path / "assets"
    [validated] = card(run).data.eval_results
    assert validated.metric_value == round(run.record.validation_accuracy.value, 4)
    config = EvalConfig(run="tiny", dataset=str(dataset), base_model=str(tiny_model))
    [(record, _)] = evaluate(config, assets=root, work=tmp_path / "work")
    assert main(["--assets", str(root), "card", "tiny"]) == 0
    metric = record.metrics["accuracy"]
    [result] = [
        r for r in card(run).data.eval_results if (r.dataset_split, r.metric_type) == ("test", "accuracy")
    ]
    assert result.metric_value == round(metric.value, 4)
    assert f"({metric.low:.4f}–{metric.high:.4f}, n = 40)" in result.metric_name
    assert f"{result.metric_name} | {metric.value:.4f} |" in card(run).text

    older = read_eval(root / "evals" / record.eval_id)
    stale = older.record.model_copy(update={"created_at": run.record.created_at.replace(year=2020)})
    write_eval(older.path, stale, older.predictions())
    assert main(["--assets", str(root), "card", "tiny"]) == 0
    assert len(card(run).data.eval_results) == 1


def test_an_unfinished_run_has_no_card(run, tmp_path, capsys):
    (run.path / "run.json").unlink()
    assert main(["--assets", str(tmp_path / "assets"), "card", "tiny"]) == 2
    assert "tiny is not there or unfinished; train it, or go on with train.py" in capsys.readouterr().err
