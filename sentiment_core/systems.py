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


_TFIDF, _NBSVM = "TF-IDF + logistic regression", "NBSVM (bigrams)"
_BASE, _ENCODER = ("Base model", "base"), ("Encoder", "ink")
_ROWS = (
    ("baseline-scored", "Zero-shot (label likelihood)", "scored:ZeroShot", "circle", *_BASE),
    ("baseline-recalibrated", "Zero-shot (recalibrated)", "scored:Recalibrated", "hexagon", *_BASE),
    ("baseline-generated", "Zero-shot (generated)", "generated:Generated", "square", *_BASE),
    ("baseline-few-shot", "Few-shot (k = 4)", "scored:FewShot", "triangle-up", *_BASE),
    ("baseline-few-shot-8", "Few-shot (k = 8)", "scored:FewShot8", "star-triangle-up", *_BASE),
    ("tfidf-logreg", _TFIDF, "bag_of_words:Tfidf", "diamond", _TFIDF, "ink"),
    ("nbsvm", _NBSVM, "bag_of_words:Nbsvm", "cross", _NBSVM, "ink"),
    ("encoder-full", "Encoder fully fine-tuned", "encoders:Full", "pentagon", *_ENCODER),
    ("encoder-lora", "Encoder with LoRA", "encoders:Lora", "triangle-down", *_ENCODER),
    ("encoder-linear", "Frozen encoder + logistic regression", "encoders:Linear", "hexagram", *_ENCODER),
    ("encoder-setfit-8", "SetFit (8 labels a class)", "encoders:SetFit8", "bowtie", *_ENCODER),
    ("encoder-setfit-64", "SetFit (64 labels a class)", "encoders:SetFit64", "hourglass", *_ENCODER),
    ("fine-tuned", "Fine-tuned (QLoRA)", "scored:FineTuned", "circle", "Fine-tuned", "fine"),
)
SYSTEMS: dict[str, System] = {
    system_id: System(system_id, title, short, f"sentiment_core.evaluation.systems.{work}", colour, marker)
    for system_id, title, work, marker, short, colour in _ROWS
}
"""By id, in the order in which tables and menus show them."""
ENCODERS = frozenset(system_id for system_id in SYSTEMS if system_id.startswith("encoder-"))
"""Those that --base-model gives an encoder of their own, instead of the language model of the others."""


def known_system(system_id: str) -> str:
    """The id itself. Raises ValueError: no such system."""
    if system_id not in SYSTEMS:
        raise ValueError(f"system is {system_id!r}; use one of {', '.join(SYSTEMS)}")
    return system_id


def first_base(system_ids: Container[str]) -> str | None:
    """Which of these systems "before" stands for: the first one of the base model; None without one."""
    return next((one for one in SYSTEMS if one.startswith("baseline-") and one in system_ids), None)
