"""kill -9 at any moment, full and read-only disks: repeated, each work ends the same, bit for bit."""

import dataclasses
import functools
import multiprocessing
import os
import random
import sys
import time

import psutil
import pytest

import eval as evaluation
import train
from sentiment_core import cli
from sentiment_core.artifacts.store import read_history
from sentiment_core.evaluation import runner, shards  # noqa: F401 the heavy imports are the server's, once
from sentiment_core.models import base_models, tokens
from sentiment_core.training import session
from tests.conftest import make_tiny_model
from tests.own_reviews import write_dataset

KILLS = int(os.environ.get("SOAK_KILLS", "3"))  # each work in turn
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])
pytestmark = pytest.mark.slow

# A work: work(folder of what all share, folder of its own, again) -> exit status
BOTH = " --dataset {0}/own --base-model {0}/tiny-llama --assets {1}/assets --work {1}/work"


def training(shared, place, again=False):
    given = "--run-id tiny --limit 96 --validation 20 --batch-size 8 --lora-rank 2 --learning-rate 4e-3 "
    given += "--max-length-tokens 128 --checkpoint-minutes 0.003 --evaluations-per-epoch 1"
    return train.main((given + BOTH + " --resume" * again).format(shared, place).split())


def evaluating(shared, place, again=False):
    given = "--run {0}/training/assets/runs/tiny --batch-tokens 512" + BOTH
    return evaluation.main(given.format(shared, place).split())


def converting(shared, place, again=False):
    os.environ["SENTIMENT_GGUF"] = str(source := shared / "tiny-llama" / "model.safetensors")
    sha256, plain = base_models.file_sha256(source), base_models.EMBEDDED["smollm2-135m"]
    model = dataclasses.replace(plain, sha256=sha256, converted_bytes=1)
    return cli.run(lambda: str(base_models.converted_folder(model, slowly)))


def slowly(source, folder):
    with source.open("rb") as content, (folder / source.name).open("wb", buffering=0) as stream:
        while stream.write(content.read(1024)):
            time.sleep(0.005)


WRITES = {training: ("assets", "work"), evaluating: ("assets", "work", "cache"), converting: ("cache",)}


def result(place):
    """All that was made, without its times."""
    histories = [read_history(run).drop(columns="seconds").to_csv() for run in place.glob("assets/runs/*")]
    kinds = ("assets/runs/*/adapter/*.safetensors", "assets/evals/*/*.parquet", "cache/base/[!.]*/*")
    made = [path.read_bytes() for kind in kinds for path in sorted(place.glob(kind))]
    assert made
    assert not [*place.glob("cache/base/.making-*/*")], "no more than an empty folder"
    return made, histories


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    make_tiny_model(folder / "tiny-llama", hidden=32)
    write_dataset(folder / "own", train=200, test=200)
    undisturbed(training, folder)  # whose adapter the others need
    return folder


@functools.cache
def undisturbed(work, shared):
    """Its result when nothing happens, and the seconds it takes."""
    place = shared / work.__name__
    assert run(work, shared, place) == 0, (place / "log").read_text()
    return result(place), float((place / "seconds").read_text())


def process(work, shared, place, again):
    place.mkdir(exist_ok=True)
    sys.stdout = sys.stderr = (place / "log").open("w", buffering=1)
    base_models.CACHE = tokens.CACHE = place / "cache"
    session.check_disk = lambda *given: None  # as if it filled up only later
    shards.SECONDS_BETWEEN_PARTS = 0.05
    began, status = time.monotonic(), work(shared, place, again)
    (place / "seconds").write_text(str(time.monotonic() - began))
    sys.exit(status)


def run(work, shared, place, again=False, seconds=120.0):
    """The exit status of a process that is killed after so many seconds: -9 where it still worked."""
    child = SERVER.Process(target=process, args=(work, shared, place, again))
    child.start()
    child.join(seconds)
    child.kill()
    child.join()
    return child.exitcode


@pytest.mark.parametrize("number", range(KILLS))
def test_what_was_killed_ends_as_if_undisturbed(number, shared, tmp_path, record_property):
    work = list(WRITES)[number % len(WRITES)]
    expected, seconds = undisturbed(work, shared)
    moment, place = random.Random(number).uniform(0, seconds), tmp_path / "0"
    while run(work, shared, place, seconds=moment) != -9:  # it was faster than before
        moment, place = 0.8 * moment, tmp_path / str(moment)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(place) in " ".join(p.info["cmdline"] or ())]
    assert not psutil.wait_procs(left, timeout=10)[1], "a child outlived it"
    status, resumed = run(work, shared, place, again=True), work is not converting
    if status == 2 and "there is no checkpoint" in (place / "log").read_text():
        status, resumed = run(work, shared, place), False
    assert status == 0, (place / "log").read_text()
    assert result(place) == expected
    record_property("kills", {"kills": 1, "resumed": resumed, "equal": 1})


def mount(command):
    """Through sudo where that is needed and may be done unasked."""
    if os.system("sudo -n " * bool(os.getuid()) + command):
        pytest.skip("no disk can be mounted here")


@pytest.fixture
def disk(where, tmp_path):
    """A folder that is a disk of 8 MB."""
    (folder := tmp_path / where).mkdir()
    mount(f"mount -t tmpfs -o size=8m,uid={os.getuid()} tmpfs {folder}")
    yield folder
    mount(f"umount -l {folder}")


@pytest.mark.parametrize("fault", [pytest.param("size=4k", id="full"), pytest.param("ro", id="read-only")])
@pytest.mark.parametrize(("work", "where"), [(work, one) for work in WRITES for one in WRITES[work]])
def test_a_bad_disk_is_one_sentence_and_mends_to_the_same(work, where, fault, disk, shared, tmp_path):
    mount(f"mount -o remount,{fault} {disk}")
    status, log = run(work, shared, tmp_path), (tmp_path / "log").read_text()
    if (work, where) == (evaluating, "cache"):
        assert status == 0, "it costs time alone"
        assert not list(disk.glob("tokens/*")), "half a file would keep the disk full"
    else:
        assert status == 2
        assert str(disk) in log.splitlines()[-1]
        assert "Traceback" not in log
        assert not [path for path in tmp_path.rglob("*.json") if path.name in ("run.json", "eval.json")]
        mount(f"mount -o remount,rw,size=8m {disk}")
        assert not run(work, shared, tmp_path, again=True) or not run(work, shared, tmp_path)  # no checkpoint
    assert result(tmp_path) == undisturbed(work, shared)[0]
