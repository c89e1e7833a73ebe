"""The one registry of evaluated systems; a new one is a line here and a file in `evaluation/systems/`."""

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


_WORK = "sentiment_core.evaluation.systems"


def _family(short_title: str, colour: str, *members: tuple[str, str, str, str]) -> tuple[System, ...]:
    """members: id, title, work within `_WORK`, and marker of each."""
    return tuple(
        System(system_id, title, short_title, f"{_WORK}.{work}", colour, marker)
        for system_id, title, work, marker in members
    )


_BASES = _family(
    "Base model", "base",
    ("baseline-scored", "Zero-shot (label likelihood)", "scored:ZeroShot", "circle"),
    ("baseline-recalibrated", "Zero-shot (recalibrated)", "scored:Recalibrated", "hexagon"),
    ("baseline-generated", "Zero-shot (generated)", "generated:Generated", "square"),
    ("baseline-few-shot", "Few-shot (k = 4)", "scored:FewShot", "triangle-up"),
    ("baseline-few-shot-8", "Few-shot (k = 8)", "scored:FewShot8", "star-triangle-up"),
)  # fmt: skip
_ENCODERS = _family(
    "Encoder", "ink",
    ("encoder-full", "Encoder fully fine-tuned", "encoders:Full", "pentagon"),
    ("encoder-lora", "Encoder with LoRA", "encoders:Lora", "triangle-down"),
    ("encoder-linear", "Frozen encoder + logistic regression", "encoders:Linear", "hexagram"),
    ("encoder-setfit-8", "SetFit (8 labels a class)", "encoders:SetFit8", "bowtie"),
    ("encoder-setfit-64", "SetFit (64 labels a class)", "encoders:SetFit64", "hourglass"),
)  # fmt: skip
_TFIDF, _NBSVM = "TF-IDF + logistic regression", "NBSVM (bigrams)"
_OTHERS = (
    System("tfidf-logreg", _TFIDF, _TFIDF, f"{_WORK}.bag_of_words:Tfidf", "ink", "diamond"),
    System("nbsvm", _NBSVM, _NBSVM, f"{_WORK}.bag_of_words:Nbsvm", "ink", "cross"),
    *_ENCODERS,
    System("fine-tuned", "Fine-tuned (QLoRA)", "Fine-tuned", f"{_WORK}.scored:FineTuned", "fine", "circle"),
)
SYSTEMS: dict[str, System] = {system.id: system for system in (*_BASES, *_OTHERS)}
"""By id, in the order in which tables and menus show them."""
ENCODERS = frozenset(system.id for system in _ENCODERS)
"""Those that --base-model gives an encoder of their own, instead of the language model of the others."""


def known_system(system_id: str) -> str:
    """The id itself. Raises ValueError: no such system."""
    if system_id not in SYSTEMS:
        raise ValueError(f"system is {system_id!r}; use one of {', '.join(SYSTEMS)}")
    return system_id


def first_base(system_ids: Container[str]) -> str | None:
    """Which of these systems "before" stands for: the first one of the base model; None without one."""
    return next((system.id for system in _BASES if system.id in system_ids), None)
