"""The fast path: a Llama with LoRA on reviews laid end to end, without padding, in one static shape.

What it computes is what PEFT computes on `resident` layers: y = x Wᵀ + (alpha / r) · (x Aᵀ) Bᵀ with W rounded
to NF4 and A, B kept in float32 and cast for the product. What differs is only the layout:

- Reviews stand end to end in one row of `max_tokens` tokens and attend within themselves
  (variable-length attention, Dao 2023); their positions start at 0 each.
- q, k, v and gate, up share one product each, and so do their A matrices; the B matrices form one
  block-diagonal matrix.
- The adapter is 14 tensors stacked over the layers, cast once per pass; PEFT sees views of them.
- The vocabulary head sees only the position of the label.
- Each layer is compiled once for the one shape, and the whole pass is a CUDA graph.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sentiment_core.models import Encoded

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def unsupported(model: nn.Module, device: torch.device) -> str | None:
    """Why this model or device cannot run packed; None when it can."""
    config = _causal_lm(model).config
    if config.model_type != "llama":
        return f"packed layout knows Llama's layers, not {config.model_type}'s"
    if config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
        return "packed layout knows Llama layers without biases and with SiLU"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "variable-length attention needs a GPU of compute capability 8.0 or more"
    if device.type not in ("cuda", "cpu"):
        return f"packed layout runs on CUDA (and, for tests, on a CPU), not on {device.type}"
    return None


def _causal_lm(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


# ---- layout


@dataclass
class Pack:
    """Reviews laid end to end; every array has the same shape for every pack of a run."""

    input_ids: torch.Tensor
    """(T,) int64."""
    positions: torch.Tensor
    """(T,) int64, from 0 in each review."""
    boundaries: torch.Tensor
    """(S + 1,) int32, where each segment starts; ends with T, repeated."""
    last: torch.Tensor
    """(N,) int64, the last token of each review; 0 in unused slots."""
    labels: torch.Tensor
    """(N,) int64, 0 or 1."""
    weights: torch.Tensor
    """(N,) float32, each review's share of the loss; 0 in unused slots."""

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.input_ids, self.positions, self.boundaries, self.last, self.labels, self.weights)


@dataclass(frozen=True)
class PackShape:
    """The static shape of a run's packs."""

    tokens: int
    reviews: int
    longest: int
    """Tokens of the longest segment; a bound that sizes the attention kernel's grid."""

    @property
    def segments(self) -> int:
        """Reviews, and as many as it takes to fill the rest with padding."""
        return self.reviews + math.ceil(self.tokens / self.longest)


def lay_out(
    encoded: Encoded, indices: np.ndarray, shape: PackShape, labels: np.ndarray, weights: np.ndarray
) -> Pack:
    """Lay the reviews `indices` end to end.

    Args:
        labels: (n,) 0 or 1, of all reviews.
        weights: (len(indices),) share of each in the loss.

    Raises:
        ValueError: they do not fit the shape.
    """
    lengths = encoded.lengths[indices]
    total = int(lengths.sum())
    if total > shape.tokens or len(indices) > shape.reviews or lengths.max(initial=0) > shape.longest:
        raise ValueError(f"{len(indices)} reviews with {total} tokens do not fit {shape}")
    ids = np.zeros(shape.tokens, dtype=np.int64)
    positions = np.zeros(shape.tokens, dtype=np.int64)
    bounds = np.full(shape.segments + 1, shape.tokens, dtype=np.int32)
    ends = np.cumsum(lengths)
    bounds[0] = 0
    bounds[1 : len(indices) + 1] = ends
    filler = np.arange(total, shape.tokens, shape.longest)[1:]
    bounds[len(indices) + 1 : len(indices) + 1 + len(filler)] = filler
    for index, end, length in zip(indices, ends, lengths, strict=True):
        ids[end - length : end] = encoded[index]
        positions[end - length : end] = np.arange(length)
    last = np.zeros(shape.reviews, dtype=np.int64)
    last[: len(indices)] = ends - 1
    label = np.zeros(shape.reviews, dtype=np.int64)
    label[: len(indices)] = labels[indices]
    weight = np.zeros(shape.reviews, dtype=np.float32)
    weight[: len(indices)] = weights
    return Pack(*(torch.from_numpy(a) for a in (ids, positions, bounds, last, label, weight)))


# ---- attention


def _attend_each(q, k, v, boundaries, longest):
    """Reference for a CPU: one segment after the other. q (T, H, D), k and v (T, Hkv, D) -> (T, H, D)."""
    bounds = boundaries.tolist()
    out = []
    for start, end in itertools.pairwise(bounds):
        if end > start:
            part = (t[start:end].transpose(0, 1)[None] for t in (q, k, v))
            attended = F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)
            out.append(attended[0].transpose(0, 1))
    return torch.cat(out)


def _varlen_attention() -> Callable:
    """PyTorch's variable-length attention behind one signature; its keywords changed between releases."""
    from torch.nn.attention.varlen import varlen_attn

    accepted = inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    grouped = {"enable_gqa": True} if "enable_gqa" in accepted else {}

    def attend(q, k, v, boundaries, longest):
        if not grouped and q.shape[1] != k.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
            v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return varlen_attn(q, k, v, boundaries, boundaries, longest, longest, **causal, **grouped)

    return attend


# ---- one layer


def _linear(x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor | None, b: torch.Tensor | None):
    """x (T, in) · weightᵀ (out, in), plus the adapter's share when there is one; b is scaled already."""
    y = F.linear(x, weight)
    return y if a is None else y + F.linear(F.linear(x, a), b)


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on x (T, H, D) with cos, sin (T, 1, D)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


@dataclass(frozen=True)
class _Shape:
    """What the layer function needs to know beside tensors."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    longest: int


def _layer(x, frozen, lora, cos, sin, boundaries, shape: _Shape, attend: Callable):
    """One Llama layer on x (T, hidden). frozen: two norms, four weights; lora: four (A, B) pairs or Nones."""
    norm1, norm2, w_qkv, w_o, w_gate_up, w_down = frozen
    widths = [shape.heads * shape.head_dim] + [shape.kv_heads * shape.head_dim] * 2
    h = _norm(x, norm1, shape.eps)
    q, k, v = _linear(h, w_qkv, *lora[0]).split(widths, dim=-1)
    q = _rotate(q.unflatten(-1, (shape.heads, shape.head_dim)), cos, sin)
    k = _rotate(k.unflatten(-1, (shape.kv_heads, shape.head_dim)), cos, sin)
    v = v.unflatten(-1, (shape.kv_heads, shape.head_dim)).contiguous()
    attended = attend(q, k, v, boundaries, shape.longest).flatten(1)
    x = x + _linear(attended, w_o, *lora[1])
    h = _norm(x, norm2, shape.eps)
    gate, up = _linear(h, w_gate_up, *lora[2]).chunk(2, dim=-1)
    return x + _linear(F.silu(gate) * up, w_down, *lora[3])


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
        self._layer_shape = _Shape(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            eps=config.rms_norm_eps,
            longest=shape.longest,
        )
        if not hasattr(base, "_packed_frozen"):  # shared by every PackedLlama on this model
            base._packed_frozen = [_frozen_parts(layer) for layer in base.model.layers]
        self._frozen = base._packed_frozen
        self._adapter = _StackedAdapter.of(base, trainable=trainable)
        self._attend = _varlen_attention() if device.type == "cuda" else _attend_each
        self._layer = torch.compile(_layer, fullgraph=True, dynamic=False) if compiled else _layer
        places = torch.arange(shape.longest, device=device)[None]
        with torch.no_grad():
            probe = torch.zeros(1, 1, 1, dtype=self.dtype, device=device)
            cos, sin = base.model.rotary_emb(probe, places)
        self._cos, self._sin = cos[0][:, None], sin[0][:, None]

    def hidden(self, pack: Pack) -> torch.Tensor:
        """Final hidden state at each review's last token, (N, hidden)."""
        base = self._base[0]
        x = F.embedding(pack.input_ids, base.get_input_embeddings().weight)
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]
        per_layer = (
            self._adapter.cast(self.dtype) if self._adapter else [((None, None),) * 4] * len(self._frozen)
        )
        for frozen, lora in zip(self._frozen, per_layer, strict=True):
            x = self._layer(x, frozen, lora, cos, sin, pack.boundaries, self._layer_shape, self._attend)
        return _norm(x[pack.last], base.model.norm.weight, self._layer_shape.eps)

    def logits(self, pack: Pack) -> torch.Tensor:
        """Vocabulary logits at each review's label position, (N, vocabulary) float32."""
        return F.linear(self.hidden(pack), self._base[0].get_output_embeddings().weight).float()

    def loss(self, pack: Pack, label_ids: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the label tokens' negative log-likelihoods. label_ids: (2,) token ids."""
        nll = F.cross_entropy(self.logits(pack), label_ids[pack.labels], reduction="none")
        return (nll * pack.weights).sum()

    @property
    def adapter(self) -> _StackedAdapter | None:
        return self._adapter


def _frozen_parts(layer: nn.Module) -> tuple[torch.Tensor, ...]:
    weights = []
    for group in _GROUPS:
        parts = [_base_weight(_target(layer, name)) for name in group]
        weights.append(parts[0] if len(parts) == 1 else torch.cat(parts))
    return (layer.input_layernorm.weight, layer.post_attention_layernorm.weight, *weights)


def _target(layer: nn.Module, name: str) -> nn.Module:
    return getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name)


def _base_weight(module: nn.Module) -> torch.Tensor:
    return (module.base_layer if hasattr(module, "base_layer") else module).weight.detach()


class _StackedAdapter:
    """A PEFT adapter's tensors, those of one kind stacked over the layers, with PEFT's own as views of them.

    So the optimizer, checkpoints and `save_pretrained` see PEFT's parameters, while a pass casts 14 tensors.
    """

    def __init__(
        self, leaves: dict[str, tuple[nn.Parameter, nn.Parameter]], scale: float, views: list
    ) -> None:
        self.leaves = leaves
        self.scale = scale
        self._views = views  # (PEFT's module, leaf, layer)
        self.flat_gradient: torch.Tensor | None = None

    @classmethod
    def of(cls, base: nn.Module, *, trainable: bool) -> _StackedAdapter | None:
        """The model's adapter, stacked once and shared; None when it has no adapter."""
        layers = base.model.layers
        if not hasattr(_target(layers[0], "q_proj"), "lora_A"):
            return None
        stacked = getattr(base, "_stacked_adapter", None)
        if stacked is None:
            stacked = base._stacked_adapter = cls._stack(layers)
        stacked.reattach()
        for pair in stacked.leaves.values():
            for leaf in pair:
                leaf.requires_grad_(trainable or leaf.requires_grad)
        return stacked

    def reattach(self) -> None:
        """Make PEFT's parameters views of the stacked tensors again, with the values that they have now.

        Moving a model, wrapping it, or loading a checkpoint can give a parameter storage of its own.
        """
        for module, leaf, number in self._views:
            parameter, view = module.weight, leaf.data[number]
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.data)
                parameter.data = view

    @classmethod
    def _stack(cls, layers: nn.ModuleList) -> _StackedAdapter:
        leaves, views, scales = {}, [], set()
        for name in TARGETS:
            pair = []
            for kind in ("lora_A", "lora_B"):
                own = [getattr(_target(layer, name), kind)["default"] for layer in layers]
                leaf = nn.Parameter(
                    torch.stack([m.weight.detach().float() for m in own]), requires_grad=False
                )
                for number, module in enumerate(own):
                    module.weight.data = leaf.data[number]
                    views.append((module, leaf, number))
                pair.append(leaf)
            scales |= {_target(layer, name).scaling["default"] for layer in layers}
            leaves[name] = tuple(pair)
        if len(scales) != 1:
            raise ValueError(f"the adapter's layers have different scales {sorted(scales)}")
        return cls(leaves, scales.pop(), views)

    def cast(self, dtype: torch.dtype) -> list[tuple[tuple[torch.Tensor, torch.Tensor], ...]]:
        """Per layer: (A, B) of the four groups in the compute type, B scaled and block-diagonal."""
        groups = []
        for group in _GROUPS:
            a = torch.cat([self.leaves[name][0].to(dtype) for name in group], dim=1)
            rank = self.leaves[group[0]][0].shape[1]
            blocks = []
            for place, name in enumerate(group):
                b = (self.leaves[name][1] * self.scale).to(dtype)
                blocks.append(F.pad(b, (place * rank, (len(group) - 1 - place) * rank)))
            groups.append((a.unbind(0), torch.cat(blocks, dim=1).unbind(0)))
        return [tuple((a[number], b[number]) for a, b in groups) for number in range(len(groups[0][0]))]

    def bind_gradients(self) -> None:
        """Zero the gradients and give PEFT's parameters views of them; all live in one flat tensor."""
        everything = [leaf for pair in self.leaves.values() for leaf in pair]
        if self.flat_gradient is None:
            device = everything[0].device
            self.flat_gradient = torch.zeros(sum(leaf.numel() for leaf in everything), device=device)
            start = 0
            for leaf in everything:
                leaf.grad = self.flat_gradient[start : start + leaf.numel()].view_as(leaf)
                start += leaf.numel()
        self.flat_gradient.zero_()
        # Taken anew each time: moving a model replaces the storage of the gradients that it holds.
        gradients = {id(leaf): leaf.grad.unbind(0) for leaf in everything}
        for module, leaf, number in self._views:
            module.weight.grad = gradients[id(leaf)][number]


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
        with torch.cuda.graph(self._graph):
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
