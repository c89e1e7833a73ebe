"""What is uploaded and what a Space starts from; the Hub's client is replaced where it is called."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml
from gradio_client import Client
from huggingface_hub import ModelCard, RepoCard, RepoUrl

from sentiment_core.artifacts.store import read_eval
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.models.base_models import EMBEDDED, resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.publishing import hub
from sentiment_core.publishing.__main__ import main
from tests.fake_artifacts import write_eval, write_small_files
from tests.live.test_classifier import make_run

ROOT = Path(__file__).resolve().parents[2]
REVIEW = "A film that moves."
SPACE_KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license",
    "short_description", "models", "datasets", "tags", "startup_duration_timeout", "suggested_hardware",
    "preload_from_hub", "thumbnail",
}  # fmt: skip
"""Of https://huggingface.co/docs/hub/spaces-config-reference, those that are used."""


@pytest.fixture
def run(tiny_model, tmp_path):
    """A run on a base that is on the Hub as org/tiny, with a test evaluation."""
    run = make_run(tmp_path / "assets", tiny_model)
    path = run.adapter_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "org/tiny"}))
    write_eval(tmp_path / "assets", "fine-tuned", "imdb", 40, run_id="tiny")
    return run


@pytest.fixture
def call(tmp_path, capsys):
    def publish(*words: object):
        status = main([*map(str, words), "--assets", str(tmp_path / "assets")])
        return status, *capsys.readouterr()

    return publish


@pytest.fixture
def the_hub(monkeypatch):
    """What was uploaded: path -> content, by repository."""
    repos = {}

    class Api:
        def create_repo(self, repo, *, repo_type, exist_ok, space_sdk):
            assert exist_ok, "an existing one is updated"
            assert (space_sdk == "gradio") == (repo_type == "space")
            return RepoUrl(f"https://huggingface.co/{'spaces/' * (repo_type == 'space')}{repo}")

        def upload_folder(self, *, repo_id, repo_type, folder_path, delete_patterns):
            files = (path for path in Path(folder_path).rglob("*") if path.is_file())
            repos[repo_id] = {path.relative_to(folder_path).as_posix(): path.read_bytes() for path in files}

    monkeypatch.setattr(hub, "HfApi", Api)
    return repos


def test_a_run_goes_up_with_its_card_record_and_evaluations(run, call, the_hub, tmp_path):
    assert call("push", "tiny", "--repo", "me/tiny")[:2] == (0, "https://huggingface.co/me/tiny\n")
    files, evaluation = the_hub["me/tiny"], "tiny-fine-tuned-imdb"
    assert set(files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "run.json", "history.jsonl",
        f"evaluations/{evaluation}/eval.json", f"evaluations/{evaluation}/predictions.parquet",
        ".eval_results/imdb.yaml",
    }  # fmt: skip
    assert 'AutoPeftModelForCausalLM.from_pretrained("me/tiny", ' in files["README.md"].decode()
    accuracy = read_eval(tmp_path / "assets" / "evals" / evaluation).record.metrics["accuracy"].value
    [result] = yaml.safe_load(files[".eval_results/imdb.yaml"])
    assert result["value"] == round(accuracy, 4)
    address = f"https://huggingface.co/me/tiny/blob/main/evaluations/{evaluation}/eval.json"
    assert result["source"]["url"] == address


def test_the_merged_model_answers_by_its_cards_lines_alone(run, call, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTIMENT_BASE_MODEL", str(tiny_model))
    assert call("push", "tiny", "--merged", "--repo", "me/tiny", "--dry-run", "me/tiny")[0] == 0
    assert not list(Path("me/tiny").glob("adapter*"))
    card = ModelCard.load(Path("me/tiny/README.md"))
    assert (card.data.base_model, card.data.base_model_relation) == ("org/tiny", "finetune")
    found = {}
    exec(re.findall("```python\n(.*?)```", card.text, re.DOTALL)[0], found)
    loaded = load_base(resolve(str(tiny_model)))
    ours = SentimentScorer(loaded, load_adapter(loaded.model, run.adapter_path))([REVIEW])
    assert found["p_positive"] == pytest.approx(ours[0], abs=0.02)


def test_what_cannot_go_up_is_one_sentence(run, call, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("401 Client Error\nRequest ID: 1")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    for words, sentence in (
        (["push", "tiny"], "push needs --repo user/name, or --dry-run FOLDER"),
        (["push", "--repo", "me/x"], "push needs the name of a run"),
        (["space", "--dry-run", tmp_path], "exists; name a folder that does not"),
        (["push", "tiny", "--repo", "me/x"], "'me/x' could not be uploaded (401 Client Error); log in with"),
    ):
        status, _, error = call(*words)
        assert (status, sentence in error, error.count("\n")) == (2, True, 1), error
    (run.adapter_path / "adapter_config.json").write_text('{"base_model_name_or_path": "my-folder"}')
    assert "names its base 'my-folder', which is not on the Hub" in call("push", "tiny", "--repo", "me/x")[2]


def test_the_spaces_front_matter_is_of_today(run, call, the_hub):
    assert call("space", "--repo", "me/space")[:2] == (0, "https://huggingface.co/spaces/me/space\n")
    card = RepoCard(the_hub["me/space"]["README.md"].decode()).data
    assert set(card.to_dict()) == SPACE_KEYS
    assert f"gradio=={card['sdk_version']}\n" in the_hub["me/space"]["requirements.txt"].decode()
    assert card["thumbnail"].removeprefix("https://huggingface.co/spaces/me/space/resolve/main/") in {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "assets").glob("*.png")
    }
    assert len(card["short_description"]) <= 60
    book = nbformat.reads(the_hub["me/space"]["notebook.ipynb"].decode(), as_version=4)
    address = "https://huggingface.co/spaces/me/space"
    assert (
        f"(https://colab.research.google.com/#fileId={address}/blob/main/notebook.ipynb)"
        in book.cells[0].source
    )
    assert f'\nREPOSITORY = "{address}"  #' in book.cells[1].source
    base = EMBEDDED["smollm2-135m"]
    assert card["models"] == [base.hub_id]
    assert card["preload_from_hub"] == [" ".join(base.on_hub)]


@pytest.fixture(params=["this environment", "a Space's"])
def python(request, tmp_path) -> Path | str:
    """The interpreter that runs, or one of a fresh environment, installed by the line that Spaces use."""
    if request.param == "this environment":
        return sys.executable
    if not os.environ.get("SPACE_ENVIRONMENT"):
        pytest.skip("SPACE_ENVIRONMENT=1 installs all packages anew, which takes minutes")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python, version = (
        tmp_path / "fresh" / "bin" / "python",
        RepoCard.load(ROOT / "README.md").data["sdk_version"],
    )
    sdk = f"gradio[oauth,mcp]=={version}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces"
    for wanted in (sdk, ("-r", ROOT / "requirements.txt")):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


@pytest.mark.slow
def test_a_space_starts_from_its_folder_and_writes_nothing_there(run, call, tiny_model, tmp_path, python):
    write_small_files(tmp_path / "assets")
    folder = tmp_path / "space"
    assert call("space", "--dry-run", folder)[0] == 0
    assert {path.name for path in folder.iterdir()} == {"assets", "docs", "sentiment_core", *hub.SPACE_FILES}
    before = sorted(folder.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    surroundings = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SENTIMENT_ASSETS")
    }
    surroundings |= {
        "SPACE_ID": "me/space", "GRADIO_SERVER_PORT": str(port), "SENTIMENT_BASE_MODEL": str(tiny_model),
        "SENTIMENT_LIVE_FORM": "fp32", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")  # its weights are in the cache
    page = f"http://127.0.0.1:{port}/"
    with subprocess.Popen([python, "app.py"], cwd=folder, env=surroundings) as server:
        try:
            while server.poll() is None:
                try:
                    assert b"gradio" in urllib.request.urlopen(page, timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.2)
            answer = Client(page, verbose=False).predict("A great film", api_name="/classify")
        finally:
            server.terminate()
    assert answer["run_id"] == "tiny"
    assert 0 < answer["fine_tuned_p_positive"] < 1
    assert sorted(folder.rglob("*")) == before
