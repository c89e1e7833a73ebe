"""The packed engine of every other decoder: the model's own layers on reviews laid end to end.

transformers hands each layer's attention to the function registered here, which keeps it within a review:
on a GPU by torch's `varlen_attn`, on a CPU (for tests) one review after the other. Positions start anew in each
review, PEFT's modules work as they are, and only the label positions reach the vocabulary head. Each layer is
compiled for the one shape, and the whole pass is a CUDA graph, as in `engines.packed.model`.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from sentiment_core.config import ConfigError
from sentiment_core.engines.loss import float32_head
from sentiment_core.engines.packed.layout import Pack, PackShape
from sentiment_core.engines.packed.model import PackEngine, head_dim, packing_blocker

NAME = "within_reviews"  # of the attention, where transformers keeps them by name
_OPTIONS = inspect.signature(varlen_attn).parameters  # torch 2.10 has no window, 2.11 needs no `enable_gqa`
_GROUPED = {"enable_gqa": True} if "enable_gqa" in _OPTIONS else {}


def generic_blocker(model: Any, device: torch.device) -> str | None:
    """Why this model or device cannot run packed through its own layers; None when it can."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, kind = base.config.get_text_config(), base.config.model_type
    layers = set(getattr(config, "layer_types", None) or ())
    if not (base._supports_attention_backend and base._can_compile_fullgraph):
        return f"transformers neither exchanges attention in {kind} nor compiles it"
    if base._is_stateful or layers - {"full_attention", "sliding_attention"}:
        return f"{kind} has layers that carry more than attention from one review to the next"
    named = ("attn_logit_softcapping", "attention_dropout", "v_head_dim")
    special = next((name for name in named if getattr(config, name, None)), None)
    if special:
        return f"packed attention knows no {special}, which {kind} has"
    if any(rope in str(getattr(config, "rope_parameters", "")) for rope in ("dynamic", "longrope")):
        return f"{kind}'s positions depend on the longest review beside them"
    if device.type == "cpu":
        return None
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "packed attention needs a GPU of compute capability 8.0 or more"
    if "window_size" not in _OPTIONS:
        return f"packed attention needs torch 2.11 or newer, this is {torch.__version__}"
    if base.dtype == torch.float32 or head_dim(config) % 8 or head_dim(config) > 256:
        return "packed attention on a GPU needs bf16 or fp16, and heads of 8, 16, … 256 numbers"
    return None


def engine_for_packs(asked: str, model: Any, device: torch.device) -> str | None:
    """The engine that lays reviews end to end here: "packed", else "generic"; None where neither can.
    asked: as in --engine. Raises ConfigError where that names such an engine, and none can."""
    blockers = {"packed": packing_blocker, "generic": generic_blocker}
    reason = None
    for name, blocker in blockers.items():
        if asked == "generic" != name:
            continue
        if (reason := blocker(model, device)) is None:
            return name
    if asked in blockers:
        raise ConfigError(f"--engine {asked}: {reason}; use --engine dequantized")
    return None


def attend_within(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    *, cu_seq_lens_q: torch.Tensor, max_length_q: int, scaling: float | None = None,
    sliding_window: int | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention within each piece of one row, as transformers calls it.

    Args:
        query, key, value: (1, heads or kv_heads, tokens, head_dim).
        cu_seq_lens_q: (pieces + 1,) int32, where the pieces begin and end; they cover all tokens.
        max_length_q: most tokens of a piece.
        sliding_window: how many tokens each sees, itself included.
    Returns (1, tokens, heads, head_dim) and, in the place of weights, None.
    """
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]:
        raise NotImplementedError(f"packed attention knows no {unknown[0]}; use --engine dequantized")
    if query.is_cuda:
        rows = (part[0].transpose(0, 1).to(value.dtype).contiguous() for part in (query, key, value))
        pieces = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        window = (sliding_window - 1 if sliding_window else -1, 0)  # seen before a token, and behind it
        return varlen_attn(*rows, *pieces, scale=scaling, window_size=window, **_GROUPED)[None], None
    out = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        places = torch.arange(end - start)
        back = places[:, None] - places  # (rows, rows)
        seen = (back >= 0) & (back < (sliding_window or end))
        parts = (part[:, :, start:end] for part in (query, key, value))
        out.append(
            F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=scaling, enable_gqa=True)
        )
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attend_within)


class OwnAdapter:
    """A PEFT adapter's parameters as they are, with their gradients in one flat tensor, where a graph adds."""

    def __init__(self, model: nn.Module) -> None:
        self._held = [(each, each.data) for each in model.parameters() if each.requires_grad]
        sizes = [data.numel() for _, data in self._held]
        self.flat_gradient = torch.zeros(sum(sizes), device=self._held[0][1].device)
        self._gradients = self.flat_gradient.split(sizes)
        self.zero_gradients()

    def parameters(self) -> list[nn.Parameter]:
        """For the optimizer."""
        return [each for each, _ in self._held]

    def zero_gradients(self) -> None:
        """Set all to zero and in their place again, which the Trainer takes them from at each step."""
        self.flat_gradient.zero_()
        for (each, data), part in zip(self._held, self._gradients, strict=True):
            each.grad = part.view_as(data)

    def reattach(self) -> None:
        """Bring parameters that have been given storage of their own back to where a graph reads them."""
        for each, data in self._held:
            if each.data_ptr() != data.data_ptr():
                data.copy_(each.data)
                each.data = data


class GenericModel(PackEngine):
    """A decoder of transformers with plain linear layers, or a PEFT model around it, on packs.
    trainable: whether the adapter is to receive gradients."""

    name, shares_prefix = "generic", False

    def __init__(
        self, model: Any, shape: PackShape, *, trainable: bool = False, compiled: bool = True,
        label_ids: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__(model, shape, label_ids)
        self.adapter = OwnAdapter(model) if trainable else None
        self._compiled: list[tuple[nn.Module, Any]] = []
        if compiled:
            torch._dynamo.config.recompile_limit = 64  # by kind of layer, shape, and use; all share one code
            layers = [each for each in self._base.modules() if isinstance(each, GradientCheckpointingLayer)]
            self._compiled = [(e, torch.compile(e.forward, fullgraph=True, dynamic=False)) for e in layers]

    def logits(self, pack: Pack) -> torch.Tensor:
        self._base.eval()  # no dropout, and the same code for training and scoring
        half = self.dtype != torch.float32
        mixed = torch.autocast(self.device.type, self.dtype if half else None, half, cache_enabled=False)
        with self._as_packed(), mixed, float32_head(self._base):
            return self._base(
                input_ids=pack.input_ids[None], position_ids=pack.positions[None], use_cache=False,
                cu_seq_lens_q=self._pieces(pack), max_length_q=self.shape.longest, logits_to_keep=pack.last,
            ).logits[0].float()  # fmt: skip

    def _pieces(self, pack: Pack) -> torch.Tensor:
        """Where the reviews begin and end and, behind them, pieces of what is unused: (pieces + 1,) int32."""
        tokens, longest = len(pack.input_ids), self.shape.longest
        ends = (pack.last + 1).cummax(0).values  # an unused slot ends where the last review does
        rest = torch.arange(longest, tokens + longest, longest, device=self.device) + ends[-1]
        return F.pad(torch.cat((ends, rest)).clamp(max=tokens), (1, 0)).int()

    @contextmanager
    def _as_packed(self) -> Iterator[None]:
        """The model with this attention and compiled layers, and afterwards as it was."""
        config = self._base.config.get_text_config()
        before, config._attn_implementation = config._attn_implementation, NAME
        for layer, forward in self._compiled:
            layer.forward = forward
        try:
            yield
        finally:
            config._attn_implementation = before
            for layer, _ in self._compiled:
                del layer.forward
