"""Which number format a live model is served in: what was asked for, or what is measured fastest here."""

import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import re
from pathlib import Path

import torch

from sentiment_core.artifacts.store import ArtifactError, write_text
from sentiment_core.live.weights import NUMBER_FORMATS, dtype_of, in_int8, linear
from sentiment_core.models import base_models

MOST_THREADS = 8  # one review is too small to keep more busy
TOKENS, WIDTH, INNER = 200, 576, 3072  # the largest product of SmolLM2-135M, for a review of 150 words
WORTH_IT = 0.85  # a rounder format is served where it takes at most this share of a finer one's time


def choose_number_format(wanted: str | None, cuda: bool) -> str:
    """Raises ValueError: SENTIMENT_LIVE_FORM is none of the number formats."""
    if wanted and wanted not in NUMBER_FORMATS:
        raise ValueError(
            f"SENTIMENT_LIVE_FORM is {wanted!r}; use one of {', '.join(NUMBER_FORMATS)}, or leave it out"
        )
    if cuda:
        old = not on_zero_gpu() and not torch.cuda.is_bf16_supported()
        return "fp32" if wanted == "fp32" or old else "bf16"
    return wanted or best(measured())


def best(seconds: dict[str, float]) -> str:
    """The finest format that no rounder one beats clearly.

    >>> best({"fp32": 1.0, "bf16": 0.9, "int8": 0.5}), best({"fp32": 1.0, "bf16": 3.0, "int8": 0.9})
    ('int8', 'fp32')
    """
    chosen = "fp32"
    for rounder in ("bf16", "int8"):
        if seconds[rounder] <= WORTH_IT * seconds[chosen]:
            chosen = rounder
    return chosen


def measured() -> dict[str, float]:
    """Seconds of one matrix product in each format on this processor; measured once and kept in the cache."""
    machine = [_flags(), platform.machine(), torch.__version__, Path(__file__).read_text(encoding="utf-8")]
    key = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
    path = base_models.CACHE / "number-format" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.keys() == set(NUMBER_FORMATS):
            return kept
    found = {name: seconds(name) for name in NUMBER_FORMATS}
    with contextlib.suppress(ArtifactError):  # a cache that cannot be written is done without
        write_text(path, json.dumps(found))
    return found


def seconds(number_format: str) -> float:
    """The least that one product took on one core, by the very code that serves."""
    from torch.utils.benchmark import Timer  # not among a measured start's imports

    weight, x = (torch.randn(n, WIDTH, dtype=dtype_of(number_format)) for n in (INNER, TOKENS))
    tensors = in_int8({"x.qkv": weight}) if number_format == "int8" else {"x.qkv": weight}
    given = {"product": linear(tensors, "x.qkv", processor_has("vnni")), "x": x}
    return min(Timer("product(x)", globals=given, num_threads=1).blocked_autorange().times)


def on_zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space, where a GPU exists only inside marked functions."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


@functools.cache
def _flags() -> str:
    """The processor's name and features, "" where they are not told."""
    with contextlib.suppress(OSError):
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return "\n".join(sorted({*re.findall(r"^(?:model name|flags).*", described, re.MULTILINE)}))
    return ""


def processor_has(feature: str) -> bool:
    """Whether a feature's name is (part of) one of the processor's flags; False where they are not known."""
    return re.search(f"^flags.*{feature}", _flags(), re.MULTILINE) is not None


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    if "OMP_NUM_THREADS" in os.environ:
        cores = min(cores, torch.get_num_threads())
    return min(cores, MOST_THREADS)
