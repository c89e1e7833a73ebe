"""The systems that a fine-tuned model has to beat: free answers, few-shot, TF-IDF with logistic regression.

Each streams `(row indices, one row of numbers each)`, as `SentimentScorer.stream` does.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from sentiment_core.batching import batches_by_tokens
from sentiment_core.data import Reviews, match_key
from sentiment_core.labels import UNPARSED, Label
from sentiment_core.models import Encoded, LoadedModel, PromptEncoder, quiet_transformers
from sentiment_core.prompts import PROMPT, REVIEW_SLOT, Prompt
from sentiment_core.schema import OTHER_FORM, AnswerForm
from sentiment_core.scoring import label_log_likelihoods, left_pad, run_ahead

MOST_TOKENS = {"cuda": 262_144, "cpu": 4_096}
"""Tokens in one batch with a KV cache, at most, unless told otherwise."""

Parts = Iterator[tuple[np.ndarray, np.ndarray]]
"""(row indices, (rows, width) numbers) in whatever order is fastest."""


def fitting_tokens(loaded: LoadedModel) -> int:
    """Tokens, prompt and cache, that one batch may hold: half of the free memory, MOST_TOKENS at most."""
    most = MOST_TOKENS.get(loaded.device.type, MOST_TOKENS["cpu"])
    if loaded.device.type != "cuda":
        return most
    config = loaded.model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache = 2 * config.num_hidden_layers * kv_heads * head
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    # the cache stands in memory up to four times while it grows; activations of one layer at a time
    per_token = loaded.compute_dtype.itemsize * (4 * cache + 12 * config.hidden_size + 4 * inner)
    free = torch.cuda.mem_get_info(loaded.device)[0]
    return int(min(most, max(2_048, 0.5 * free / per_token)))


# ---- free answers

_WORD = re.compile(r"\b(negative|positive)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"(?:\b(?:not|never|non|hardly|cannot be)|n['’]t)[\s-]+"
    r"(?:(?:a|an|the|be|very|really|so|quite|at|all|exactly|entirely|overly|particularly|truly)\s+){0,3}$",
    re.IGNORECASE,
)
FORM_WORDS, FORM_CHARACTERS, FORMS_KEPT, FORM_COUNT = 4, 60, 20, 5


def parse_answer(answer: str) -> Label | None:
    """The label that a free answer gives; None when it gives none, or both.

    An answer is a label when exactly one of the whole words "positive" and "negative" stands in it, in any
    case, any number of times. A negation right before the first one ("not positive", "isn't very positive",
    "non-negative") turns it round. Part of a word ("positively") is no label.

    >>> parse_answer(" Positive."), parse_answer("It is not a positive review"), parse_answer("4 stars")
    (<Label.POSITIVE: 1>, <Label.NEGATIVE: 0>, None)
    """
    found = list(_WORD.finditer(answer))
    words = {match.group().lower() for match in found}
    if len(words) != 1:
        return None
    label = Label.POSITIVE if words == {"positive"} else Label.NEGATIVE
    negated = _NEGATION.search(answer[: found[0].start()])
    return Label(1 - label) if negated else label


def answer_form(answer: str) -> str:
    """An answer's first words, lower-cased, with "…" where it goes on; at most 60 characters.

    >>> answer_form("The review is   positive because")
    'the review is positive …'
    """
    words = answer.lower().split()
    form = " ".join(words[:FORM_WORDS]) + (" …" if len(words) > FORM_WORDS else "")
    return form if len(form) <= FORM_CHARACTERS else form[: FORM_CHARACTERS - 1] + "…"


def count_forms(answers: Sequence[str]) -> tuple[AnswerForm, ...]:
    """The most frequent forms, most frequent first, the rest summed under "other".

    A form that fewer than FORM_COUNT answers share is never spelled out: it may quote a review.
    """
    counts = Counter(zip(map(answer_form, answers), map(_outcome, answers), strict=True))
    shown = [item for item in counts.most_common(FORMS_KEPT) if item[1] >= FORM_COUNT]
    rest = counts - Counter(dict(shown))
    others: Counter[str] = Counter()
    for (_, outcome), count in rest.items():
        others[outcome] += count
    rows = [AnswerForm(form=form, count=count, parsed=outcome) for (form, outcome), count in shown]
    return (*rows, *(AnswerForm(form=OTHER_FORM, count=c, parsed=name) for name, c in others.most_common()))


def _outcome(answer: str) -> str:
    label = parse_answer(answer)
    return UNPARSED if label is None else label.name.lower()


class FreeAnswers:
    """Greedy answers of a base model, in left-padded batches with a KV cache.

    Args:
        batch_tokens: tokens of a batch, answers and padding included; 0 picks what fits.
    """

    def __init__(self, loaded: LoadedModel, *, max_new_tokens: int, batch_tokens: int = 0) -> None:
        tokenizer = loaded.encoder.tokenizer
        self.loaded, self.max_new_tokens = loaded, max_new_tokens
        self.batch_tokens = batch_tokens or fitting_tokens(loaded)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        own = getattr(loaded.model, "generation_config", None)
        stops = getattr(own, "eos_token_id", None)
        ids = {tokenizer.eos_token_id, *(stops if isinstance(stops, list | tuple) else (stops,))} - {None}
        self.settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.pad_id,
            eos_token_id=sorted(ids) or None,
        )

    def stream(self, encoded: Encoded) -> Parts:
        """Values: (rows, max_new_tokens) int64 token ids, padded behind."""
        if not len(encoded):
            return
        lengths = encoded.lengths + self.max_new_tokens
        batches = batches_by_tokens(lengths, self.batch_tokens, padded=True)
        yield from run_ahead(lambda batch: self._answer([encoded[i] for i in batch]), batches, depth=0)

    def _answer(self, rows: list[np.ndarray]) -> torch.Tensor:
        inputs = left_pad(rows, self.pad_id)
        ids = inputs["input_ids"].to(self.loaded.device)
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).to(self.loaded.device)
        with quiet_transformers():
            out = self.loaded.model.generate(ids, attention_mask=mask, generation_config=self.settings)
        answers = out[:, ids.shape[1] :]
        room = self.max_new_tokens - answers.shape[1]
        return torch.nn.functional.pad(answers, (0, room), value=self.pad_id)

    def texts(self, answers: np.ndarray) -> list[str]:
        """(n, max_new_tokens) token ids -> answers without control tokens."""
        return self.loaded.encoder.tokenizer.batch_decode(answers.astype(np.int64), skip_special_tokens=True)


# ---- few-shot

EXAMPLE_WORDS = (30, 120)
"""Examples have this many words: long enough to say something, short enough for a short prompt."""
_ANSWER_SLOT = "\u0000answer\u0000"


@dataclass(frozen=True)
class Example:
    review_id: str
    text: str
    label: Label


def choose_examples(train: Reviews, shots: int, *, seed: int, unseen: Collection[bytes]) -> list[Example]:
    """Half of each label, negative first and then in turn, the same for the same train rows and seed.

    Args:
        unseen: `match_key`s of reviews that must not be shown, such as those under test.

    Raises:
        ValueError: too few reviews are left.
    """
    low, high = EXAMPLE_WORDS
    order = np.random.default_rng([seed, shots]).permutation(len(train))
    texts, labels, ids = train.texts, train.labels, train.ids
    sizes = np.array([len(text.split()) for text in texts])
    distance = np.maximum(np.maximum(low - sizes, sizes - high), 0)  # 0 inside the range
    by_label: dict[Label, list[Example]] = {Label.NEGATIVE: [], Label.POSITIVE: []}
    for row in order[np.argsort(distance[order], kind="stable")]:
        chosen = by_label[Label(int(labels[row]))]
        if len(chosen) < shots // 2 and match_key(texts[row]) not in unseen:
            chosen.append(Example(ids[row], texts[row], Label(int(labels[row]))))
        if all(len(found) == shots // 2 for found in by_label.values()):
            break
    else:
        raise ValueError(f"{train.source} has too few reviews for {shots} examples; use fewer --shots")
    return [example for pair in zip(*by_label.values(), strict=True) for example in pair]


def few_shot_head(encoder: PromptEncoder, examples: Sequence[Example], prompt: Prompt = PROMPT) -> list[int]:
    """Token ids of everything before the review under test: instruction, examples with answers, its header.

    A review in it is encoded as plain text, like every review.
    """
    pieces = _conversation(encoder, prompt, len(examples))
    ids: list[int] = []
    texts = encoder.review_ids([example.text for example in examples])
    for number, (example, review) in enumerate(zip(examples, texts, strict=True)):
        before, between = pieces[2 * number : 2 * number + 2]
        word = encoder.rendered.label_words[example.label]
        for part in (_ids(encoder, before), review, _ids(encoder, between)):
            ids += part
        ids += _ids(encoder, word)
    return ids + _ids(encoder, pieces[-2])


def _ids(encoder: PromptEncoder, text: str) -> list[int]:
    """Fixed text, control tokens included."""
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def _conversation(encoder: PromptEncoder, prompt: Prompt, shots: int) -> list[str]:
    """Fixed text around each review and answer of a conversation with `shots` answered turns.

    Raises:
        ValueError: the chat template does not show every turn once.
    """
    tokenizer = encoder.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        lead = f"{tokenizer.bos_token or ''}{prompt.system}\n\n"
        text = lead + f"{prompt.user}\nAnswer:{_ANSWER_SLOT}\n\n" * shots + f"{prompt.user}\nAnswer:"
    else:
        turns: list[dict[str, str]] = []
        for _ in range(shots):
            turns += [{"role": "user", "content": prompt.user}]
            turns += [{"role": "assistant", "content": _ANSWER_SLOT}]
        turns += [{"role": "user", "content": prompt.user}]
        text = _render(tokenizer, prompt, turns)
    pieces = re.split(f"{re.escape(REVIEW_SLOT)}|{re.escape(_ANSWER_SLOT)}", text)
    if len(pieces) != 2 * shots + 2 or pieces[-1] != encoder.rendered.suffix:
        raise ValueError("this model's chat template does not show every example once; use another model")
    return pieces


def _render(tokenizer: Any, prompt: Prompt, turns: list[dict[str, str]]) -> str:
    options = {"tokenize": False, "add_generation_prompt": True}
    try:
        system = {"role": "system", "content": prompt.system}
        text = tokenizer.apply_chat_template([system, *turns], **options)
        if prompt.system in text:
            return text
    except Exception:  # templates raise their own kinds of error where they know no system message
        pass
    merged = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}, *turns[1:]]
    return tokenizer.apply_chat_template(merged, **options)


class FewShotScorer:
    """Label words compared behind a shared head, whose keys and values are computed once.

    Args:
        head: token ids from `few_shot_head`; they stand in place of the prompt's own prefix.
        batch_tokens: tokens of a batch, head and padding included; 0 picks what fits.
    """

    def __init__(self, loaded: LoadedModel, head: Sequence[int], *, batch_tokens: int = 0) -> None:
        self.loaded, self.head = loaded, list(head)
        self.batch_tokens = batch_tokens or fitting_tokens(loaded)
        self.pad_id = loaded.encoder.tokenizer.pad_token_id or 0
        ids = torch.tensor([self.head], device=loaded.device)
        with torch.inference_mode():
            self._cache = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    def stream(self, encoded: Encoded) -> Parts:
        """Values: (rows, 2) log-probabilities of the label words. encoded: the usual zero-shot prompts."""
        if not len(encoded):
            return
        skip = len(self.loaded.encoder.prefix_ids)
        lengths = encoded.lengths - skip + len(self.head)
        batches = batches_by_tokens(lengths, self.batch_tokens, padded=True)
        yield from run_ahead(lambda batch: self._score([encoded[i][skip:] for i in batch]), batches)

    def _score(self, tails: list[np.ndarray]) -> torch.Tensor:
        """Left-padded tails; the padding lies between the head and the tail, and the mask hides it."""
        inputs = left_pad(tails, self.pad_id)
        ids = inputs["input_ids"]
        n, width = ids.shape
        mask = inputs.get("attention_mask", torch.ones_like(ids))
        places = inputs.get("position_ids", torch.arange(width).expand(n, width))
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(n)
        device = self.loaded.device
        logits = self.loaded.model(
            input_ids=ids.to(device),
            attention_mask=torch.cat([torch.ones(n, len(self.head), dtype=mask.dtype), mask], 1).to(device),
            position_ids=(places + len(self.head)).to(device),
            past_key_values=cache,
            logits_to_keep=1,
            use_cache=True,
        ).logits[:, -1]
        return label_log_likelihoods(logits, self.loaded.encoder.label_ids)


# ---- words counted

TFIDF_SETTINGS: dict[str, Any] = {
    "ngram_range": (1, 2),
    "min_df": 2,
    "sublinear_tf": True,
    "strip_accents": "unicode",
}
LOGREG_SETTINGS: dict[str, Any] = {"C": 10.0, "solver": "liblinear", "random_state": 0, "max_iter": 1000}


class TfidfLogReg:
    """TF-IDF of 1- and 2-grams with logistic regression; no language model in it."""

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.vectorizer = TfidfVectorizer(**TFIDF_SETTINGS)
        self.classifier = LogisticRegression(**LOGREG_SETTINGS)

    def fit(self, texts: Sequence[str], labels: np.ndarray) -> TfidfLogReg:
        self.classifier.fit(self.vectorizer.fit_transform(texts), labels)
        return self

    def stream(self, texts: Sequence[str], *, chunk: int = 2_000) -> Parts:
        """Values: (rows, 1) P(positive)."""
        for start in range(0, len(texts), chunk):
            rows = np.arange(start, min(start + chunk, len(texts)))
            found = self.classifier.predict_proba(self.vectorizer.transform([texts[i] for i in rows]))
            yield rows, found[:, [Label.POSITIVE]]
