"""Both systems' answers to the same reviews, and the filters that the examples tab offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core import tables

RIGHT_BASE, RIGHT_FINE = tables.of("right", tables.BASE), tables.of("right", tables.FINE_TUNED)
P_FINE = tables.of("p_positive", tables.FINE_TUNED)


def paired(before: pd.DataFrame | None, after: pd.DataFrame) -> pd.DataFrame:
    """`tables.predictions_table` in dataset order; a `before` of other reviews counts as no answer at all."""
    if before is not None:
        try:
            return tables.predictions_table(before, after)
        except ValueError:
            pass
    none = after.assign(
        prediction=pd.array([pd.NA] * len(after), dtype="Int8"), p_positive=np.float32(np.nan)
    )
    return tables.predictions_table(none, after)


def partner(frame: pd.DataFrame, row: Any) -> Any | None:
    """The other review of a row's pair, as a row; None where there is none."""
    if "pair_id" not in frame:
        return None
    others = frame[(frame["pair_id"] == row.pair_id) & (frame[tables.REVIEW_ID] != row.review_id)]
    return next(others.itertuples(), None)


@dataclass(frozen=True)
class Filter:
    """A named choice of rows: which ones, and in which order."""

    title: str
    keep: Callable[[pd.DataFrame], pd.Series | np.ndarray]
    order: Callable[[pd.DataFrame], pd.Series] | None = None
    """Rows with the smallest value first; None leaves dataset order."""


def _distance(frame: pd.DataFrame) -> pd.Series:
    """How far the fine-tuned P(positive) lies from one half; the largest possible where there is none."""
    return (frame[P_FINE].astype(float) - 0.5).abs().fillna(0.5)


FILTERS: Mapping[str, Filter] = {
    "all": Filter("all", lambda f: np.ones(len(f), bool)),
    "fixed": Filter("fixed by fine-tuning", lambda f: f[tables.OUTCOME] == "fixed"),
    "broken": Filter("broken by it", lambda f: f[tables.OUTCOME] == "broken"),
    "wrong": Filter("both wrong", lambda f: f[tables.OUTCOME] == "both wrong"),
    "mistakes": Filter("most confident mistakes", lambda f: ~f[RIGHT_FINE], lambda f: -_distance(f)),
    "unsure": Filter("least sure", lambda f: _distance(f) < 0.2, _distance),
}
"""On the fine-tuned system's answers; "least sure" is P(positive) between 30 and 70 %."""


def counts(frame: pd.DataFrame) -> dict[str, int]:
    return {name: int(np.sum(one.keep(frame))) for name, one in FILTERS.items()}


def length_edges(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Quarters of the reviews by tokens: (title, shortest, longest), shortest first."""
    if frame.empty:
        return []
    edges = np.unique(np.quantile(frame[tables.TOKENS], (0.25, 0.5, 0.75, 1), method="inverted_cdf"))
    low, found = int(frame[tables.TOKENS].min()), []
    for high in edges.astype(int):
        found.append((f"{low:,}–{high:,} tokens", low, int(high)))
        low = int(high) + 1
    return found


def select(
    frame: pd.DataFrame,
    name: str,
    *,
    length: str = "",
    search: str | None = "",
    texts: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Positions in `frame` that pass, in the filter's order.

    Args:
        length: a title of `length_edges`, or anything else for any length.
        search: words looked for in the text where there are texts, or a review id's beginning.
    """
    one = FILTERS.get(name, FILTERS["all"])
    keep = np.array(one.keep(frame), dtype=bool)
    for title, low, high in length_edges(frame):
        if title == length:
            keep &= frame[tables.TOKENS].between(low, high).to_numpy()
    if search := (search or "").strip().lower()[:200]:
        ids = frame[tables.REVIEW_ID]
        found = ids.str.startswith(search).to_numpy(dtype=bool, copy=True)
        if texts:
            found |= np.fromiter((search in texts.get(i, "").lower() for i in ids), bool, len(ids))
        keep &= found
    positions = np.flatnonzero(keep)
    if one.order is not None:
        positions = positions[np.argsort(one.order(frame.iloc[positions]).to_numpy(), kind="stable")]
    return positions
