"""Live latency, one review at a time: our number formats, and a pipeline of DistilBERT's shape.

The peer is what `pipeline("text-classification")` answers with by default, in its shape: six layers of 768
(random weights cost the same time), here behind this model's own tokenizer, so that both read the same
number of tokens. The systems take turns on every review, so that a busy moment hits all of them.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment_core.artifacts.provenance import peak_memory
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.artifacts.store import read_sample_reviews
from sentiment_core.benchmarks.measure import finished, record, spread
from sentiment_core.config import ConfigError
from sentiment_core.data.reviews import load_reviews
from sentiment_core.live.classifier import LiveAnswer, LiveClassifier
from sentiment_core.live.forward import FIRST_RESULT
from sentiment_core.live.number_format import usable_cores
from sentiment_core.live.weights import NUMBER_FORMATS
from sentiment_core.models.base_models import resolve, run_child
from sentiment_core.models.loading import load_tokenizer, quiet_transformers

PEER = "text-classification pipeline, DistilBERT's shape"
PEER_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LONG_WORDS, LONG_REVIEWS = 900, 6  # of reviews that fill the model's 1,024 tokens, and how many of them
READ = (f"the first {FIRST_RESULT} of 1,024", "1,024")  # by their first and their whole answer

Answer = Callable[[str], Iterable[Any]]  # a review's answers, one or two of them, as they come

FLAGS = {
    "run": ("", "run whose fine-tuned model answers; without one, the base"),
    "base-model": ("", "folder of a base model that is not on the Hub"),
    "dataset": ("", "reviews to ask about; by default our own, joined"),
    "words": (200, "words of each review"),
    "reviews": (15, "different reviews"),
    "repeats": (5, "timed passes over them"),
    "quick": (False, "two reviews, one pass, one start: that it works"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time every number format and the peer here; start-up and memory in a process of their own."""
    quick = arguments.quick
    count, repeats = (2, 1) if quick else (arguments.reviews, arguments.repeats)
    texts = review_texts(arguments.dataset, arguments.words, count)
    base_model = finished(arguments.run)[1]
    formats = ("bf16",) if torch.cuda.is_available() else NUMBER_FORMATS
    with tempfile.TemporaryDirectory() as scratch:
        peer = make_peer(arguments.base_model or base_model, scratch)
        systems = {f"ours, {f}": ("ours", f, arguments.run, arguments.base_model) for f in formats}
        systems |= {f"{PEER}, {dtype}": (peer, dtype, "", "") for dtype in PEER_DTYPES}
        answers = {system: load(*described) for system, described in systems.items()}
        started = list(systems)[: 1 if quick else None]
        starts = {system: _start(*systems[system], texts[0]) for system in started}
        seconds = take_turns(answers, texts, repeats)
    tokens = [answer.tokens for text in texts for answer in answers[f"ours, {formats[0]}"](text)]
    notes = {"ours": f"{int(np.median(tokens))} tokens in the middle of the reviews' prompts"}
    rows = [
        BenchmarkRow(
            system=system, seconds_per_review=_latency(taken[-1]), **starts.get(system, {}),
            note=notes.get(systems[system][0], "random weights, at most 512 tokens"),
        )
        for system, taken in seconds.items()
    ]  # fmt: skip
    long = {f"ours, {f}": answers[f"ours, {f}"] for f in formats if f != "fp32"}
    long_texts = review_texts(arguments.dataset, LONG_WORDS, 1 if quick else LONG_REVIEWS)
    for system, taken in take_turns(long, long_texts, repeats).items():
        for which, read, each in zip(("first", "whole"), READ, map(_latency, taken), strict=True):
            name = f"{system}, long reviews: {which} answer"
            rows.append(BenchmarkRow(system=name, seconds_per_review=each, note=f"{read} tokens read"))
    return record(
        arguments, rows, base_model, run=arguments.run, words=arguments.words, reviews=len(texts),
        repeats=repeats, dataset=Path(arguments.dataset).name, cores=usable_cores(),
        first_answer="from the start of the process, imports included; weights in the cache",
    )  # fmt: skip


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


def load(system: str, number_format: str, run_id: str, base_model: str) -> Answer:
    """Our classifier (system "ours") or a peer's folder, each with the threads that it wants."""
    if system != "ours":
        return load_peer(system, number_format)
    classifier = LiveClassifier.load(finished(run_id)[0], base_model=base_model, number_format=number_format)
    which, threads = ("fine-tuned" if classifier.has_adapter else "base"), torch.get_num_threads()

    def answers(text: str) -> Iterator[LiveAnswer]:
        torch.set_num_threads(threads)
        for step in classifier.read(text, which):
            assert isinstance(step, LiveAnswer)
            yield step
            if step.read == 1:
                return  # the trace takes no part

    return answers


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

    device, threads = "cuda" if torch.cuda.is_available() else "cpu", usable_cores()
    with quiet_transformers():
        classify = pipeline("text-classification", model=folder, dtype=PEER_DTYPES[dtype], device=device)

    def answers(text: str) -> Iterator[Any]:
        torch.set_num_threads(threads)
        yield classify(text, truncation=True)

    return answers


def _start(*described: str) -> dict[str, Any]:
    """A row's seconds from a process's start to its first answer, and peak memory, with a warm cache."""
    call, began = [sys.executable, "-m", "sentiment_core.benchmarks.live", *described], time.time()
    done = run_child(call, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        raise ConfigError(f"{described[0]}, {described[1]} did not start: {reason}")
    answered, peak = json.loads(done.stdout.splitlines()[-1])
    return {"first_step_seconds": answered - began, "peak_memory_bytes": peak}


if __name__ == "__main__":  # what `_start` starts
    *described, text = sys.argv[1:]
    list(load(*described)(text))
    print(json.dumps([time.time(), peak_memory()]))
