"""Which words moved an answer: a gradient picks the candidates, taking each out of the review decides.

The gradient costs one pass forth and back, and is noisy. Occlusion costs a pass per word, though only from
the word on: what stands before it is in the cache.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.prompts import CUT_MARK, cut_middle

if TYPE_CHECKING:
    from sentiment_core.live.classifier import System

CANDIDATES, FEWEST = 16, 8
"""Words taken out, at most and of the longest reviews."""

TOKENS = 8_192
"""Fewer words are tried where the prompt is longer, so that the work is bounded: words times the prompt's
tokens. Time has no say, so a busy machine shows the same words later, not fewer of them."""

METHOD = (
    f"occlusion: the words that the gradient points at ({FEWEST} to {CANDIDATES}, fewer in a longer review) "
    "are taken out of the review one at a time; a word's weight is how far the log-odds of Positive fall "
    "without it"
)

Hook = Callable[..., None]
"""Called between two steps of long work, where it may wait for shorter work."""


def nothing(*_: Any) -> None:
    """A `Hook` that does not wait."""


Span = tuple[int, int]

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[!?]+|[^\w\s.,;:'’‘\"“”()\[\]{}<>/\\…–—\-]+")


@dataclass(frozen=True)
class WordWeight:
    """A word of the text and its pull; `weight` > 0 pulls towards Positive, in log-odds."""

    start: int
    end: int
    weight: float


class Saliency(NamedTuple):
    """What one pass forth and back over a prompt tells."""

    log_odds: float
    salience: np.ndarray
    """(tokens,) how much the log-odds hang on each token, by the gradient; at least 0, no sign."""
    cache: Any
    """Speeds up variants of the same prompt."""


@dataclass(frozen=True)
class Explanation:
    """The words tried so far, strongest first, and how many will be tried."""

    words: tuple[WordWeight, ...]
    planned: int


def explain_words(
    text: str, encoder: PromptEncoder, system: System, max_length_tokens: int, yield_to_interactive: Hook
) -> Iterator[Explanation]:
    """The words of `text` that pull most on `system`, a few more each time; nothing where there are none."""

    def row_of(review: str) -> np.ndarray:
        return encoder.encode([review], max_length_tokens)[0][len(encoder.prefix_ids) :]

    row = row_of(text)
    whole = system.saliency(row, yield_to_interactive)
    salience = word_salience(text, whole.salience, encoder)
    count = max(FEWEST, min(CANDIDATES, TOKENS // (len(encoder.prefix_ids) + len(row))))
    chosen = sorted(salience, key=lambda span: -salience[span])[:count]
    found: list[WordWeight] = []
    while len(found) < len(chosen):
        spans = chosen[len(found) :][: system.workers]
        variants = [row_of(without_word(text, span)) for span in spans]
        without = system.log_odds_of_variants(variants, row, whole.cache, yield_to_interactive)
        found += [WordWeight(*s, whole.log_odds - float(x)) for s, x in zip(spans, without, strict=True)]
        yield Explanation(tuple(sorted(found, key=lambda word: -abs(word.weight))), len(chosen))


def words(text: str) -> list[Span]:
    """Where the words stand, emoji and exclamations among them, other punctuation not.

    >>> [("Não é bom, isn't it?!")[a:b] for a, b in words("Não é bom, isn't it?!")]
    ['Não', 'é', 'bom', "isn't", 'it', '?!']
    """

    def is_mark(character: str) -> bool:  # accents and vowel signs belong to their letter
        return unicodedata.category(character)[0] == "M" and not "\ufe00" <= character <= "\ufe0f"

    return [match.span() for match in _WORD.finditer("".join("a" if is_mark(c) else c for c in text))]


def without_word(text: str, span: Span) -> str:
    """The text without a word and without the blank in front of it (or after it, at the beginning).

    >>> without_word("a good, long film", (2, 6))
    'a, long film'
    """
    before, after = text[: span[0]], text[span[1] :]
    if before.endswith(" "):
        return before[:-1] + after
    return before + (after[1:] if after.startswith(" ") else after)


def word_salience(text: str, of_tokens: np.ndarray, encoder: PromptEncoder) -> dict[Span, float]:
    """The sum over each word's tokens; words in the part that was cut out of the review are absent."""
    _, offsets = encoder.review_offsets(text)
    shown = len(of_tokens) - len(encoder.suffix_ids)
    mark = [-1] * len(encoder.review_ids([CUT_MARK])[0])
    places, _ = cut_middle(range(len(offsets)), shown, mark)
    of_character = np.full(len(text), np.nan)
    for value, place in zip(of_tokens[:shown], places, strict=True):
        if place >= 0:
            start, end = offsets[place]
            start += len(text[start:end]) - len(text[start:end].lstrip())  # a token may begin with the blank
            of_character[start:end] = np.nan_to_num(of_character[start:end]) + value / max(end - start, 1)
    found = ((span, of_character[slice(*span)].sum()) for span in words(text))
    return {span: float(value) for span, value in found if not np.isnan(value)}


class Turns:
    """Answers come one at a time; longer work calls `yield_to_interactive` between its steps."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._changed = threading.Condition()
        self._wanted = 0

    @contextmanager
    def answer(self) -> Iterator[None]:
        with self._changed:
            self._wanted += 1
        try:
            with self._one:
                yield
        finally:
            with self._changed:
                self._wanted -= 1
                self._changed.notify_all()

    def yield_to_interactive(self, *_: Any) -> None:
        """Return once no answer is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted == 0)
