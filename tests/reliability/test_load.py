"""A small crowd on a served page with an instant model: everybody is answered, and sees all tabs."""

from __future__ import annotations

import os

from sentiment_core.dashboard import app
from tests import waiting
from tests.fake_artifacts import write_assets
from tests.fake_live import FakeClassifier
from tests.reliability import load


def test_a_crowd_is_answered_and_sees_its_tabs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(load, "PAUSE", 0.1)
    monkeypatch.setattr(load, "ARRIVAL", 0.5)
    demo = app.build(
        write_assets(tmp_path, n=60, pairs=10), lambda run: FakeClassifier(run, wait=0.01), texts={}
    )
    _, address, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        found = waiting.run(load.crowd(address, visitors=15, seconds=100, pid=os.getpid(), each=3))
    finally:
        demo.close()
    assert found["counts"] == {"answered": 36, "get /": 9, "tab": 9 * 3}
    assert found["percentiles"].keys() == found["counts"].keys()
