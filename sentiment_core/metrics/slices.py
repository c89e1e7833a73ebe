"""Accuracy of parts of the reviews: by length, truncation, confidence and group."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from sentiment_core.metrics import intervals
from sentiment_core.metrics.intervals import Metric, Record, wilson

CONFIDENCE_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
Part = tuple[str, str, np.ndarray]  # by what, its value, and which reviews


class Slice(Record):
    """Accuracy of a part of the reviews, for example all with 1–178 tokens."""

    by: str
    """"tokens", "truncated", "confidence", or the name of a group column."""
    value: str
    accuracy: Metric


def slices(frame: pd.DataFrame, group_columns: Iterable[str] = ()) -> list[Slice]:
    """Strict accuracy by length, truncation, confidence and group.

    Args:
        frame: label, prediction, tokens, truncated, p_positive, and the group columns.
        group_columns: columns to slice by; one with more than 20 values, or pair_id, is passed over.
    Returns:
        by "tokens" (quarters of the reviews by length, "1–178 tokens", shortest first), "truncated" ("no",
        "yes"), "confidence" of the top label ("50–60 %", … of the scored reviews), then each group column.
    """
    right = intervals.read_answers(frame["prediction"], len(frame)) == intervals.read_labels(frame["label"])
    truncated = np.asarray(frame["truncated"], dtype=bool)
    parts = [*_by_length(frame), ("truncated", "no", ~truncated), ("truncated", "yes", truncated)]
    parts += _by_confidence(frame)
    for column in group_columns:
        parts += _by_group(frame, column)
    held = [(by, value, right[mask]) for by, value, mask in parts if mask.any()]
    return [Slice(by=by, value=value, accuracy=wilson(int(of.sum()), len(of))) for by, value, of in held]


def _by_length(frame: pd.DataFrame) -> Iterator[Part]:
    """Quarters by length, shortest first; fewer where lengths tie."""
    tokens = np.asarray(frame["tokens"], dtype=np.int64)
    longest = np.unique(np.quantile(tokens, (0.25, 0.5, 0.75, 1), method="inverted_cdf")).astype(int).tolist()
    for low, high in zip([tokens.min(), *(edge + 1 for edge in longest)], longest, strict=False):
        name = f"{low}–{high} tokens" if low < high else f"{high} tokens"
        yield "tokens", name, (tokens >= low) & (tokens <= high)


def _by_confidence(frame: pd.DataFrame) -> Iterator[Part]:
    p = intervals.read_probabilities(frame["p_positive"], len(frame)).astype(np.float32).astype(float)
    confidence = np.maximum(p, 1 - p)
    for low, high in itertools.pairwise(CONFIDENCE_EDGES):
        inside = (confidence >= low) & ((confidence < high) | (high == CONFIDENCE_EDGES[-1]))
        yield "confidence", f"{100 * low:.0f}–{100 * high:.0f} %", inside


def _by_group(frame: pd.DataFrame, column: str) -> Iterator[Part]:
    values = frame[column]
    distinct = sorted(values.dropna().unique(), key=lambda value: (isinstance(value, str), value))
    if column == "pair_id" or len(distinct) > 20:  # an identifier, not a group
        return
    for value in distinct:
        yield column, str(value), np.asarray((values == value).fillna(False), dtype=bool)
