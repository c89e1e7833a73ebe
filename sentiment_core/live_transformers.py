"""The live classifier's slower path, for models that `live_llama` does not know: transformers' forward."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sentiment_core.base_models import BaseModel
from sentiment_core.explain import Look, Pause, go_on
from sentiment_core.labels import Label
from sentiment_core.models import load_adapter, load_base
from sentiment_core.scoring import left_pad


class TransformersPair:
    """A base model with an adapter that can be switched off; the weights are there once."""

    def __init__(self, base: BaseModel, adapter: Path | None, dtype: torch.dtype) -> None:
        loaded = load_base(base, compute_dtype=dtype)
        self.encoder = loaded.encoder
        self.has_adapter = adapter is not None
        self.lock = threading.Lock()
        self.model = load_adapter(loaded.model, adapter) if adapter is not None else loaded.model

    def system(self, adapted: bool) -> LiveTransformers:
        return LiveTransformers(self, adapted)

    def to(self, device: torch.device) -> TransformersPair:
        self.model.to(device)
        return self


class LiveTransformers:
    """One system of a pair, with the prompt prefix's cache computed at first use."""

    def __init__(self, pair: TransformersPair, adapted: bool) -> None:
        self.workers = 1
        self._pair = pair
        self._off = pair.has_adapter and not adapted
        self._prefix = None

    @torch.inference_mode()
    def log_odds(self, rows: Sequence[np.ndarray], pause: Pause = go_on) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative, of token ids after the prefix."""
        pause()
        model, prefix_ids = self._pair.model, self._pair.encoder.prefix_ids
        with self._switched():
            if len(rows) == 1:
                cache = copy.deepcopy(self._prefix_cache())
                ids = torch.from_numpy(rows[0].astype(np.int64))[None].to(model.device)
                logits = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1]
            else:
                whole = [np.concatenate((prefix_ids, row)) for row in rows]
                inputs = left_pad(whole, self._pair.encoder.tokenizer.pad_token_id or 0)
                inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
                logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        return self._margin(logits).double().cpu().numpy()

    def read(self, row: np.ndarray, tail: int, pause: Pause = go_on) -> Iterator[tuple[int, float]]:
        """(tokens read, log-odds) of the whole prompt."""
        yield len(row), float(self.log_odds([row], pause)[0])

    def log_odds_of_variants(
        self, variants: Sequence[np.ndarray], row: np.ndarray, cache: None, pause: Pause = go_on
    ) -> np.ndarray:
        """(n,) log-odds, one after the other."""
        return np.concatenate([self.log_odds([variant], pause) for variant in variants])

    def look(self, row: np.ndarray, pause: Pause = go_on) -> Look:
        """Log-odds and how much they hang on each token's embedding."""
        pause()
        model, prefix_ids = self._pair.model, self._pair.encoder.prefix_ids
        ids = torch.tensor([[*prefix_ids, *row.tolist()]], device=model.device)
        with self._switched():
            x = model.get_input_embeddings()(ids).detach().requires_grad_(True)
            margin = self._margin(model(inputs_embeds=x, logits_to_keep=1, use_cache=False).logits[:, -1])
            (gradient,) = torch.autograd.grad(margin.sum(), x)
        salience = (gradient.float().norm(dim=-1) * x.detach().float().norm(dim=-1))[0]
        return Look(float(margin.detach()), salience[len(prefix_ids) :].double().cpu().numpy(), None)

    def _margin(self, logits: torch.Tensor) -> torch.Tensor:
        pair = logits.float()[:, list(self._pair.encoder.label_ids)]
        return pair[:, Label.POSITIVE] - pair[:, Label.NEGATIVE]

    def _prefix_cache(self):
        if self._prefix is None:
            ids = torch.tensor([self._pair.encoder.prefix_ids], device=self._pair.model.device)
            self._prefix = self._pair.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        return self._prefix

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        """One pass at a time: the switch is the model's."""
        with (
            self._pair.lock,
            self._pair.model.disable_adapter() if self._off else contextlib.nullcontext(),
        ):
            yield
