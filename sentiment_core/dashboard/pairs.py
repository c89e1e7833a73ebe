"""Both systems' answers to the same reviews, and the filters that the examples tab offers."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self

import gradio as gr
import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard.components.header import run_titles
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.store import actors_of

P_BASE, P_FINE = "p_positive_base", "p_positive_fine_tuned"
OUTCOMES = ("both wrong", "fixed", "regressed", "both right")  # by 2 · right before + right after


class Sides(NamedTuple):
    """Two systems whose answers to the same reviews are held against each other."""

    before: Evaluation | None
    after: Evaluation | None
    names: tuple[str, str] = ("Base model", "Fine-tuned")
    words: tuple[str, str] = ("before", "after fine-tuning")
    others: Mapping[str, str] = {}  # what `before` may be: a name for people -> run or system, "" of the base
    versus: str = ""

    @classmethod
    def of(cls, context: Context, run_id: str | None, dataset: str | None, versus: str) -> Self:
        """A run's fine-tuned model beside its base, another run's, or another system, by `versus`."""
        run, evals = context.evals(run_id, dataset)
        actors, titles = actors_of(evals), run_titles(context)
        before, after = actors.get("base"), actors.get("fine")
        found = {one.run_id: context.evals(one.run_id, dataset)[1].get("fine-tuned")
                 for one in context.store.finished_runs() if one != run}  # fmt: skip
        found |= {name: one for name, one in evals.items() if one not in (before, after)}
        titles |= {name: one.record.title for name, one in evals.items()}
        fits = {after.record.dataset.fingerprint} if after else set()
        there = {name: one for name, one in found.items() if one and one.record.dataset.fingerprint in fits}
        others = {"Its base model": "", **{titles[name]: name for name in there}}
        if not run or versus not in there:
            return cls(before, after, others=others)
        old, new = (f"“{titles.get(name, name)}”" for name in (versus, run.run_id))
        return cls(there[versus], after, (old, new), (f"with {old}", f"with {new}"), others, versus)

    def menu(self) -> gr.Dropdown:
        """What the menu "Compare with" offers, and the chosen one."""
        return gr.Dropdown(choices=[*self.others.items()], value=self.versus, visible=len(self.others) > 1)


def paired(before: pd.DataFrame | None, after: pd.DataFrame) -> pd.DataFrame:
    """Both systems' answers, in dataset order; a `before` of other reviews counts as unparsed.
    Returns the columns of `after`, with prediction_*, p_positive_* and right_* of base and fine_tuned instead
    of its answers (an unparsed one is not right), and outcome, one of OUTCOMES. Also `moved`, how far
    P(positive) moved, 0 where one of the two has none; and `sure`, how far the fine-tuned one lies from
    one half, the largest possible where there is none."""
    keys, given = ["review_id", "label"], ["prediction", "p_positive"]
    if before is None or not before[keys].equals(after[keys]):
        before = after.assign(prediction=pd.array([pd.NA] * len(after), dtype="Int8"), p_positive=np.nan)
    parts = [after.drop(columns=given)]
    for name, frame in (("base", before), ("fine_tuned", after)):
        right = (frame["prediction"] == frame["label"]).fillna(False).astype(bool)
        parts.append(frame[given].assign(right=right).add_suffix(f"_{name}"))
    table = pd.concat(parts, axis=1)
    outcome = np.array(OUTCOMES)[2 * table["right_base"] + table["right_fine_tuned"]]
    base, fine = table[P_BASE].astype(float), table[P_FINE].astype(float)
    moved, sure = (fine - base).abs().fillna(0.0), (fine - 0.5).abs().fillna(0.5)
    return table.assign(outcome=outcome, moved=moved, sure=sure)


class Filter(NamedTuple):
    """A named choice of rows."""

    title: str
    finding: str  # what its reviews have in common, after their number; {0} and {1} are `Sides.words`
    rows: str  # as `DataFrame.query` takes it
    order: str = "moved"  # column by which they are sorted
    ascending: bool = False


FILTERS: Mapping[str, Filter] = {
    "fixed": Filter("Fixed", "wrong {0}, right {1}", "outcome == 'fixed'"),
    "regressed": Filter("Regressed", "right {0}, wrong {1}", "outcome == 'regressed'"),
    "correct": Filter("Both correct", "right {0} and {1}", "outcome == 'both right'"),
    "wrong": Filter("Both wrong", "wrong {0} and {1}", "outcome == 'both wrong'"),
    "mistakes": Filter("Most confident mistakes", "wrong {1}, the surest first", "~right_fine_tuned", "sure"),
    "unsure": Filter("Lowest confidence", "30–70\u202f% {1}, the closest first", "sure < 0.2", "sure", True),
    "all": Filter("All", "those that moved most first", "index >= 0"),
}  # fmt: skip
"""By their names in the address."""


class ExampleFilter(BaseModel, frozen=True, strict=True):
    """What a visitor asks of *Example predictions*."""

    run_id: str | None = None
    dataset: str | None = None
    search: str | None = ""  # words looked for in the text, or a review id's beginning
    show: str = Field("fixed", pattern=f"^({'|'.join(FILTERS)})$")
    side: Literal["", "before", "after"] = ""  # whose P(positive) is in [low, high), 1 included; "": nobody's
    low: float = Field(0.0, ge=0, le=1)
    high: float = Field(1.0, ge=0, le=1)
    label: Literal[0, 1] | None = None  # the true label, where only one is wanted
    versus: str = ""  # run or system that is held against this run; its base model if empty or unknown
    page: int = 0  # from 0; beyond either end it means the first or the last page

    @classmethod
    def of(
        cls, run_id: str | None = None, dataset: str | None = None, search: str | None = "", asked: str = ""
    ) -> Self:
        """`asked`: a JSON object of the further fields; nonsense is passed over."""
        found = cls()
        with suppress(ValueError):
            found = cls.model_validate_json(asked[:500])
        show = "all" if found.side and "show" not in found.model_fields_set else found.show
        return found.model_copy(update={"run_id": run_id, "dataset": dataset, "search": search, "show": show})

    def asking(self, **changes: Any) -> str:
        """This as `asked`, with changes; those on which page it is are forgotten."""
        changed = self.model_copy(update={"page": 0} | changes)
        return changed.model_dump_json(exclude={"run_id", "dataset", "search"})


def narrowed(frame: pd.DataFrame, wanted: ExampleFilter) -> pd.DataFrame:
    """Its rows with the label and the P(positive) that are asked for."""
    if wanted.label is not None:
        frame = frame[frame["label"] == wanted.label]
    if wanted.side:
        p = frame[P_BASE if wanted.side == "before" else P_FINE].astype(float)
        frame = frame[p.between(wanted.low, wanted.high, inclusive="both" if wanted.high == 1 else "left")]
    return frame


def counts(frame: pd.DataFrame, wanted: ExampleFilter) -> dict[str, int]:
    """Rows of each filter, of those that are `narrowed` to."""
    frame = narrowed(frame, wanted)
    return {name: len(frame.query(one.rows)) for name, one in FILTERS.items()}


def select(frame: pd.DataFrame, wanted: ExampleFilter, texts: Mapping[str, str] = {}) -> pd.DataFrame:
    """The rows that pass, on all pages together, in the filter's order."""
    one = FILTERS[wanted.show]
    found = narrowed(frame, wanted).query(one.rows)
    if search := (wanted.search or "").strip().lower()[:200]:
        ids = found["review_id"]
        found = found.loc[[i.startswith(search) or search in texts.get(i, "").lower() for i in ids]]
    return found.sort_values(one.order, ascending=one.ascending, kind="stable")
