"""kill -9 at a random moment of training, evaluating, converting; repeated, each ends the same, bit for bit.

SOAK_KILLS says how many (default 3, each kind in turn); their counts go to kills.json in SOAK_REPORT_DIR.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import eval as evaluation
import train
from sentiment_core.artifacts.store import read_eval, read_history, read_run
from sentiment_core.evaluation import runner, shards  # noqa: F401 the heavy imports are the server's, once
from sentiment_core.live.weights import load_weights
from sentiment_core.models import base_models, tokens
from sentiment_core.models.loading import load_tokenizer
from sentiment_core.training import session  # noqa: F401
from tests.conftest import make_tiny_model
from tests.own_reviews import write_dataset
from tests.reliability.reports import report

KILLS = int(os.environ.get("SOAK_KILLS", "3"))
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux's"),
]


# ---- what is killed: work(shared inputs, place of its own, again) -> exit status


def flags(shared: Path, place: Path, given: str) -> list[str]:
    places = {
        "dataset": shared / "own",
        "base-model": shared / "tiny-llama",
        "assets": place,
        "work": place / "w",
    }
    return [*given.split(), *(str(part) for name, path in places.items() for part in (f"--{name}", path))]


def training(shared: Path, place: Path, again: bool) -> int:
    given = "--run-id tiny --limit 160 --validation 20 --batch-size 8 --lora-rank 2 --learning-rate 4e-3 "
    given += "--max-length-tokens 128 --checkpoint-minutes 0.003 --evaluations-per-epoch 1"
    return train.main(flags(shared, place, given + " --resume" * again))


def evaluating(shared: Path, place: Path, again: bool) -> int:
    return evaluation.main(flags(shared, place, f"--run {shared}/training/runs/tiny --batch-tokens 512"))


def converting(shared: Path, place: Path, again: bool) -> int:
    os.environ["SENTIMENT_GGUF"] = str(source := shared / "tiny-llama" / "model.safetensors")
    known = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest(), "converted_bytes": 1}
    model = dataclasses.replace(base_models.EMBEDDED["smollm2-135m"], **known)
    base_models.converted_folder(model, slowly)
    return 0


def slowly(source: Path, folder: Path) -> None:
    with source.open("rb") as content, (folder / source.name).open("wb", buffering=0) as stream:
        while stream.write(content.read(1024)):
            time.sleep(0.005)


def making_live_weights(shared: Path, place: Path, again: bool) -> int:
    base = base_models.resolve(str(shared / "tiny-llama"))
    adapter = shared / "training" / "runs" / "tiny" / "adapter"
    load_weights(base, adapter, "fp32", tokens.PromptEncoder(load_tokenizer(base)))
    return 0


WORK = {work.__name__: work for work in (training, evaluating, converting, making_live_weights)}
SAID = {"training": "Training tiny", "evaluating": "own--fine-tuned--tiny"}


def has_begun(name: str, place: Path) -> bool:
    """Whether it is past its imports and preparations."""
    if name in SAID:
        return (place / "log").exists() and SAID[name] in (place / "log").read_text()
    return any((place / "cache").glob("*/.making-*"))


def result(name: str, place: Path) -> list:
    """All that was made, without its times."""
    if name == "training":
        run = read_run(place / "runs" / "tiny")
        adapter = (run.adapter_path / "adapter_model.safetensors").read_bytes()
        history = read_history(run.path).drop(columns="seconds").to_csv()
        return [adapter, history, run.record.validation_accuracy, run.record.validation_loss]
    if name == "evaluating":
        [folder] = (place / "evals").iterdir()
        found = read_eval(folder)
        return [found.predictions().to_csv(), found.record.metrics, found.record.confusion]
    assert not any((place / "cache").glob("*/.making-*/*")), "no more than an empty folder"
    [folder] = (path for path in (place / "cache").glob("*/[!.]*") if path.is_dir())
    return [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())]


# ---- how


def process(name: str, shared: Path, place: Path, again: bool) -> None:
    place.mkdir(exist_ok=True)
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    base_models.CACHE = tokens.CACHE = place / "cache"
    shards.SECONDS_BETWEEN_PARTS = 0.05
    sys.exit(WORK[name](shared, place, again))


def start(name: str, shared: Path, place: Path, again: bool = False):
    child = SERVER.Process(target=process, args=(name, shared, place, again))
    child.start()
    while not again and child.is_alive() and not has_begun(name, place):
        time.sleep(0.005)
    return child


def end(child) -> int:
    child.join(120)
    return child.exitcode


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    make_tiny_model(folder / "tiny-llama", hidden=32)
    write_dataset(folder / "own", train=200, test=200)
    return folder


@pytest.fixture(scope="module")
def undisturbed(shared):
    """name -> (its result when nothing happens, the seconds it worked)."""

    @functools.cache
    def run(name: str):
        child, began = start(name, shared, shared / name), time.monotonic()
        assert end(child) == 0, (shared / name / "log").read_text()
        return result(name, shared / name), time.monotonic() - began

    run("training")  # whose adapter the others need
    return run


@pytest.fixture(scope="module")
def figures():
    counted = collections.Counter(kills=0, resumed=0, equal=0)
    yield counted
    report("kills", counted)


def killed(name: str, shared: Path, folder: Path, moment: float) -> Path:
    """Where it was killed so many seconds after it had begun; sooner where it was faster than before."""
    for attempt in range(6):
        place = folder / str(attempt)
        child = start(name, shared, place)
        time.sleep(moment / 2**attempt)
        child.kill()
        if end(child) == -9 and has_begun(name, place):  # not between its last step and its end
            return place
    pytest.fail(f"{name} was never killed at work")


def nothing_runs_in(place: Path) -> bool:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(place).encode() in command.read_bytes():
                return False
    return True


@pytest.mark.parametrize("number", range(KILLS))
def test_what_was_killed_ends_as_if_nothing_had_happened(number, shared, undisturbed, figures, tmp_path):
    name = list(WORK)[number % len(WORK)]
    expected, seconds = undisturbed(name)
    place = killed(name, shared, tmp_path, random.Random(number).uniform(0, seconds))
    figures["kills"] += 1
    assert any(nothing_runs_in(place) or time.sleep(0.1) for _ in range(100)), "a child outlived it"
    status, resumed = end(start(name, shared, place, again=True)), name in SAID
    log = (place / "log").read_text()
    if status == 2 and "there is no checkpoint" in log:
        status, resumed = end(start(name, shared, place)), False
    assert status == 0 or "is finished in" in log, log
    assert result(name, place) == expected
    figures.update(resumed=resumed, equal=1)
