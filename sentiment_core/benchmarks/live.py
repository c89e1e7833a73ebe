"""Live latency, one review at a time: our number formats, and what else could answer.

A pipeline of DistilBERT's shape is what `pipeline("text-classification")` answers with by default: six layers
of 768 (random weights cost the same time), behind this model's own tokenizer, so that both read the same
number of tokens. llama.cpp has the base as it comes, ONNX Runtime our exported graph. The systems take turns
on every review, so that a busy moment hits all of them. With --dataset, each of our number formats is held
against the run's stored predictions.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from sentiment_core.artifacts.provenance import peak_memory
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.artifacts.store import Run, list_artifacts, read_sample_reviews
from sentiment_core.benchmarks.export import row_of
from sentiment_core.benchmarks.measure import finished, or_not, record, spread
from sentiment_core.config import ConfigError
from sentiment_core.data.reviews import load_reviews
from sentiment_core.live.classifier import LiveAnswer, LiveClassifier
from sentiment_core.live.endpoint import Engine
from sentiment_core.live.forward import FIRST_RESULT
from sentiment_core.live.number_format import usable_cores
from sentiment_core.live.trace import ReadingTrace
from sentiment_core.live.weights import NUMBER_FORMATS
from sentiment_core.models.base_models import BaseModelError, fetch_gguf, resolve, run_child
from sentiment_core.models.loading import load_tokenizer, quiet_transformers
from sentiment_core.models.tokens import PromptEncoder

PEER = "text-classification pipeline, DistilBERT's shape"
PEER_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LONG_WORDS, LONG_REVIEWS = 900, 3  # of reviews that fill the model's 1,024 tokens, and how many of them
READ = (f"the first {FIRST_RESULT} of 1,024", "1,024")  # by their first and their whole answer

Answer = Callable[[str], Iterable[Any]]  # a review's answers, one or two of them, as they come

FLAGS = {
    "run": ("", "run whose fine-tuned model answers; without one, the base"),
    "base-model": ("", "folder of a base model that is not on the Hub"),
    "dataset": ("", "reviews to ask about; by default our own, joined"),
    "words": (200, "words of each review"),
    "reviews": (10, "different reviews"),
    "repeats": (3, "timed passes over them"),
    "agreement": (200, "with --dataset: on how many of its test reviews a number format must agree"),
    "quick": (False, "two reviews, one pass, one start: that it works"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time every number format and the peers here; start-up and memory in a process of their own."""
    quick, words = arguments.quick, arguments.words
    count, repeats = (2, 1) if quick else (arguments.reviews, arguments.repeats)
    texts = review_texts(arguments.dataset, words, count)
    run, base_model = finished(arguments.run)
    base, answers = arguments.base_model or base_model, {}
    formats = ("bf16",) if torch.cuda.is_available() else NUMBER_FORMATS
    systems: dict[str, tuple[str, ...]] = {
        f"ours, {f}": ("ours", f, arguments.run, arguments.base_model) for f in formats
    }
    with tempfile.TemporaryDirectory() as scratch:

        def ready(title: str, peer: Peer) -> BenchmarkRow:
            described = peer(run, base, Path(scratch))
            answers[title], systems[title] = load(*described), described
            return BenchmarkRow(system=title)

        answers |= {system: load(*described) for system, described in systems.items()}
        found = [or_not(title, partial(ready, title, peer)) for title, peer in PEERS.items()]
        started = list(systems)[: 1 if quick else None]
        starts = {system: _start(*systems[system], texts[0]) for system in started}
        seconds = take_turns(answers, texts, repeats)
        agreed = {} if not (run and arguments.dataset) else agreement(
            run, arguments.dataset, {f"ours, {f}": answers[f"ours, {f}"] for f in formats},
            2 if quick else arguments.agreement,
        )  # fmt: skip
    tokens = [next(iter(answers[f"ours, {formats[0]}"](text))).tokens for text in texts]
    notes = NOTES | {"ours": f"{int(np.median(tokens))} tokens in the middle of the reviews' prompts"}
    rows = [
        BenchmarkRow(
            system=system, seconds_per_review=_latency(taken[1]), note=notes[systems[system][0]],
            **starts.get(system, {}), **agreed.get(system, {}),
        )
        for system, taken in seconds.items()
    ]  # fmt: skip
    ours = [system for system in systems if system.startswith("ours")]
    rows += [row for row in found if row.note]
    for system in ours:
        rows.append(BenchmarkRow(
            system=f"{system}, answer and trace", seconds_per_review=_latency(seconds[system][2]),
            note="until it is told how the answer came",
        ))  # fmt: skip
    long_texts = review_texts(arguments.dataset, LONG_WORDS, 1 if quick else LONG_REVIEWS)
    long = {system: answers[system] for system in ours if not system.endswith("fp32")}
    for system, taken in take_turns(long, long_texts, repeats).items():
        for which, read, each in zip(("first", "whole"), READ, map(_latency, taken), strict=False):
            name = f"{system}, long reviews: {which} answer"
            rows.append(BenchmarkRow(system=name, seconds_per_review=each, note=f"{read} tokens read"))
    return record(
        arguments, rows, base_model, run=arguments.run, words=words, reviews=len(texts), repeats=repeats,
        dataset=Path(arguments.dataset).name, cores=usable_cores(),
        first_answer="from the start of the process, imports included; weights in the cache",
    )  # fmt: skip


def agreement(run: Run, dataset: str, systems: Mapping[str, Answer], count: int) -> dict[str, dict[str, Any]]:
    """How each answers some test reviews whose predictions are stored, by a row's fields; {} if none are."""
    reviews, fields = load_reviews(dataset, "test"), ("accuracy", "flipped", "mean_change", "largest_change")
    reviews = reviews.take(np.arange(0, len(reviews), max(1, len(reviews) // count))[:count])
    wanted, found = ("fine-tuned", run.run_id, reviews.name), {}
    for one in list_artifacts(run.path.parent.parent).evals:
        if (one.record.system, one.record.run_id, one.record.dataset.name) == wanted:
            known = one.predictions().drop_duplicates("review_id").set_index("review_id")["p_positive"]
            told = known.reindex(reviews.ids).to_numpy()
            for system, answer in systems.items():
                whole = (next(one for one in answer(text) if one.read == 1) for text in reviews.texts)
                row = row_of(system, np.array([one.p_positive for one in whole]), told, reviews.labels)
                found[system] = {name: getattr(row, name) for name in fields}
    return found


def review_texts(dataset: str, words: int, count: int) -> list[str]:
    """`count` texts of exactly `words` words: a dataset's reviews cut there, or our own ones joined."""
    if dataset:
        reviews = load_reviews(dataset, "test").texts
        return [" ".join(t.split()[:words]) for t in reviews if len(t.split()) >= words][:count]
    stock = " ".join(sample.text for sample in read_sample_reviews()).split()
    return [" ".join(np.roll(stock, -words * place)[:words]) for place in range(count)]


def take_turns(answers: dict[str, Answer], texts: Sequence[str], repeats: int) -> dict[str, np.ndarray]:
    """Seconds to the first answer, the whole one, and the trace if there is one, by system, each (3, repeats,
    texts), after a pass not counted."""
    taken = {system: np.zeros((3, repeats, len(texts))) for system in answers}
    for repeat in range(-1, repeats):
        for place, text in enumerate(texts if repeat >= 0 else texts[:2]):
            for system, answer in answers.items():
                began = time.perf_counter()
                since = [time.perf_counter() - began for _ in answer(text)]
                if repeat >= 0:
                    taken[system][:, repeat, place] = since[0], since[max(0, len(since) - 2)], since[-1]
    return taken


def _latency(seconds: np.ndarray) -> Metric:
    """Median of (repeats, texts); low and high are the fastest and slowest pass's median."""
    passes = spread(np.median(seconds, axis=1), n=seconds.size, higher_is_better=False)
    return passes.model_copy(update={"value": float(np.median(seconds))})


def load(system: str, *described: str) -> Answer:
    """What answers, with the threads that it wants; described: as in `PEERS`."""
    return LOADERS[system](*described)


def load_ours(number_format: str, run_id: str, base_model: str) -> Answer:
    classifier = LiveClassifier.load(finished(run_id)[0], base_model=base_model, number_format=number_format)
    which, threads = ("fine-tuned" if classifier.has_adapter else "base"), torch.get_num_threads()

    def answers(text: str) -> Iterator[LiveAnswer | ReadingTrace]:
        torch.set_num_threads(threads)
        yield from classifier.read(text, which)

    return answers


def load_llama_cpp(gguf: str, base_model: str) -> Answer:
    """Its own server in this process, asked as `live.endpoint` asks any engine."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    asked = xllamacpp.CommonParams()
    asked.model.path, asked.model_alias, asked.port, asked.n_parallel, asked.n_ctx = (
        gguf,
        {"base"},
        0,
        1,
        1280,
    )
    asked.cache_ram_mib = 0  # else a text that was asked before costs nothing
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = usable_cores()
    server = xllamacpp.Server(asked)
    client = httpx.Client(base_url=f"{server.listening_address}/v1", timeout=120)
    classifier = LiveClassifier.load(None, base_model=base_model, engine=Engine(client, "base", {}))
    return lambda text, server=server: [classifier.classify(text, "base")]


def load_onnx(folder: str, run_id: str, base_model: str) -> Answer:
    from sentiment_core.live.graph import ExportedModel

    encoder = PromptEncoder(load_tokenizer(resolve(base_model)))
    model, prefix = ExportedModel(Path(folder)), encoder.prefix_ids
    past = model.run(prefix, model.nothing, 1.0)[1]
    return lambda text: [model.run(encoder.encode([text], 1024)[0][len(prefix) :].tolist(), past, 1.0)[0]]


# ---- the peers: (run or None, base model, folder for scratch) -> its name in LOADERS, and what that takes


def make_pipeline(dtype: str, run: Run | None, base_model: str, scratch: Path) -> tuple[str, ...]:
    """Save a random classifier of DistilBERT's shape with the base model's tokenizer."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = load_tokenizer(resolve(base_model))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = 512
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tokenizer)))
    with quiet_transformers():
        model.save_pretrained(scratch / "distilbert")
        tokenizer.save_pretrained(scratch / "distilbert")
    return "pipeline", str(scratch / "distilbert"), dtype


def make_llama_cpp(run: Run | None, base_model: str, scratch: Path) -> tuple[str, ...]:
    if not (embedded := resolve(base_model).embedded):
        raise BaseModelError(f"{Path(base_model).name} does not come as a GGUF")
    return "llama.cpp", str(fetch_gguf(embedded, scratch)), base_model


def make_onnx(run: Run | None, base_model: str, scratch: Path) -> tuple[str, ...]:
    from sentiment_core.live.graph import write_graph

    if run is None:
        raise BaseModelError("without --run there is no adapter for the graph")
    write_graph(run, scratch / "onnx", base_model)
    return "onnx", str(scratch / "onnx"), run.run_id, base_model


def load_pipeline(folder: str, dtype: str) -> Answer:
    from transformers import pipeline

    device, threads = "cuda" if torch.cuda.is_available() else "cpu", usable_cores()
    with quiet_transformers():
        classify = pipeline("text-classification", model=folder, dtype=PEER_DTYPES[dtype], device=device)

    def answers(text: str) -> Iterator[Any]:
        torch.set_num_threads(threads)
        yield classify(text, truncation=True)

    return answers


Peer = Callable[[Run | None, str, Path], tuple[str, ...]]
PEERS: dict[str, Peer] = {
    **{f"{PEER}, {dtype}": partial(make_pipeline, dtype) for dtype in PEER_DTYPES},
    "llama.cpp, the base's GGUF": make_llama_cpp,
    "ONNX Runtime, our NF4 graph": make_onnx,
}
LOADERS: dict[str, Callable[..., Answer]] = {
    "ours": load_ours, "pipeline": load_pipeline, "llama.cpp": load_llama_cpp, "onnx": load_onnx,
}  # fmt: skip
NOTES = {
    "pipeline": "random weights, at most 512 tokens",
    "llama.cpp": "the base alone, by the package xllamacpp as it is built",
    "onnx": "weights as in a visitor's browser",
}


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
