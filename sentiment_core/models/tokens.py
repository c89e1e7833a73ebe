"""Reviews to prompt token ids, cached on disk under the content of texts, prompt and tokenizer."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from tokenizers import Tokenizer

from sentiment_core.artifacts.schema import PromptInfo, RunRecord
from sentiment_core.artifacts.store import replacing
from sentiment_core.config import CACHE, ConfigError
from sentiment_core.models.base_models import BaseModelError
from sentiment_core.prompts import ANSWER_SLOT, CUT_MARK, PROMPT, REVIEW_SLOT, cut_middle, prompt_hash

SLOTS = f"{REVIEW_SLOT}|{ANSWER_SLOT}"


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

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.prefix, self.suffix = conversation(tokenizer)
        blank = "" if getattr(tokenizer, "chat_template", None) else " "  # behind "Answer:"
        self.label_words = tuple(blank + word for word in PROMPT.label_words)
        read = prompt_hash(self.prefix, self.suffix, self.label_words)
        self.info = PromptInfo(name=PROMPT.name, hash=read)
        self.prefix_ids, self.suffix_ids = map(self.control_ids, (self.prefix, self.suffix))
        bare = json.loads(tokenizer.backend_tokenizer.to_str())
        bare |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self.plain = Tokenizer.from_str(json.dumps(bare))
        self._mark = self.plain.encode(CUT_MARK, add_special_tokens=False).ids
        firsts = [self.control_ids(word)[0] for word in self.label_words]
        self.label_ids: tuple[int, int] = (firsts[0], firsts[1])
        """First token of each label word, in column order (negative, positive)."""
        if firsts[0] == firsts[1]:
            raise BaseModelError(
                f"the label words {self.label_words} start with the same token in this model's "
                "vocabulary, so they cannot be compared at one position; choose another --base-model"
            )

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
        read = json.dumps([self.info.hash, max_length_tokens, self.plain.to_str(), *texts])
        path = CACHE / "tokens" / f"{hashlib.sha256(read.encode()).hexdigest()[:32]}.npz"
        if stored := read_arrays(path, "ids", "offsets", "truncated", "shared"):
            return Encoded(**stored | {"shared": int(stored["shared"])})
        encoded = self.encode(texts, max_length_tokens)
        with suppress(OSError):  # a read-only or full cache costs time, nothing else
            write_arrays(path, **vars(encoded))
        return encoded


def check_fits(run: RunRecord, encoder: PromptEncoder, revision: str | None = None) -> None:
    """Raises BaseModelError: the run was trained with another prompt, or on other weights than `revision`."""
    then = run.base_model.revision
    if encoder.info.hash != run.prompt.hash:
        other = f"with prompt {run.prompt.hash}, this program asks with {encoder.info.hash}"
    elif revision and then and revision != then:
        other = f"on other weights of {run.base_model.name!r} ({then}, here {revision})"
    else:
        return
    remedy = "name the same with --base-model, train it again, or use the version that made it"
    raise BaseModelError(f"run {run.run_id!r} was trained {other}; {remedy}")


def write_arrays(path: Path, **arrays: Any) -> None:
    """An .npz, whole or not at all. Raises OSError."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_arrays(path: Path, *names: str) -> dict[str, Any]:
    """What `write_arrays` wrote; nothing where it is not there, cut or changed (zip has checksums)."""
    with suppress(OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile), np.load(path) as stored:
        return {name: stored[name] for name in names}
    return {}


def conversation(tokenizer: Any, shots: int = 0) -> list[str]:
    """Fixed text around each review and answer: of `shots` turns that are answered, then of the one that is
    not; as the tokenizer's chat template writes it, plain where there is none.
    Raises BaseModelError: the template does not show every turn once."""
    system, asked = PROMPT.messages()
    lead, question = f"{PROMPT.system}\n\n", f"{PROMPT.user}\nAnswer:"
    if not getattr(tokenizer, "chat_template", None):
        texts = f"{tokenizer.bos_token or ''}{lead}" + f"{question}{ANSWER_SLOT}\n\n" * shots + question
        return re.split(SLOTS, texts)
    turns = [asked, {"role": "assistant", "content": ANSWER_SLOT}] * shots + [asked]
    joined = asked | {"content": f"{lead}{PROMPT.user}"}
    for messages in ([system, *turns], [joined, *turns[1:]]):
        with suppress(Exception):  # templates raise their own kinds of error, or drop the system message
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            pieces = re.split(SLOTS, text)
            if PROMPT.system in text and len(pieces) == 2 * shots + 2:
                return pieces
    shown = f"the review and {shots} examples, each" if shots else "the review"
    raise BaseModelError(f"this model's chat template does not show {shown} once; use another model")
