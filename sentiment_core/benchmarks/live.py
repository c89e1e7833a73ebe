"""Live latency, one review at a time: our number formats, and what else could answer.

The systems take turns on every review, so that a busy moment hits all of them. llama.cpp has the base as it
comes, and in bfloat16; ONNX Runtime our merged model, and encoders as eval.py trains them. With --dataset,
what has our weights is held against the run's stored predictions. docs/results.md says how to have all.
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
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import torch
from scipy.special import expit

from sentiment_core.artifacts.provenance import peak_memory
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric, ReadingTrace
from sentiment_core.artifacts.store import Run, list_artifacts, read_sample_reviews
from sentiment_core.benchmarks.export import row_of
from sentiment_core.benchmarks.measure import finished, or_not, record, spread
from sentiment_core.config import ConfigError
from sentiment_core.data.reviews import load_reviews
from sentiment_core.live.classifier import LiveAnswer, LiveClassifier
from sentiment_core.live.endpoint import Engine
from sentiment_core.live.forward import FIRST_RESULT
from sentiment_core.live.number_format import processor_has, usable_cores
from sentiment_core.live.weights import NUMBER_FORMATS
from sentiment_core.models.base_models import BaseModel, BaseModelError, fetch_gguf, resolve, run_child
from sentiment_core.models.loading import load_merged, load_tokenizer, pretrained
from sentiment_core.models.tokens import PromptEncoder

BUILD = "the base alone, by the package xllamacpp as it is built"
HEADLESS = "seconds only, its head is not trained; accuracy under encoder-full"
WHOLE = "the whole prompt read each time"
LONG_WORDS, LONG_REVIEWS = 900, 3  # of reviews that fill the model's 1,024 tokens, and how many of them

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
    run, base = finished(arguments.run, arguments.base_model)
    answers: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory() as scratch:
        given = (arguments.run, arguments.base_model, scratch)

        def ready(system: str) -> BenchmarkRow:
            note, load = PEERS[system]
            answers[system] = load(*given)
            return BenchmarkRow(system=system, note=note)

        rows = [or_not(system, partial(ready, system)) for system in PEERS]
        starts = {one: _start(one, *given, texts[0]) for one in list(answers)[: 1 if quick else None]}
        seconds = take_turns(answers, texts, repeats)
        ours = {system: answer for system, answer in answers.items() if system.startswith("ours")}
        asked = 2 if quick else arguments.agreement
        known = {system: answer for system, answer in answers.items() if "our" in system}
        agreed = agreement(run, arguments.dataset, known, asked) if run and arguments.dataset else {}
    tokens = np.median([next(iter(next(iter(ours.values()))(text))).tokens for text in texts])
    told = {"note": f"{int(tokens)} tokens in the middle of the reviews' prompts"}
    for place, row in enumerate(rows):
        if (one := row.system) in answers:
            more = starts.get(one, {}) | agreed.get(one, {}) | (told if one in ours else {})
            rows[place] = row.model_copy(update=more | {"seconds_per_review": _latency(seconds[one][1])})

    def add(system: str, taken: np.ndarray, note: str) -> None:
        rows.append(BenchmarkRow(system=system, seconds_per_review=_latency(taken), note=note))

    for system in ours:
        add(f"{system}, answer and trace", seconds[system][2], "until it is told how the answer came")
    long_texts = review_texts(arguments.dataset, LONG_WORDS, 1 if quick else LONG_REVIEWS)
    long = {system: answer for system, answer in ours.items() if not system.endswith("fp32")}
    for system, (first, whole, _) in take_turns(long, long_texts, repeats).items():
        add(f"{system}, long reviews: first answer", first, f"the first {FIRST_RESULT} of 1,024 tokens read")
        add(f"{system}, long reviews: whole answer", whole, "1,024 tokens read")
    return record(
        arguments, rows, base.name, run=arguments.run, words=words, reviews=len(texts), repeats=repeats,
        dataset=Path(arguments.dataset).name, cores=usable_cores(),
        instructions=", ".join(filter(processor_has, ("avx2", "avx512f", "vnni", "bf16", "amx"))),
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
    taken = {system: np.zeros((3, 1 + repeats, len(texts))) for system in answers}
    for repeat in range(1 + repeats):
        for place, text in enumerate(texts if repeat else texts[:2]):
            for system, answer in answers.items():
                began = time.perf_counter()
                since = [time.perf_counter() - began for _ in answer(text)]
                taken[system][:, repeat, place] = since[0], since[max(0, len(since) - 2)], since[-1]
    return {system: seconds[:, 1:] for system, seconds in taken.items()}


def _latency(seconds: np.ndarray) -> Metric:
    """Median of (repeats, texts); low and high are the fastest and slowest pass's median."""
    passes = spread(np.median(seconds, axis=1), higher_is_better=False)
    return passes.model_copy(update={"value": float(np.median(seconds)), "n": seconds.size})


# ---- the systems: (run's name or "", --base-model, folder for scratch) -> what answers. A process of its own
# finds in the folder what the first one made.


def load_ours(number_format: str, run_id: str, base_model: str, scratch: str = "") -> Answer:
    run, _ = finished(run_id, base_model)
    classifier = LiveClassifier.load(run, base_model=base_model, number_format=number_format)
    which, threads = ("fine-tuned" if run else "base"), torch.get_num_threads()

    def answers(text: str) -> Iterator[LiveAnswer | ReadingTrace]:
        torch.set_num_threads(threads)
        yield from classifier.read(text, which)

    return answers


def load_llama_cpp(unpacked: bool, run_id: str, base_model: str, scratch: str) -> Answer:
    """Its own server in this process, asked as `live.endpoint` asks any engine. unpacked: the same values in
    bfloat16, for which a build for the processor has the fastest products."""
    base, gguf = finished(run_id, base_model)[1], Path(scratch) / "base.gguf"
    if not base.embedded:
        raise BaseModelError(f"{base.name} does not come as a GGUF")
    if not gguf.exists():
        gguf.symlink_to(fetch_gguf(base.embedded, Path(scratch)).resolve())
    gguf = _unpacked(gguf, Path(scratch) / "bf16.gguf") if unpacked else gguf
    xllamacpp: Any = importlib.import_module("xllamacpp")
    asked = xllamacpp.CommonParams()
    asked.model.path, asked.model_alias, asked.port = str(gguf), {"base"}, 0
    asked.n_parallel, asked.n_ctx = 1, 1280
    asked.cache_ram_mib = 0  # else a text that was asked before costs nothing
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = usable_cores()
    server = xllamacpp.Server(asked)
    client = httpx.Client(base_url=f"{server.listening_address}/v1", timeout=120)
    classifier = LiveClassifier.load(None, base_model=base.spec, engine=Engine(client, "base", {}))
    return lambda text, server=server: [classifier.classify(text, "base")]


def _unpacked(source: Path, target: Path) -> Path:
    """The GGUF `source` as `target`, its matrices in bfloat16; once."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

    if not target.exists():
        reader, writer = GGUFReader(source), GGUFWriter(target, "llama")
        for field in reader.fields.values():
            if not field.name.startswith(("GGUF.", "general.architecture")):
                writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1])
        for one in reader.tensors:
            kind = GGMLQuantizationType.BF16 if len(one.shape) > 1 else one.tensor_type
            values = quants.quantize(quants.dequantize(one.data, one.tensor_type), kind)
            writer.add_tensor(one.name, values, raw_dtype=kind)
        for part in ("header", "kv_data", "tensors"):
            getattr(writer, f"write_{part}_to_file")()
        writer.close()
    return target


def load_onnx(encoder: str, bits: int, run_id: str, base_model: str, scratch: str) -> Answer:
    """encoder: its name; it gets a linear layer that is not trained. "" is the run's merged model."""
    from onnxruntime import InferenceSession, SessionOptions

    run, base = finished(run_id, base_model)
    base, graph = resolve(encoder) if encoder else base, Path(scratch) / f"{Path(encoder).name}-{bits}.onnx"
    if not graph.exists():
        _export(_encoder(base) if encoder else _merged(run, base), graph, bits)
    options, tokenizer = SessionOptions(), load_tokenizer(base)
    options.intra_op_num_threads = usable_cores()
    compute, cut = InferenceSession(graph, options).run, {"truncation": True, "max_length": 512}
    prompts = None if encoder else PromptEncoder(tokenizer)

    def answers(text: str) -> Iterator[Any]:
        ids = prompts.encode([text], 1024)[0].tolist() if prompts else tokenizer(text, **cut)["input_ids"]
        answered: Any = compute(None, {"ids": [ids]})
        ((negative, positive),) = answered[0]
        odds = (positive - negative) / (run.record.temperature if run and run.record else 1)
        yield SimpleNamespace(p_positive=expit(odds), read=1)

    return answers


def _encoder(base: BaseModel) -> Any:
    from transformers import AutoModel

    model: Any = pretrained(AutoModel, base, use_safetensors=True, dtype=torch.float32)
    model.head, read = torch.nn.Linear(model.config.hidden_size, 2), model.forward
    model.forward = lambda ids: model.head(read(ids).last_hidden_state.mean(1))
    return model


def _merged(run: Run | None, base: BaseModel) -> Any:
    if run is None:
        raise BaseModelError("without --run there is no adapter to merge")
    loaded = load_merged(base, run.adapter_path, device=torch.device("cpu"))
    model, rows = loaded.model.float(), list(loaded.encoder.label_ids)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        mask = torch.where(places > places[:, None], -1e9, 0.0)[None, None]
        read = model.model(ids, attention_mask=mask, position_ids=places[None], use_cache=False)
        return model.lm_head(read.last_hidden_state[:, -1])[:, rows]

    model.forward = forward
    return model


def _export(model: Any, graph: Path, bits: int) -> None:
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    whole, example = graph.with_suffix(".whole.onnx"), torch.ones(1, 8, dtype=torch.long)
    names = {"input_names": ["ids"], "dynamic_axes": {"ids": {1: "tokens"}}}
    torch.onnx.export(model, (example,), whole, **names, dynamo=False)
    if bits == 8:
        return quantize_dynamic(whole, graph)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    small = MatMulNBitsQuantizer(onnx.load(whole), block_size=32, accuracy_level=4)
    small.process()
    small.model.save_model_to_file(str(graph), use_external_data_format=True)


FORMATS = ("bf16",) if torch.cuda.is_available() else NUMBER_FORMATS
PEERS: dict[str, tuple[str, Callable[..., Answer]]] = {
    **{f"ours, {one}": ("", partial(load_ours, one)) for one in FORMATS},
    "llama.cpp, the base's GGUF": (BUILD, partial(load_llama_cpp, False)),
    "llama.cpp, the same in bf16": (BUILD, partial(load_llama_cpp, True)),
    **{f"ONNX Runtime, our merged model, int{n}": (WHOLE, partial(load_onnx, "", n)) for n in (8, 4)},
    **{
        f"ONNX Runtime, {one}, int8": (HEADLESS, partial(load_onnx, f"sentence-transformers/{one}", 8))
        for one in ("all-MiniLM-L6-v2", "all-mpnet-base-v2")
    },
}  # fmt: skip


def _start(system: str, *given: str) -> dict[str, Any]:
    """A row's seconds from a process's start to its first answer, and peak memory, with a warm cache."""
    call, began = [sys.executable, "-m", "sentiment_core.benchmarks.live", system, *given], time.time()
    done = run_child(call, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{system} did not start: {done.stderr.strip().splitlines()[-1:]}")
    answered, peak = json.loads(done.stdout.splitlines()[-1])
    return {"first_step_seconds": answered - began, "peak_memory_bytes": peak}


if __name__ == "__main__":  # what `_start` starts
    system, *given, text = sys.argv[1:]
    list(PEERS[system][1](*given)(text))
    print(json.dumps([time.time(), peak_memory()]))
