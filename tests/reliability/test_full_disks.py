"""Full disks and read-only ones: one sentence, nothing half-made, and the next start mends it."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from safetensors.torch import save_file

import eval as evaluation
import train
from sentiment_core.artifacts.store import read_eval
from sentiment_core.live.weights import load_weights
from sentiment_core.models import base_models, tokens
from sentiment_core.models.base_models import EMBEDDED, BaseModelError, converted_folder, resolve
from sentiment_core.models.loading import load_tokenizer
from sentiment_core.training import checkpoints, session
from tests.conftest import make_tiny_model
from tests.own_reviews import write_dataset
from tests.small_disk import SmallDisk


@pytest.fixture
def disk(tmp_path):
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The tiny model, reviews, a run and its evaluation."""
    root = tmp_path_factory.mktemp("shared")
    make_tiny_model(root / "tiny-llama", hidden=32)
    write_dataset(root / "own", train=120, test=40)
    assert training(root, root, root / "work") == 0
    assert evaluating(root, root, root / "work") == 0
    return root


def flags(shared, assets, work):
    places = {"dataset": shared / "own", "base-model": shared / "tiny-llama", "assets": assets, "work": work}
    return [str(part) for name, place in places.items() for part in (f"--{name}", place)]


def training(shared, assets, work):
    given = "--run-id tiny --limit 48 --validation 20 --batch-size 16 --lora-rank 2 --epochs 1"
    return train.main([*flags(shared, assets, work), *given.split(), "--max-length-tokens", "128"])


def evaluating(shared, assets, work):
    return evaluation.main([*flags(shared, assets, work), "--run", str(shared / "runs" / "tiny")])


def made(work, assets):
    if work is training:
        return (assets / "runs" / "tiny" / "adapter" / "adapter_model.safetensors").read_bytes()
    [folder] = (assets / "evals").iterdir()
    return read_eval(folder).predictions().to_csv()


@pytest.mark.parametrize("where", ["assets", "work"])
@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("work", [training, evaluating])
def test_scripts_say_what_cannot_be_written_and_end_well_once_it_can(
    work, fault, where, shared, disk, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(session, "check_disk", lambda *given: None)  # as if it filled up only later
    places = {"assets": tmp_path / "assets", "work": tmp_path / "work", where: disk.folder / where}
    disk.fill(1024 if work is evaluating else 16384) if fault == "full" else disk.forbid()
    status = work(shared, *places.values())
    error = capsys.readouterr().err
    assert status == 2
    assert str(disk.folder) in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not [*tmp_path.rglob("run.json"), *tmp_path.rglob("eval.json")]
    assert all(map(checkpoints.is_whole, tmp_path.rglob("checkpoint-*")))
    disk.mend()
    assert work(shared, *places.values()) == 0
    assert made(work, places["assets"]) == made(work, shared)


def test_a_conversion_that_fills_the_disk_is_one_sentence_and_is_made_anew(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(base_models, "CACHE", disk.folder)
    (tmp_path / "own.gguf").write_bytes(b"own")
    monkeypatch.setenv("SENTIMENT_GGUF", str(tmp_path / "own.gguf"))
    known = {"sha256": hashlib.sha256(b"own").hexdigest(), "converted_bytes": 1}
    model = dataclasses.replace(EMBEDDED["smollm2-135m"], **known)

    def convert(gguf, folder):
        save_file({"weights": torch.zeros(300_000)}, folder / "model.safetensors")

    disk.fill(1_000_000)
    with pytest.raises(BaseModelError, match=r"cannot be written .* SENTIMENT_CACHE"):
        converted_folder(model, convert)
    assert not [path for path in (disk.folder / "base").iterdir() if path.is_dir()]
    disk.mend()
    assert base_models.is_intact(converted_folder(model, convert))


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_tokens_that_cannot_be_kept_cost_time_alone(fault, shared, disk, monkeypatch):
    monkeypatch.setattr(tokens, "CACHE", disk.folder)
    encoder = tokens.PromptEncoder(load_tokenizer(resolve(str(shared / "tiny-llama"))))
    disk.fill(8192) if fault == "full" else disk.forbid()
    texts = [f"Number {n} was good." for n in range(200)]
    first = encoder.encode_cached(texts, 256)
    assert not list(disk.folder.glob("tokens/*")), "half a file would keep the disk full"
    disk.mend()
    assert encoder.encode_cached(texts, 256).ids.tolist() == first.ids.tolist()
    assert len(list(disk.folder.glob("tokens/*"))) == 1


@pytest.mark.slow
def test_live_weights_that_fill_the_disk_are_one_sentence(shared, disk, monkeypatch):
    monkeypatch.setattr(base_models, "CACHE", disk.folder)
    base = resolve(str(shared / "tiny-llama"))
    encoder = tokens.PromptEncoder(load_tokenizer(base))
    disk.fill(8192)
    with pytest.raises(BaseModelError, match=r"could not be made \(.*free some space"):
        load_weights(base, shared / "runs" / "tiny" / "adapter", "fp32", encoder)
    assert not [path for path in (disk.folder / "live").iterdir() if path.is_dir()]
