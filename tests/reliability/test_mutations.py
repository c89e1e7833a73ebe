"""Artifacts of strangers or failing disks: the app starts, names each bad file once, and shows the rest.

SOAK_MUTATIONS=150 python -m pytest tests/reliability/test_mutations.py
"""

import json
import logging
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_core.config import ASSETS
from sentiment_core.dashboard import app
from sentiment_core.dashboard.store import Store
from tests import waiting
from tests.fake_artifacts import RUN, write_history, write_run
from tests.fake_live import FakeClassifier
from tests.reliability import THOROUGH

COUNT = int(os.environ.get("SOAK_MUTATIONS", "8"))
REMEDIES = ("again", "train", "put the file", "update the program", "rename", "restore it", "make it with")
EVALS = [f"evals/counterfactual_imdb_test--{system}--{RUN}" for system in ("fine-tuned", "baseline-scored")]


@pytest.fixture
def whole(tmp_path):
    """Of our own artifacts one of each kind that the page reads, another run, and one in training."""
    root = tmp_path / "whole"
    for name in ("benchmarks", f"runs/{RUN}", *EVALS):
        shutil.copytree(ASSETS / name, root / name, ignore=shutil.ignore_patterns("README.md"))
    for name in ("references.json", "sample_reviews.jsonl"):
        shutil.copy(ASSETS / name, root)
    write_run(root, "other")
    write_history(root / "runs" / "in-training", steps=3)
    return root


# ---- what can happen to a file; each takes its path and what hypothesis draws with


def replaced(make):
    return lambda path, draw: (path.unlink(), make(path))


def filled(content):
    return lambda path, draw: path.write_bytes(content)


RUINED = {
    "cut": lambda path, draw: os.truncate(path, draw(st.integers(1, path.stat().st_size - 2))),
    "empty": filled(b""),
    "nested": filled(b"[" * 100_000 + b"]" * 100_000 + b"\n"),
    "not UTF-8": filled(b"\xff\xfe\x00{\n"),
    "a newer schema": filled(b'{"schema_version": 99}\n'),
    "a header that lies": filled((1 << 40).to_bytes(8, "little") + b'{"a": 1}\n'),
    "a link to elsewhere": replaced(lambda path: path.symlink_to(re.sub(r"\d+/mutated", "whole", str(path)))),
    "a link to nowhere": replaced(lambda path: path.symlink_to("/nowhere")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a pipe": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "two gigabytes": lambda path, draw: os.truncate(path, 2 << 30),
}
"""Beyond use, so that the file must be named."""
UNFINISHED = {("history.jsonl", "cut"), ("history.jsonl", "empty")}
"""But a row may be still being written."""
PARTS = re.compile(r'"[^"]*"|-?\d[\d.e+-]*|null|true|false'), re.compile(r"\[[^][]*\]|\{[^}{]*\}")
ODD = (None, True, -1, 0.5, 1e308, 10**30, float("nan"), [], {}, [[1]], {"a": 0}, "", "x", "<b>", "9" * 999)


def changed(path, draw):
    """Somewhere in its JSON a value or a name is another."""
    text = path.read_text()
    part = draw(st.sampled_from([part for kind in PARTS for part in kind.finditer(text)]))
    path.write_text(text[: part.start()] + json.dumps(draw(st.sampled_from(ODD))) + text[part.end() :])


def table(change):
    return lambda path, draw: change(pd.read_parquet(path)).to_parquet(path)


def column(name, value):
    return table(lambda frame: frame.assign(**{name: [value] * len(frame)}))


COLUMNS = {
    "label": (7, None, "positive"), "p_positive": (1.5, "high"), "prediction": ([1],), "pair_id": ([1],),
    "tokens": ("many",), "truncated": ("no",), "review_id": (b"\xff",), "version": ("x" * 100_000,),
}  # fmt: skip
RUINED_TABLES = {f"{name} of {str(v)[:9]}": column(name, v) for name, odd in COLUMNS.items() for v in odd} | {
    "labels flipped": table(lambda frame: frame.assign(label=1 - frame["label"])),
    "doubled": table(lambda frame: pd.concat([frame, frame])),
    "shuffled": table(lambda frame: frame.iloc[::-1]),
    "a column less": table(lambda frame: frame.drop(columns="tokens")),
}
"""Predictions that are not those of their record, or are none."""


# ---- the property


async def open_page(demo):
    """What a visitor's browser asks for on opening the page; raises what it is told went wrong."""
    calls = [call for call in demo.fns.values() if any(event == "load" for _, event in call.targets)]
    for call in calls:
        calls += [later for later in demo.fns.values() if later.trigger_after == call._id]
    request = SimpleNamespace(query_params={}, headers={}, username=None, session_hash="a visitor")
    for call in calls:
        if call.fn:
            values = [getattr(block, "value", None) for block in call.inputs]
            await demo.process_api(call, values, request=request)


@pytest.fixture
def seen(record_property):
    yield (counter := Counter())
    record_property("mutations", json.dumps(counter))


@pytest.mark.slow
@settings(THOROUGH, max_examples=COUNT)
@given(data=st.data())
def test_whatever_happens_to_a_file_the_page_opens_and_names_it_once(whole, caplog, seen, data):
    name = data.draw(st.sampled_from(sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())))
    ruins = RUINED | (RUINED_TABLES if name.suffix == ".parquet" else {})
    perhaps = {"changed": changed} if "json" in name.suffix else {}
    what = data.draw(st.sampled_from(sorted(ruins | perhaps)))
    root = whole.parent / str(seen["mutations"]) / "mutated"
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
    shutil.rmtree(root)
    shutil.copytree(whole, root)
    assert store.problems() == ()
    shutil.rmtree(root.parent)
    seen.update(["mutations", what])
