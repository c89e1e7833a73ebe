"""The fast path: a Llama or Qwen2 with LoRA on reviews laid end to end, without padding, in one static shape.

It computes what PEFT does on `dequantized` layers: y = x Wᵀ + (alpha / r) · (x Aᵀ) Bᵀ with W rounded
to NF4 and A, B kept in float32 and cast for the product. What differs is only the layout:

- Reviews stand end to end in one row of tokens and attend within themselves; what all prompts begin with
  stands there once, before the first.
- q, k, v and gate, up share one product each, and so do their A matrices; their B are one block-diagonal
  matrix. Where a norm comes before, B stands beside W, and x Wᵀ + (x Aᵀ) Bᵀ is one product; elsewhere
  A stands below W, and so is the gradient.
- Behind the last layer's attention only the label positions go on; the vocabulary head is in float32.
- Each layer is compiled once for the one shape, and the whole pass is a CUDA graph.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from sentiment_core.engines.loss import label_loss
from sentiment_core.engines.packed.adapter import GROUPS, StackedAdapter, group_bias, group_weight, target
from sentiment_core.engines.packed.attention import attend_each, attend_tiles
from sentiment_core.engines.packed.layer import last_layer, layer, rms_norm
from sentiment_core.engines.packed.layout import LayerShape, Pack, PackShape


def can_pack(config: Any, device: torch.device) -> bool:
    """Whether these are layers of Llama or Qwen2, with full attention, SiLU and no bias but Qwen2's own, on a
    GPU that the attention kernels know or, for tests, on a CPU."""
    more = ("attention_bias", "mlp_bias", "use_sliding_window")
    if config.model_type not in ("llama", "qwen2") or any(getattr(config, name, False) for name in more):
        return False
    if config.hidden_act != "silu":
        return False
    if device.type != "cuda":
        return device.type == "cpu"
    new = torch.cuda.get_device_capability(device) >= (8, 0)
    return new and head_dim(config) in (16, 32, 64, 128) and bool(importlib.util.find_spec("triton"))


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


class PackedModel:
    """A dequantized model, with its LoRA adapter if it has one, on packs: the engine that trains and scores.

    It owns the adapter's tensors, of which PEFT's become views: one engine to a model.

    Args:
        model: a Llama or Qwen2 with plain linear layers, or a PEFT model around it.
        shape: its prefix and longest prompt hold for all packs; each pack may have tokens of its own number.
        trainable: whether the adapter's tensors are to receive gradients.
        label_ids: tokens of the two label words, negative first; needed for the loss.
    """

    shares_prefix = True  # what all prompts begin with stands in a pack once
    adapter: Any  # a FlatAdapter; None where there is none

    def __init__(
        self, model: Any, shape: PackShape, *, trainable: bool = False, compiled: bool = True,
        label_ids: Sequence[int] = (),
    ) -> None:  # fmt: skip
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._base, self.shape, embedding = base, shape, base.get_input_embeddings().weight
        self.dtype, self.device = embedding.dtype, embedding.device
        self._label_ids = torch.tensor(label_ids, dtype=torch.int64, device=self.device)
        # what `step` multiplies a loss by before its backward pass, for float16
        self.loss_scale = torch.ones((), device=self.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._static: Pack | None = None
        self._loss: Any = None  # a tensor from when there is a graph
        self._prepare(trainable=trainable, compiled=compiled)

    def _prepare(self, *, trainable: bool, compiled: bool) -> None:
        """What `logits` works with, and the adapter."""
        base, config, layers, shape = self._base, self._base.config, self._base.model.layers, self.shape
        adapted = hasattr(target(layers[0], "q_proj"), "lora_A")
        self.adapter = StackedAdapter(layers, trainable=trainable) if adapted else None
        self._vectors = [
            (each.input_layernorm.weight, each.post_attention_layernorm.weight, group_bias(each, GROUPS[0]))
            for each in layers
        ]
        self._weights: list[Any] = [[group_weight(each, group) for each in layers] for group in GROUPS]
        if self.adapter:
            self._weights = list(map(self.adapter.with_room, GROUPS, self._weights))
        self._head = base.get_output_embeddings().weight.detach().float()  # (vocabulary, hidden)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._layer_shape = LayerShape(heads, kv_heads, head_dim(config), config.rms_norm_eps, shape.prefix)
        self._attend = attend_tiles if self.device.type == "cuda" else attend_each
        made: Any = partial(torch.compile, fullgraph=True, dynamic=False) if compiled else lambda each: each
        self._layer, self._last_layer = made(layer), made(last_layer)
        with torch.no_grad():
            places = torch.arange(shape.longest, device=self.device)[None]
            cos, sin = base.model.rotary_emb(base.get_input_embeddings().weight.new_zeros(1, 1, 1), places)
        self._cos, self._sin = cos[0], sin[0]  # (longest, head_dim)

    def serves(self, shape: PackShape) -> bool:
        """Whether packs of this shape can be run."""
        return shape.prefix == self.shape.prefix and shape.longest <= self.shape.longest

    def logits(self, pack: Pack) -> torch.Tensor:
        """Vocabulary logits at each review's label position, (reviews, vocabulary) float32."""
        x = F.embedding(pack.input_ids, self._base.get_input_embeddings().weight)  # (tokens, hidden)
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]  # (tokens, head_dim)
        given = (cos, sin, pack.tiles, self._layer_shape, self._attend)
        *parts, (frozen, lora) = self._parts()
        for each_frozen, each_lora in parts:
            x = self._layer(x, each_frozen, each_lora, *given)
        x = self._last_layer(x, frozen, lora, *given, pack.last)  # (reviews, hidden)
        x = rms_norm(x.float(), self._base.model.norm.weight.float(), self._layer_shape.eps)
        return F.linear(x, self._head)

    def _parts(self) -> Iterator[tuple]:
        """Per layer: its norms, bias and weights, and its adapter's (A, B) by group in the compute type."""
        pairs: Any = [((None, None),) * len(GROUPS)] * len(self._vectors)
        if self.adapter:
            lora = self.adapter.cast(self.dtype)
            with torch.no_grad():
                for group, room, (a, b) in zip(GROUPS, self._weights, lora, strict=True):
                    if len(group) > 1:
                        room[:, :, -b.shape[2] :] = b
                    else:
                        room[:, -a.shape[1] :] = a
            pairs = zip(*(zip(a.unbind(0), b.unbind(0), strict=True) for a, b in lora), strict=True)
        for vectors, pair, *weights in zip(self._vectors, pairs, *self._weights, strict=True):
            yield (*vectors, *weights), pair

    def loss(self, pack: Pack) -> torch.Tensor:
        """Weighted sum of `label_loss`."""
        each = label_loss(self.logits(pack), self._label_ids, pack.targets, pack.temperatures)  # (reviews,)
        return (each * pack.weights).sum()

    def _backward(self, pack: Pack) -> torch.Tensor:
        loss = self.loss(pack)
        (loss * self.loss_scale).backward()
        return loss.detach()

    def warm_up(self, pack: Pack) -> None:
        """Compile `step` for packs of this one's size and, on a GPU, capture it as a CUDA graph."""
        self._static = Pack(*(tensor.to(self.device) for tensor in vars(pack).values()))
        if self.device.type == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._backward(self._static)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # NCCL's watchdog asks the device from a thread of its own, which a capture would else forbid
            mode = "thread_local" if torch.distributed.is_initialized() else "global"
            with torch.cuda.graph(self._graph, capture_error_mode=mode):
                self._loss = self._backward(self._static)
        self.adapter.zero_gradients()

    def step(self, pack: Pack) -> torch.Tensor:
        """Forward and backward pass: adds the pack's share to the adapter's gradients, returns its loss."""
        if self._static is None:
            self.warm_up(pack)
        for ours, given in zip(vars(self._static).values(), vars(pack).values(), strict=True):
            ours.copy_(given, non_blocking=True)
        if self._graph is None:
            return self._backward(self._static)  # pyrefly: ignore[bad-argument-type] warm_up made it
        self._graph.replay()
        return self._loss.clone()
