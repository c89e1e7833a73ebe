"""Live latency, one review at a time: our number formats, and a pipeline of DistilBERT's shape.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.artifacts.store import Run, read_sample_reviews
from sentiment_core.benchmarks.measure import finished, record, spread
from sentiment_core.data.reviews import load_reviews
from sentiment_core.live.classifier import LiveAnswer, LiveClassifier, usable_cores
from sentiment_core.live.forward import FIRST_RESULT
from sentiment_core.live.weights import NUMBER_FORMATS
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_tokenizer, quiet_transformers

PEER = "text-classification pipeline, DistilBERT's shape"
PEER_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LONG_WORDS, LONG_REVIEWS = 900, 6
"""Of reviews that fill the model's 1,024 tokens, and how many of them."""

Answer = Callable[[str], Iterable[Any]]
"""A review's answers, one or two of them, as they come."""


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
    """Time every number format and the peer here; start-up and memory in a process of their own."""
    quick = arguments.quick
    count, repeats = (2, 1) if quick else (arguments.reviews, arguments.repeats)
    texts = review_texts(arguments.dataset, arguments.words, count)
    run, base_model = finished(arguments.run)
    formats = ("bf16",) if torch.cuda.is_available() else NUMBER_FORMATS
    with tempfile.TemporaryDirectory() as scratch:
        peer = make_peer(arguments.base_model or base_model, scratch)
        served = {f: _classifier(run, f, arguments.base_model) for f in formats}
        systems = {f"ours, {f}": ("ours", f) for f in formats}
        systems |= {f"{PEER}, {d}": (peer, d) for d in PEER_DTYPES}
        started = list(systems)[: 1 if quick else None]
        starts = {system: _start(*systems[system], arguments, texts[0]) for system in started}
        answers = {f"ours, {f}": once(served[f]) for f in formats}
        answers |= {f"{PEER}, {d}": load_peer(peer, d) for d in PEER_DTYPES}
        seconds = take_turns(answers, texts, repeats)
    tokens = [served[formats[0]].classify(text, "base").tokens for text in texts]
    ours = f"{int(np.median(tokens))} tokens in the middle of the reviews' prompts"
    rows = [
        BenchmarkRow(
            system=system, seconds_per_review=_latency(seconds[system][-1]), **starts.get(system, {}),
            note=ours if system.startswith("ours") else "random weights, at most 512 tokens",
        )
        for system in answers
    ]  # fmt: skip
    long = review_texts(arguments.dataset, LONG_WORDS, 1 if quick else LONG_REVIEWS)
    rows += _long_rows(served, long, repeats)
    return record(
        "live", rows, base_model, run=arguments.run, words=arguments.words, reviews=len(texts),
        repeats=repeats, dataset=Path(arguments.dataset).name, cores=usable_cores(),
        first_answer="from the start of the process, imports included; weights in the cache",
    )  # fmt: skip


def _long_rows(
    served: dict[str, LiveClassifier], texts: Sequence[str], repeats: int
) -> Iterator[BenchmarkRow]:
    """First and whole answer of reviews that fill the prompt."""
    answers = {f"ours, {f}, long reviews": progressively(c) for f, c in served.items() if f != "fp32"}
    notes = {"first": f"the first {FIRST_RESULT} of 1,024 tokens read", "whole": "1,024 tokens read"}
    for system, taken in take_turns(answers, texts, repeats).items():
        for (which, note), seconds in zip(notes.items(), map(_latency, taken), strict=True):
            yield BenchmarkRow(system=f"{system}: {which} answer", seconds_per_review=seconds, note=note)


def review_texts(dataset: str, words: int, count: int) -> list[str]:
    """`count` texts of exactly `words` words: a dataset's reviews cut there, or our own ones joined."""
    if dataset:
        reviews = load_reviews(dataset, "test").texts
        return [" ".join(t.split()[:words]) for t in reviews if len(t.split()) >= words][:count]
    stock = " ".join(sample.text for sample in read_sample_reviews()).split()
    return [" ".join(np.roll(stock, -words * place)[:words]) for place in range(count)]


def take_turns(answers: dict[str, Answer], texts: Sequence[str], repeats: int) -> dict[str, np.ndarray]:
    """Seconds to the first and last answer by system, (2, repeats, texts), after a pass not counted."""
    taken = {system: np.zeros((2, repeats, len(texts))) for system in answers}
    for repeat in range(-1, repeats):
        for place, text in enumerate(texts if repeat >= 0 else texts[:2]):
            for system, answer in answers.items():
                began = time.perf_counter()
                since = [time.perf_counter() - began for _ in answer(text)]
                if repeat >= 0:
                    taken[system][:, repeat, place] = since[0], since[-1]
    return taken


def _latency(seconds: np.ndarray) -> Metric:
    """Median of (repeats, texts); low and high are the fastest and slowest pass's median."""
    passes = spread(np.median(seconds, axis=1), n=seconds.size, higher_is_better=False)
    return passes.model_copy(update={"value": float(np.median(seconds))})


def with_threads(count: int, answer: Answer) -> Answer:
    """PyTorch's own threads set anew for each answer, as the systems take turns."""

    def timed(text: str) -> Iterator[Any]:
        torch.set_num_threads(count)
        yield from answer(text)

    return timed


def _classifier(run: Run | None, number_format: str, base_model: str) -> LiveClassifier:
    return LiveClassifier.load(run, base_model=base_model or None, number_format=number_format)


def once(classifier: LiveClassifier) -> Answer:
    """One whole answer, with PyTorch's threads as `load` left them: one where the answer brings its own."""
    system = "fine-tuned" if classifier.has_adapter else "base"
    return with_threads(torch.get_num_threads(), lambda text: [classifier.classify(text, system)])


def progressively(classifier: LiveClassifier) -> Answer:
    """A first answer, then the whole one."""
    system = "fine-tuned" if classifier.has_adapter else "base"

    def answers(text: str) -> Iterator[LiveAnswer]:
        for step in classifier.read(text, system):
            if isinstance(step, LiveAnswer):
                yield step

    return with_threads(torch.get_num_threads(), answers)


def make_peer(base_model: str, folder: str) -> str:
    """Save a random classifier of DistilBERT's shape with the base model's tokenizer. Returns the folder."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = load_tokenizer(resolve(base_model))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = 512
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tokenizer)))
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def load_peer(folder: str, dtype: str) -> Answer:
    from transformers import pipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet_transformers():
        classify = pipeline("text-classification", model=folder, dtype=PEER_DTYPES[dtype], device=device)
    return with_threads(usable_cores(), lambda text: [classify(text, truncation=True)])


def _start(system: str, number_format: str, arguments: argparse.Namespace, text: str) -> dict[str, Any]:
    """A row's seconds from a process's start to its first answer, and peak memory, with a warm cache."""
    call = [sys.executable, "-m", "sentiment_core.benchmarks.live"]
    call += [system, number_format, arguments.run, arguments.base_model, text]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    began, told = 0.0, dict[str, Any]()
    for _ in range(1 if arguments.quick or system != "ours" else 2):  # the first may have to fill the cache
        began = time.time()
        done = subprocess.run(call, capture_output=True, text=True, env=surroundings, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:]
            raise ValueError(f"{system}, {number_format} did not start: {reason}")
        told = json.loads(done.stdout.splitlines()[-1])
    return {"first_step_seconds": told["answered_at"] - began, "peak_memory_bytes": told["peak_bytes"]}


def _first_answer(system: str, number_format: str, run_id: str, base_model: str, text: str) -> None:
    """Answer once and print when, and how much memory it took."""
    if system == "ours":
        answer = once(_classifier(finished(run_id)[0], number_format, base_model))
    else:
        answer = load_peer(system, number_format)
    list(answer(text))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"answered_at": time.time(), "peak_bytes": peak}))


if __name__ == "__main__":
    _first_answer(*sys.argv[1:])
