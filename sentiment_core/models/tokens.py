"""Reviews to prompt token ids, cached on disk under the content of texts, prompt and tokenizer."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from tokenizers import Tokenizer

from sentiment_core.artifacts.schema import PromptInfo
from sentiment_core.artifacts.store import replacing
from sentiment_core.config import CACHE, ConfigError
from sentiment_core.models.base_models import BaseModelError
from sentiment_core.prompts import CUT_MARK, PROMPT, Prompt, RenderedPrompt, cut_middle, split_rendered


@dataclass(frozen=True)
class Encoded:
    """Prompts as token ids: `ids[offsets[i]:offsets[i + 1]]` is prompt i."""

    ids: np.ndarray  # (total,) int32
    offsets: np.ndarray  # (n + 1,) int64
    truncated: np.ndarray  # (n,) bool: the middle of the review was cut out
    shared: int = 0  # leading tokens that all prompts have in common by their making; each is longer

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each prompt."""
        return np.diff(self.offsets)

    @classmethod
    def from_lists(cls, rows: Sequence, truncated: Sequence | np.ndarray, shared: int = 0) -> Self:
        lengths = [len(row) for row in rows]
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        flat = np.concatenate([np.zeros(0, np.int32), *(np.asarray(row, np.int32) for row in rows)])
        return cls(flat, offsets, np.asarray(truncated, dtype=bool), min([shared, *(n - 1 for n in lengths)]))


class PromptEncoder:
    """Reviews to prompt token ids; the same for training, evaluation and the live tab.

    The review is encoded by a tokenizer without added tokens, so that chat markers in it stay plain text.
    Raises BaseModelError: the label words share their first token, or the chat template cannot hold the
    prompt.
    """

    def __init__(self, tokenizer, prompt: Prompt = PROMPT) -> None:
        self.tokenizer = tokenizer
        self.rendered = render(tokenizer, prompt)
        self.prefix_ids = self.control_ids(self.rendered.prefix)
        self.suffix_ids = self.control_ids(self.rendered.suffix)
        bare = json.loads(tokenizer.backend_tokenizer.to_str())
        bare |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self.plain = Tokenizer.from_str(json.dumps(bare))
        self._mark = self.plain.encode(CUT_MARK, add_special_tokens=False).ids
        firsts = [self.control_ids(word)[0] for word in self.rendered.label_words]
        self.label_ids: tuple[int, int] = (firsts[0], firsts[1])
        """First token of each label word, in column order (negative, positive)."""
        if firsts[0] == firsts[1]:
            raise BaseModelError(
                f"the label words {self.rendered.label_words} start with the same token in this model's "
                "vocabulary, so they cannot be compared at one position; choose another --base-model"
            )

    @property
    def info(self) -> PromptInfo:
        return PromptInfo(name=self.rendered.name, hash=self.rendered.hash)

    def control_ids(self, text: str) -> list[int]:
        """Token ids of a prompt's own text, control tokens included."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def review_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the bare reviews, in parallel on all cores."""
        return [e.ids for e in self.plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def token_ends(self, text: str) -> list[int]:
        """Behind which of its characters each token of one review ends."""
        return [end for _, end in self.plain.encode(text, add_special_tokens=False).offsets]

    def encode(self, texts: Sequence[str], max_length_tokens: int) -> Encoded:
        """Whole prompts of at most `max_length_tokens`; a longer review loses its middle.
        Raises ConfigError where that leaves no room for a review."""
        prefix, around = self.prefix_ids, len(self.prefix_ids) + len(self.suffix_ids)
        if max_length_tokens < (need := around + 2 * len(self._mark)):
            raise ConfigError(f"--max-length-tokens is {max_length_tokens}; the prompt needs at least {need}")
        room = max_length_tokens - around
        cut = [cut_middle(ids, room, self._mark) for ids in self.review_ids(texts)]
        rows = [[*prefix, *ids, *self.suffix_ids] for ids, _ in cut]
        return Encoded.from_lists(rows, [truncated for _, truncated in cut], shared=len(prefix))

    def encode_cached(self, texts: Sequence[str], max_length_tokens: int) -> Encoded:
        """`encode`, remembered on disk under the content of texts, prompt and tokenizer."""
        digest = hashlib.sha256(f"{self.rendered.hash} {max_length_tokens}\0".encode())
        digest.update(self.plain.to_str().encode())
        for text in texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        path = CACHE / "tokens" / f"{digest.hexdigest()[:32]}.npz"
        if stored := read_arrays(path, "ids", "offsets", "truncated", "shared"):
            return Encoded(**stored | {"shared": int(stored["shared"])})
        encoded = self.encode(texts, max_length_tokens)
        with suppress(OSError):  # a read-only or full cache costs time, nothing else
            write_arrays(path, **vars(encoded))
        return encoded


def write_arrays(path: Path, **arrays: Any) -> None:
    """An .npz, whole or not at all. Raises OSError."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_arrays(path: Path, *names: str) -> dict[str, Any]:
    """What `write_arrays` wrote; nothing where it is not there, cut or changed (zip has checksums)."""
    with suppress(OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile), np.load(path) as stored:
        return {name: stored[name] for name in names}
    return {}


def render(tokenizer, prompt: Prompt = PROMPT) -> RenderedPrompt:
    """The prompt as this tokenizer's chat template writes it; plain text where there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        negative, positive = prompt.label_words
        spaced = replace(prompt, label_words=(f" {negative}", f" {positive}"))
        return split_rendered(spaced, f"{tokenizer.bos_token or ''}{prompt.system}\n\n{prompt.user}\nAnswer:")

    def written(messages: list[dict[str, str]]) -> RenderedPrompt:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return split_rendered(prompt, text)

    try:
        return written(prompt.messages())
    except Exception as first:  # templates raise their own kinds of error, or drop the system message
        try:
            return written([{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}])
        except Exception:
            raise BaseModelError(f"this model's chat template cannot hold the prompt: {first}") from None
