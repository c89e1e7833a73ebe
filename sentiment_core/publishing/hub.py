"""What goes to the Hugging Face Hub: a run with its card and evaluations, or the dashboard's Space."""

import shutil
from pathlib import Path

from huggingface_hub import EvalResultEntry, HfApi, RepoCard, constants, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from sentiment_core.artifacts.schema import EvalRecord
from sentiment_core.artifacts.store import Run, read_adapter_config, write_text
from sentiment_core.models.base_models import live_base
from sentiment_core.publishing.card import PublishError, card_of, evaluations, hub_dataset

CHECKOUT = Path(__file__).resolve().parents[2]
SPACE_FILES = ("app.py", "requirements.txt", "README.md", "LICENSE", "notebook.ipynb")
NOT_IN_SPACE = shutil.ignore_patterns("__pycache__", "*.sh", ".*")
REPLACED = ["sentiment_core/*", "docs/*", "assets/*", "evaluations/*"]
"""What is removed from a repository where it is not in the folder any more."""


def write_run(folder: Path, run: Run, root: Path, repo: str, *, merged: bool = False) -> None:
    """A finished run's adapter, or its merged model, with card, record and evaluations.
    Raises PublishError: its base is not on the Hub. BaseModelError: to merge, the base cannot be had."""
    card = card_of(run, root, repo=repo, merged=merged)
    base = read_adapter_config(run).get("base_model_name_or_path") or ""
    if "/" not in base:
        raise PublishError(
            f"the adapter of {run.run_id!r} names its base {base!r}, which is not on the Hub; "
            "train it again, on a base that is there"
        )
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("adapter"))
    if merged:
        from sentiment_core.models.loading import load_merged

        loaded = load_merged(live_base(run.record), run.adapter_path)
        loaded.model.save_pretrained(folder)
        loaded.encoder.tokenizer.save_pretrained(folder)
    else:
        shutil.copytree(run.adapter_path, folder, dirs_exist_ok=True)
    card.save(folder / "README.md")
    for record in evaluations(run, root):
        shutil.copytree(root / "evals" / record.eval_id, folder / "evaluations" / record.eval_id)
        if record.dataset.split == "test":
            _write_result(record, folder / ".eval_results", repo)


def _write_result(record: EvalRecord, folder: Path, repo: str) -> None:
    """The test accuracy as https://huggingface.co/docs/hub/eval-results has it, with a link to its record.
    The Hub shows it where the dataset is registered as a benchmark; else the card's own results."""
    entry = EvalResultEntry(
        dataset_id=hub_dataset(record.dataset.source), task_id="accuracy",
        value=round(record.metrics["accuracy"].value, 4), date=record.created_at.date().isoformat(),
        source_url=f"{constants.ENDPOINT}/{repo}/blob/main/evaluations/{record.eval_id}/eval.json",
        source_name="The full record", notes=record.title,
    )  # fmt: skip
    content = yaml_dump(eval_result_entries_to_yaml([entry]))
    write_text(folder / f"{record.dataset.name}.yaml", content)


def write_space(folder: Path, root: Path, repo: str) -> None:
    """Exactly what the dashboard needs, on the artifacts under `root`, and what README links to; with a repo
    its card has a thumbnail, and the notebook opens in Colab and clones it.
    Raises PublishError where this program is installed without its checkout."""
    if not all((CHECKOUT / name).exists() for name in SPACE_FILES):
        raise PublishError("a Space is made from a checkout of the repository; run the command in one")
    for name in ("sentiment_core", "docs"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=NOT_IN_SPACE)
    shutil.copytree(root, folder / "assets", ignore=NOT_IN_SPACE)
    for name in SPACE_FILES:
        shutil.copy(CHECKOUT / name, folder)
    if repo:
        card, address = RepoCard.load(folder / "README.md"), f"{constants.ENDPOINT}/spaces/{repo}"
        card.data["thumbnail"] = f"{address}/resolve/main/assets/dashboard-live.png"
        card.save(folder / "README.md")
        notebook, colab = folder / "notebook.ipynb", "https://colab.research.google.com/"
        content = notebook.read_text(encoding="utf-8")
        content = content.replace(f"({colab})", f"({colab}#fileId={address}/blob/main/notebook.ipynb)")
        write_text(notebook, content.replace(r"REPOSITORY = \"\"", rf"REPOSITORY = \"{address}\""))


def upload(folder: Path, repo: str, kind: str) -> str:
    """Create or update a "model" or "space" with the caller's own token. Returns its address.
    Raises PublishError with what the Hub, its client or the network says."""
    sdk = "gradio" if kind == "space" else None
    try:
        address = HfApi().create_repo(repo, repo_type=kind, exist_ok=True, space_sdk=sdk)
        HfApi().upload_folder(
            repo_id=address.repo_id, repo_type=kind, folder_path=folder, delete_patterns=REPLACED
        )
    except Exception as error:  # the client's HTTP library has kinds of its own, by version
        reason = str(error).strip().splitlines()[0]
        raise PublishError(
            f"{repo!r} could not be uploaded ({reason}); log in with `hf auth login`, or check the name"
        ) from None
    return str(address)
