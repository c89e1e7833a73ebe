"""The live model in a process of its own: replaced when it is killed, gone when the server is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sentiment_core.dashboard import host
from sentiment_core.dashboard.serving import Answer, Refused, Trace
from sentiment_core.live.process import RemoteClassifier
from tests import waiting
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, write_assets
from tests.fake_live import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]


def remote(run: Any) -> RemoteClassifier:
    return RemoteClassifier(run, load="tests.fake_live:KilledClassifier")


def test_who_meets_a_killed_model_is_told_and_the_next_question_starts_another(tmp_path: Path) -> None:
    context = context_of(write_assets(tmp_path, n=60, pairs=10), remote)
    run = context.store.run(RUN)
    for _ in range(2):
        *_, answer, _, trace = waiting.all_of(context.serving.ask(run, "A great film, but long."))
        assert isinstance(answer, Answer)
        assert isinstance(trace, Trace)
        assert trace.found["fine-tuned"].p_positive[-1] == FakeClassifier(run)._p("great", "fine-tuned")
        told = waiting.all_of(context.serving.ask(run, "A fatal film."))[-1]
        assert told == Refused("The live model stopped unexpectedly; ask again, and a new one starts.")


def test_the_page_is_told_why_the_process_has_no_model(tmp_path: Path) -> None:
    def load(run: Any) -> RemoteClassifier:
        return RemoteClassifier(run, load="tests.fake_live:refuse")

    context = context_of(write_assets(tmp_path, n=60, pairs=10), load)
    told = waiting.all_of(context.serving.ask(context.store.run(RUN), "A great film."))[-1]
    assert told == Refused("The live model could not be loaded: there is no such model here.")


def test_what_nobody_goes_on_with_is_dropped_there() -> None:
    model = remote(None)
    kept, dropped, count = model.dial("A great film."), model.dial("A dull film."), model.warm_up()
    assert next(kept) == next(FakeClassifier(None).dial("A great film."))
    next(dropped)
    assert next(count) == 0
    del dropped
    assert next(count) == 1
    assert len(list(kept)) == 3


SERVER = """
import sys, time
from multiprocessing import active_children
from sentiment_core.live.process import RemoteClassifier
model = RemoteClassifier(None, load="tests.fake_live:slow")
print(*(child.pid for child in active_children()), flush=True)
list(model.dial("A great film."))
"""


def test_a_killed_server_leaves_no_process_behind() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(server.stdout.readline()))
    time.sleep(0.2)  # it is at work
    server.kill()
    server.wait()
    child.wait(60)


@pytest.mark.parametrize(("there", "elsewhere"), [("", True), ("/dev/nvidiactl", False), ("zero", False)])
def test_where_a_gpu_is_the_model_stays_with_the_page(there: str, elsewhere: bool, monkeypatch) -> None:
    here = SimpleNamespace(LiveClassifier=SimpleNamespace(load=lambda run, cuda: "here"))
    monkeypatch.setitem(sys.modules, "sentiment_core.live.classifier", here)
    monkeypatch.setattr("sentiment_core.live.process.RemoteClassifier", lambda run: "elsewhere")
    monkeypatch.setattr(host.os.path, "exists", lambda path: path == there)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true" if there == "zero" else "")
    assert host.load_live(None) == ("elsewhere" if elsewhere else "here")
    assert host.load_live(None, cuda=True) == "here"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc for what is loaded")
def test_the_page_answers_without_torch(tmp_path: Path, tiny_model: Path) -> None:
    code = """
        import os, sys
        from multiprocessing import active_children
        os.path.exists = lambda path, exists=os.path.exists: not path.startswith("/dev/") and exists(path)
        import app
        from gradio_client import Client
        from sentiment_core.dashboard.app import launch
        _, url, _ = launch(app.demo, prevent_thread_lock=True, quiet=True)
        client = Client(url, verbose=False, analytics_enabled=False)
        answer = client.predict("A great film, but long.", trace=True, api_name="/classify")
        assert answer["trace"][-1]["base_p_positive"] == answer["base_p_positive"]
        [child] = active_children()
        loaded = [open(f"/proc/{pid}/maps").read() for pid in (os.getpid(), child.pid)]
        print("torch" in sys.modules, *("libtorch_cpu" in libraries for libraries in loaded), flush=True)
        os._exit(0)
    """
    (tmp_path / "assets").mkdir()
    places = {"SENTIMENT_ASSETS": tmp_path / "assets", "SENTIMENT_CACHE": tmp_path / "cache"}
    places |= {"SENTIMENT_BASE_MODEL": tiny_model, "PYTHONPATH": ROOT}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {name: str(place) for name, place in places.items()},
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False", "True"], done.stderr[-3000:]
