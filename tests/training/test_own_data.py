"""A CSV of somebody's own from train.py through eval.py, and the run repeated from its record."""

import json
from pathlib import Path

import pandas as pd
import pytest

import eval as evaluation
import train
from sentiment_core import config
from sentiment_core.artifacts.store import read_eval, read_run
from sentiment_core.cli import from_flags
from sentiment_core.config import TrainConfig
from sentiment_core.engines.device import find_device
from sentiment_core.training import session
from tests import own_reviews

MEANS = "1=negative,2=negative,5=positive"
COLUMNS = ["--text-column", "body", "--label-column", "stars", "--label-map", MEANS]
NAME = f"products.csv?text_column=body&label_column=stars&label_map={MEANS}"


def product_reviews() -> pd.DataFrame:
    """With a column "text" that is no review, and stars for labels."""
    reviews = own_reviews.frame(260, seed=3)
    stars = [5 if label else 1 + row % 2 for row, label in enumerate(reviews["label"])]
    return pd.DataFrame({
        "text": "verified purchase", "body": reviews["text"], "stars": stars, "product": "kettle",
        "split": ["train"] * 220 + ["test"] * 40,
    })  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model):
    """A folder with a trained run, its data beside it."""
    home = tmp_path_factory.mktemp("home")
    product_reviews().to_csv(home / "products.csv", index=False)
    flags = ["--dataset", str(home / "products.csv"), *COLUMNS, "--base-model", str(tiny_model)]
    flags += ["--run-id", "products", "--validation", "40", "--epochs", "1", "--batch-size", "16"]
    flags += ["--learning-rate", "4e-3", "--max-length-tokens", "256", "--lora-rank", "4"]
    assert train.main([*flags, "--assets", str(home / "assets"), "--work", str(home / "work")]) == 0
    return home


@pytest.fixture
def there(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def test_stars_in_a_csv_train_and_evaluate(there, tiny_model):
    record = read_run(there / "assets" / "runs" / "products").record
    assert (record.data.source, record.config["dataset"]) == (NAME, NAME), "and no folder of this machine"
    assert (record.data.train, record.data.validation) == (180, 40)
    for system, flags in (("fine-tuned", COLUMNS), ("tfidf-logreg", ["--text-column", "body", *COLUMNS[2:]])):
        given = ["--dataset", "products.csv", *flags, "--run", "products", "--base-model", str(tiny_model)]
        assert evaluation.main([*given, "--system", system, "--assets", "assets", "--work", "work"]) == 0
    tested = read_eval(there / "assets" / "evals" / "products--fine-tuned--products").record
    assert (tested.dataset.n, tested.dataset.source) == (40, NAME)
    card = (there / "assets" / "runs" / "products" / "adapter" / "README.md").read_text()
    assert "type: products.csv\n" in card, "a name that the Hub takes"
    learned = read_eval(there / "assets" / "evals" / "products--tfidf-logreg--products").record
    assert learned.metrics["accuracy"].value > 0.9, "it found the run's train rows by their columns"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--text-column", "review"], "has no column 'review' (found: text, body, stars, product, split)"),
        (["--text-column", "body", "--label-column", "stars"], "positive, or --label-map"),
        ([*COLUMNS[:4], "--label-map", "5=positive,2=negative"], "unknown label '1 (not in --label-map)'"),
        (["--label-map", "1=bad"], "--label-map 1=bad: unknown label 'bad'; use 0/1, neg/pos or"),
        (["--label-map", "1"], "--label-map 1: unknown label ''; use"),
        (["--dataset", "products.csv?txt=body"], "products.csv?txt=body says txt of its columns; use text_"),
        (["--dataset-config", "en"], "--dataset-config en: products.csv is not the Hub's; leave"),
        (["--config", "nowhere.json"], "nowhere.json is not there; give the run.json of a finished run"),
    ],
)
def test_columns_and_records_that_are_not_there_are_one_sentence(there, flags, words, capsys):
    given = ["--dataset", "products.csv", *flags, "--assets", "a", "--work", "w", "--validation", "9"]
    assert train.main(given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_run_is_repeated_from_its_record_to_the_same_adapter(there, tiny_model, capsys):
    path = there / "assets" / "runs" / "products" / "run.json"
    content = json.loads(path.read_text())
    content["versions"]["torch"], content["hardware"]["device"] = "1.0", "Abacus"
    (there / "old.json").write_text(json.dumps(content))
    # a folder's name alone is on record
    flags = ["--config", "old.json", "--base-model", str(tiny_model), "--assets", "assets", "--work", "work"]
    assert train.main(flags) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Repeats")]
    assert "products (accuracy there" in said
    assert "differs in: hardware Abacus → " in said
    assert "torch 1.0 → " in said
    assert "transformers" not in said
    again = there / "assets" / "runs" / "products-repeat"
    assert read_run(again).record.config == content["config"] | {"run_id": "products-repeat"}
    weights = Path("adapter", "adapter_model.safetensors")
    assert (again / weights).read_bytes() == (path.parent / weights).read_bytes()


def test_flags_besides_a_record_win_and_its_columns_stay(there):
    path = there / "assets" / "runs" / "products" / "run.json"
    given = vars(train.parser().parse_args(["--config", str(path), "--dataset", "x.csv", "--epochs", "3"]))
    settings, record = train.settings(given)
    assert settings.dataset == NAME.replace("products", "x")
    assert (settings.epochs, settings.lora_rank, settings.name) == (3, 4, "products-repeat")
    assert record.run_id == "products"
    content = json.loads(path.read_text())
    content["config"]["colour"] = "red"
    (there / "new.json").write_text(json.dumps(content))
    with pytest.raises(config.ConfigError, match=r"new\.json sets colour, unknown here"):
        session.settings_of(there / "new.json")


def test_committed_runs_repeat_with_what_a_stranger_can_get():
    assets = Path(train.__file__).parent / "assets"
    settings = from_flags(TrainConfig, {}, session.settings_of(assets / "runs" / "smollm2-135m-study")[0])
    assert (settings.preset, settings.precision, settings.batch_size) == ("study", "fp16", 16)
    assert settings.exclude == ("counterfactual_imdb_test.parquet",)
    assert settings.dataset == "imdb"


def test_reports_go_to_the_trainer_or_say_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: None)
    assert train.main(["--report-to", "wandb"]) == 2
    assert (
        "--report-to wandb: the package wandb is not installed; pip install wandb" in capsys.readouterr().err
    )
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda name: name)
    arguments = session.training_arguments(TrainConfig(report_to="trackio"), find_device(), tmp_path, 10, 1)
    assert (arguments.report_to, arguments.run_name) == (["trackio"], "smollm2-135m")
    assert session.training_arguments(TrainConfig(), find_device(), tmp_path, 10, 1).report_to == []
