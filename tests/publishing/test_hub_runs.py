"""A run that was pushed to the Hub is fetched, refused or shown beside ours; the Hub's client is replaced."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import DryRunError
from markupsafe import Markup

import eval as evaluation
from sentiment_core.artifacts import remote, store
from sentiment_core.artifacts.store import ArtifactError, adapter_sha256
from sentiment_core.config import ASSETS
from sentiment_core.dashboard import app
from sentiment_core.dashboard.store import Store
from sentiment_core.evaluation.inputs import find_run
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.publishing import hub
from tests.fake_artifacts import write_small_files
from tests.fake_live import FakeClassifier
from tests.live.test_classifier import TEXTS, make_run

COMMIT = "0123abcd" * 5
PINNED = f"me/tiny@{COMMIT}"


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory) -> store.Run:
    """A run that names its base as the Hub does."""
    run = make_run(tmp_path_factory.mktemp("hub") / "assets", tiny_model)
    path = run.adapter_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "org/tiny"}))
    return run


@pytest.fixture
def there(made, tmp_path, monkeypatch) -> Path:
    """What `push` uploaded to me/tiny, to be changed by a test, behind a stand-in for the Hub's client."""
    folder = tmp_path / "there"
    hub.write_run(folder, made, made.path.parents[1], "me/tiny")

    def snapshot_download(repo, *, revision, allow_patterns, token, local_dir=None, dry_run=False):
        assert token is False, "a link must not show what only the Space's owner may read"
        if repo != "me/tiny":
            raise DryRunError("cannot be accessed") from type("RepositoryNotFoundError", (OSError,), {})()
        snapshot_download.calls.append(dry_run)
        files = [path for path in folder.iterdir() if path.name in allow_patterns]
        if not dry_run:
            local_dir.mkdir()
            return [shutil.copy(path, local_dir) for path in files]
        about = {"commit_hash": COMMIT}
        return [SimpleNamespace(filename=f.name, file_size=f.stat().st_size, **about) for f in files]

    snapshot_download.calls = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(remote, "CACHE", tmp_path / "cache")
    return folder


def test_what_push_uploads_comes_back_as_the_same_run_pinned_and_kept(made, there, tmp_path):
    run = find_run("me/tiny", tmp_path)
    assert run.run_id == run.record.run_id == PINNED
    assert run.record == made.record.model_copy(update={"run_id": PINNED})
    assert adapter_sha256(run) == adapter_sha256(made)
    assert store.read_history(run.path).equals(store.read_history(made.path))
    assert {path.name for path in run.path.iterdir()} == set(remote.FILES) - {"sample_answers.json"}
    assert remote.fetch_run(PINNED) == run
    assert remote.fetch_run("me/tiny") == run
    calls = huggingface_hub.snapshot_download.calls
    assert calls == [True, False, True], "a commit is fetched once, and asked for by its name not at all"
    assert [path.name for path in (tmp_path / "cache" / "runs" / "me" / "tiny").iterdir()] == [COMMIT]


def test_eval_measures_somebodys_run_and_the_page_shows_it_with_that_commit(there, tiny_model, tmp_path):
    where = ("--assets", str(tmp_path / "assets"), "--work", str(tmp_path / "work"))
    reviews = ("--dataset", str(ASSETS / "sample_reviews.jsonl"), "--limit", "24")
    assert evaluation.main(["--run", "me/tiny", "--base-model", str(tiny_model), *where, *reviews]) == 0
    shown, run = Store(tmp_path / "assets"), remote.fetch_run("me/tiny")
    found = shown.evals(run, "sample_reviews")["fine-tuned"].record
    assert found.run_id == PINNED
    assert found.eval_id == f"sample_reviews-n24--fine-tuned--me--tiny@{COMMIT}"


def changed(there: Path, name: str, **fields: object) -> None:
    (there / name).write_text(json.dumps(json.loads((there / name).read_text()) | fields))


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("../x", None, "'../x' is no run: on the Hub it is called user/name"),
        ("/etc/passwd", None, "is no run: on the Hub it is called user/name"),
        ("a/b/c", None, "is no run: on the Hub it is called user/name"),
        ("a/..", None, "is no run: on the Hub it is called user/name"),
        ("me/other", None, "'me/other' could not be fetched from the Hub: no such repository is public"),
        ("me/tiny", lambda at: (at / "run.json").unlink(), "me/tiny has no run.json, so"),
        ("me/tiny", lambda at: changed(at, "run.json", schema_version=99), "has schema version 99, this"),
        ("me/tiny", lambda at: changed(at, "adapter_config.json", r=10**6), "(its r is 1000000)"),
        ("me/tiny", lambda at: changed(at, "adapter_config.json", modules_to_save=["lm_head"]), "modules_to"),
        ("me/tiny", lambda at: (at / "adapter_model.safetensors").write_bytes(b"pickle"), "cannot be used"),
        ("me/tiny", lambda at: (at / "run.json").write_text(" " * 2_000_000), "larger than 1 MB"),
        ("me/tiny", lambda at: None, "is on the base model 'tiny-llama'; here run those on gemma"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_one_sentence(there, tmp_path, name, damage, sentence):
    if damage:
        damage(there)
    with pytest.raises(ArtifactError, match=re.escape(sentence)) as refused:
        Store(tmp_path / "none").hub_run(name)
    assert str(tmp_path) not in str(refused.value), "nothing about the server's disk"
    assert "\n" not in str(refused.value)


def opened(demo, run_id: str) -> list:
    """What the page shows for `?run=`; the run's menu is the second, the problems are the last."""
    [load] = [one.fn for one in demo.fns.values() if one.name == "opened"]
    return load(SimpleNamespace(query_params={"run": run_id}))


def test_a_link_shows_somebodys_run_beside_ours_unless_that_is_switched_off(
    there, tiny_model, tmp_path, monkeypatch
):
    write_small_files(tmp_path / "assets")
    ours = make_run(tmp_path / "assets", tiny_model)
    demo = app.build(tmp_path / "assets", FakeClassifier.load, texts={})
    _, menu, *_, problems = opened(demo, "me/tiny")
    assert problems == ""
    assert menu.value == PINNED
    assert [name for _, name in menu.choices] == [ours.run_id, PINNED]
    assert menu.choices[1][0].startswith("me/tiny at 0123abc, tiny-llama, ")
    [draw] = [one.fn for one in demo.fns.values() if "loss-runs" in {o.elem_id for o in one.outputs}][:1]
    drawn = draw(PINNED)
    assert {name for _, name in drawn[0].choices} == {ours.run_id, PINNED}
    assert drawn[0].value == [PINNED]
    monkeypatch.setenv(remote.VARIABLE, "off")
    _, menu, *_, problems = opened(demo, "me/tiny@main")
    assert (menu.value, menu.allow_custom_value) == (ours.run_id, False), "the page goes on"
    told = "SENTIMENT_HUB_RUNS switches runs from the Hub off here; another run is shown."
    assert told in Markup(problems).unescape()


def test_two_runs_share_one_base_and_requests_in_turn_answer_as_alone(there, tiny_model, tmp_path):
    ours, theirs = make_run(tmp_path / "assets", tiny_model, seed=2), remote.fetch_run("me/tiny")

    def load(run: store.Run) -> LiveClassifier:
        return LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")

    def answers(*models: LiveClassifier) -> np.ndarray:
        """(texts, models, systems), asked text by text."""
        asked = [(model, system) for model in models for system in ("fine-tuned", "base")]
        return np.array([[m.classify(text, system).p_positive for m, system in asked] for text in TEXTS])

    alone = np.concatenate([answers(load(run)) for run in (ours, theirs)], axis=1)
    both = [load(ours), load(theirs)]
    np.testing.assert_array_equal(answers(*both), alone)
    assert np.abs(alone[:, 0] - alone[:, 2]).max() > 1e-3, "their adapters must differ"
    assert both[0]._system("base") is both[1]._system("base")
    tuned = [model._system("fine-tuned") for model in both]
    assert tuned[0]._embedding.data_ptr() == tuned[1]._embedding.data_ptr()
