"""The named endpoints through gradio_client, README's examples, and that the server phones nobody."""

import json
import os
import re
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from sentiment_core.dashboard import app
from tests.fake_artifacts import RUN, write_assets
from tests.fake_live import FakeClassifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    assets = write_assets(tmp_path_factory.mktemp("assets"), n=60, pairs=10)
    demo = app.build(assets, lambda run: FakeClassifier(run, wait=0.05), texts={})
    _, address, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def test_endpoints_and_their_types(client: Client) -> None:
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(info) == {"/classify", "/classify_batch", "/metrics", "/runs"}
    classify = info["/classify"]
    assert [p["parameter_name"] for p in classify["parameters"]] == ["text", "run", "trace"]
    assert classify["parameters"][0]["python_type"]["type"] == "str"
    assert info["/classify_batch"]["parameters"][0]["python_type"]["type"] == "list[str]"
    for endpoint in info.values():
        assert endpoint["returns"][0]["python_type"]["type"].startswith(("dict", "list"))


def test_classify_with_the_trace(client: Client) -> None:
    """Each row ends a clause; the last one is the answer, with or without the others."""
    text = "A dreadful film; but it made me laugh, and I love it."
    plain = client.predict(text, api_name="/classify")
    answer = client.predict(text, trace=True, api_name="/classify")
    rows = answer.pop("trace")
    assert answer | {"trace": None} == plain
    assert [text[: row["end"]][-1] for row in rows] == [";", ",", "."]
    assert rows[0]["fine_tuned_p_positive"] < 0.5 < rows[-1]["fine_tuned_p_positive"]
    assert rows[-1] == {"end": len(text)} | {key: answer[key] for key in rows[-1] if key != "end"}
    with pytest.raises(AppError, match="nothing to read"):
        client.predict(" ", trace=True, api_name="/classify")


def test_classify_batch_keeps_the_order(client: Client) -> None:
    answers = client.predict(["great", "dreadful", "great"], api_name="/classify_batch")
    assert [a["fine_tuned_label"] for a in answers] == ["Positive", "Negative", "Positive"]


def test_metrics_and_runs(client: Client) -> None:
    rows = client.predict(run=RUN, dataset="imdb", api_name="/metrics")
    assert {row["system"] for row in rows} >= {"fine-tuned", "baseline-scored"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    runs = {row["run_id"]: row for row in client.predict(api_name="/runs")}
    assert runs[RUN]["finished"] is True
    assert runs["in-training"]["finished"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": "", "api_name": "/classify"}, "nothing to read"),
        ({"text": "x" * 1_000_000, "api_name": "/classify"}, "up to 20,000"),
        ({"text": "A film.", "run": "no-such-run", "api_name": "/classify"}, "No such run"),
        ({"run": "no-such-run", "api_name": "/metrics"}, "No such run"),
        ({"dataset": "no-such-set", "api_name": "/metrics"}, "No such dataset"),
        ({"texts": ["a"] * 5001, "api_name": "/classify_batch"}, "too many"),
        ({"texts": [], "api_name": "/classify_batch"}, "list of reviews"),
        ({"texts": ["fine", " "], "api_name": "/classify_batch"}, "nothing to read"),
    ],
)
def test_refusals_are_sentences(client: Client, arguments: dict, sentence: str) -> None:
    with pytest.raises(AppError, match=sentence) as refused:
        client.predict(**arguments)
    assert "Traceback" not in str(refused.value)


def post(url: str, path: str, body: object) -> tuple[int, dict]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}gradio_api/{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_the_way_past_the_queue_is_closed(url: str) -> None:
    assert post(url, "run/classify", {"data": ["A film", ""]})[0] in (404, 405)


def test_files_of_the_server_stay_there(url: str) -> None:
    for path in ("file=/etc/passwd", f"file={ROOT / 'app.py'}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}gradio_api/{path}", timeout=10)
        assert refused.value.code in (403, 404)


def test_every_answer_binds_the_browser_to_this_origin(url: str) -> None:
    with urllib.request.urlopen(url, timeout=10) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy


def test_readme_examples_run(url: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "gradio_client" in b]
    assert blocks, "README shows no gradio_client example"
    for block in blocks:
        exec(block.replace("http://127.0.0.1:7860", url), {})


@pytest.mark.slow
def test_the_server_phones_nobody(tmp_path) -> None:
    """Import, build, launch, open the page: every name that is looked up is this machine's own.

    And `import app` takes no torch along, but `spaces`, of which there is a stand-in.
    """
    write_assets(tmp_path / "assets", n=40, pairs=5)
    (tmp_path / "spaces.py").write_text("def GPU(function, duration=60):\n    return function\n")
    code = """
        import json, sys, urllib.request
        asked = []
        def hook(event, arguments):
            if event == "socket.getaddrinfo":
                asked.append(str(arguments[0]))
            elif event == "socket.connect" and isinstance(arguments[1], tuple):
                asked.append(str(arguments[1][0]))
        sys.addaudithook(hook)
        import app
        assert not {"torch", "transformers", "peft", "datasets", "bitsandbytes"} & set(sys.modules)
        from sentiment_core.dashboard import serving
        assert serving.spaces.__name__ == "spaces"
        from sentiment_core.dashboard.app import build, launch
        from tests.fake_live import FakeClassifier
        app.demo.close()
        demo = build(None, FakeClassifier.load)
        _, url, _ = launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
        urllib.request.urlopen(url).read()
        import time; time.sleep(2)
        own = {"127.0.0.1", "localhost", "::1", "0.0.0.0", "None"}
        print(json.dumps(sorted(set(asked) - own)))
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_HUB", "GRADIO", "SENTIMENT"))
    }
    environment |= {
        "SENTIMENT_ASSETS": str(tmp_path / "assets"),
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
        "HF_HOME": str(tmp_path / "hub"),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
