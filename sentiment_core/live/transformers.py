"""The live classifier's slower path, for models that `LiveLlama` does not know: transformers' forward."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sentiment_core.engines.scorer import left_pad
from sentiment_core.labels import Label
from sentiment_core.live.trace import Hook, nothing
from sentiment_core.models.tokens import PromptEncoder


class LiveTransformers:
    """A base model, or the same model with its adapter on, through transformers' own forward.

    Args:
        lock: one for all that share `model`: switching the adapter off is the model's.
        alpha: how much of the adapter is on, where there is one: weights = base + α · adapter.
    """

    def __init__(self, model: Any, encoder: PromptEncoder, lock: threading.Lock, alpha: float) -> None:
        self._model, self._encoder, self._lock = model, encoder, lock
        self._alpha, self._adapted = alpha, hasattr(model, "peft_config")

    @torch.inference_mode()
    def log_odds(self, rows: Sequence[np.ndarray], before_layer: Hook = nothing) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative, of token ids after the prefix."""
        before_layer()
        model, prefix_ids = self._model, self._encoder.prefix_ids
        with self._switched():
            if len(rows) == 1:
                ids = torch.from_numpy(rows[0].astype(np.int64))[None].to(model.device)
                inputs = {"input_ids": ids, "past_key_values": copy.deepcopy(self._prefix)}
            else:
                whole = [np.concatenate((prefix_ids, row)) for row in rows]
                inputs: dict[str, Any] = left_pad(whole, self._encoder.tokenizer.pad_token_id or 0)
                inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
                inputs["use_cache"] = False
            return self._margin(model(**inputs, logits_to_keep=1).logits[:, -1]).double().cpu().numpy()

    def read(self, row: np.ndarray, tail: int, cuts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """As `LiveLlama`'s, with a whole pass for each."""
        yield len(row), self.log_odds([row])
        if len(cuts):
            shorter = (np.concatenate((row[:cut], row[-tail:])) for cut in cuts)
            yield len(row), np.concatenate([self.log_odds([part]) for part in shorter])

    def _margin(self, logits: torch.Tensor) -> torch.Tensor:
        pair = logits.float()[:, list(self._encoder.label_ids)]
        return pair[:, Label.POSITIVE] - pair[:, Label.NEGATIVE]

    @cached_property
    def _prefix(self):
        ids = torch.tensor([self._encoder.prefix_ids], device=self._model.device)
        return self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        from peft.helpers import rescale_adapter_scale

        with self._lock:
            if self._adapted:
                with rescale_adapter_scale(self._model, self._alpha):
                    yield
            else:
                yield
