"""Scoring speed on the same reviews: a plain transformers loop, the text-generation pipeline, and ours."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sentiment_core import environment
from sentiment_core.artifacts import read_run, utc_now
from sentiment_core.base_models import resolve
from sentiment_core.config import ASSETS, DEFAULT_BASE_MODEL, ConfigError, TrainConfig
from sentiment_core.data import Reviews, load_reviews
from sentiment_core.models import LoadedModel, add_lora, load_adapter, load_base, quiet_transformers
from sentiment_core.place import find_place, free_memory
from sentiment_core.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.scoring import SentimentScorer, p_positive

LOOP = "transformers loop, batch 32"
PIPELINE = "text-generation pipeline, batch 32"
OURS = "ours"
MAX_LENGTH = 1024


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default=TrainConfig.dataset, help="reviews to score")
    parser.add_argument("--split", default="test", help="which part of it")
    parser.add_argument("--base-model", default="", help="as in train.py; by default the run's")
    parser.add_argument("--run", default="", help="adapter to score with (default: an untrained one)")
    parser.add_argument("--limit", type=int, default=None, help="score this many reviews with ours")
    parser.add_argument(
        "--few", type=int, default=640, help="reviews a repeat of the two slow systems scores"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats of each system")


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the systems one after the other; all carry the same adapter, unmerged, on the NF4 base."""
    place = find_place()
    reviews = load_reviews(arguments.dataset, arguments.split, limit=arguments.limit)
    few = reviews.take(np.random.default_rng(0).permutation(len(reviews))[: arguments.few])
    gpu = place.device.type == "cuda"
    name = arguments.base_model or _base_of(arguments.run)
    rows = []
    for system, measure in ((LOOP, _loop), (PIPELINE, _pipeline), (OURS, _ours)):
        resident = system == OURS or not gpu
        loaded = load_base(resolve(name), device=place.device, compute_dtype=place.dtype, resident=resident)
        model = _adapted(loaded, arguments.run)
        subject = reviews if system == OURS else few
        with quiet_transformers(), torch.inference_mode():
            once, note = measure(loaded, model, subject)
            rows.append(_time(system, once, len(subject), arguments.repeats, note, gpu))
        del loaded, model, once
        free_memory()
    return BenchmarkRecord(
        kind="score",
        created_at=utc_now(),
        commit=environment.commit(),
        command=environment.command_line(),
        base_model=Path(name).name,
        hardware=environment.hardware(place.device.type),
        versions=environment.versions(),
        settings={
            "reviews": len(reviews),
            "few": len(few),
            "repeats": arguments.repeats,
            "run": arguments.run,
        },
        rows=tuple(rows),
    )


def _base_of(run_id: str) -> str:
    if not run_id:
        return DEFAULT_BASE_MODEL
    record = read_run(ASSETS / "runs" / run_id).record
    if record is None:
        raise ConfigError(f"--run {run_id!r} is not finished; finish it with train.py --resume")
    return record.base_model.name


def _adapted(loaded: LoadedModel, run_id: str) -> nn.Module:
    if run_id:
        return load_adapter(loaded.model, ASSETS / "runs" / run_id / "adapter")
    return add_lora(loaded.model, rank=16, alpha=32, dropout=0.0).eval()


def _time(
    system: str, once: Callable[[], object], n: int, repeats: int, note: str, gpu: bool
) -> BenchmarkRow:
    def seconds() -> float:
        if gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        once()
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    if gpu:
        torch.cuda.reset_peak_memory_stats()
    first = seconds()
    rates = [n / seconds() for _ in range(repeats)]
    return BenchmarkRow(
        system=system,
        reviews_per_second=Metric(value=float(np.median(rates)), low=min(rates), high=max(rates), n=repeats),
        first_step_seconds=first,
        peak_memory_bytes=torch.cuda.max_memory_allocated() if gpu else None,
        note=f"{n:,} reviews a repeat{note}; first pass over them in the column before",
    )


def _loop(loaded: LoadedModel, model: nn.Module, reviews: Reviews):
    """Batches of 32 in dataset order, padded, tokenized as they come, all logits computed."""
    encoder, device = loaded.encoder, loaded.device
    tokenizer = encoder.tokenizer
    tokenizer.padding_side = "left"
    prompts = [encoder.rendered.prefix + text + encoder.rendered.suffix for text in reviews.texts]

    def once() -> np.ndarray:
        out = []
        for start in range(0, len(prompts), 32):
            batch = tokenizer(
                prompts[start : start + 32], return_tensors="pt", padding=True, truncation=True,
                max_length=MAX_LENGTH, add_special_tokens=False,
            ).to(device)  # fmt: skip
            logits = model(**batch).logits[:, -1, list(encoder.label_ids)]
            out.append(logits.float().softmax(-1)[:, 1].cpu().numpy())
        return np.concatenate(out)

    return once, ", 4-bit layers unpacked at every use"


def _pipeline(loaded: LoadedModel, model: nn.Module, reviews: Reviews):
    from transformers import pipeline

    encoder = loaded.encoder
    encoder.tokenizer.padding_side = "left"
    ids = encoder.encode(reviews.texts, MAX_LENGTH)
    prompts = encoder.tokenizer.batch_decode([ids[i].tolist() for i in range(len(ids))])
    generate = pipeline("text-generation", model=model, tokenizer=encoder.tokenizer, batch_size=32)

    def once() -> list[str]:
        answers = generate(prompts, max_new_tokens=2, do_sample=False, return_full_text=False)
        return [answer[0]["generated_text"] for answer in answers]

    return once, ", 2 new tokens"


def _ours(loaded: LoadedModel, model: nn.Module, reviews: Reviews):
    encoder = loaded.encoder
    scorer = SentimentScorer(loaded, model)
    encoded = encoder.encode_cached(reviews.texts, MAX_LENGTH)

    def once() -> np.ndarray:
        return p_positive(scorer.log_likelihoods(encoded))

    return once, f", engine {scorer.engine}, tokens cached"
