"""The fast path: a Llama with LoRA on reviews laid end to end, without padding, in one static shape.

What it computes is what PEFT computes on `resident` layers: y = x Wᵀ + (alpha / r) · (x Aᵀ) Bᵀ with W rounded
to NF4 and A, B kept in float32 and cast for the product. What differs is only the layout:

- Reviews stand end to end in one row of `max_tokens` tokens and attend within themselves
  (`sentiment_core.packed_attention`). What all prompts begin with stands there once, before the first.
- q, k, v and gate, up share one product each, and so do their A matrices; the B matrices form one
  block-diagonal matrix.
- The adapter is 14 tensors stacked over the layers, cast once per pass; PEFT sees views of them.
- B stands beside W in one matrix: where a norm comes before, x Wᵀ + (x Aᵀ) Bᵀ is one product.
- Behind the last layer's attention only the label positions go on; the vocabulary head is in float32.
- Each layer is compiled once for the one shape, and the whole pass is a CUDA graph.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sentiment_core.models import Encoded
from sentiment_core.packed_attention import TILE, attention_on
from sentiment_core.packed_layer import LayerShape, last_layer, layer, rms_norm
from sentiment_core.stacked_adapter import StackedAdapter, frozen_parts


def unsupported(model: nn.Module, device: torch.device) -> str | None:
    """Why this model or device cannot run packed; None when it can."""
    config = _causal_lm(model).config
    if config.model_type != "llama":
        return f"packed layout knows Llama's layers, not {config.model_type}'s"
    if config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
        return "packed layout knows Llama layers without biases and with SiLU"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "attention kernels need a GPU of compute capability 8.0 or more"
        if not importlib.util.find_spec("triton"):
            return "attention kernels need the package triton"
        if _head_dim(config) not in (16, 32, 64, 128):
            return f"attention kernels know heads of 16, 32, 64 or 128 numbers, not {_head_dim(config)}"
    if device.type not in ("cuda", "cpu"):
        return f"packed layout runs on CUDA (and, for tests, on a CPU), not on {device.type}"
    return None


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _causal_lm(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


# ---- layout


@dataclass
class Pack:
    """Reviews laid end to end; every array has the same shape for every pack of a run."""

    input_ids: torch.Tensor
    """(T,) int64."""
    positions: torch.Tensor
    """(T,) int64, from 0 in the prefix, and going on behind it in each review."""
    tiles: torch.Tensor
    """(tiles, 4) int32, as `sentiment_core.attention_kernels` wants them."""
    last: torch.Tensor
    """(N,) int64, the last token of each review; 0 in unused slots."""
    labels: torch.Tensor
    """(N,) int64, 0 or 1."""
    weights: torch.Tensor
    """(N,) float32, each review's share of the loss; 0 in unused slots."""

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class PackShape:
    """The static shape of a run's packs."""

    tokens: int
    reviews: int
    longest: int
    """Most tokens of one review's prompt, the prefix included."""
    prefix: int = 0
    """Tokens that all prompts begin with."""

    @property
    def tiles(self) -> int:
        """Most tiles: full ones, and one that is not full for each review, the prefix, and the rest."""
        return self.tokens // TILE + self.reviews + 2


def packed_tokens(lengths: np.ndarray, prefix: int) -> int:
    """Tokens of prompts laid end to end with their common prefix once."""
    return int(lengths.sum()) - prefix * (len(lengths) - 1)


def lay_out(
    encoded: Encoded, indices: np.ndarray, shape: PackShape, labels: np.ndarray, weights: np.ndarray
) -> Pack:
    """Lay the reviews `indices` end to end, behind the prefix that they share.

    Args:
        labels: (n,) 0 or 1, of all reviews.
        weights: (len(indices),) share of each in the loss.

    Raises:
        ValueError: they do not fit the shape.
    """
    lengths, prefix = encoded.lengths[indices], shape.prefix
    total = packed_tokens(lengths, prefix)
    if total > shape.tokens or len(indices) > shape.reviews or lengths.max(initial=0) > shape.longest:
        raise ValueError(f"{len(indices)} reviews with {total} tokens do not fit {shape}")
    if prefix > encoded.shared:
        raise ValueError(f"the prompts share {encoded.shared} tokens, fewer than {shape} needs")
    ids = np.zeros(shape.tokens, dtype=np.int64)
    positions = np.zeros(shape.tokens, dtype=np.int64)
    ids[:prefix] = encoded[indices[0]][:prefix]
    positions[:prefix] = np.arange(prefix)
    ends = prefix + np.cumsum(lengths - prefix)
    segments = [(0, prefix, 0)] if prefix else []
    for index, end, length in zip(indices, ends, lengths, strict=True):
        start = end - (length - prefix)
        ids[start:end] = encoded[index][prefix:]
        positions[start:end] = np.arange(prefix, length)
        segments.append((start, end, prefix))
    segments.append((total, shape.tokens, -1))
    last = np.zeros(shape.reviews, dtype=np.int64)
    last[: len(indices)] = ends - 1
    label = np.zeros(shape.reviews, dtype=np.int64)
    label[: len(indices)] = labels[indices]
    weight = np.zeros(shape.reviews, dtype=np.float32)
    weight[: len(indices)] = weights
    tiles = _tiles(np.array(segments), shape.tiles)
    return Pack(*(torch.from_numpy(a) for a in (ids, positions, tiles, last, label, weight)))


def _tiles(segments: np.ndarray, count: int) -> np.ndarray:
    """(s, 3) start, end, offset -> (count, 4) tiles; the longest reviews' first, unused ones at the end."""
    segments = segments[np.argsort(segments[:, 0] - segments[:, 1], kind="stable")]
    each = -(-(segments[:, 1] - segments[:, 0]) // TILE)
    which = np.repeat(np.arange(len(segments)), each)
    place = np.arange(len(which)) - np.repeat(np.cumsum(each) - each, each)
    start, end, offset = segments[which].T
    tiles = np.zeros((count, 4), dtype=np.int32)
    tiles[:, 3] = -1
    tiles[: len(which)] = np.stack((start, start + TILE * place, end, offset), axis=1)
    return tiles


# ---- the model


class PackedLlama(nn.Module):
    """Runs a resident Llama, with its LoRA adapter if it has one, on packs of one static shape.

    Args:
        model: a Llama with plain linear layers, or a PEFT model around one.
        trainable: whether the adapter's tensors are to receive gradients.
    """

    def __init__(self, model: nn.Module, shape: PackShape, *, trainable: bool = False, compiled: bool = True):
        super().__init__()
        base = _causal_lm(model)
        config = base.config
        device = base.get_input_embeddings().weight.device
        self.shape = shape
        self.dtype = base.get_input_embeddings().weight.dtype
        self._base = [base]  # in a list: not a submodule, so that nothing is registered or saved twice
        if not hasattr(base, "_packed_frozen"):  # shared by every PackedLlama on this model
            base._packed_frozen = [frozen_parts(block) for block in base.model.layers]
        self._frozen = base._packed_frozen
        self._adapter = StackedAdapter.of(base, trainable=trainable)
        self._joined: list[torch.Tensor] = []
        if self._adapter is not None:
            weights = [[parts[2 + group] for parts in self._frozen] for group in range(4)]
            self._joined = self._adapter.join(weights)
        self._layer_shape = LayerShape(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=_head_dim(config),
            eps=config.rms_norm_eps,
            prefix=shape.prefix,
        )
        self._attend = attention_on(device)
        self._layer, self._last_layer = (
            torch.compile(function, fullgraph=True, dynamic=False) if compiled else function
            for function in (layer, last_layer)
        )
        places = torch.arange(shape.longest, device=device)[None]
        with torch.no_grad():
            probe = torch.zeros(1, 1, 1, dtype=self.dtype, device=device)
            cos, sin = base.model.rotary_emb(probe, places)
        self._cos, self._sin = cos[0], sin[0]
        if not hasattr(base, "_packed_head"):
            base._packed_head = base.get_output_embeddings().weight.detach().float()
        self._head = base._packed_head

    def hidden(self, pack: Pack) -> torch.Tensor:
        """Final hidden state at each review's last token, (N, hidden) float32."""
        base = self._base[0]
        x = F.embedding(pack.input_ids, base.get_input_embeddings().weight)
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]
        given = (cos, sin, pack.tiles, self._layer_shape, self._attend)
        *parts, (frozen, lora) = self._parts()
        for each_frozen, each_lora in parts:
            x = self._layer(x, each_frozen, each_lora, *given)
        x = self._last_layer(x, frozen, lora, *given, pack.last)
        return rms_norm(x.float(), base.model.norm.weight.float(), self._layer_shape.eps)

    def _parts(self):
        """Per layer: its frozen tensors and its adapter's in the compute type."""
        if self._adapter is None:
            return [(frozen, ((None, None),) * 4) for frozen in self._frozen]
        lora = self._adapter.cast(self.dtype)
        with torch.no_grad():
            for room, (_, b) in zip(self._joined, lora, strict=True):
                room[:, :, -b.shape[2] :] = b
        weights = zip(*(room.unbind(0) for room in self._joined), strict=True)
        per_layer = zip(*(zip(a.unbind(0), b.unbind(0), strict=True) for a, b in lora), strict=True)
        return [
            ((*frozen[:2], *four), pairs)
            for frozen, four, pairs in zip(self._frozen, weights, per_layer, strict=True)
        ]

    def logits(self, pack: Pack) -> torch.Tensor:
        """Vocabulary logits at each review's label position, (N, vocabulary) float32."""
        return F.linear(self.hidden(pack), self._head)

    def loss(self, pack: Pack, label_ids: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the label tokens' negative log-likelihoods. label_ids: (2,) token ids."""
        nll = F.cross_entropy(self.logits(pack), label_ids[pack.labels], reduction="none")
        return (nll * pack.weights).sum()

    @property
    def adapter(self) -> StackedAdapter | None:
        return self._adapter


class GraphedPass:
    """Runs a function of a pack as one CUDA graph; elsewhere it just calls it.

    The first call warms up (compiling what is to be compiled) and captures. The result is a static tensor
    that the next call overwrites.
    """

    def __init__(self, function: Callable[[Pack], torch.Tensor], device: torch.device) -> None:
        self._function = function
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._static: Pack | None = None
        self._result: torch.Tensor | None = None

    def warm_up(self, pack: Pack) -> None:
        """Compile and capture with this pack's shape; gradients of these passes are to be thrown away."""
        self._static = Pack(*(t.to(self._device) for t in pack.tensors()))
        if self._device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._function(self._static)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # NCCL's watchdog asks the device from a thread of its own, which a capture would else forbid
        mode = "thread_local" if torch.distributed.is_initialized() else "global"
        with torch.cuda.graph(self._graph, capture_error_mode=mode):
            self._result = self._function(self._static)

    def __call__(self, pack: Pack) -> torch.Tensor:
        if self._static is None:
            self.warm_up(pack)
        for target, source in zip(self._static.tensors(), pack.tensors(), strict=True):
            target.copy_(source, non_blocking=True)
        if self._graph is None:
            return self._function(self._static)
        self._graph.replay()
        return self._result
