"""Both systems' answers to the same reviews, and the filters that the examples tab offers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sentiment_core.artifacts import frames
from sentiment_core.artifacts.schema import SampleReview

P_BASE, P_FINE = (frames.of("p_positive", system) for system in (frames.BASE, frames.FINE_TUNED))
RIGHT_FINE = frames.of("right", frames.FINE_TUNED)


def paired(before: pd.DataFrame | None, after: pd.DataFrame) -> pd.DataFrame:
    """`frames.predictions_table` in dataset order; a `before` of other reviews counts as unparsed."""
    if before is not None:
        with suppress(ValueError):
            return frames.predictions_table(before, after)
    unparsed = pd.array([pd.NA] * len(after), dtype="Int8")
    return frames.predictions_table(after.assign(prediction=unparsed, p_positive=np.float32(np.nan)), after)


def of_samples(samples: Sequence[SampleReview], answers: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """`paired` for our own reviews, with their `kind`; both sides of a review without answers are NA.

    Args:
        answers: sample id -> "base" and "fine-tuned" -> a trace, whose last P(positive) is the answer.
    """
    rows = [(sample.id, sample.label, sample.kind, 0, False) for sample in samples]
    columns = [frames.REVIEW_ID, frames.LABEL, "kind", frames.TOKENS, frames.TRUNCATED]
    own = pd.DataFrame(rows, columns=columns)

    def answered(system: str) -> pd.DataFrame:
        found = [answers[s.id][system].p_positive[-1] if s.id in answers else np.nan for s in samples]
        p = pd.Series(found, dtype="float32")
        return own.assign(prediction=(p >= 0.5).astype("Int8").mask(p.isna()), p_positive=p)

    return paired(answered("base"), answered("fine-tuned"))


def partner(frame: pd.DataFrame, row: Any) -> Any | None:
    """The other review of a row's pair, as a row; None where there is none."""
    if "pair_id" not in frame:
        return None
    others = frame[(frame["pair_id"] == row.pair_id) & (frame[frames.REVIEW_ID] != row.review_id)]
    return next(others.itertuples(), None)


def _moved(frame: pd.DataFrame) -> pd.Series:
    """The farther P(positive) moved, the smaller; 0 where one of the two has none."""
    return -(frame[P_FINE].astype(float) - frame[P_BASE].astype(float)).abs().fillna(0.0)


def _distance(frame: pd.DataFrame) -> pd.Series:
    """How far the fine-tuned P(positive) lies from one half; the largest possible where there is none."""
    return (frame[P_FINE].astype(float) - 0.5).abs().fillna(0.5)


class Filter(NamedTuple):
    """A named choice of rows: which ones, and in which order."""

    title: str
    finding: str
    """What its reviews have in common, after their number."""
    keep: Callable[[pd.DataFrame], pd.Series | np.ndarray]
    order: Callable[[pd.DataFrame], pd.Series] = _moved
    """Rows with the smallest value first."""


def _outcome(title: str, finding: str, outcome: str) -> Filter:
    return Filter(title, finding, lambda f: f[frames.OUTCOME] == outcome)


FILTERS: Mapping[str, Filter] = {
    "fixed": _outcome("Fixed", "wrong before, right after fine-tuning", "fixed"),
    "regressed": _outcome("Regressed", "right before, wrong after fine-tuning", "broken"),
    "correct": _outcome("Both correct", "right before and after fine-tuning", "both right"),
    "wrong": _outcome("Both wrong", "wrong before and after fine-tuning", "both wrong"),
    "mistakes": Filter(
        "Most confident mistakes", "wrong after fine-tuning, the surest first",
        lambda f: ~f[RIGHT_FINE], lambda f: -_distance(f),
    ),
    "unsure": Filter(
        "Lowest confidence", "between 30 and 70\u202f% after fine-tuning, the closest to 50 first",
        lambda f: _distance(f) < 0.2, _distance,
    ),
    "all": Filter("All", "those that moved most first", lambda f: np.ones(len(f), bool)),
}  # fmt: skip
"""By their names in the address."""


@dataclass(frozen=True)
class ExampleFilter:
    """What a visitor asks of *Example predictions*."""

    run_id: str | None = None
    dataset: str | None = None
    search: str | None = ""
    """Words looked for in the text, or a review id's beginning."""
    show: str = "fixed"
    """A key of FILTERS."""
    side: Literal["", "before", "after"] = ""
    """Whose P(positive) must lie in [low, high), or up to 1 where high is 1; of nobody's if empty."""
    low: float = 0.0
    high: float = 1.0
    label: Literal[0, 1] | None = None
    """The true label, where only one is wanted."""
    page: int = 0
    """From 0; beyond either end it means the first or the last page."""

    @staticmethod
    def of(
        run_id: str | None = None, dataset: str | None = None, search: str | None = "", asked: str = ""
    ) -> ExampleFilter:
        """`asked`: a JSON object of the other fields; what is none of them is passed over."""
        found: Any = None
        with suppress(ValueError):
            found = json.loads(asked[:500])
        given: dict[str, Any] = found if isinstance(found, dict) else {}
        known = {name: value for name, value in given.items() if name in ASKED and ASKED[name](value)}
        if "side" in known:
            known = {"show": "all"} | known
        return ExampleFilter(run_id, dataset, search, **known)

    def asking(self, **changes: Any) -> str:
        """This as `asked`, with changes; those on which page it is are forgotten."""
        fields = {name: getattr(self, name) for name in ASKED} | {"page": 0} | changes
        return json.dumps(fields)


ASKED: Mapping[str, Callable[[Any], bool]] = {
    "show": lambda given: given in list(FILTERS),
    "side": lambda given: given in ("before", "after"),
    "low": lambda given: isinstance(given, int | float) and 0 <= given <= 1,
    "high": lambda given: isinstance(given, int | float) and 0 <= given <= 1,
    "label": lambda given: given in (0, 1),
    "page": lambda given: isinstance(given, int),
}
"""Fields that the page's script or its address may set, and what fits them."""


def narrowed(frame: pd.DataFrame, wanted: ExampleFilter) -> np.ndarray:
    """(n,) whether a row has the label and the P(positive) that are asked for."""
    keep = np.ones(len(frame), bool)
    if wanted.label is not None:
        keep &= (frame[frames.LABEL] == wanted.label).to_numpy()
    if wanted.side:
        p = frame[P_BASE if wanted.side == "before" else P_FINE].to_numpy(dtype=float)
        keep &= (p >= wanted.low) & ((p < wanted.high) | (wanted.high == 1))
    return keep


def counts(frame: pd.DataFrame, wanted: ExampleFilter) -> dict[str, int]:
    """Rows of each filter, of those that are `narrowed` to."""
    frame = frame[narrowed(frame, wanted)]
    return {name: int(np.sum(one.keep(frame))) for name, one in FILTERS.items()}


def select(frame: pd.DataFrame, wanted: ExampleFilter, texts: Mapping[str, str] | None = None) -> np.ndarray:
    """Positions in `frame` that pass, on all pages together, in the filter's order."""
    one = FILTERS[wanted.show]
    keep = narrowed(frame, wanted) & one.keep(frame)
    if search := (wanted.search or "").strip().lower()[:200]:
        texts, ids = texts or {}, frame[frames.REVIEW_ID]
        keep &= np.array([i.startswith(search) or search in texts.get(i, "").lower() for i in ids], bool)
    positions = np.flatnonzero(keep)
    return positions[np.argsort(one.order(frame.iloc[positions]).to_numpy(), kind="stable")]
