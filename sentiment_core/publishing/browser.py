"""A run for the visitor's own browser: a static folder with both models in one graph, and a page that needs no server.

Torch makes it, onnxruntime checks it against stored predictions, and the page runs it by onnxruntime-web; what
the page's worker has to know of prompt, labels and sentences is in `model.json`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.artifacts.store import Evaluation, Run, adapter_sha256, list_artifacts
from sentiment_core.dashboard import theme
from sentiment_core.dashboard.components import answers, dial, header, html, trace
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.host import ModelHost
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from sentiment_core.dashboard.serving import Serving
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.tabs import live
from sentiment_core.dashboard.texts import ReviewTexts
from sentiment_core.data.reviews import load_reviews
from sentiment_core.live.clauses import MOVE
from sentiment_core.models.base_models import file_sha256, resolve, sealed_folder
from sentiment_core.publishing.card import PublishError, evaluations

RUNTIME = {
    "onnxruntime-web@1.30.0": (
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
        ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    ),
    "@huggingface/tokenizers@0.2.0": (
        "2800014c83b8186b2e4210c20672f1fb65a12cef85d7e95e0f2003e022611b4a",
        ("tokenizers.min.mjs", "LICENSE"),
    ),
}
"""npm packages that run in the page: SHA-256 of the archive, and what is taken of it."""
FETCHED = (
    "graph.onnx",
    "base.bin",
    "adapter.bin",
    "prefix.bin",
    "tokenizer.json",
    "runtime/ort-wasm-simd-threaded.wasm",
)
"""What the page's worker keeps by its content, in the order of fetching."""
SOURCES = Path(theme.__file__).with_name("browser")
"""What the page has beside the dashboard's own style and script."""
LEAST_AGREEMENT, LARGEST_CHANGE = 0.995, 0.01
"""Share of labels, and mean |Δp|, by which a faster form must agree with the stored predictions."""
TOKENS_A_PASS = 400


class ExportedModel:
    """The exported graph through onnxruntime on a CPU, asked as the page's worker does."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(folder / "graph.onnx", options)
        rows, heads, _, size = self._session.get_inputs()[5].shape
        self.nothing = np.zeros((rows, heads, 0, size), np.float32)

    def run(
        self, rows: Sequence[Sequence[int]], past: np.ndarray, alpha: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) log-odds of n prompts that go on behind the same past, and all keys and values."""
        lengths = [len(row) for row in rows]
        copy, before = np.repeat(np.arange(len(rows)), lengths), past.shape[2]
        inputs = {
            "ids": np.concatenate(rows), "seen": np.full(len(copy), before), "copy": copy,
            "positions": before + np.concatenate([np.arange(n) for n in lengths]),
            "last": np.cumsum(lengths) - 1,
        }  # fmt: skip
        given = {name: value.astype(np.int32) for name, value in inputs.items()}
        found = self._session.run(None, given | {"past": past, "alpha": np.array([alpha], np.float32)})
        return found[0], found[1]

    def log_odds(self, rows: Sequence[Sequence[int]], past: np.ndarray, alpha: float) -> np.ndarray:
        """The same of many, a few hundred tokens a pass."""
        pass_of = np.cumsum([len(row) for row in rows]) // TOKENS_A_PASS
        parts = [
            [row for row, one in zip(rows, pass_of, strict=True) if one == n] for n in range(pass_of[-1] + 1)
        ]
        return np.concatenate([self.run(part, past, alpha)[0] for part in parts if part])


def write_browser(
    run: Run, root: Path, folder: Path, *, dataset: str = "challenge", limit: int | None = None
) -> str:
    """Write the folder, whole or not at all; a sentence on what was written and how it agrees.

    Args:
        dataset, limit: on which reviews with stored predictions it is checked, and on how many of them.
    Raises:
        PublishError: it does not agree, nothing is stored to check it by, or a tool is missing.
        BaseModelError: the base cannot be had.
    """
    if folder.exists() and not (folder / "model.json").exists():
        raise PublishError(f"--output {folder} exists and is no export; name another folder")
    if missing := [name for name in ("onnx", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise PublishError(f"the export needs {' and '.join(missing)}: pip install '.[browser]'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
            about = _write(run, root, Path(scratch) / "export", dataset, limit)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(Path(scratch) / "export", folder)
    except OSError as error:
        raise PublishError(
            f"{folder} could not be written ({error}); free some space or correct its rights"
        ) from None
    agreement = about["agreement"]
    return (
        f"{folder} ({about['bytes'] / 1e6:.0f} MB): {agreement['labels']:.2%} of the labels of {agreement['reviews']} "
        f"reviews as stored, mean |Δp| {agreement['mean']:.4f}, largest {agreement['largest']:.3f}"
    )


def _write(run: Run, root: Path, folder: Path, dataset: str, limit: int | None) -> dict[str, Any]:
    stored = stored_predictions(run, root, dataset)
    encoder = _write_model(run, folder)
    about = _about(run, encoder)
    about["agreement"] = check(folder, encoder, about, stored, dataset, limit)
    _write_runtime(folder / "runtime")
    _write_page(run, root, folder, about)
    return about


# ---- the model


def _write_model(run: Run, folder: Path) -> Any:
    """The graph, its weights, the prefix's keys and values of both models, and the tokenizer; the encoder."""
    from sentiment_core.models.loading import load_adapter, load_base
    from sentiment_core.publishing.graph import LlamaGraph

    assert run.record
    base = resolve(os.environ.get("SENTIMENT_BASE_MODEL") or None, run.record.base_model.name)
    loaded = load_base(base, dequantized=False)
    if loaded.model.config.model_type != "llama":
        raise PublishError(
            f"base model {base.name!r} is a {loaded.model.config.model_type}; only a llama is exported"
        )
    graph = LlamaGraph(load_adapter(loaded.model, run.adapter_path), loaded.encoder.label_ids)
    folder.mkdir()
    (folder / "graph.onnx").write_bytes(graph.build().SerializeToString())
    for name, content in graph.files.items():
        (folder / name).write_bytes(content)
    model, prefix = ExportedModel(folder), [loaded.encoder.prefix_ids]
    pasts = [model.run(prefix, model.nothing, alpha)[1] for alpha in (0.0, 1.0)]
    (folder / "prefix.bin").write_bytes(b"".join(past.tobytes() for past in pasts))
    tokenizer = json.loads(loaded.encoder.tokenizer_json())
    tokenizer["pre_tokenizer"] = _digits_split(tokenizer["pre_tokenizer"])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, separators=(",", ":")), encoding="utf-8")
    return loaded.encoder


def _digits_split(step: dict[str, Any]) -> dict[str, Any]:
    """A pre-tokenizer whose digits are split off by a pattern, which says the same in Rust and JavaScript."""
    if step["type"] == "Sequence":
        return step | {"pretokenizers": [_digits_split(one) for one in step["pretokenizers"]]}
    if step["type"] != "Digits":
        return step
    pattern = r"\p{N}" if step["individual_digits"] else r"\p{N}+"
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _about(run: Run, encoder: Any) -> dict[str, Any]:
    """What the worker has to know."""
    from sentiment_core.live.classifier import DIAL_TOKENS
    from sentiment_core.live.forward import FIRST_RESULT, LONG
    from sentiment_core.prompts import CUT_MARK

    assert run.record
    question = dial.value_of("", 0.0, 0.0)
    return {
        "run": run.run_id, "adapter": adapter_sha256(run), "temperature": run.record.temperature, "dial": DIAL,
        "prefix": encoder.prefix_ids, "suffix": encoder.suffix_ids, "mark": encoder.review_ids([CUT_MARK])[0],
        "limit": int(run.record.config.get("max_length_tokens") or 1024), "long": LONG, "first": FIRST_RESULT,
        "characters": MAX_CHARACTERS,
        "say": {
            "busy": answers.READING, "reading": trace.READING, "trace": trace.CAPTION, "move": MOVE,
            "between": len(DIAL), "bend": dial.BEND, "dial": dial.CAPTION, "question": question["title"],
            "ask": question["note"], "computing": dial.COMPUTING, "most": DIAL_TOKENS,
        },
    }  # fmt: skip


# ---- the check


def stored_predictions(run: Run, root: Path, dataset: str) -> dict[float, Evaluation]:
    """Those of the base model and of the run on the dataset, by alpha."""
    if run.record is None:
        raise PublishError(f"run {run.run_id!r} is not there or unfinished; train it with train.py")
    name, base = Path(dataset).stem, run.record.base_model
    here = [
        one
        for one in list_artifacts(root).evals
        if name in (one.record.dataset.name, one.record.dataset.source)
    ]
    tuned = {record.eval_id for record in evaluations(run, root) if record.system == "fine-tuned"}
    before = {
        one.record.eval_id for one in here
        if one.record.system == "baseline-scored" and one.record.base_model == base and one.record.prompt == run.record.prompt
    }  # fmt: skip
    found = {a: one for a, ids in ((0.0, before), (1.0, tuned)) for one in here if one.record.eval_id in ids}
    if len(found) < 2:
        command = f"python eval.py --run {run.run_id} --system all --dataset {dataset}"
        raise PublishError(
            f"no predictions of run {run.run_id!r} on {dataset!r} to check the export by; make them: {command}"
        )
    return found


def check(
    folder: Path,
    encoder: Any,
    about: dict[str, Any],
    stored: dict[float, Evaluation],
    dataset: str,
    limit: int | None,
) -> dict[str, Any]:
    """How the exported graph agrees with the stored predictions; PublishError where that is not enough."""
    model, reviews = ExportedModel(folder), load_reviews(dataset, "test", limit=limit)
    encoded = encoder.encode(reviews.texts, about["limit"])
    rows = [encoded[i][len(about["prefix"]) :] for i in range(len(encoded))]
    pasts = np.split(np.fromfile(folder / "prefix.bin", np.float32), 2)
    shape = (*model.nothing.shape[:2], len(about["prefix"]), model.nothing.shape[3])
    found, told = [], []
    for alpha, evaluation in stored.items():
        log_odds = model.log_odds(rows, pasts[int(alpha)].reshape(shape), alpha)
        found.append(expit(log_odds / (1 + alpha * (about["temperature"] - 1))))
        frame = evaluation.predictions().drop_duplicates("review_id").set_index("review_id")["p_positive"]
        told.append(frame.reindex(reviews.ids).to_numpy())
    p, q = np.concatenate(found), np.concatenate(told)
    labels, change = float(np.mean((p >= 0.5) == (q >= 0.5))), np.abs(p - q)
    result = {
        "reviews": len(rows),
        "dataset": reviews.name,
        "labels": labels,
        "mean": float(change.mean()),
        "largest": float(change.max()),
    }
    if not (
        labels >= LEAST_AGREEMENT and result["mean"] <= LARGEST_CHANGE
    ):  # nan, too, where a review has none
        raise PublishError(
            f"the graph gives {labels:.2%} of the stored labels (at least {LEAST_AGREEMENT:.1%}) with mean |Δp| "
            f"{result['mean']:.4f} (at most {LARGEST_CHANGE}) on {len(rows)} reviews; nothing was written"
        )
    return result


# ---- the page


def _write_runtime(folder: Path) -> None:
    """What the page runs the model by, with its licences."""
    names = json.dumps(RUNTIME)
    try:
        kept = sealed_folder("runtime", hashlib.sha256(names.encode()).hexdigest()[:16], _fetch_runtime)
    except OSError as error:
        raise PublishError(
            f"the page's runtime could not be kept ({error}); set SENTIMENT_CACHE to a folder that can be written"
        ) from None
    shutil.copytree(kept, folder, ignore=shutil.ignore_patterns("sha256.json"))
    shutil.copy(str(files("onnxruntime") / "LICENSE"), folder / "LICENSE-onnxruntime")


def _fetch_runtime(folder: Path) -> None:
    for package, (sha256, wanted) in RUNTIME.items():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                command = ["npm", "pack", package, "--silent", "--pack-destination", scratch]
                subprocess.run(command, check=True, capture_output=True)
                (archive,) = Path(scratch).glob("*.tgz")
            except (OSError, ValueError, subprocess.CalledProcessError):
                raise PublishError(
                    f"npm could not fetch {package}, which the page runs on; install npm, or go online once"
                ) from None
            if file_sha256(archive) != sha256:
                raise PublishError(
                    f"npm gave another {package} than the pinned one (SHA-256 {sha256}); nothing was written"
                )
            with tarfile.open(archive) as content:
                for member in content.getmembers():
                    name = Path(member.name).name
                    if member.name in (f"package/dist/{name}", f"package/{name}") and name in wanted:
                        (folder / name.replace("LICENSE", "LICENSE-tokenizers")).write_bytes(
                            content.extractfile(member).read()
                        )  # pyrefly: ignore


def _write_page(run: Run, root: Path, folder: Path, about: dict[str, Any]) -> None:
    for name in ("worker.js", "reading.js"):
        shutil.copy(SOURCES / name, folder)
    sizes = {name: (folder / name).stat().st_size for name in FETCHED}
    about["files"] = [
        {"name": name, "bytes": size, "sha256": file_sha256(folder / name)} for name, size in sizes.items()
    ]
    about["bytes"] = sum(sizes.values())
    model = ExportedModel(folder)
    about["past"] = [model.nothing.shape[i] for i in (0, 1, 3)]
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
    context = Context(Store(root), Serving(ModelHost()), ReviewTexts({}))
    stored = live.stored_answers(context, run) | {"local": {"url": "./", "bytes": about["bytes"]}}
    page = html.fragment(
        "browser", title=header.TITLE, head=header.title_html(context, run), stored=stored, dares=live.DARES,
        answers=answers.TEMPLATE, dial=dial.TEMPLATE, trace=html.render("trace"), most=MAX_CHARACTERS,
    )  # fmt: skip
    figures = f"{theme.static('figures.js', 'figures.*.js')}\n({theme.static('page.js')})();\n"
    for name, before in (("page.css", theme.css()), ("page.js", figures)):
        (folder / name).write_text(f"{before}\n{(SOURCES / name).read_text(encoding='utf-8')}", encoding="utf-8")
    (folder / "index.html").write_text(page, encoding="utf-8")
