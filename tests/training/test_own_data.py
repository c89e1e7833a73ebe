"""A CSV of somebody's own from train.py through eval.py."""

from __future__ import annotations

import pandas as pd
import pytest

import eval as evaluation
import train
from sentiment_core.artifacts.store import read_eval, read_run
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
    ],
)
def test_columns_and_records_that_are_not_there_are_one_sentence(there, flags, words, capsys):
    given = ["--dataset", "products.csv", *flags, "--assets", "a", "--work", "w", "--validation", "9"]
    assert train.main(given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
