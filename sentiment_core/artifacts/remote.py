"""A run that `publishing push` brought to the Hugging Face Hub, fetched and read as one of our own.

    fetch_run("user/name")    # as it is now; its `run_id` "user/name@commit" always means this very one

Of the repository only the files of FILES are fetched: JSON and safetensors, without the caller's token.
"""

import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import RunRecord
from sentiment_core.artifacts.store import MOST_BYTES, ArtifactError, Run
from sentiment_core.config import CACHE

VARIABLE = "SENTIMENT_HUB_RUNS"
FILES = {
    "run.json": 1_000_000, "adapter_config.json": 100_000, "adapter_model.safetensors": MOST_BYTES,
    "history.jsonl": 4_000_000, "sample_answers.json": 4_000_000,
}  # fmt: skip
"""Name -> most bytes; the first three must be there."""
KEPT = 16  # runs in the cache; the least recently used go first
UNUSED = ("rank_pattern", "modules_to_save", "layer_replication", "auto_mapping", "target_parameters")
"""Of an adapter's configuration, what would ask for more than the matrices that its file holds."""


def allowed() -> bool:
    return os.environ.get(VARIABLE, "").lower() not in ("0", "off", "no", "false")


def fetch_run(name: str) -> Run:
    """The run of that Hub id, "user/name" or "user/name@revision".

    Raises ArtifactError, one sentence that names no path of this machine: runs from the Hub are switched off,
    no Hub id, the Hub out of reach, no such repository, no run in it, or one that does not fit."""
    if not allowed():
        raise ArtifactError(f"{name[:90]!r} is not fetched: {VARIABLE} switches runs from the Hub off here")
    if not re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}(@\w[\w.-]{0,95})?", name, re.ASCII) or ".." in name:
        raise ArtifactError(f"{name[:90]!r} is no run: on the Hub it is called user/name")
    repo, _, revision = name.partition("@")
    try:
        folder = _fetched(repo, revision)
        return _read(Run(folder, None, hub=f"{repo}@{folder.name}"))
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(f"{CACHE / 'runs'}{os.sep}", "")) from None
    except Exception as error:  # the Hub's client and what it stands on have kinds of their own, by version
        missing = {type(error).__name__, type(error.__cause__).__name__} & {"RepositoryNotFoundError"}
        reason = "no such repository is public" if missing else str(error).strip().partition("\n")[0]
        raise ArtifactError(f"run {name!r} could not be fetched from the Hub: {reason[:200]}") from None


def _fetched(repo: str, revision: str) -> Path:
    """The cache's folder for the repository's commit, named by it; made by one rename."""
    from huggingface_hub import snapshot_download

    home = CACHE / "runs" / repo
    if (home / revision / "run.json").exists():  # a whole commit means always the same
        os.utime(home / revision)
        return home / revision
    asked: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(FILES), "token": False}
    about = {file.filename: file for file in snapshot_download(repo, dry_run=True, **asked)}
    if missing := [file for file in list(FILES)[:3] if file not in about]:
        raise ArtifactError(f"{repo} has no {missing[0]}, so `publishing push` brought no run there")
    for file, most in FILES.items():
        if file in about and (about[file].file_size or most + 1) > most:
            raise ArtifactError(f"{file} of {repo} is larger than {most / 1e6:g} MB, as none of a run is")
    folder = home / about["run.json"].commit_hash
    if not folder.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".") as scratch:
            whole = Path(scratch) / "run"
            snapshot_download(repo, local_dir=whole, **asked | {"revision": folder.name})
            whole.rename(folder)
        runs = sorted((CACHE / "runs").glob("*/*/[!.]*"), key=lambda path: -path.stat().st_mtime)
        for old in runs[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _read(run: Run) -> Run:
    """With its record; ArtifactError where that or the adapter is not one of ours."""
    record = store.read_record(run.path / "run.json", RunRecord, "push it again with this program's version")
    ranks = {rank for *_, rank in store.read_adapter_shapes(run).values()}
    config = store.read_adapter_config(run)
    fits = {"peft_type": config.get("peft_type") == "LORA", "r": ranks == {config["r"]}}
    if odd := [key for key in UNUSED if config.get(key)] + [key for key, right in fits.items() if not right]:
        what = f"its {odd[0]} is {str(config.get(odd[0]))[:60]}"
        raise ArtifactError(f"the adapter of {run.hub} is none that train.py makes ({what})")
    return replace(run, record=record.model_copy(update={"run_id": run.run_id}))
