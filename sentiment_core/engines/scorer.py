"""Texts to probabilities: the one scoring function of evaluation, validation and the live tab.

P(positive) is the likelihood of the label words at the prompt's last position, normalised over the two.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from sentiment_core.engines.batching import batches_by_tokens, round_up
from sentiment_core.engines.generic import PACKED_MODELS, engine_for_packs, float32_head
from sentiment_core.engines.packed.layout import Pack, PackShape, pack_sequences, packed_tokens
from sentiment_core.engines.packed.model import PackedModel, head_dim
from sentiment_core.labels import Label
from sentiment_core.models.loading import LoadedModel
from sentiment_core.models.tokens import Encoded

LONG_PREFIX = 128  # from so many shared tokens on (few-shot examples), padded batches share their KV cache


def p_positive(log_likelihoods: np.ndarray) -> np.ndarray:
    """(n, 2) log-likelihoods of the label words -> (n,) P(positive), normalised over the two, float32."""
    return expit(log_odds(log_likelihoods)).astype(np.float32)


def log_odds(log_likelihoods: np.ndarray) -> np.ndarray:
    """The same -> (n,) float64 log-odds of Positive."""
    return (log_likelihoods[:, Label.POSITIVE] - log_likelihoods[:, Label.NEGATIVE]).astype(np.float64)


def label_log_likelihoods(logits: torch.Tensor, label_ids: Sequence[int]) -> torch.Tensor:
    """(n, vocabulary) logits -> (n, 2) log-probabilities of the label words' first tokens, float32."""
    logits = logits.float()
    return logits[:, list(label_ids)] - logits.logsumexp(dim=-1, keepdim=True)


def fitting_tokens(loaded: LoadedModel) -> int:
    """Tokens, prompt and cache, that one batch may hold: half of a GPU's free memory, 262,144 at most."""
    if loaded.device.type != "cuda":
        return 4_096
    config = loaded.model.config.get_text_config()
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache = 2 * config.num_hidden_layers * kv_heads * head_dim(config)
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    # the cache stands in memory up to four times while it grows; activations of one layer at a time
    per_token = loaded.compute_dtype.itemsize * (4 * cache + 12 * config.hidden_size + 4 * inner)
    free = torch.cuda.mem_get_info(loaded.device)[0]
    return int(min(262_144, max(2_048, 0.5 * free / per_token)))


class SentimentScorer:
    """Scores encoded prompts with a base model, with or without an adapter on it.

    Args:
        loaded: the base model and its prompt encoder.
        model: the model to run when it is not `loaded.model` itself (a PEFT model around it).
        engine: "packed" (Llama on a GPU), "generic" (others on a GPU), "padded" (any model), or "auto".
        batch_tokens: tokens scored at once; 0 picks what suits the device.
        compiled: compile the packed layers (pays off from a few thousand reviews on).
        packed: the engine that trains this model, to score with it.
    """

    def __init__(
        self, loaded: LoadedModel, model: nn.Module | None = None, *, engine: str = "auto",
        batch_tokens: int = 0, compiled: bool = True, packed: PackedModel | None = None,
    ) -> None:  # fmt: skip
        self.loaded = loaded
        self.model = model if model is not None else loaded.model
        self.device, on_gpu = loaded.device, loaded.device.type == "cuda"
        if engine == "auto":
            dequantized = not any(type(m).__name__ == "Linear4bit" for m in self.model.modules())
            fit = engine_for_packs(engine, self.model, self.device) if on_gpu and dequantized else None
            engine = fit or "padded"
        self.engine, self.compiled = engine, compiled and on_gpu
        self.batch_tokens = batch_tokens or (65_536 if engine != "padded" else 32_768 if on_gpu else 2_048)
        self._packed = packed
        self._shape: PackShape | None = None

    def __call__(self, texts: Sequence[str], max_length_tokens: int = 1024) -> np.ndarray:
        """Texts -> (n,) P(positive)."""
        return p_positive(self.log_likelihoods(self.loaded.encoder.encode(texts, max_length_tokens)))

    def log_likelihoods(self, encoded: Encoded) -> np.ndarray:
        """(n, 2) float32 log-probabilities of the label words over the whole vocabulary."""
        out = np.zeros((len(encoded), 2), dtype=np.float32)
        for rows, values in self.stream(encoded):
            out[rows] = values
        return out

    def stream(self, encoded: Encoded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same in parts, as they come off the device: (row indices, (len(rows), 2) float32)."""
        if not len(encoded):
            return
        score, batches = self._padded(encoded) if self.engine == "padded" else self._packed_batches(encoded)
        self.model.eval()
        yield from run_ahead(score, batches)

    def _padded(self, encoded: Encoded):
        """Any causal language model: left-padded batches of like length, a long prefix in a KV cache."""
        model, label_ids = self.model, self.loaded.encoder.label_ids
        pad = self.loaded.encoder.tokenizer.pad_token_id or 0
        prefix, cache = encoded.shared if encoded.shared >= LONG_PREFIX else 0, None
        if prefix:
            ids = torch.as_tensor(encoded[0][:prefix], dtype=torch.int64, device=self.device)[None]
            with torch.inference_mode():
                cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

        def score(batch: np.ndarray) -> torch.Tensor:
            inputs: dict[str, Any] = left_pad([encoded[i][prefix:] for i in batch], pad, prefix=prefix)
            inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            if cache is not None:
                inputs["past_key_values"] = copy.deepcopy(cache)
                inputs["past_key_values"].batch_repeat_interleave(len(batch))
            with float32_head(model):
                logits = model(**inputs, logits_to_keep=1, use_cache=cache is not None).logits[:, -1]
            return label_log_likelihoods(logits, label_ids)

        return score, batches_by_tokens(encoded.lengths, self.batch_tokens)

    def _packed_batches(self, encoded: Encoded):
        """On a GPU: reviews laid end to end in one static shape."""
        kind = PACKED_MODELS[self.engine]
        lengths, prefix = encoded.lengths, encoded.shared if kind.shares_prefix else 0
        batches = spread_tokens(lengths - prefix, self.batch_tokens)
        tokens = round_up(max(packed_tokens(lengths[batch], prefix) for batch in batches), 1_024)
        reviews, longest = round_up(max(map(len, batches)), 64), round_up(int(lengths.max()), 256)
        shape = PackShape(tokens, reviews, longest, prefix)
        if self._shape and _holds(self._shape, shape):
            shape = self._shape
        if self._packed is None or not self._packed.serves(shape):
            self._packed = kind(self.model, shape, compiled=self.compiled)
        elif self._packed.adapter:
            self._packed.adapter.reattach()
        packed, self._shape = self._packed, shape

        def score(batch: np.ndarray) -> torch.Tensor:
            pack = pack_sequences(encoded, batch, shape)
            if self.device.type == "cuda":
                pinned = (tensor.pin_memory() for tensor in vars(pack).values())
                pack = Pack(*(tensor.to(self.device, non_blocking=True) for tensor in pinned))
            return label_log_likelihoods(packed.logits(pack)[: len(batch)], self.loaded.encoder.label_ids)

        return score, batches


def run_ahead(
    score: Callable[[np.ndarray], torch.Tensor], batches: Sequence[np.ndarray], depth: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, values) of each batch in order, copied back while the device works on the next ones."""
    pending: list[tuple[np.ndarray, torch.Tensor]] = []
    for batch in batches:
        with torch.inference_mode():
            pending.append((batch, score(batch)))
        if len(pending) > depth:
            rows, values = pending.pop(0)
            yield rows, values.cpu().numpy()
    for rows, values in pending:
        yield rows, values.cpu().numpy()


def spread_tokens(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Deal reviews into as few batches as `budget` allows, all with nearly the same token count."""
    count = max(1, -(-int(lengths.sum()) // budget))
    order = np.argsort(-lengths, kind="stable")
    return [order[start::count] for start in range(min(count, len(lengths)))]


def _holds(have: PackShape, need: PackShape) -> bool:
    """Whether a shape that is compiled already can serve, without wasting more than it saves."""
    fits = have.tokens >= need.tokens and have.reviews >= need.reviews and have.longest >= need.longest
    return fits and have.prefix == need.prefix and have.tokens <= 1.3 * need.tokens


def left_pad(rows: Sequence[np.ndarray], pad_id: int, *, prefix: int = 0) -> dict[str, torch.Tensor]:
    """Prompts of different lengths as input_ids, attention_mask and position_ids, each (n, longest) int64.
    prefix: tokens in a KV cache in front of every row; mask and positions count them."""
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=pad_id, padding_side="left")
    padding = ids.shape[1] - torch.tensor([len(row) for row in rows])
    if not prefix and not padding.any():
        return {"input_ids": ids}  # spares the model building a mask
    positions = torch.arange(ids.shape[1]) - padding[:, None]  # (n, longest), negative where padded
    mask = F.pad((positions >= 0).long(), (prefix, 0), value=1)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions.clamp(min=0) + prefix}
