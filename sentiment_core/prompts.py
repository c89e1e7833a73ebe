"""The one prompt that training, evaluation and the live tab share, and how a long review is cut."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sentiment_core.labels import LABEL_WORDS

# Stand for the review and an answer while a template is rendered; no dataset text can hold a NUL and be kept.
REVIEW_SLOT, ANSWER_SLOT = "\u0000review\u0000", "\u0000answer\u0000"
CUT_MARK = "\n[...]\n"  # stands where the middle of a long review was cut out


@dataclass(frozen=True)
class Prompt:
    """What is asked about a review, before any chat template is put around it."""

    name: str
    system: str
    user: str  # holds REVIEW_SLOT once
    label_words: tuple[str, str] = LABEL_WORDS

    def messages(self) -> list[dict[str, str]]:
        """The conversation up to the answer, with REVIEW_SLOT where the review goes."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


PROMPT = Prompt(
    name="sentiment-v1",
    system="Decide if a movie review is positive or negative. Answer with one word: Positive or Negative.",
    user=f"{REVIEW_SLOT}\n\nIs this review positive or negative?",
)


def prompt_hash(prefix: str, suffix: str, label_words: Sequence[str]) -> str:
    """First 16 hex digits of SHA-256 over all that decides what the model reads."""
    parts = [prefix, suffix, *label_words, CUT_MARK, "head+tail"]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def cut_middle(ids: Sequence[int], limit: int, mark: Sequence[int]) -> tuple[list[int], bool]:
    """Keep head and tail of a sequence that is longer than `limit` tokens, with `mark` between them.

    Args:
        ids: (n,) token ids of the review.
        limit: tokens allowed, mark included.
    Returns (at most `limit` ids, whether anything was cut).

    >>> cut_middle(range(10), 6, [-1])
    ([0, 1, 2, -1, 8, 9], True)
    """
    if len(ids) <= limit:
        return list(ids), False
    keep = max(limit - len(mark), 0)
    tail = keep // 2
    head = keep - tail
    return [*ids[:head], *mark[: limit - keep], *(ids[len(ids) - tail :] if tail else [])], True
