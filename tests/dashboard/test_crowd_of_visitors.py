"""More visitors than can be served: who waits is answered, who cannot wait gets one polite sentence."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from sentiment_core.dashboard import app, serving
from sentiment_core.dashboard.serving import KINDS, TOO_MANY, Job, Worker
from tests import waiting
from tests.fake_artifacts import RUN, write_assets
from tests.fake_live import HeldClassifier
from tests.reliability import soak


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


# ---- a running app whose model is held


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    assets = write_assets(tmp_path_factory.mktemp("assets"), n=60, pairs=10)
    built = app.build(assets, HeldClassifier, texts={})
    _, built.address, _ = app.launch(built, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield built
    HeldClassifier.go.set()
    built.close()


@pytest.fixture
def client(demo) -> Iterator[Client]:
    HeldClassifier.go.clear()
    asking = Client(demo.address, verbose=False, analytics_enabled=False)
    yield asking
    HeldClassifier.go.set()
    asking.close()


def test_visitors_beyond_the_queue_are_told_to_come_back(client: Client) -> None:
    longest = KINDS["answers"].places
    asked = [client.submit("A great film", api_name="/classify") for _ in range(longest + 6)]
    until(lambda: sum(job.done() for job in asked) == 6)
    refused = [job for job in asked if job.done()]
    for job in refused:
        with pytest.raises(AppError) as error:
            job.result()
        assert str(error.value) == TOO_MANY
    # What needs no model is served meanwhile, batches have a queue of their own.
    assert client.predict(api_name="/runs")
    batch = client.submit(["A great film", "A dreadful film"], api_name="/classify_batch")
    HeldClassifier.go.set()
    answers = [job.result(timeout=120) for job in asked if job not in refused]
    assert [answer["fine_tuned_label"] for answer in answers] == ["Positive"] * longest
    assert [answer["fine_tuned_label"] for answer in batch.result(timeout=120)] == ["Positive", "Negative"]
    assert client.predict("A great film", api_name="/classify")["run_id"] == RUN


@pytest.mark.parametrize("name", ["classify", "classify_batch"])
def test_what_a_program_asked_ends_when_it_leaves(demo, client: Client, monkeypatch, name: str) -> None:
    given = {"classify": ["A review", "", True], "classify_batch": [["A review"] * 5000, ""]}[name]
    asked, submit = list[tuple[Worker, Job]](), Worker.submit

    def submitted(worker: Worker, job: Job, *more) -> None:
        submit(worker, job, *more)
        if job.given == given[0]:
            asked.append((worker, job))

    monkeypatch.setattr(Worker, "submit", submitted)
    monkeypatch.setattr(serving, "LOOK_AGAIN", 0.05)
    address, body = f"{demo.address}gradio_api/call/{name}", json.dumps({"data": given}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as told:
        event = json.load(told)["event_id"]
    with urllib.request.urlopen(f"{address}/{event}", timeout=30):
        until(lambda: asked)
    worker, job = asked[0]
    until(lambda: job not in worker._jobs)


def test_a_full_queue_of_gradios_speaks_politely_too(demo, client: Client) -> None:
    """For programs; what the page makes of it is a browser test."""
    longest, demo._queue.max_size = demo._queue.max_size, 0
    try:
        body = json.dumps({"data": []}).encode()
        request = urllib.request.Request(
            f"{demo.address}gradio_api/call/runs", body, {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
    finally:
        demo._queue.max_size = longest
    assert refused.value.code == 503
    assert json.loads(refused.value.read()) == {"detail": TOO_MANY}
    assert refused.value.headers["content-security-policy"]
    assert client.predict(api_name="/runs")


def test_a_crowd_is_answered_and_sees_its_tabs(demo, monkeypatch) -> None:
    """As `make soak` sends it, for longer, to the real model."""
    monkeypatch.setattr(soak, "PAUSE", 0.1)
    monkeypatch.setattr(soak, "ARRIVAL", 0.5)
    HeldClassifier.go.set()
    found = waiting.run(soak.crowd(demo.address, visitors=15, seconds=100, pid=os.getpid(), each=3))
    assert found["counts"] == {"answered": 36, "get /": 9, "tab": 9 * 3}
    assert found["percentiles"].keys() == found["counts"].keys()
