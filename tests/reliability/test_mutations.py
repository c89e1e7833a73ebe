"""Artifacts of strangers or failing disks: the app starts, names each bad file once, and shows the rest.

SOAK_MUTATIONS=150 python -m pytest tests/reliability/test_mutations.py
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sentiment_core.artifacts.schema import ReadingTrace, SampleAnswer, SampleAnswers
from sentiment_core.artifacts.store import adapter_sha256, read_run, read_sample_reviews, write_record
from sentiment_core.config import ASSETS
from sentiment_core.dashboard import app
from sentiment_core.dashboard.store import Store
from sentiment_core.data.reviews import review_id
from tests import waiting
from tests.fake_artifacts import PROMPT, RUN, write_eval, write_history, write_run
from tests.fake_live import FakeClassifier
from tests.reliability.reports import report

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SOAK_MUTATIONS", "8"))
REMEDIES = ("again", "train", "put the file", "update the program", "rename", "restore it", "make it with")


def write_assets(root: Path) -> Path:
    """One file of each kind that the page reads, and a second run; small, so that the page opens quickly."""
    for name in ("references.json", "sample_reviews.jsonl"):
        shutil.copy(ASSETS / name, root)
    shutil.copytree(ASSETS / "benchmarks", root / "benchmarks")
    for run in (RUN, "other"):
        write_run(root, run)
    write_history(root / "runs" / "in-training", steps=3)
    for system in ("fine-tuned", "baseline-scored"):
        write_eval(root, system, "counterfactual_imdb_test", 40, run_id=RUN, paired=True)
    adapter = root / "runs" / RUN / "adapter"
    matrices = {"A": np.ones((2, 8), "float32"), "B": np.ones((8, 2), "float32")}
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    save_file(
        {name.format(key): value for key, value in matrices.items()}, adapter / "adapter_model.safetensors"
    )
    (adapter / "adapter_config.json").write_text('{"r": 2, "base_model_name_or_path": "owner/model"}')
    sample, trace = read_sample_reviews(root)[0], ReadingTrace(ends=(4, 9), p_positive=(0.4, 0.9))
    traces = {"base": trace, "fine-tuned": trace}
    answer = SampleAnswer(review_id=review_id(sample.text), traces=traces, dial=(0.1, 0.2, 0.3, 0.4))
    about = {"adapter_sha256": adapter_sha256(read_run(adapter.parent)), "prompt_hash": PROMPT.hash}
    write_record(adapter.parent / "sample_answers.json", SampleAnswers(**about, answers={sample.id: answer}))
    return root


# ---- what can happen to a file; each takes its path and what hypothesis draws with

Draw = Callable[[st.SearchStrategy], Any]
Damage = Callable[[Path, Draw], object]


def cut(path: Path, draw: Draw) -> None:
    os.truncate(path, draw(st.integers(1, path.stat().st_size - 2)))


def linked(path: Path, draw: Draw) -> None:
    outside = next(folder.parent for folder in path.parents if folder.name == "root")
    os.replace(path, outside / path.name)
    path.symlink_to(outside / path.name)


def replaced(make: Callable[[Path], object]) -> Damage:
    return lambda path, draw: (path.unlink(), make(path))


def filled(content: bytes) -> Damage:
    return lambda path, draw: path.write_bytes(content)


RUINED: dict[str, Damage] = {
    "cut": cut,
    "empty": filled(b""),
    "nested": filled(b"[" * 100_000 + b"]" * 100_000 + b"\n"),
    "not UTF-8": filled(b"\xff\xfe\x00{\n"),
    "a newer schema": filled(b'{"schema_version": 99}\n'),
    "a header that lies": filled((1 << 40).to_bytes(8, "little") + b'{"a": 1}\n'),
    "a link to elsewhere": linked,
    "a link to nowhere": replaced(lambda path: path.symlink_to("/nowhere")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a pipe": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "two gigabytes": lambda path, draw: os.truncate(path, 2 << 30),
}
"""Beyond use, so that the file must be named."""
ODD = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    10**30,
    "",
    "x",
    "<b>",
    float("nan"),
    [],
    {},
    [[1]],
    {"a": None},
    "9" * 999,
)


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def changed(path: Path, draw: Draw) -> None:
    """Somewhere in its JSON a value is another, or gone, or a name is new."""
    lines = path.suffix == ".jsonl"
    content = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if lines
        else json.loads(path.read_text())
    )
    holder, key = draw(st.sampled_from(list(places(content))))
    what = draw(st.sampled_from(("another", "gone", "new")))
    if what == "gone":
        del holder[key]
    elif what == "new" and isinstance(holder, dict):
        holder["colour"] = "red"
    else:
        holder[key] = draw(st.sampled_from(ODD))
    path.write_text("\n".join(map(json.dumps, content)) + "\n" if lines else json.dumps(content))


def flipped(path: Path, draw: Draw) -> None:
    content = bytearray(path.read_bytes())
    content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    path.write_bytes(content)


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    return lambda path, draw: change(pd.read_parquet(path)).to_parquet(path)


def column(name: str, value: object) -> Damage:
    return table(lambda frame: frame.assign(**{name: [value] * len(frame)}))


RUINED_TABLES: dict[str, Damage] = {
    "labels of 7": column("label", 7),
    "labels missing": column("label", None),
    "labels in words": column("label", "positive"),
    "labels flipped": table(lambda frame: frame.assign(label=1 - frame["label"])),
    "probabilities in words": column("p_positive", "high"),
    "probabilities above 1": column("p_positive", 1.5),
    "predictions in lists": column("prediction", [1]),
    "pairs in lists": column("pair_id", [1]),
    "tokens in words": column("tokens", "many"),
    "truncated in words": column("truncated", "no"),
    "ids of bytes": column("review_id", b"\xff"),
    "cells of 2 MB": column("version", "x" * 2_000_000),
    "doubled": table(lambda frame: pd.concat([frame, frame])),
    "shuffled": table(lambda frame: frame.iloc[::-1]),
    "a column less": table(lambda frame: frame.drop(columns="tokens")),
}
"""Predictions that are not those of their record, or are none."""
UNFINISHED = {("history.jsonl", "cut"), ("history.jsonl", "empty")}
"""A row may be still being written."""


def restore(path: Path, whole: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    shutil.copyfile(whole, path)


# ---- the property


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def seen() -> Iterator[Counter]:
    counter: Counter = Counter()
    yield counter
    report("mutations", counter)


async def open_page(demo: Any) -> None:
    """What a visitor's browser asks for on opening the page; raises what it is told went wrong."""
    calls = [call for call in demo.fns.values() if any(event == "load" for _, event in call.targets)]
    for call in calls:
        calls += [later for later in demo.fns.values() if later.trigger_after == call._id]
    request = SimpleNamespace(query_params={}, headers={}, username=None, session_hash="a visitor")
    for call in calls:
        if call.fn:
            values = [getattr(block, "value", None) for block in call.inputs]
            await demo.process_api(call, values, request=request)


@settings(
    max_examples=COUNT, derandomize=True, deadline=None, database=None, report_multiple_bugs=False,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_whatever_happens_to_a_file_the_page_opens_and_names_it_once(
    whole: Path, tmp_path_factory, caplog, seen: Counter, data: st.DataObject
) -> None:
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(files))
    ruins = RUINED | (RUINED_TABLES if name.suffix == ".parquet" else {})
    perhaps = {"changed": changed} if "json" in name.suffix else {"flipped": flipped}
    what = data.draw(st.sampled_from(sorted(ruins | perhaps)))
    root = tmp_path_factory.mktemp("assets") / "root"
    shutil.copytree(whole, root)
    (ruins | perhaps)[what](root / name, data.draw)
    caplog.clear()
    waiting.run(open_page(app.build(root, FakeClassifier, texts={})))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    store = Store(root)
    messages = [problem.message for problem in store.problems()]
    assert len(set(messages)) == len(messages)
    assert all(any(remedy in message for remedy in REMEDIES) for message in messages)
    if what in ruins and (name.name, what) not in UNFINISHED:
        (message,) = messages
        assert str(root / name) in message
    assert "other" in str(name) or store.run("other").run_id == "other"
    restore(root / name, whole / name)
    assert store.problems() == ()
    shutil.rmtree(root.parent)
    seen["mutations"] += 1
    seen[what] += 1
