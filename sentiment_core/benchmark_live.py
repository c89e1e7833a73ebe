"""Live speed, one review at a time: our forms, and a text-classification pipeline of DistilBERT's shape.

The peer is what `pipeline("text-classification")` answers with by default, in its shape: six layers of 768
(random weights cost the same time), here behind this model's own tokenizer, so that both read the same
number of tokens. The systems take turns on every review, so that a busy moment hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sentiment_core import environment
from sentiment_core.artifacts import Run, read_run, read_sample_reviews, utc_now
from sentiment_core.base_models import resolve
from sentiment_core.config import ASSETS, ConfigError
from sentiment_core.data import load_reviews
from sentiment_core.live import LiveClassifier, usable_cores
from sentiment_core.live_forward import FIRST_RESULT
from sentiment_core.live_weights import NUMBER_FORMATS
from sentiment_core.models import load_tokenizer, quiet_transformers
from sentiment_core.schema import BenchmarkRecord, BenchmarkRow, Metric

PEER = "text-classification pipeline, DistilBERT's shape"
PEER_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

LONG_WORDS, LONG_REVIEWS = 900, 6
"""Of reviews that fill the model's 1,024 tokens, and how many of them."""

READING = (
    ("first answer", f"the first {FIRST_RESULT} of 1,024 tokens read"),
    ("whole answer", "1,024 tokens read"),
)

Answer = Callable[[str], Any]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", default="", help="run whose fine-tuned model answers; without one, the base")
    parser.add_argument("--base-model", default="", help="folder of a base model that is not on the Hub")
    parser.add_argument("--dataset", default="", help="reviews to ask about; by default our own, joined")
    parser.add_argument("--words", type=int, default=200, help="words of each review")
    parser.add_argument("--reviews", type=int, default=15, help="different reviews")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes over them")
    parser.add_argument(
        "--quick", action="store_true", help="two reviews, one pass, one start: that it works"
    )


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time every form and the peer in this process; start-up and memory in a process of their own."""
    quick = arguments.quick
    count, repeats = (2, 1) if quick else (arguments.reviews, arguments.repeats)
    texts = review_texts(arguments.dataset, arguments.words, count)
    given = _finished(arguments.run)
    forms = ("bf16",) if torch.cuda.is_available() else NUMBER_FORMATS
    with tempfile.TemporaryDirectory() as scratch:
        peer = make_peer(given, arguments.base_model, Path(scratch))
        starts = {f"ours, {f}": _start("ours", f, arguments, texts[0]) for f in forms[: 1 if quick else None]}
        if not quick:
            starts |= {f"{PEER}, {d}": _start(str(peer), d, arguments, texts[0]) for d in PEER_DTYPES}
        served = {form: _ours(given, form, arguments.base_model) for form in forms}
        answers: dict[str, Answer] = {f"ours, {form}": ours.answer for form, ours in served.items()}
        answers |= {f"{PEER}, {d}": load_peer(peer, d) for d in PEER_DTYPES}
        seconds = take_turns(answers, texts, repeats)
    long_texts = review_texts(arguments.dataset, LONG_WORDS, 1 if quick else LONG_REVIEWS)
    long = {
        f"ours, {form}, long reviews": time_reading(ours.read, long_texts, repeats)
        for form, ours in served.items()
        if form in ("bf16", "int8")
    }
    tokens = [served[forms[0]].classifier.classify(text, "base").tokens for text in texts]
    note = f"{int(np.median(tokens))} tokens in the middle of the reviews' prompts"
    rows = [
        BenchmarkRow(
            system=system,
            seconds_per_review=_metric(seconds[system]),
            first_step_seconds=starts.get(system, {}).get("seconds"),
            peak_memory_bytes=starts.get(system, {}).get("peak_bytes"),
            note=note if system.startswith("ours") else "random weights, at most 512 tokens",
        )
        for system in answers
    ]
    rows += [
        BenchmarkRow(system=f"{system}: {step}", seconds_per_review=_metric(times), note=said)
        for system, steps in long.items()
        for (step, said), times in zip(READING, steps, strict=True)
    ]
    return BenchmarkRecord(
        kind="live",
        created_at=utc_now(),
        commit=environment.commit(),
        command=environment.command_line(),
        base_model=given.record.base_model.name if given and given.record else resolve(None).name,
        hardware=environment.hardware("cuda" if torch.cuda.is_available() else "cpu"),
        versions=environment.versions(),
        settings={
            "run": arguments.run, "words": arguments.words, "reviews": len(texts), "repeats": repeats,
            "dataset": Path(arguments.dataset).name, "cores": usable_cores(),
            "first_answer": "from the start of the process, imports included; weights in the cache",
        },
        rows=tuple(rows),
    )  # fmt: skip


def review_texts(dataset: str, words: int, count: int) -> list[str]:
    """`count` texts of exactly `words` words: a dataset's reviews cut there, or our own ones joined."""
    if dataset:
        reviews = load_reviews(dataset, "test").texts
        return [" ".join(t.split()[:words]) for t in reviews if len(t.split()) >= words][:count]
    stock = " ".join(sample.text for sample in read_sample_reviews()).split()
    return [" ".join(np.roll(stock, -words * place)[:words]) for place in range(count)]


def take_turns(answers: dict[str, Answer], texts: Sequence[str], repeats: int) -> dict[str, np.ndarray]:
    """Seconds by system, (repeats, texts) each, after one pass that is not counted."""
    taken = {system: np.zeros((repeats, len(texts))) for system in answers}
    for repeat in range(-1, repeats):
        for place, text in enumerate(texts if repeat >= 0 else texts[:2]):
            for system, answer in answers.items():
                began = time.perf_counter()
                answer(text)
                if repeat >= 0:
                    taken[system][repeat, place] = time.perf_counter() - began
    return taken


def time_reading(read: Answer, texts: Sequence[str], repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds to the first and to the last answer, (repeats, texts) each, after one that is not counted."""
    taken = np.zeros((2, repeats, len(texts)))
    list(read(texts[0]))
    for repeat in range(repeats):
        for place, text in enumerate(texts):
            began, since = time.perf_counter(), []
            for _ in read(text):
                since.append(time.perf_counter() - began)
            taken[:, repeat, place] = since[0], since[-1]
    return taken[0], taken[1]


def _metric(seconds: np.ndarray) -> Metric:
    """Median over all; low and high are the fastest and slowest pass's median."""
    passes = np.median(seconds, axis=1)
    return Metric(
        value=float(np.median(seconds)), low=float(passes.min()), high=float(passes.max()),
        n=seconds.size, higher_is_better=False,
    )  # fmt: skip


def with_threads(count: int, answer: Answer) -> Answer:
    """PyTorch's own threads set anew for each answer, as the systems take turns."""

    def timed(text: str) -> Any:
        torch.set_num_threads(count)
        return answer(text)

    return timed


def _finished(run_id: str) -> Run | None:
    """Raises ConfigError when there is no such finished run; no name is no run."""
    if not run_id:
        return None
    given = read_run(ASSETS / "runs" / run_id)
    if given.record is None:
        raise ConfigError(f"--run {run_id!r} is not a finished run under {ASSETS.name}/runs; train it first")
    return given


class Ours(NamedTuple):
    """One form of our model, and its two ways of answering."""

    classifier: LiveClassifier
    answer: Answer
    read: Answer


def _ours(given: Run | None, form: str, base_model: str) -> Ours:
    classifier = LiveClassifier.load(given, base_model=base_model or None, number_format=form)
    system = "fine-tuned" if classifier.has_adapter else "base"
    threads = torch.get_num_threads()  # as `load` left it: one where the answer brings its own threads
    return Ours(
        classifier,
        with_threads(threads, lambda text: classifier.classify(text, system)),
        with_threads(threads, lambda text: classifier.classify_progressive(text, system)),
    )


# ---- the peer


def make_peer(given: Run | None, base_model: str, folder: Path) -> Path:
    """Save a random classifier of DistilBERT's shape with the base model's tokenizer."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    trained_on = given.record.base_model.name if given and given.record else None
    tokenizer = load_tokenizer(resolve(base_model or None, trained_on))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = 512
    with quiet_transformers():
        DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tokenizer))).save_pretrained(
            folder
        )
        tokenizer.save_pretrained(folder)
    return folder


def load_peer(folder: Path, dtype: str) -> Answer:
    from transformers import pipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet_transformers():
        classify = pipeline("text-classification", model=str(folder), dtype=PEER_DTYPES[dtype], device=device)
    return with_threads(usable_cores(), lambda text: classify(text, truncation=True))


# ---- start-up, in a process of its own


def _start(system: str, form: str, arguments: argparse.Namespace, text: str) -> dict[str, Any]:
    """Seconds from a process's start to its first answer, and its peak memory, with a warm cache."""
    call = [sys.executable, "-m", "sentiment_core.benchmark_live"]
    call += [system, form, arguments.run, arguments.base_model, text]
    runs = 1 if arguments.quick or system != "ours" else 2  # the first may have to fill the cache
    for _ in range(runs):
        began = time.time()
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(call, capture_output=True, text=True, env=surroundings, check=False)
        if done.returncode:
            raise ValueError(f"{system}, {form} did not start: {done.stderr.strip().splitlines()[-1:]}")
        told = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": told["answered_at"] - began, "peak_bytes": told["peak_bytes"]}


def _first_answer(system: str, form: str, run_id: str, base_model: str, text: str) -> None:
    """Answer once and print when, and how much memory it took."""
    if system == "ours":
        _ours(_finished(run_id), form, base_model).answer(text)
    else:
        load_peer(Path(system), form)(text)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"answered_at": time.time(), "peak_bytes": peak}))


if __name__ == "__main__":
    _first_answer(*sys.argv[1:])
