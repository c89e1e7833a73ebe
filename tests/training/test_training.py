"""Training on the tiny random model: it learns, resumes exactly, and every engine takes the same steps."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from sentiment_core.artifacts.store import read_history, read_run
from sentiment_core.config import PRESETS, ConfigError, TrainConfig, flag
from sentiment_core.data.reviews import split_train
from sentiment_core.engines.device import one_device
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.metrics.histogram import BINS
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.training import session, trainer
from tests.own_reviews import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module")
def config(tiny_model, dataset):
    return TrainConfig(
        dataset=str(dataset), base_model=str(tiny_model), run_id="tiny", validation=80, epochs=3,
        batch_size=16, learning_rate=4e-3, evaluations_per_epoch=1, max_length_tokens=256, lora_rank=8,
    )  # fmt: skip


def short(config, **changes):
    return dataclasses.replace(
        config, **({"epochs": 1, "limit": 96, "validation": 40, "evaluations_per_epoch": 3} | changes)
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """A whole run in one process, by engine and micro-batch; what several tests compare with is made once."""

    @functools.cache
    def train(engine, micro):
        root = tmp_path_factory.mktemp(f"{engine}-{micro}")
        settings = short(config, engine=engine, micro_batch_size=micro)
        return session.train(settings, assets=root / "assets", work=root / "work")

    return train


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    record, folder = session.train(config, assets=root / "assets", work=root / "work")
    return record, folder


def test_the_tiny_model_learns(trained):
    record, folder = trained
    assert record.validation_accuracy.value > 0.95
    assert read_run(folder).record == record
    history = read_history(folder)
    assert history["step"].iloc[0] == 0
    assert history["eval_accuracy"].iloc[0] < 0.8, "the first line is the model before training"
    assert history["examples"].max() == record.data.train * 3
    steps = record.steps
    checks = history[history["eval_accuracy"].notna()]
    powers = {2**k for k in range(steps.bit_length())}
    assert checks["step"].tolist() == sorted({0, *powers, *(round(steps * k / 3) for k in range(1, 4))})
    for row in checks.itertuples():
        counts = np.array(row.eval_counts)
        assert counts.shape == (2, BINS)
        assert counts.sum() == record.data.validation == 80
        assert counts[:, BINS // 2 :].sum() == pytest.approx(80 * row.eval_share_positive)
        right = counts[0, : BINS // 2].sum() + counts[1, BINS // 2 :].sum()
        assert right == pytest.approx(80 * row.eval_accuracy)
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert names == {"run.json", "history.jsonl", "adapter_model.safetensors", "adapter_config.json"}
    for name in ("run.json", "adapter/adapter_config.json"):
        assert str(folder.anchor + "tmp") not in (folder / name).read_text()


def test_validation_stands_outside_the_training_clock(config, tmp_path, monkeypatch):
    now = [0.0]

    def taking(seconds, method):
        def wrapped(*args, **kwargs):
            now[0] += seconds
            return method(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    for kind, name, cost in (
        (SentimentScorer, "log_likelihoods", 20.0),
        (trainer.QLoraTrainer, "training_step", 1.0),
    ):
        monkeypatch.setattr(kind, name, taking(cost, getattr(kind, name)))
    settings = short(config, engine="dequantized", micro_batch_size=16)
    record, folder = session.train(settings, assets=tmp_path / "a", work=tmp_path / "w")
    history = read_history(folder)
    assert (history["seconds"] == history["step"]).all()
    assert (record.wall_seconds, record.warmup_seconds) == (record.steps, 20.0)
    validated = 20.0 * history["eval_loss"].notna().sum()
    assert record.validation_seconds == validated, "all but the first, and the saved adapter"
    assert f"{validated:.1f} s validation" in session.describe(record, folder)


def test_the_saved_adapter_gives_the_validated_probabilities(trained, config):
    record, folder = trained
    loaded = load_base(resolve(config.base_model))
    scorer = SentimentScorer(loaded, load_adapter(loaded.model, folder / "adapter"))
    held = split_train(config.dataset, validation=80, seed=config.seed).validation
    right = (scorer(held.texts, config.max_length_tokens) > 0.5) == held.labels
    assert right.mean() == pytest.approx(record.validation_accuracy.value)
    again = load_base(resolve(config.base_model))
    second = SentimentScorer(again, load_adapter(again.model, folder / "adapter"))
    np.testing.assert_array_equal(second(held.texts), scorer(held.texts))


@pytest.mark.parametrize("engine", ["dequantized", "packed"])
def test_a_stopped_run_resumes_to_the_same_end(config, alone, tmp_path, monkeypatch, engine):
    config = short(config, engine=engine, micro_batch_size=4)
    _, uninterrupted = alone(engine, 4)

    def stop_at_four(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.History, "on_step_end", stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            session.train(config, assets=tmp_path, work=tmp_path / "work")
    unfinished = read_run(tmp_path / "runs" / "tiny")
    assert unfinished.record is None
    assert read_history(unfinished.path)["step"].max() >= 3
    session.train(config, assets=tmp_path, work=tmp_path / "work", resume=True)

    sides = (uninterrupted, unfinished.path)
    whole, parts = map(adapter, sides)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    steps = list(map(read_history, sides))
    assert steps[0]["step"].tolist() == steps[1]["step"].tolist()
    assert steps[1].loc[steps[1]["eval_loss"].notna(), "step"].tolist() == [0, 1, 2, 4, 6]
    np.testing.assert_allclose(steps[0]["loss"].dropna(), steps[1]["loss"].dropna(), rtol=1e-3)


def test_a_kill_while_a_checkpoint_is_written_costs_only_that_checkpoint(config, tmp_path, capsys):
    settings, work = short(config, engine="dequantized", micro_batch_size=16), tmp_path / "work"
    _, folder = session.train(settings, assets=tmp_path, work=work)
    weights, checkpoints = folder / "adapter" / "adapter_model.safetensors", work / "tiny" / "checkpoints"
    undisturbed = weights.read_bytes()
    last = checkpoints / "checkpoint-6"
    for damage in (
        lambda: (last / "trainer_state.json").unlink(),
        lambda: os.truncate(last / "optimizer.pt", 1000),
        lambda: os.truncate(last / "adapter_model.safetensors", 1000),
    ):
        damage()
        weights.unlink()
        session.train(settings, assets=tmp_path, work=work, resume=True)
        assert weights.read_bytes() == undisturbed
        assert "checkpoint-6 was not written to its end" in capsys.readouterr().err

    for whole in checkpoints.iterdir():
        (whole / "scheduler.pt").unlink()
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        session.train(settings, assets=tmp_path, work=work, resume=True)
    assert not list(checkpoints.iterdir())


def test_engines_and_micro_batches_take_the_same_steps(alone):
    ends = {}
    for engine, micro in (("dequantized", 16), ("dequantized", 4), ("packed", 16), ("packed", 4)):
        record, folder = alone(engine, micro)
        assert record.engine == engine
        ends[f"{engine}-{micro}"] = (record.validation_loss, read_history(folder)["loss"].dropna().to_numpy())
    loss, curve = ends.pop("dequantized-4")
    for name, (other, points) in ends.items():
        assert other == pytest.approx(loss, rel=2e-3), name
        np.testing.assert_allclose(points, curve, rtol=5e-3, err_msg=name)


TWO = """
import json, os, sys, torch, train
for flags in json.loads(sys.argv[1]):
    assert train.main(flags) == 0
    assert torch.distributed.get_world_size() == int(os.environ["WORLD_SIZE"]) == 2
"""


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(config, alone, tmp_path):
    """With each engine, one after the other in the same two."""
    runs = []
    for engine in ("dequantized", "packed"):
        settings = dataclasses.asdict(short(config, engine=engine, micro_batch_size=4))
        given = {k: v for k, v in settings.items() if v != getattr(TrainConfig(), k)}
        flags = [part for name, value in given.items() for part in (flag(name), str(value))]
        runs.append([*flags, "--assets", str(tmp_path / engine), "--work", str(tmp_path / f"w-{engine}")])
    script = tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, script, json.dumps(runs)],
        cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("fp32, 2 × ") == 2
    for engine in ("dequantized", "packed"):
        together = read_history(tmp_path / engine / "runs" / "tiny")
        expected = read_history(alone(engine, 4)[1])
        for column in ("loss", "grad_norm", "eval_loss"):
            np.testing.assert_allclose(together[column].dropna(), expected[column].dropna(), rtol=2e-3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"learning_rate": 1e30, "max_grad_norm": 0}, trainer.DivergedError,
         r"the loss is nan at step \d+; use --precision"),
        ({"engine": "nf4"}, ConfigError, "--engine nf4 needs a GPU"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_go_on_ends_with_a_sentence(config, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        session.train(short(config, **changes), assets=tmp_path, work=tmp_path / "work")
    assert not (tmp_path / "runs" / "tiny" / "run.json").exists()


def test_one_process_never_spreads_its_model_over_the_gpus_it_sees(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    _ = arguments.device
    arguments._n_gpu = 2
    assert one_device(arguments).n_gpu == 1


def test_a_finished_run_is_not_overwritten_unasked_nor_resumed_with_other_settings(config, trained):
    _, folder = trained
    before = (folder / "run.json").read_text()
    with pytest.raises(ConfigError, match="exists"):
        session.train(config, assets=folder.parents[1], work=folder.parents[2] / "other")
    assert (folder / "run.json").read_text() == before
    settings = json.loads((folder.parents[2] / "work" / "tiny" / "settings.json").read_text())
    assert set(settings) == {f.name for f in dataclasses.fields(TrainConfig)}
    with pytest.raises(ConfigError, match=r"--learning-rate is 0\.02, the run began with 0\.004"):
        session.train(
            dataclasses.replace(config, learning_rate=0.02), assets=folder.parents[1],
            work=folder.parents[2] / "work", resume=True,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="no checkpoint"):
        session.train(config, assets=folder.parents[1], work=folder.parents[2] / "none", resume=True)


def test_study_preset_is_the_studys_protocol():
    study = TrainConfig(**PRESETS["study"])
    assert (study.batch_size, study.micro_batch_size, study.learning_rate) == (16, 4, 2e-4)
    assert (study.epochs, study.precision, study.evaluations_per_epoch) == (1, "fp16", 1)
