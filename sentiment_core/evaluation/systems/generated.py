"""Answers in the base model's own words, and what counts as an answer."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig

from sentiment_core.artifacts.schema import OTHER_FORM, AnswerForm
from sentiment_core.engines.batching import batches_by_tokens
from sentiment_core.engines.scorer import fitting_tokens, left_pad, run_ahead
from sentiment_core.evaluation.systems.base import Parts, Work
from sentiment_core.evaluation.systems.scored import ZeroShot
from sentiment_core.labels import UNPARSED, Label
from sentiment_core.models.loading import LoadedModel, quiet_transformers
from sentiment_core.models.tokens import Encoded


class Generated(ZeroShot):
    """The base model asked for a free answer."""

    def decisive(self) -> dict[str, Any]:
        return super().decisive() | {"max_new_tokens": self.config.max_new_tokens}

    def work(self) -> Work:
        loaded, width = self.inputs.base_model(self.precision), self.config.max_new_tokens
        free = GreedyAnswers(loaded, max_new_tokens=width, batch_tokens=self.config.batch_tokens)
        settings, prompts = {"batch_tokens": free.batch_tokens}, self.inputs.prompts
        return Work(lambda rows: free.stream(prompts(rows)), width, free.answers, settings, loaded.info)


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
    return Label(1 - label) if _NEGATION.search(answer[: found[0].start()]) else label


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
    labels = map(parse_answer, answers)
    outcomes: Iterable[Any] = (UNPARSED if label is None else label.name.lower() for label in labels)
    found = list(zip(map(answer_form, answers), outcomes, strict=True))
    shown = {form: n for form, n in Counter(found).most_common(FORMS_KEPT) if n >= FORM_COUNT}
    others = Counter((OTHER_FORM, outcome) for form, outcome in found if (form, outcome) not in shown)
    rows = (*shown.items(), *others.most_common())
    return tuple(AnswerForm(form=form, count=n, parsed=outcome) for (form, outcome), n in rows)


class GreedyAnswers:
    """Greedy answers of a base model, in left-padded batches with a KV cache.
    batch_tokens: tokens of a batch, answers and padding included; 0 picks what fits."""

    def __init__(self, loaded: LoadedModel, *, max_new_tokens: int, batch_tokens: int = 0) -> None:
        tokenizer = loaded.encoder.tokenizer
        self.loaded, self.max_new_tokens, self.pad_id = loaded, max_new_tokens, tokenizer.pad_token_id or 0
        self.batch_tokens = batch_tokens or fitting_tokens(loaded)
        stops = np.atleast_1d(loaded.model.generation_config.eos_token_id).tolist()
        self.settings = GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, pad_token_id=self.pad_id,
            eos_token_id=sorted({tokenizer.eos_token_id, *stops} - {None}) or None,
        )  # fmt: skip

    def stream(self, encoded: Encoded) -> Parts:
        """Values: (rows, max_new_tokens) int64 token ids, padded behind."""
        batches = batches_by_tokens(encoded.lengths + self.max_new_tokens, self.batch_tokens)
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

    def answers(self, values: np.ndarray) -> dict[str, Any]:
        """(n, max_new_tokens) token ids -> columns of the predictions and forms; no probability."""
        ids, tokenizer = values.astype(np.int64), self.loaded.encoder.tokenizer
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return {
            "prediction": pd.array([parse_answer(text) for text in texts], dtype="Int8"),
            "p_positive": np.full(len(texts), np.nan, dtype=np.float32),
            "answer_forms": count_forms(texts),
        }
