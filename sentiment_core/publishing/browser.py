"""A run for visitors' own browsers: a static folder with both models in one graph, and its page.

Torch makes it, onnxruntime checks it against stored predictions, onnxruntime-web runs it in the page; what
its worker has to know of prompt, labels and sentences is in `model.json`.
"""

import json
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.artifacts.store import Evaluation, Run, adapter_sha256
from sentiment_core.dashboard.components import answers, header, parts
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.tabs import live
from sentiment_core.data.reviews import Reviews, load_reviews
from sentiment_core.live import classifier, forward, graph
from sentiment_core.models.base_models import file_sha256
from sentiment_core.prompts import CUT_MARK
from sentiment_core.publishing.card import PublishError

RUNTIME = {
    "onnxruntime-web@1.30.0": "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    "@huggingface/tokenizers@0.2.0": "2800014c83b8186b2e4210c20672f1fb65a12cef85d7e95e0f2003e022611b4a",
}
"""npm packages that run in the page, and SHA-256 of their archives."""
WASM, ON_GPU = "ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.asyncify.wasm"
TAKEN = ("ort.wasm.bundle.min.mjs", WASM, "ort.webgpu.bundle.min.mjs", ON_GPU, "tokenizers.min.mjs")
FETCHED = ("graph.onnx", "base.bin", "adapter.bin", "prefix.bin", "tokenizer.json", f"runtime/{WASM}")
"""What the page's worker keeps by its content, in the order of fetching."""
LEAST_AGREEMENT, LARGEST_CHANGE = 0.995, 0.01
"""Share of labels, and mean |Δp|, by which a faster form must agree with the stored predictions."""


def write_browser(run: Run, root: Path, folder: Path, *, dataset: str, limit: int | None = None) -> str:
    """Write the folder, whole or not at all; a sentence on what was written and how it agrees.

    Args:
        dataset, limit: on which reviews with stored predictions it is checked, and on how many of them.
    Raises:
        PublishError: it does not agree, nothing is stored to check it by, or npm is missing.
        BaseModelError: the base cannot be had.
    """
    if folder.exists() and not (folder / "model.json").exists():
        raise PublishError(f"--output {folder} exists and is no export; name another folder")
    reviews, stored = load_reviews(dataset, "test", limit=limit), stored_predictions(run, root, dataset)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
            made = Path(scratch) / "export"
            encoder = graph.write_graph(run, made)
            agreed = check(made, encoder, run, stored, reviews)
            size = _write_page(run, root, made, encoder, agreed)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    except OSError as error:
        raise PublishError(f"{folder} could not be written ({error}); free some space, and repeat") from None
    told = "{labels:.2%} of {reviews} reviews' labels as stored, mean |Δp| {mean:.4f}".format(**agreed)
    return f"{folder}, of which a browser fetches {size / 1e6:.0f} MB: {told}"


def stored_predictions(run: Run, root: Path, dataset: str) -> dict[float, Evaluation]:
    """Of the base model and of the run on the dataset, by alpha. PublishError where one lacks."""
    evals = Store(root).evals(run, load_reviews(dataset, "test").name)
    if not {"baseline-scored", "fine-tuned"} <= evals.keys():
        command = f"python eval.py --run {run.run_id} --system all --dataset {dataset}"
        raise PublishError(f"predictions of both models on {dataset!r} are not there to check by: {command}")
    return {0.0: evals["baseline-scored"], 1.0: evals["fine-tuned"]}


def check(
    folder: Path, encoder: Any, run: Run, stored: dict[float, Evaluation], reviews: Reviews
) -> dict[str, Any]:
    """How the exported graph agrees with the stored predictions; PublishError where that is not enough."""
    assert run.record
    model, n, before = graph.ExportedModel(folder), len(reviews), len(encoder.prefix_ids)
    encoded = encoder.encode(reviews.texts, run.record.max_length_tokens)
    pasts = np.fromfile(folder / "prefix.bin", np.float32).reshape(2, *model.past[:2], before, model.past[2])
    found, told = [], []
    for alpha, evaluation in stored.items():
        log_odds = [model.run(encoded[i][before:], pasts[int(alpha)], alpha)[0] for i in range(n)]
        found.append(expit(np.array(log_odds) / (1 + alpha * (run.record.temperature - 1))))
        known = evaluation.predictions().drop_duplicates("review_id").set_index("review_id")["p_positive"]
        told.append(known.reindex(reviews.ids))
    p, q = np.concatenate(found), np.concatenate(told)
    labels, change = float(np.mean((p >= 0.5) == (q >= 0.5))), np.abs(p - q)
    mean, largest = float(change.mean()), float(change.max())
    agrees = labels >= LEAST_AGREEMENT and mean <= LARGEST_CHANGE
    if not agrees:  # nor where a review has no prediction, which is nan
        raise PublishError(
            f"the graph gives {labels:.2%} of the stored labels (at least {LEAST_AGREEMENT:.1%}) with mean "
            f"|Δp| {mean:.4f} (at most {LARGEST_CHANGE}), n = {n}; nothing was written"
        )
    return {"reviews": n, "dataset": reviews.name, "labels": labels, "mean": mean, "largest": largest}


def _write_page(run: Run, root: Path, folder: Path, encoder: Any, agreed: dict[str, Any]) -> int:
    """What the page runs on, with its licences; the worker and what it has to know; the page.
    Returns how many bytes a browser fetches."""
    assert run.record
    _fetch_runtime(folder / "runtime")
    *fetched, gpu = (
        {"name": name, "bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in (*FETCHED, f"runtime/{ON_GPU}")
    )
    context = Context(Store(root))
    stored, size = live.stored_answers(context, run), sum(one["bytes"] for one in fetched)
    answered = sorted((one for one in stored["samples"] if "fine" in one), key=lambda one: len(one["text"]))
    samples = [{"text": one["text"]} | {a: one[a]["p"] for a in ("base", "fine")} for one in answered[:3]]
    about = {
        "run": run.run_id, "adapter": adapter_sha256(run), "temperature": run.record.temperature,
        "dial": DIAL, "prefix": encoder.prefix_ids, "suffix": encoder.suffix_ids,
        "mark": encoder.review_ids([CUT_MARK])[0], "limit": run.record.max_length_tokens,
        "long": forward.LONG, "first": forward.FIRST_RESULT, "characters": MAX_CHARACTERS,
        "dial_tokens": classifier.DIAL_TOKENS, "reading": answers.READING, "agreement": agreed,
        "files": fetched, "gpu": gpu, "bytes": size, "samples": samples, "largest": 2 * LARGEST_CHANGE,
        "past": graph.ExportedModel(folder).past,
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
    stored["local"] = {"url": "./", "bytes": size}
    page = parts.fragment(
        "browser", title=header.TITLE, head=header.head_html(context, run)[0], dares=live.DARES,
        stored=stored, **{one: parts.render(one) for one in ("live", "dial", "trace")}, most=MAX_CHARACTERS,
    )  # fmt: skip
    (folder / "index.html").write_text(page, encoding="utf-8")
    script = f"{parts.static('figures.js', 'figures.*.js')}\n({parts.static('page.js')})();\n"
    sources = {"worker.js": "", "reading.js": "", "page.css": parts.css(), "page.js": script}
    for name, shared in sources.items():
        own = (parts.FOLDER / "browser" / name).read_text(encoding="utf-8")
        (folder / name).write_text(f"{shared}\n{own}", encoding="utf-8")
    return size


def _fetch_runtime(folder: Path) -> None:
    """What the page runs on, with its licences."""
    packages = " and ".join(RUNTIME)
    with tempfile.TemporaryDirectory() as scratch:
        command, package = (
            ["npm", "pack", *RUNTIME, "--silent", "--prefer-offline"],
            Path(scratch) / "package",
        )
        try:
            subprocess.run(command, check=True, capture_output=True, cwd=scratch)
        except (OSError, subprocess.CalledProcessError):
            raise PublishError(f"npm could not fetch {packages}; install npm, or go online once") from None
        archives = [*Path(scratch).glob("*.tgz")]
        if {*map(file_sha256, archives)} != {*RUNTIME.values()}:
            raise PublishError(f"npm gave others than the pinned {packages}; nothing was written")
        for archive in archives:
            shutil.unpack_archive(archive, scratch, filter="data")
        folder.mkdir()
        for name in TAKEN:
            shutil.copy(package / "dist" / name, folder)
        shutil.copy(package / "LICENSE", folder / "LICENSE-tokenizers")
        shutil.copy(str(files("onnxruntime") / "LICENSE"), folder / "LICENSE-onnxruntime")
