"""A live model made of a few words, for tests of the page: instant, deterministic, and no torch."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sentiment_core.artifacts.schema import DIAL, ReadingTrace
from sentiment_core.artifacts.store import Run
from sentiment_core.config import UserError
from sentiment_core.live.clauses import clause_ends, most_rows

GOOD = {"warm", "funny", "happy", "great", "laughed", "like", "wonderful", "perfect", "good", "love"}
LONG = 300
"""Words; a longer review gets a first answer after a third of it."""

BAD = {"nothing", "flat", "dreadful", "bad", "boring", "fall", "nobody", "worst", "terrible"}


@dataclass(frozen=True)
class LiveAnswer:
    p_positive: float
    seconds: float
    tokens: int
    truncated: bool
    read: float = 1.0
    about: str = ""


class FakeClassifier:
    """The fine-tuned model counts words; the base model always leans to Positive."""

    number_format, on_gpu, at_once = "fake", False, 1

    def __init__(self, run: Run | None, wait: float = 0.0) -> None:
        self.run_id = run.run_id if run else ""
        self.wait = wait

    @staticmethod
    def load(run: Run | None) -> FakeClassifier:
        return FakeClassifier(run)

    def _p(self, text: str, system: str) -> float:
        words = re.findall(r"[a-z]+", text.lower())
        if system == "base":
            return 0.5 + 0.2 * math.tanh(len(words) / 50)
        score = sum(w in GOOD for w in words) - sum(w in BAD for w in words)
        return 1 / (1 + math.exp(-1.5 * score - 0.1))

    def classify(self, text: str, system: str) -> LiveAnswer:
        time.sleep(self.wait)
        tokens = len(text.split())
        return LiveAnswer(self._p(text, system), 0.012, tokens, tokens > 900)

    def read(self, text: str, system: str) -> Iterator[LiveAnswer | ReadingTrace]:
        words = text.split()
        if len(words) > LONG:
            beginning = " ".join(words[: len(words) // 3])
            yield replace(self.classify(beginning, system), read=1 / 3)
        answer = self.classify(text, system)
        yield answer
        time.sleep(self.wait)
        ends = clause_ends(text, most_rows(len(words)))
        before = [self._p(text[:end], system) for end in ends[:-1]]
        yield ReadingTrace(ends=tuple(ends), p_positive=(*before, answer.p_positive))

    def dial(self, text: str) -> Iterator[float]:
        if len(text.split()) > LONG:
            raise UserError("The dial takes reviews of up to 300 tokens; this one has more.")
        base, tuned = (self._p(text, system) for system in ("base", "fine-tuned"))
        for alpha in DIAL:
            time.sleep(self.wait)
            yield base + alpha * (tuned - base)

    def batches(self, texts: Sequence[str], system: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(texts), 24):
            time.sleep(self.wait)
            part = np.arange(start, min(start + 24, len(texts)))
            yield part, np.array([self._p(texts[place], system) for place in part])

    def about(self, system: str) -> str:
        return ""

    def warm_up(self) -> Iterator[int]:
        return iter(())

    def classify_together(self, texts: Sequence[str], system: str) -> list[LiveAnswer]:
        return [self.classify(text, system) for text in texts]


class HeldClassifier(FakeClassifier):
    """Answers only while `go` is set, so that a test can let visitors pile up."""

    go = threading.Event()

    def classify(self, text: str, system: str) -> LiveAnswer:
        self.go.wait(300)
        return super().classify(text, system)

    def read(self, text: str, system: str) -> Iterator[LiveAnswer | ReadingTrace]:
        for step in super().read(text, system):
            self.go.wait(300)
            yield step

    def batches(self, texts: Sequence[str], system: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for step in super().batches(texts, system):
            self.go.wait(300)
            yield step
