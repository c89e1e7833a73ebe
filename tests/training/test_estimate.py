"""What a training is said to take, against what the committed runs took."""

from dataclasses import replace

import huggingface_hub
import pytest

import train
from sentiment_core.artifacts.store import list_artifacts
from sentiment_core.config import ASSETS, TrainConfig
from sentiment_core.training import estimate

RECORDS = {run.run_id: run.record for run in list_artifacts(ASSETS).runs if run.record}


@pytest.mark.parametrize("name", RECORDS)
def test_a_committed_run_is_estimated_from_another_base_within_the_stated_factor(name: str) -> None:
    wanted = RECORDS[name]
    others = [one for one in RECORDS.values() if one.base_model.name != wanted.base_model.name]
    asked = TrainConfig(
        micro_batch_size=wanted.config["micro_batch_size"], batch_size=wanted.config["batch_size"]
    )
    at_once = asked.micro_batch_size or asked.batch_size
    if not any(estimate._at_once(one.config) == at_once for one in others):
        pytest.skip("no other base was trained with passes of as many reviews")
    smallest = min(others, key=lambda one: one.base_model.parameters)
    near, _ = estimate.nearest(replace(asked, base_model=smallest.base_model.name), others)
    size = wanted.base_model.parameters / near.base_model.parameters
    whole = round(wanted.tokens_per_second / wanted.reviews_per_second * at_once)  # tokens of its pass
    seconds, needed = estimate.scaled(near, replace(asked, max_length_tokens=whole), size, "H200")
    assert 1 / 3 < seconds * wanted.reviews_per_second < 3
    assert 1 / 1.5 < needed / wanted.peak_memory_bytes < 1.5


def test_time_and_memory_are_told_and_nothing_starts(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--estimate", "l4", "--base-model", "qwen2.5-coder-1.5b", "--limit", "5000"]) == 0
    told = capsys.readouterr().out
    assert "qwen2.5-coder-1.5b on one L4: about" in told
    assert "5,000 reviews × 2" in told
    assert "so it fits" in told
    assert train.main(["--estimate", "T4", "--base-model", "qwen2.5-coder-1.5b", "--preset", "study"]) == 0
    assert "Scaled from qwen2.5-coder-1.5b" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_estimated_is_one_sentence(tmp_path, capsys, monkeypatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "model_info", gone)
    for flags, said in {
        ("Voodoo2",): "one of T4, V100",
        ("T4", "--assets", str(tmp_path)): "a finished run on one of these",
        ("T4", "--base-model", "you/unknown"): "the size of 'you/unknown' is not known (offline)",
    }.items():
        assert train.main(["--estimate", *flags]) == 2
        assert said in capsys.readouterr().err
