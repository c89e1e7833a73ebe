"""Scoring speed on the same reviews, from texts to P(positive): ours, and what a user would take instead.

Tokenization is timed for all, loading with the first pass. All carry the same adapter. A system that would
cut the question off a long prompt, as truncation at the right does, is refused.
"""

import argparse
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.benchmark import timer

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.artifacts.store import Run
from sentiment_core.benchmarks import measure
from sentiment_core.config import ConfigError
from sentiment_core.data.reviews import Reviews, load_reviews
from sentiment_core.engines.device import DeviceContext, bytes_free, find_device, free_memory
from sentiment_core.engines.scorer import SentimentScorer, p_positive
from sentiment_core.metrics.intervals import wilson
from sentiment_core.models import loading
from sentiment_core.models.base_models import BaseModel
from sentiment_core.models.tokens import Encoded, PromptEncoder

MAX_LENGTH = 1024
LONG = ("A long review. " * MAX_LENGTH).strip()  # a blank would join the question's first token

FLAGS = {
    "dataset": measure.FLAGS["dataset"],
    "split": ("test", "which part of it"),
    "base-model": ("", "as in train.py; by default the run's"),
    "run": ("", "adapter to score with (default: an untrained one)"),
    "limit": measure.FLAGS["limit"],
    "few": (1920, "reviews that each system scores, ours then all of them, too"),
    "repeats": (3, "timed repeats of each system"),
}


class Scoring(NamedTuple):
    encoder: PromptEncoder
    score: Callable[[Any], np.ndarray]  # what `encode` made -> (n,) P(positive)
    note: str
    encode: Callable[[Sequence[str]], Any] | None = None  # by default the encoder's: the middle is cut out
    elsewhere: bool = False  # in another process, of whose memory only the device knows


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    context = find_device()
    reviews = load_reviews(arguments.dataset, arguments.split, limit=arguments.limit)
    few = reviews.take(np.random.default_rng(0).permutation(len(reviews))[: arguments.few])
    run, base = measure.finished(arguments.run, arguments.base_model)
    asked = [(system, peer, few) for system, peer in PEERS.items()]
    if len(reviews) > len(few):
        asked.insert(-1, (f"ours, {len(reviews):,} reviews", _ours, reviews))
    rows = []
    for system, peer, subject in asked:
        make = partial(peer, base, run, context)
        rows.append(measure.or_not(system, partial(timed, system, make, subject, arguments.repeats, context)))
        free_memory()
    settings = {"reviews": len(reviews), "few": len(few), "repeats": arguments.repeats, "run": arguments.run}
    return measure.record(arguments, rows, base.name, **settings, tokenization="timed for all")


def timed(
    system: str, make: Callable[[], Scoring], reviews: Reviews, repeats: int, context: DeviceContext
) -> BenchmarkRow:
    """Raises ConfigError where a long prompt would not end with the question."""
    began, held, free = timer(), torch.cuda.memory_reserved(), bytes_free(context.device)
    with loading.quiet_transformers():
        encoder, score, note, encode, elsewhere = make()
    with loading.quiet_transformers(), torch.inference_mode():
        encode = encode or partial(encoder.encode, max_length_tokens=MAX_LENGTH)
        if list(encode([LONG])[0])[-len(encoder.suffix_ids) :] != encoder.suffix_ids:
            raise ConfigError(f"{system} cuts the question off long prompts; it must cut the review instead")
        measure.reset_peak(context.device)
        ends = [timer()]
        for _ in range(1 + repeats):
            found = score(encode(reviews.texts))
            ends.append(timer())
    taken = (free or 0) - (bytes_free(context.device) or 0)
    peak = taken if elsewhere else torch.cuda.max_memory_reserved() - held
    return BenchmarkRow(
        system=system, reviews_per_second=measure.spread(len(reviews) / np.diff(ends)[1:]), note=note,
        first_step_seconds=ends[1] - began, peak_memory_bytes=peak or None,
        accuracy=wilson(int(((found >= 0.5) == reviews.labels).sum()), len(reviews)),
    )  # fmt: skip


# ---- the systems: (base, run or None, where) -> what scores


def _adapted(
    base: BaseModel, run: Run | None, context: DeviceContext, fast: bool = False
) -> tuple[loading.LoadedModel, Any]:
    """The NF4 base, unpacked once if `fast` or on a CPU, and the same with the adapter on it."""
    unpacked = fast or context.device.type == "cpu"
    loaded = loading.load_base(base, device=context.device, compute_dtype=context.dtype, dequantized=unpacked)
    if run:
        return loaded, loading.load_adapter(loaded.model, run.adapter_path)
    return loaded, loading.add_lora(loaded.model, rank=16, alpha=32, dropout=0.0).eval()


def _loop(base: BaseModel, run: Run | None, context: DeviceContext) -> Scoring:
    loaded, model = _adapted(base, run, context)
    encoder, tokenizer = loaded.encoder, loaded.encoder.tokenizer
    tokenizer.truncation_side = tokenizer.padding_side = "left"  # at the right is the question
    cut = {"truncation": True, "max_length": MAX_LENGTH, "add_special_tokens": False}

    def encode(texts: Sequence[str]) -> list[list[int]]:
        whole = [encoder.prefix + text + encoder.suffix for text in texts]
        return tokenizer(whole, **cut)["input_ids"]

    def score(prompts: list[list[int]]) -> np.ndarray:
        parts = (prompts[start : start + 32] for start in range(0, len(prompts), 32))
        padded = (tokenizer.pad({"input_ids": part}, return_tensors="pt") for part in parts)
        logits = [
            model(**one.to(loaded.device)).logits[:, -1, list(encoder.label_ids)].float() for one in padded
        ]
        return torch.cat(logits).softmax(-1)[:, 1].cpu().numpy()

    return Scoring(encoder, score, "4-bit layers unpacked at every use, all logits computed", encode)


def _in_bf16(base: BaseModel, run: Run | None, device: torch.device | str) -> loading.LoadedModel:
    if run:
        return loading.load_merged(base, run.adapter_path, device=device)
    return loading.load_base(base, device=device, compute_dtype=torch.bfloat16)


def _merged(base: BaseModel, run: Run | None, context: DeviceContext) -> Scoring:
    scorer = SentimentScorer(_in_bf16(base, run, context.device), engine="padded")
    return _scoring(scorer, "batches of like length")


def _vllm(base: BaseModel, run: Run | None, context: DeviceContext) -> Scoring:
    vllm: Any = importlib.import_module("vllm")
    loaded = _in_bf16(base, run, "cpu")  # the GPU is for the process that vLLM starts
    labels = list(loaded.encoder.label_ids)
    asked = vllm.SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=labels, detokenize=False)
    with TemporaryDirectory() as folder:
        loaded.model.save_pretrained(folder)
        settings = {"enable_prefix_caching": True, "gpu_memory_utilization": 0.8}  # this process holds some
        engine = vllm.LLM(folder, skip_tokenizer_init=True, **settings)

    def score(prompts: Encoded) -> np.ndarray:
        engine.reset_prefix_cache()  # it keeps the prompts' common beginning, not the last pass
        given = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
        answers = [one.outputs[0].logprobs[0] for one in engine.generate(given, asked, use_tqdm=False)]
        return p_positive(np.array([[answer[label].logprob for label in labels] for answer in answers]))

    note = f"{vllm.__version__}, merged bf16; it takes its cache's memory beforehand"
    return Scoring(loaded.encoder, score, note, elsewhere=True)


def _ours(base: BaseModel, run: Run | None, context: DeviceContext) -> Scoring:
    scorer = SentimentScorer(*_adapted(base, run, context, fast=True))
    return _scoring(scorer, f"engine {scorer.engine}")


def _scoring(scorer: SentimentScorer, note: str) -> Scoring:
    return Scoring(scorer.loaded.encoder, lambda prompts: p_positive(scorer.log_likelihoods(prompts)), note)


PEERS: dict[str, Callable[[BaseModel, Run | None, DeviceContext], Scoring]] = {
    "transformers loop, batch 32": _loop,
    "transformers, sorted by length, last position only, merged bf16": _merged,
    "ours": _ours,
    "vLLM": _vllm,  # the last: it replaces parts of PyTorch's compiler for the process
}
