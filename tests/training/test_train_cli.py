"""train.py at the command line: quick help, one clear sentence for what cannot be."""

import pytest
import torch

import train
from sentiment_core.config import ConfigError, TrainConfig
from sentiment_core.training import session
from tests.own_reviews import write_dataset


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batch-size", "10", "--micro-batch-size", "4"], "--micro-batch-size 4 does not divide"),
        (["--epochs", "0"], "--epochs is 0; it must be at least 1"),
        (["--lora-dropout", "1"], "--lora-dropout is 1.0; it must be from 0 up to, not including, 1"),
        (["--weight-decay", "-1"], "--weight-decay is -1.0; it cannot be negative"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0; it must be above 0"),
        (["--engine", "packed", "--lora-dropout", "0.1"], "--engine packed has no dropout"),
        (["--run-id", "../elsewhere"], "--run-id '../elsewhere' must be"),
        (["--run-id", "one", "--teacher", "one"], "--teacher 'one' is the run itself"),
        (["--max-length-tokens", "10"], "--max-length-tokens is 10"),
        (["--limit", "1"], "--limit is 1"),
        (["--dataset", "nowhere.csv"], "nowhere.csv"),
        (["--base-model", "nowhere/at-all", "--dataset", "{data}"], "'nowhere/at-all' is neither in"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags, sentence, tmp_path, capsys):
    data = write_dataset(tmp_path / "data", train=60, test=10)
    flags = [flag.replace("{data}", str(data)) for flag in flags]
    flags += ["--validation", "10", "--assets", str(tmp_path / "a"), "--work", str(tmp_path)]
    assert train.main(flags) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("run.json"))


def failing(monkeypatch, error: BaseException) -> None:
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(session, "train", fail)


def test_out_of_memory_names_three_settings_and_ctrl_c_how_to_go_on(capsys, monkeypatch):
    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    assert train.main([]) == 2
    error = capsys.readouterr().err
    for setting in ("--micro-batch-size", "--max-length-tokens", "--gradient-checkpointing"):
        assert setting in error
    failing(monkeypatch, KeyboardInterrupt())
    assert train.main([]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_made_a_sentence(monkeypatch):
    failing(monkeypatch, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        train.main([])


@pytest.mark.parametrize("wrong", [{"epochs": "two"}, {"dataset": None}, {"learning_rate": "1e-3"}])
def test_a_setting_of_another_type_is_said(wrong) -> None:
    """As an edited run.json, given to --config, may have one."""
    with pytest.raises(ConfigError, match=r"^--[a-z-]+ is .*; it must be of type (int|str|float)$"):
        TrainConfig(**wrong)
