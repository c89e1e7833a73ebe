"""Artifacts of strangers or failing disks: each bad file is named once with a remedy, the rest is shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sentiment_core.config import ASSETS
from sentiment_core.dashboard.store import Store
from tests.fake_artifacts import RUN, write_eval, write_run

Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nested(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000 + "\n")


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    os.replace(path, elsewhere)
    path.symlink_to(elsewhere)


ANY_FILE: dict[str, Damage] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "nested": nested,
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00{"),
    "a link to elsewhere": linked,
    "two gigabytes": lambda path: os.truncate(path, 2_000_000_000),
}


def field(name: str, value: object) -> Damage:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


RECORD: dict[str, Damage] = {
    "NaN": field("wall_seconds", float("nan")),
    "a wrong type": field("metrics", ["accuracy"]),
    "an unknown field": field("colour", "red"),
    "a newer schema": field("schema_version", 99),
}


def column(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    return lambda path: change(pd.read_parquet(path)).to_parquet(path)


PREDICTIONS: dict[str, Damage] = {
    "labels of 7": column(lambda f: f.assign(label=7)),
    "labels missing": column(lambda f: f.assign(label=None)),
    "labels flipped": column(lambda f: f.assign(label=1 - f["label"])),
    "labels in words": column(lambda f: f.assign(label="positive")),
    "probabilities in words": column(lambda f: f.assign(p_positive="high")),
    "probabilities above 1": column(lambda f: f.assign(p_positive=1.5)),
    "lists": column(lambda f: f.assign(prediction=[[1]] * len(f))),
    "doubled": column(lambda f: pd.concat([f, f])),
    "shuffled": column(lambda f: f.iloc[::-1]),
    "a column less": column(lambda f: f.drop(columns="tokens")),
}

CASES = [
    *((name, what, damage) for name in ("run.json", "eval.json") for what, damage in RECORD.items()),
    *(
        (name, what, damage)
        for name in ("run.json", "eval.json", "history.jsonl", "predictions.parquet")
        for what, damage in ANY_FILE.items()
        if (name, what) != ("history.jsonl", "cut")  # a row that is still being written
    ),
    *(("predictions.parquet", what, damage) for what, damage in PREDICTIONS.items()),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("references.json", "sample_reviews.jsonl"):
        shutil.copy(ASSETS / name, tmp_path)
    for run in (RUN, "other"):
        write_run(tmp_path, run)
    for system in ("fine-tuned", "baseline-scored"):
        write_eval(tmp_path, system, "imdb", 40, run_id=RUN)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "what", "damage"), [c for c in CASES if c[:2] != ("history.jsonl", "empty")]
)
def test_a_damaged_file_is_named_once_with_a_remedy_and_the_rest_is_there(
    name: str, what: str, damage: Damage, root: Path
) -> None:
    (path,) = {*root.glob(f"runs/{RUN}/{name}"), *root.glob(f"evals/*fine-tuned*/{name}")}
    damage(path)
    store = Store(root)
    (problem,) = store.problems()
    assert str(path) in problem.message
    assert any(
        remedy in problem.message for remedy in ("again", "train", "put the file", "update the program")
    )
    assert "Traceback" not in problem.message
    assert store.run("other").run_id == "other"
    assert "baseline-scored" in store.evals(None, "imdb")


def test_a_mended_file_is_read_again(root: Path) -> None:
    (path,) = root.glob("evals/*fine-tuned*/predictions.parquet")
    whole = path.read_bytes()
    cut(path)
    store = Store(root)
    assert store.problems()
    path.write_bytes(whole)
    assert not store.problems()
    assert "fine-tuned" in store.evals(store.run(RUN), "imdb")
