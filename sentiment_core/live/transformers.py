"""The live classifier's slower path, for models that `LiveLlama` does not know: transformers' forward."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from sentiment_core.engines.scorer import SentimentScorer, log_odds
from sentiment_core.models.loading import LoadedModel
from sentiment_core.models.tokens import Encoded


class LiveTransformers:
    """A base model, or the same model with its adapter on, through the scorer.

    Args:
        model: the base, or a PEFT model around it.
        alpha: how much of the adapter is on, where there is one: weights = base + α · adapter.
    """

    def __init__(self, loaded: LoadedModel, model: Any, alpha: float) -> None:
        self._scorer = SentimentScorer(loaded, model, engine="padded")
        self._model, self._alpha = model, alpha

    def log_odds(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative, of token ids after the prefix."""
        from peft.helpers import rescale_adapter_scale

        prompts = [[*self._scorer.loaded.encoder.prefix_ids, *row] for row in rows]
        adapted = hasattr(self._model, "peft_config")
        with rescale_adapter_scale(self._model, self._alpha) if adapted else nullcontext():
            return log_odds(self._scorer.log_likelihoods(Encoded.from_lists(prompts, [False] * len(rows))))

    def meet_lengths(self) -> Iterator[int]:
        """Nothing to do: every length is as new as the last."""
        return iter(())

    def read(self, row: np.ndarray, tail: int, cuts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """As `LiveLlama`'s, with a whole pass for each."""
        yield len(row), self.log_odds([row])
        yield len(row), self.log_odds([np.concatenate((row[:cut], row[-tail:])) for cut in cuts])
