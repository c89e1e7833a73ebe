"""Both systems' answers to the same reviews, and the filters that the examples tab offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sentiment_core.artifacts import frames
from sentiment_core.metrics.slices import quarters

RIGHT_FINE, P_FINE = (frames.of(column, frames.FINE_TUNED) for column in ("right", "p_positive"))


def paired(before: pd.DataFrame | None, after: pd.DataFrame) -> pd.DataFrame:
    """`frames.predictions_table` in dataset order; a `before` of other reviews counts as unparsed."""
    if before is not None:
        with suppress(ValueError):
            return frames.predictions_table(before, after)
    unparsed = pd.array([pd.NA] * len(after), dtype="Int8")
    return frames.predictions_table(after.assign(prediction=unparsed, p_positive=np.float32(np.nan)), after)


def partner(frame: pd.DataFrame, row: Any) -> Any | None:
    """The other review of a row's pair, as a row; None where there is none."""
    if "pair_id" not in frame:
        return None
    others = frame[(frame["pair_id"] == row.pair_id) & (frame[frames.REVIEW_ID] != row.review_id)]
    return next(others.itertuples(), None)


class Filter(NamedTuple):
    """A named choice of rows: which ones, and in which order."""

    title: str
    keep: Callable[[pd.DataFrame], pd.Series | np.ndarray]
    order: Callable[[pd.DataFrame], pd.Series] = lambda f: f[frames.POSITION]
    """Rows with the smallest value first."""


def _distance(frame: pd.DataFrame) -> pd.Series:
    """How far the fine-tuned P(positive) lies from one half; the largest possible where there is none."""
    return (frame[P_FINE].astype(float) - 0.5).abs().fillna(0.5)


FILTERS: Mapping[str, Filter] = {
    "all": Filter("All", lambda f: np.ones(len(f), bool)),
    "fixed": Filter("Fixed", lambda f: f[frames.OUTCOME] == "fixed"),
    "broken": Filter("Regressed", lambda f: f[frames.OUTCOME] == "broken"),
    "wrong": Filter("Both wrong", lambda f: f[frames.OUTCOME] == "both wrong"),
    "mistakes": Filter("Most confident mistakes", lambda f: ~f[RIGHT_FINE], lambda f: -_distance(f)),
    "unsure": Filter("Lowest confidence", lambda f: _distance(f) < 0.2, _distance),
}
"""On the fine-tuned system's answers; "Lowest confidence" is P(positive) between 30 and 70 %."""

ANY_LENGTH = "any length"


@dataclass(frozen=True)
class ExampleFilter:
    """What a visitor asks of *Example predictions*: its inputs in their order on the page, then the page."""

    run_id: str | None = None
    dataset: str | None = None
    name: str = "all"
    """A key of FILTERS; anything else counts as "all", and so below."""
    length: str = ANY_LENGTH
    """A key of `lengths`."""
    search: str | None = ""
    """Words looked for in the text where there are texts, or a review id's beginning."""
    page: int = 0
    """From 0; beyond either end it means the first or the last page."""


def counts(frame: pd.DataFrame) -> dict[str, int]:
    return {name: int(np.sum(one.keep(frame))) for name, one in FILTERS.items()}


def lengths(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Quarters of the reviews by tokens: title -> (shortest, longest), shortest first."""
    return {f"{low:,}–{high:,} tokens": (low, high) for low, high in quarters(frame[frames.TOKENS])}


def select(frame: pd.DataFrame, wanted: ExampleFilter, texts: Mapping[str, str] | None = None) -> np.ndarray:
    """Positions in `frame` that pass, on all pages together, in the filter's order."""
    one = FILTERS.get(wanted.name, FILTERS["all"])
    keep = np.array(one.keep(frame), dtype=bool)
    if quarter := lengths(frame).get(wanted.length):
        keep &= frame[frames.TOKENS].between(*quarter).to_numpy()
    if search := (wanted.search or "").strip().lower()[:200]:
        texts, ids = texts or {}, frame[frames.REVIEW_ID]
        keep &= np.array([i.startswith(search) or search in texts.get(i, "").lower() for i in ids], bool)
    positions = np.flatnonzero(keep)
    return positions[np.argsort(one.order(frame.iloc[positions]).to_numpy(), kind="stable")]
