"""Scoring speed on the same reviews: a plain transformers loop, the text-generation pipeline, and ours."""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sentiment_core.artifacts.schema import BenchmarkRecord
from sentiment_core.benchmarks.measure import FLAGS as COMMON
from sentiment_core.benchmarks.measure import finished, measure, record
from sentiment_core.data.reviews import Reviews, load_reviews
from sentiment_core.engines.device import find_device, free_memory
from sentiment_core.engines.scorer import SentimentScorer, p_positive
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import LoadedModel, add_lora, load_adapter, load_base, quiet_transformers

MAX_LENGTH = 1024
OURS = "ours"

FLAGS = {
    "dataset": COMMON["dataset"],
    "split": ("test", "which part of it"),
    "base-model": ("", "as in train.py; by default the run's"),
    "run": ("", "adapter to score with (default: an untrained one)"),
    "limit": COMMON["limit"],
    "few": (640, "reviews a repeat of the slow systems scores"),
    "repeats": (3, "timed repeats of each system"),
}


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the systems one after the other; all carry the same adapter, unmerged, on the NF4 base."""
    context = find_device()
    reviews = load_reviews(arguments.dataset, arguments.split, limit=arguments.limit)
    few = reviews.take(np.random.default_rng(0).permutation(len(reviews))[: arguments.few])
    run, base_model = finished(arguments.run)
    name = arguments.base_model or base_model
    rows = []
    for system, peer in PEERS.items():
        subject = reviews if system == OURS else few
        loaded = load_base(
            resolve(name), device=context.device, compute_dtype=context.dtype,
            dequantized=system == OURS or context.device.type == "cpu",
        )  # fmt: skip
        if run:
            model = load_adapter(loaded.model, run.adapter_path)
        else:
            model = add_lora(loaded.model, rank=16, alpha=32, dropout=0.0).eval()
        with quiet_transformers(), torch.inference_mode():
            once, note = peer(loaded, model, subject)
            note = f"{len(subject):,} reviews a repeat{note}; first pass over them in the column before"
            rows.append(measure(system, once, len(subject), arguments.repeats, context.device, note=note))
        del loaded, model, once
        free_memory()
    settings = {"reviews": len(reviews), "few": len(few), "repeats": arguments.repeats, "run": arguments.run}
    return record(arguments, rows, name, **settings)


# ---- the systems: (model, adapted model, reviews) -> what scores them once, and a note

Once = tuple[Callable[[], object], str]


def _loop(loaded: LoadedModel, model: nn.Module, reviews: Reviews) -> Once:
    """Batches of 32 in dataset order, padded, tokenized as they come, all logits computed."""
    encoder, tokenizer = loaded.encoder, loaded.encoder.tokenizer
    tokenizer.padding_side = "left"
    prompts = [encoder.rendered.prefix + text + encoder.rendered.suffix for text in reviews.texts]

    def once() -> np.ndarray:
        out = []
        for start in range(0, len(prompts), 32):
            batch = tokenizer(
                prompts[start : start + 32], return_tensors="pt", padding=True, truncation=True,
                max_length=MAX_LENGTH, add_special_tokens=False,
            ).to(loaded.device)  # fmt: skip
            logits = model(**batch).logits[:, -1, list(encoder.label_ids)]
            out.append(logits.float().softmax(-1)[:, 1].cpu().numpy())
        return np.concatenate(out)

    return once, ", 4-bit layers unpacked at every use"


def _pipeline(loaded: LoadedModel, model, reviews: Reviews) -> Once:
    from transformers import pipeline

    encoder = loaded.encoder
    encoder.tokenizer.padding_side = "left"
    ids = encoder.encode(reviews.texts, MAX_LENGTH)
    prompts = encoder.tokenizer.batch_decode([ids[i].tolist() for i in range(len(ids))])
    generate = pipeline("text-generation", model=model, tokenizer=encoder.tokenizer, batch_size=32)
    options = {"max_new_tokens": 2, "do_sample": False, "return_full_text": False}
    return lambda: generate(prompts, **options), ", 2 new tokens"


def _ours(loaded: LoadedModel, model: nn.Module, reviews: Reviews) -> Once:
    scorer = SentimentScorer(loaded, model)
    encoded = loaded.encoder.encode_cached(reviews.texts, MAX_LENGTH)
    return lambda: p_positive(scorer.log_likelihoods(encoded)), f", engine {scorer.engine}, tokens cached"


PEERS = {"transformers loop, batch 32": _loop, "text-generation pipeline, batch 32": _pipeline, OURS: _ours}
