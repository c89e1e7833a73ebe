"""Which words moved an answer: a gradient picks the candidates, taking each out of the review decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sentiment_core.models import PromptEncoder
from sentiment_core.prompts import CUT_MARK, cut_middle

CANDIDATES = 16
"""Words taken out one by one."""

METHOD = (
    f"occlusion: the {CANDIDATES} words with the largest gradient × embedding are taken out of the review, "
    "one at a time; a word's weight is by how much the log-odds of Positive fall without it"
)

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+")


@dataclass(frozen=True)
class WordWeight:
    """A word of the text and its pull; `weight` > 0 pulls towards Positive, in log-odds."""

    start: int
    end: int
    weight: float


class Explainable(Protocol):
    def log_odds_of_variants(self, row: np.ndarray, variants: list[np.ndarray]) -> np.ndarray: ...

    def token_pulls(self, row: np.ndarray) -> np.ndarray: ...


def explain_words(
    text: str, encoder: PromptEncoder, system: Explainable, max_length_tokens: int
) -> list[WordWeight]:
    """The words of `text` that pull most, strongest first.

    Args:
        system: the model to explain.
    """
    prefix = len(encoder.prefix_ids)

    def row_of(review: str) -> np.ndarray:
        return encoder.encode([review], max_length_tokens)[0][prefix:]

    row = row_of(text)
    spans = [match.span() for match in _WORD.finditer(text)]
    pulls = word_pulls(text, spans, encoder, system.token_pulls(row), max_length_tokens)
    chosen = sorted(spans, key=lambda span: -abs(pulls.get(span, 0.0)))[:CANDIDATES]
    chosen = [span for span in chosen if span in pulls]
    variants = [row_of(text[:start] + text[end:]) for start, end in chosen]
    without = system.log_odds_of_variants(row, [row, *variants])
    weights = [WordWeight(*span, float(without[0] - x)) for span, x in zip(chosen, without[1:], strict=True)]
    return sorted(weights, key=lambda word: -abs(word.weight))


def word_pulls(
    text: str,
    spans: list[tuple[int, int]],
    encoder: PromptEncoder,
    token_pulls: np.ndarray,
    max_length_tokens: int,
) -> dict[tuple[int, int], float]:
    """Sum each word's token pulls. Words that the model did not see (a long review's middle) are absent."""
    _, offsets = encoder.review_offsets(text)
    shown = len(token_pulls) - len(encoder.suffix_ids)
    places = list(range(len(offsets)))
    if len(offsets) > shown:
        marker = encoder.review_ids([CUT_MARK])[0]
        places, _ = cut_middle(places, shown, [-1] * len(marker))
    pull_of = np.zeros(len(text) + 1)
    seen = np.zeros(len(text) + 1, dtype=bool)
    for pull, place in zip(token_pulls, places, strict=False):
        if place < 0:
            continue
        start, end = offsets[place]
        if end > start:
            pull_of[start:end] += pull / (end - start)
            seen[start:end] = True
    return {(a, b): float(pull_of[a:b].sum()) for a, b in spans if seen[a:b].all()}
