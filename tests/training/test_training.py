"""Training on the tiny random model: it learns, resumes exactly, and every engine takes the same steps."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import TrainingArguments

import eval as eval_script
from sentiment_core.artifacts.store import list_artifacts, read_eval, read_history, read_run
from sentiment_core.config import PRESETS, ConfigError, TrainConfig, UserError, flag
from sentiment_core.data.reviews import split_train
from sentiment_core.engines.device import one_device
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.evaluation import predict
from sentiment_core.evaluation.systems.scored import DRAWS
from sentiment_core.metrics.histogram import BINS
from sentiment_core.models.base_models import SEAL, resolve, seal
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.systems import ENCODERS, SYSTEMS
from sentiment_core.training import session, trainer
from tests import own_reviews
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


def weights_of(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


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


@pytest.mark.parametrize(("early", "steps"), [(True, [0, 1, 2, 4, 6]), (False, [0, 2, 4, 6])])
def test_validation_stands_outside_the_training_clock(config, tmp_path, monkeypatch, early, steps):
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
    settings = short(config, engine="dequantized", micro_batch_size=16, early_validations=early)
    record, folder = session.train(settings, assets=tmp_path / "a", work=tmp_path / "w")
    history = read_history(folder)
    assert history.loc[history["eval_loss"].notna(), "step"].tolist() == steps
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


@pytest.mark.parametrize("engine", ["dequantized", "packed", "generic"])
def test_a_run_resumed_between_evaluations_ends_bit_for_bit_the_same(config, tmp_path, monkeypatch, engine):
    """And between two steps that are logged, each four steps here, so that a mean's first half is kept."""
    arguments = session.training_arguments

    def logging_each_four(*given):
        made = arguments(*given)
        made.logging_steps = 4
        return made

    monkeypatch.setattr(session, "training_arguments", logging_each_four)
    config = short(config, limit=192, engine=engine, micro_batch_size=8)
    whole, uninterrupted = session.train(config, assets=tmp_path / "whole", work=tmp_path / "w")

    def stop_at_seven(self, args, state, control, **kwargs):
        if state.global_step == 7:
            raise KeyboardInterrupt

    often = dataclasses.replace(config, checkpoint_minutes=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.History, "on_step_end", stop_at_seven)
        with pytest.raises(KeyboardInterrupt):
            session.train(often, assets=tmp_path, work=tmp_path / "work")
    unfinished = read_run(tmp_path / "runs" / "tiny")
    assert unfinished.record is None
    assert (tmp_path / "work" / "tiny" / "checkpoints" / "checkpoint-6").is_dir()
    parts, resumed = session.train(config, assets=tmp_path, work=tmp_path / "work", resume=True)
    assert weights_of(resumed) == weights_of(uninterrupted)
    pd.testing.assert_frame_equal(
        *(read_history(f).drop(columns="seconds") for f in (resumed, uninterrupted))
    )
    assert read_history(resumed)["loss"].count() == 3
    assert parts.validation_accuracy == whole.validation_accuracy
    assert parts.validation_loss == whole.validation_loss


def test_checkpoints_are_written_about_every_minute_and_few_are_kept(config, tmp_path, monkeypatch):
    now, saved = [0.0], []
    step, save = trainer.QLoraTrainer.training_step, trainer.QLoraTrainer._save_checkpoint

    def taking_25_seconds(self, *given):
        now[0] += 25
        return step(self, *given)

    def counted(self, *given):
        save(self, *given)
        saved.append((self.state.global_step, len(list((tmp_path / "work/tiny/checkpoints").iterdir()))))

    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trainer.QLoraTrainer, "training_step", taking_25_seconds)
    monkeypatch.setattr(trainer.QLoraTrainer, "_save_checkpoint", counted)
    settings = short(config, limit=192, evaluations_per_epoch=1, engine="dequantized", micro_batch_size=16)
    session.train(settings, assets=tmp_path, work=tmp_path / "work")
    assert saved == [(3, 1), (6, 2), (9, 2), (12, 2)]


def test_a_kill_while_a_checkpoint_is_written_costs_only_that_checkpoint(config, tmp_path, capsys):
    settings, work = short(config, engine="dequantized", micro_batch_size=16), tmp_path / "work"
    _, folder = session.train(settings, assets=tmp_path, work=work)
    weights, kept = folder / "adapter" / "adapter_model.safetensors", work / "tiny" / "checkpoints"
    undisturbed = weights.read_bytes()
    last = kept / "checkpoint-6"
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

    for file in set(last.iterdir()) - {last / SEAL}:
        content = file.read_bytes()
        for damaged in (content[:-1], bytes([*content[:-9], content[-9] ^ 1, *content[-8:]])):
            file.write_bytes(damaged)
            assert not session.is_whole(last), file
        file.write_bytes(content)
        assert session.is_whole(last), file
    for whole in kept.iterdir():
        (whole / "scheduler.pt").unlink()
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        session.train(settings, assets=tmp_path, work=work, resume=True)
    assert not list(kept.iterdir())


def test_a_checkpoint_is_whole_only_with_the_best_one(tmp_path):
    for step, best in ((4, 4), (6, 4)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        state.write_text(json.dumps({"best_global_step": best}))
        seal(state.parent)
    assert session.newest_whole(tmp_path, print) == tmp_path / "checkpoint-6"
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"best_global_step": 3}')
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        session.newest_whole(tmp_path, print)


def test_engines_and_micro_batches_take_the_same_steps(alone):
    ends = {}
    for engine, micro in itertools.product(("dequantized", "packed", "generic"), (16, 4)):
        record, folder = alone(engine, micro)
        assert record.engine == engine
        ends[f"{engine}-{micro}"] = (record.validation_loss, read_history(folder)["loss"].dropna().to_numpy())
    loss, curve = ends.pop("dequantized-4")
    for name, (other, points) in ends.items():
        assert other == pytest.approx(loss, rel=2e-3), name
        np.testing.assert_allclose(points, curve, rtol=5e-3, err_msg=name)


ROOT = Path(__file__).parents[2]


def flags_of(settings):
    given, default = dataclasses.asdict(settings), TrainConfig()
    changed = {name: value for name, value in given.items() if value != getattr(default, name)}
    return [part for name, value in changed.items() for part in (flag(name), str(value))]


def start(launcher, asked, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, str(Path(__file__).with_name("launched.py")), json.dumps(asked)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def same_history(folder, expected):
    found, expected = read_history(folder), read_history(expected)
    for column in ("loss", "grad_norm", "eval_loss"):
        np.testing.assert_allclose(found[column].dropna(), expected[column].dropna(), rtol=2e-3)


def check_halves(*files):
    shares = [json.loads(file.read_text()) for file in files]
    assert [len(share) for share in shares] == [48, 48]
    assert sorted(itertools.chain(*shares)) == list(range(96))


@pytest.mark.slow
def test_accelerate_starts_two_processes_that_train_and_predict_as_one(config, alone, tmp_path, monkeypatch):
    """Two engines, one after the other in the same two, the third on two hosts below; then they share a file
    of texts."""
    runs, engines = [], ("packed", "generic")
    for engine in engines:
        places = ["--assets", str(tmp_path / engine), "--work", str(tmp_path / f"w-{engine}")]
        runs.insert(0, [*flags_of(short(config, engine=engine, micro_batch_size=4)), *places])
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    own_reviews.frame(28, seed=3).drop(columns="label").to_csv(texts := tmp_path / "texts.csv")
    one, two = (["--output", str(tmp_path / name)] for name in ("one.parquet", "two.parquet"))
    # by the run that is trained first, whose record is there when the other one begins
    score = ["--run", "tiny", "--base-model", config.base_model, *places, "--predict", str(texts)]
    launched = start(launcher, {"train": runs, "predict": [*score, *two], "shares": str(tmp_path)})
    said, error = launched.communicate(timeout=600)
    assert launched.returncode == 0, error[-2000:]
    assert error.count("fp32, 2 × ") == 2
    for engine in engines:
        check_halves(*(tmp_path / f"w-{engine}-{rank}.json" for rank in (0, 1)))
        same_history(tmp_path / engine / "runs" / "tiny", alone(engine, 4)[1])
    assert said.endswith(f"28 rows, {two[1]}\n")
    assert said.count("28 rows") == 1
    shares = [(tmp_path / f"predicted-{rank}").read_text().split() for rank in (0, 1)]
    assert shares == [["8", "8"], ["8", "4"]]
    monkeypatch.setattr(predict, "ROWS", {"cpu": 8})
    assert eval_script.main([*score, *one]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(two[1]), pd.read_parquet(one[1]), atol=1e-5)


@pytest.mark.slow
def test_two_hosts_that_share_no_folder_train_resume_and_evaluate_as_one(config, alone, dataset, tmp_path):
    """Two nodes of one process each; the stopped run's checkpoints lie on the first host alone."""
    settings = short(config, engine="dequantized", micro_batch_size=4)
    _, one = alone("dequantized", 4)
    score = ["--run", "whole", "--system", "all", "--dataset", str(dataset), "--limit", "24"]
    score += ["--train-dataset", str(dataset), "--base-model", config.base_model, "--max-new-tokens", "2"]
    shutil.copytree(one, tmp_path / "one" / "runs" / "whole")
    record = tmp_path / "one" / "runs" / "whole" / "run.json"
    record.write_text(record.read_text().replace('"run_id": "tiny"', '"run_id": "whole"'))
    hosts = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for rank in ("0", "1"):
        shutil.copytree(tmp_path / "one", tmp_path / rank)
        places = ["--assets", str(tmp_path / rank), "--work", str(tmp_path / f"work-{rank}")]
        runs = [[*flags_of(settings), "--checkpoint-minutes", "1e-6", *places]]
        asked = {"train": runs, "stop": True, "eval": [*score, *places], "shares": str(tmp_path)}
        launcher = ("torch.distributed.run", "--nnodes", "2", "--node-rank", rank, "--nproc-per-node", "1")
        launcher += ("--master-addr", "127.0.0.1", "--master-port", port)
        hosts.append(start(launcher, asked, SENTIMENT_CACHE=str(tmp_path / f"cache-{rank}")))
    errors = [host.communicate(timeout=600)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(error[-2000:] for error in errors)
    same_history(tmp_path / "0" / "runs" / "tiny", one)
    check_halves(*(tmp_path / f"work-{rank}-{rank}.json" for rank in (0, 1)))
    assert not (tmp_path / "1" / "runs" / "tiny").exists(), "the main process alone writes artifacts"
    alone_places = ["--assets", str(tmp_path / "one"), "--work", str(tmp_path / "work-one")]
    assert eval_script.main([*score, *alone_places]) == 0
    expected = {one.record.eval_id: one for one in list_artifacts(tmp_path / "one").evals}
    assert len(expected) == len(SYSTEMS) - len(ENCODERS)
    for eval_id, evaluation in expected.items():
        alone_does_it = evaluation.record.base_model is None
        parts = [(tmp_path / f"work-{rank}" / "evals" / eval_id).rglob("*.npz") for rank in (0, 1)]
        sizes = [sum(len(np.load(part)["rows"]) for part in share) for share in parts]
        rows = 24 * (DRAWS if "few-shot" in eval_id else 1)
        assert sizes == ([rows, 0] if alone_does_it else [rows // 2] * 2), eval_id
        found = read_eval(tmp_path / "0" / "evals" / eval_id).predictions()
        pd.testing.assert_frame_equal(found, evaluation.predictions(), atol=1e-5)
    for rank in (0, 1):
        assert list((tmp_path / f"cache-{rank}" / "tokens").iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"learning_rate": 1e30, "max_grad_norm": 0}, UserError,
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
