"""Full disks and read-only ones: one sentence, nothing half-made, and the next start mends it."""

from __future__ import annotations

import dataclasses
import hashlib
import resource
import subprocess
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import eval as evaluation
import train
from sentiment_core.artifacts.store import read_eval
from sentiment_core.live import weights
from sentiment_core.models import base_models, tokens
from sentiment_core.models.base_models import EMBEDDED, BaseModelError, converted_folder, resolve
from sentiment_core.models.loading import load_tokenizer
from sentiment_core.training import session
from tests.conftest import make_tiny_model
from tests.live.test_classifier import IN_CHILD
from tests.own_reviews import write_dataset


class SmallDisk:
    """A tmpfs of 8 MB; where one may not mount, bounds on this process's files and on the folder's rights."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.unlimited = folder, resource.getrlimit(resource.RLIMIT_FSIZE)
        self.mounted = self.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs")

    def mount(self, *options):
        return not subprocess.run(["mount", *options, str(self.folder)], capture_output=True).returncode

    def harm(self, fault, left):
        """Make it "read-only", or "full" but for so many bytes."""
        if fault == "read-only" and not (self.mounted and self.mount("-o", "remount,ro")):
            self.folder.chmod(0o500)
        elif fault == "full" and self.mounted:
            (self.folder / "ballast").write_bytes(bytes(8 * 2**20 - left))
        elif fault == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, self.unlimited[1]))

    def mend(self):
        if self.mounted:
            self.mount("-o", "remount,rw")
        self.folder.chmod(0o700)
        resource.setrlimit(resource.RLIMIT_FSIZE, self.unlimited)
        (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A cache, too."""
    made = SmallDisk(tmp_path / "disk")
    monkeypatch.setattr(base_models, "CACHE", made.folder)
    monkeypatch.setattr(tokens, "CACHE", made.folder)
    yield made
    made.mend()
    if made.mounted:
        subprocess.run(["umount", "-l", str(made.folder)], check=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The tiny model, reviews, a run and its evaluation."""
    root = tmp_path_factory.mktemp("shared")
    make_tiny_model(root / "tiny-llama", hidden=32)
    write_dataset(root / "own", train=120, test=40)
    assert training(root, root, root / "work") == evaluating(root, root, root / "work") == 0
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


def folders(place):
    return [path for path in place.iterdir() if path.is_dir()]


@pytest.mark.parametrize("where", ["assets", "work"])
@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("work", [training, evaluating])
def test_scripts_say_what_cannot_be_written_and_end_well_once_it_can(
    work, fault, where, shared, disk, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(session, "check_disk", lambda *given: None)  # as if it filled up only later
    places = {"assets": tmp_path / "assets", "work": tmp_path / "work", where: disk.folder / where}
    disk.harm(fault, left=16384 if work is training else 1024)
    status, error = work(shared, *places.values()), capsys.readouterr().err
    assert status == 2
    assert str(disk.folder / where) in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not [*tmp_path.rglob("run.json"), *tmp_path.rglob("eval.json")]
    assert all(map(session.is_whole, tmp_path.rglob("checkpoint-*")))
    disk.mend()
    assert work(shared, *places.values()) == 0
    assert made(work, places["assets"]) == made(work, shared)


def test_a_conversion_that_fills_the_disk_is_one_sentence_and_is_made_anew(disk, tmp_path, monkeypatch):
    (tmp_path / "own.gguf").write_bytes(b"own")
    monkeypatch.setenv("SENTIMENT_GGUF", str(tmp_path / "own.gguf"))
    known = {"sha256": hashlib.sha256(b"own").hexdigest(), "converted_bytes": 1}
    model = dataclasses.replace(EMBEDDED["smollm2-135m"], **known)

    def convert(gguf, folder):
        save_file({"weights": torch.zeros(300_000)}, folder / "model.safetensors")

    disk.harm("full", left=1_000_000)
    with pytest.raises(BaseModelError, match=r"cannot be written .* SENTIMENT_CACHE"):
        converted_folder(model, convert)
    assert not folders(disk.folder / "base")
    disk.mend()
    assert base_models.is_intact(converted_folder(model, convert))


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_tokens_that_cannot_be_kept_cost_time_alone(fault, shared, disk):
    encoder = tokens.PromptEncoder(load_tokenizer(resolve(str(shared / "tiny-llama"))))
    disk.harm(fault, left=8192)
    texts = [f"Number {n} was good." for n in range(200)]
    first = encoder.encode_cached(texts, 256)
    assert not list(disk.folder.glob("tokens/*")), "half a file would keep the disk full"
    disk.mend()
    assert encoder.encode_cached(texts, 256).ids.tolist() == first.ids.tolist()
    assert len(list(disk.folder.glob("tokens/*"))) == 1


def test_live_weights_that_fill_the_disk_are_one_sentence(shared, disk, capsys, monkeypatch):
    def run_here(command, **how):
        return SimpleNamespace(returncode=weights._make(*command[3:]), stderr=capsys.readouterr().err)

    monkeypatch.setattr(base_models, "run_child", run_here)
    monkeypatch.setattr(weights, "_make_in_child", IN_CHILD)
    base = resolve(str(shared / "tiny-llama"))
    encoder = tokens.PromptEncoder(load_tokenizer(base))
    disk.harm("full", left=8192)
    with pytest.raises(BaseModelError, match=r"could not be made \(.*free some space"):
        weights.load_weights(base, shared / "runs" / "tiny" / "adapter", "fp32", encoder)
    assert not folders(disk.folder / "live")
