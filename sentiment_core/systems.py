"""The one registry of evaluated systems; a new one is a line here and a file in `evaluation/systems/`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One way of answering that eval.py can measure."""

    id: str
    title: str
    short_title: str  # where room is scarce, such as a slider's label
    work: str  # "module:class" of what scores the reviews; imported when it is run
    colour: str  # palette entry of its marks, see `figures.style`
    marker: str  # Plotly symbol of its marks
    is_base: bool = False  # the base model without an adapter, which "before" can stand for


_ALL = (
    System(
        "baseline-scored", "Zero-shot (label likelihood)", "Base model",
        "sentiment_core.evaluation.systems.scored:ZeroShot", "base", "circle", is_base=True,
    ),
    System(
        "baseline-recalibrated", "Zero-shot (recalibrated)", "Base model",
        "sentiment_core.evaluation.systems.scored:Recalibrated", "base", "hexagon", is_base=True,
    ),
    System(
        "baseline-generated", "Zero-shot (generated)", "Base model",
        "sentiment_core.evaluation.systems.generated:Generated", "base", "square", is_base=True,
    ),
    System(
        "baseline-few-shot", "Few-shot", "Base model",
        "sentiment_core.evaluation.systems.scored:FewShot", "base", "triangle-up", is_base=True,
    ),
    System(
        "tfidf-logreg", "TF-IDF + logistic regression", "TF-IDF + logistic regression",
        "sentiment_core.evaluation.systems.tfidf:Tfidf", "ink", "diamond",
    ),
    System(
        "fine-tuned", "Fine-tuned (QLoRA)", "Fine-tuned",
        "sentiment_core.evaluation.systems.scored:FineTuned", "fine", "circle",
    ),
)  # fmt: skip

SYSTEMS: dict[str, System] = {system.id: system for system in _ALL}
"""By id, in the order in which tables and menus show them."""


def known_system(system_id: str) -> str:
    """The id itself. Raises ValueError: no such system."""
    if system_id not in SYSTEMS:
        raise ValueError(f"system is {system_id!r}; use one of {', '.join(SYSTEMS)}")
    return system_id


def first_base(system_ids: Container[str]) -> str | None:
    """Which of these systems "before" stands for: the first one of the base model; None without one."""
    return next((system.id for system in _ALL if system.is_base and system.id in system_ids), None)
