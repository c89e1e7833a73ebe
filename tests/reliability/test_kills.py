"""kill -9 at a random moment of training, evaluating, converting; repeated, each ends the same, bit for bit.

SOAK_KILLS says how many (default 4, each kind in turn); their counts go to kills.json in SOAK_REPORT_DIR.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import eval as evaluation
import train
from sentiment_core.artifacts.store import read_eval, read_history, read_run
from sentiment_core.config import DEFAULT_BASE_MODEL
from sentiment_core.evaluation import shards
from sentiment_core.live.weights import load_weights
from sentiment_core.models import base_models, tokens
from sentiment_core.models.loading import load_tokenizer
from sentiment_core.training import session  # noqa: F401 imported once, in the server
from tests.conftest import make_tiny_model
from tests.own_reviews import write_dataset

KILLS = int(os.environ.get("SOAK_KILLS", "4"))
SERVER = multiprocessing.get_context("forkserver")  # forks processes that have imported everything
SERVER.set_forkserver_preload([__name__])
figures = collections.Counter(kills=0, resumed=0, equal=0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux's"),
]


# ---- what is killed: work(shared inputs, place of its own, again) -> exit status


def training(shared: Path, place: Path, again: bool) -> int:
    flags = ["--dataset", shared / "own", "--base-model", shared / "tiny-llama", "--run-id", "tiny"]
    flags += [
        "--limit",
        160,
        "--validation",
        20,
        "--batch-size",
        8,
        "--lora-rank",
        2,
        "--learning-rate",
        4e-3,
    ]
    flags += ["--max-length-tokens", 128, "--checkpoint-minutes", 0.003, "--evaluations-per-epoch", 1]
    flags += ["--assets", place, "--work", place / "work", *(["--resume"] if again else [])]
    return train.main(list(map(str, flags)))


def evaluating(shared: Path, place: Path, again: bool) -> int:
    flags = ["--dataset", shared / "own", "--base-model", shared / "tiny-llama", "--batch-tokens", 512]
    flags += ["--run", shared / "training" / "runs" / "tiny", "--assets", place, "--work", place / "work"]
    return evaluation.main(list(map(str, flags)))


def converting(shared: Path, place: Path, again: bool) -> int:
    source = shared / "tiny-llama" / "model.safetensors"
    os.environ["SENTIMENT_GGUF"] = str(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    model = base_models.EMBEDDED[DEFAULT_BASE_MODEL]
    base_models.converted_folder(dataclasses.replace(model, sha256=digest, converted_bytes=10), slowly)
    return 0


def slowly(source: Path, folder: Path) -> None:
    content = source.read_bytes()
    with (folder / source.name).open("wb") as stream:
        for start in range(0, len(content), 1024):
            stream.write(content[start : start + 1024])
            stream.flush()
            time.sleep(0.005)


def making_live_weights(shared: Path, place: Path, again: bool) -> int:
    base = base_models.resolve(str(shared / "tiny-llama"))
    encoder = tokens.PromptEncoder(load_tokenizer(base))
    load_weights(base, shared / "training" / "runs" / "tiny" / "adapter", "fp32", encoder)
    return 0


WORK = {work.__name__: work for work in (training, evaluating, converting, making_live_weights)}


def has_begun(name: str, place: Path) -> bool:
    """Whether it is past its imports and preparations."""
    said = {"training": "Training tiny", "evaluating": "own--fine-tuned--tiny"}
    if name in said:
        return (place / "log").exists() and said[name] in (place / "log").read_text()
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
    [folder] = (path for path in (place / "cache").glob("*/*") if path.is_dir())
    return [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())]


# ---- how


def process(name: str, shared: Path, place: Path, again: bool) -> None:
    place.mkdir(exist_ok=True)
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    base_models.CACHE = tokens.CACHE = place / "cache"
    shards.SECONDS_BETWEEN_PARTS = 0.05
    sys.exit(WORK[name](shared, place, again))


def start(name: str, shared: Path, place: Path, again: bool = False):
    child = SERVER.Process(target=process, args=(name, shared, place, again))
    child.start()
    return child


def finish(child) -> int:
    child.join(120)
    return child.exitcode


def await_work(child, name: str, place: Path) -> float:
    while child.is_alive() and not has_begun(name, place):
        time.sleep(0.005)
    return time.monotonic()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """name -> (its result when nothing happens, the seconds it worked); the run serves all others."""
    shared = tmp_path_factory.mktemp("shared")
    make_tiny_model(shared / "tiny-llama", hidden=32)
    write_dataset(shared / "own", train=200, test=200)

    @functools.cache
    def run(name: str):
        if name != "training":
            run("training")
        child = start(name, shared, shared / name)
        began = await_work(child, name, shared / name)
        assert finish(child) == 0, (shared / name / "log").read_text()
        return result(name, shared / name), time.monotonic() - began

    run.shared = shared
    yield run
    if folder := os.environ.get("SOAK_REPORT_DIR"):
        Path(folder, "kills.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")


def kill_at_work(name: str, undisturbed, places, rng: random.Random) -> Path:
    """Kill it between the moment it has begun and its end; sooner where it was faster than expected."""
    _, seconds = undisturbed(name)
    moment = rng.uniform(0, seconds)
    for place in places:
        child = start(name, undisturbed.shared, place)
        await_work(child, name, place)
        time.sleep(moment)
        os.kill(child.pid, signal.SIGKILL)
        if finish(child) == -signal.SIGKILL:
            assert has_begun(name, place)
            return place
        moment /= 2
    pytest.fail(f"{name} was never killed at work")


def check_no_process_left(place: Path) -> None:
    def found() -> list[Path]:
        texts = ((path, path.read_bytes()) for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
        return [path for path, text in texts if str(place).encode() in text]

    until = time.monotonic() + 10
    while found() and time.monotonic() < until:
        time.sleep(0.05)
    assert not found()


@pytest.mark.parametrize("number", range(KILLS))
def test_what_was_killed_ends_as_if_nothing_had_happened(number, undisturbed, tmp_path):
    name = list(WORK)[number % len(WORK)]
    places = (tmp_path / str(attempt) for attempt in range(6))
    place = kill_at_work(name, undisturbed, places, random.Random(number))
    figures["kills"] += 1
    check_no_process_left(place)
    status = finish(start(name, undisturbed.shared, place, again=True))
    log = (place / "log").read_text()
    if status == 2 and "there is no checkpoint" in log:
        status = finish(start(name, undisturbed.shared, place))
    elif status == 0 and name in ("training", "evaluating"):
        figures["resumed"] += 1
    assert status == 0 or "is finished in" in log, log
    assert result(name, place) == undisturbed(name)[0]
    figures["equal"] += 1
