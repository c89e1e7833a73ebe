"""One way to measure and one record: repeats and their spread, the first result apart, memory."""

import argparse
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.artifacts.store import Run, read_finished, utc_now, write_record
from sentiment_core.config import ASSETS, DEFAULT_BASE_MODEL, ConfigError, TrainConfig, UserError
from sentiment_core.models.base_models import BaseModel, base_of

FLAGS: dict[str, tuple[Any, str]] = {
    "dataset": (TrainConfig.dataset, "whose reviews"),
    "base-model": (DEFAULT_BASE_MODEL, "as in train.py"),
    "limit": (None, "only so many of the reviews"),
    "validation": (5000, "reviews left out of training"),
}
"""Of several kinds: name -> (default, help)."""


def spread(values: Sequence[float] | np.ndarray, *, higher_is_better: bool = True) -> Metric:
    """The median, with the least and the greatest of `values`."""
    low, value, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return Metric(value=value, low=low, high=high, n=len(values), higher_is_better=higher_is_better)


def or_not(system: str, once: Callable[[], BenchmarkRow]) -> BenchmarkRow:
    """Its row, or one that says why it cannot be had or run here. Raises what ours does, and ConfigError."""
    try:
        return once()
    except Exception as error:  # of others' software anything
        if system.startswith("ours") or isinstance(error, ConfigError):
            raise
        traceback.print_exc()
        kind = "" if isinstance(error, (UserError, ImportError)) else f"{type(error).__name__}: "
        return BenchmarkRow(system=system, note=f"not measured: {kind}{error}".splitlines()[0])


def absent(why: str, *_: Any) -> Any:
    """A peer that is named and told why it was not measured."""
    raise ImportError(why)


def reset_peak(device: torch.device) -> None:
    """From here on `max_memory_reserved` counts anew; without a GPU it is 0."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def record(
    arguments: argparse.Namespace, rows: Sequence[BenchmarkRow], base_model: str, **settings: Any
) -> BenchmarkRecord:
    """The rows with what they depend on, written to --output. settings: what the command chose."""
    from sentiment_core.engines.device import find_device  # not among a measured start's imports

    context = find_device()
    found = BenchmarkRecord(
        kind=arguments.kind, created_at=utc_now(), commit=provenance.commit(), settings=settings,
        command=provenance.command_line(), base_model=Path(base_model).name, versions=provenance.versions(),
        rows=tuple(rows), hardware=provenance.hardware(context.device.type, context.world_size),
    )  # fmt: skip
    if context.is_main:
        write_record(Path(arguments.output), found)
    return found


def finished(run_id: str, base_model: str = "") -> tuple[Run | None, BaseModel]:
    """The run under assets/, None without an id, and the base model, as for eval.py.
    Raises ArtifactError: there is no such finished run. BaseModelError as `base_of`."""
    run = read_finished(ASSETS / "runs" / run_id) if run_id else None
    return run, base_of(base_model, run.record if run else None)


def asked(flag: str, given: str, known: Sequence[str]) -> list[str]:
    """The names in a comma-separated flag. Raises ConfigError when one of them is not known."""
    names = given.split(",")
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(f"{flag} names {unknown[0]!r}; use some of {', '.join(known)}")
    return names
