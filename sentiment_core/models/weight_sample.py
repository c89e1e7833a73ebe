"""One matrix of a base model as NF4 sees it: how its weights lie among the 16 values that they round to."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from bitsandbytes.functional import get_4bit_type
from safetensors import safe_open
from transformers.utils.hub import cached_file

from sentiment_core.artifacts.schema import WeightSample
from sentiment_core.models.base_models import BaseModel
from sentiment_core.models.loading import model_folder

BLOCK, BINS = 64, 101
"""Weights that share one scale, bitsandbytes' default; bins, odd so that zero lies in the middle of one."""
SHOWN = "q_proj"  # the kind of matrix that is taken where the model has it
TINY = np.finfo(np.float32).tiny


def sample_weights(base: BaseModel, targets: Collection[str]) -> WeightSample | None:
    """The matrix in the model's middle, of the kind SHOWN or else of any of `targets` (its last names).
    base: a model whose safetensors are in the cache, as after `load_base`.
    Returns None where no stored tensor has such a name or its weights do not fill whole blocks."""
    config = cached_file(model_folder(base), "config.json", revision=base.revision or "main")
    kinds = [SHOWN] if SHOWN in targets else targets
    places = {
        name: file
        for file in sorted(Path(str(config)).parent.glob("*.safetensors"))
        for name in safe_open(file, "pt").keys()  # noqa: SIM118  a reader of files, no dictionary
        if name.removesuffix(".weight").rsplit(".", 1)[-1] in kinds
    }
    if not places:
        return None
    names = sorted(places, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name))
    name = names[len(names) // 2]
    weight = safe_open(places[name], "pt").get_tensor(name)
    return count_weights(name.removesuffix(".weight"), weight) if weight.numel() % BLOCK == 0 else None


def count_weights(matrix: str, weight: torch.Tensor) -> WeightSample:
    """Divide each block of the matrix by its largest absolute value, as NF4 does, and count.

    Dettmers et al. 2023, section 3. The scales are exact here; double quantization rounds them, too.
    weight: (out, in), out · in a multiple of BLOCK.
    """
    blocks = weight.float().reshape(-1, BLOCK).numpy()
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    normal = blocks / np.maximum(scale, TINY)
    counts, _ = np.histogram(normal, BINS, range=(-1, 1))
    levels = get_4bit_type("nf4", device="cpu").numpy()
    return WeightSample(
        matrix=matrix, shape=(weight.shape[0], weight.shape[1]), block=BLOCK,
        counts=tuple(counts.tolist()), levels=tuple(levels.tolist()),
        error=_error(normal, scale, levels),
        even_error=_error(normal, scale, np.linspace(-1, 1, len(levels))),
    )  # fmt: skip


def _error(normal: np.ndarray, scale: np.ndarray, levels: np.ndarray) -> float:
    """Root mean square of the rounding error, over that of the weights."""
    middles = (levels[1:] + levels[:-1]) / 2
    off = (levels[np.searchsorted(middles, normal)] - normal) * scale
    return float(np.linalg.norm(off) / max(np.linalg.norm(normal * scale), TINY))
