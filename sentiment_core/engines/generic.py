"""The packed engine of every other decoder: the model's own layers on reviews laid end to end.

transformers hands each layer's attention to the function registered here, which keeps it within a review. As
in `engines.packed.model`, each layer is compiled for the one shape, and the whole pass is a CUDA graph.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from sentiment_core.config import PACKING, ConfigError
from sentiment_core.engines.packed.adapter import FlatAdapter
from sentiment_core.engines.packed.layout import Pack
from sentiment_core.engines.packed.model import PackedModel, can_pack, head_dim

NAME = "within_reviews"  # of the attention, among transformers' own
_OPTIONS = inspect.signature(varlen_attn).parameters  # torch 2.10 has no window, 2.11 needs no `enable_gqa`
_attend: Any = partial(varlen_attn, enable_gqa=True) if "enable_gqa" in _OPTIONS else varlen_attn


def generic_blocker(model: Any, device: torch.device) -> str | None:
    """Why this model or device cannot run packed through its own layers; None when it can."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, kind = base.config.get_text_config(), base.config.model_type
    more = {*(getattr(config, "layer_types", None) or ())} - {"full_attention", "sliding_attention"}
    if more or base._is_stateful or not (base._supports_attention_backend and base._can_compile_fullgraph):
        return f"transformers does not let the attention of {kind}, and nothing else, keep reviews apart"
    named = ("attn_logit_softcapping", "attention_dropout", "v_head_dim")
    special = [name for name in named if getattr(config, name, None)]
    rope = str(getattr(config, "rope_parameters", ""))  # of which these two look at the longest review
    if special := special + [name for name in ("dynamic", "longrope") if name in rope]:
        return f"packed attention knows no {special[0]}, which {kind} has"
    if device.type == "cpu":
        return None
    new = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if not new or "window_size" not in _OPTIONS:
        return "packed attention needs torch 2.11 or newer and a GPU of compute capability 8.0 or more"
    if base.dtype == torch.float32 or head_dim(config) % 8 or head_dim(config) > 256:
        return "packed attention on a GPU needs bf16 or fp16, and heads of 8, 16, … 256 numbers"
    return None


def engine_for_packs(asked: str, model: Any, device: torch.device) -> str | None:
    """The engine that lays reviews end to end here: "packed", else "generic"; None where neither can.
    asked: as in --engine. Raises ConfigError where that names such an engine, and none can."""
    if asked != "generic" and can_pack(model.config, device):
        return "packed"
    if (reason := generic_blocker(model, device)) is None:
        return "generic"
    if asked in PACKING:
        raise ConfigError(f"--engine {asked}: {reason}; use --engine dequantized")
    return None


def attend_within(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    *, cu_seq_lens_q: torch.Tensor, max_length_q: int, scaling: float | None = None,
    sliding_window: int | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention within each piece of one row, on a CPU one after the other; transformers calls it.

    Args:
        query, key, value: (1, heads or kv_heads, tokens, head_dim).
        cu_seq_lens_q: (pieces + 1,) int32, where pieces, of at most `max_length_q` tokens, begin and end.
        sliding_window: how many tokens each sees, itself included.
    Returns (1, tokens, heads, head_dim), and None in the place of weights.
    """
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]:
        raise ConfigError(f"packed attention knows no {unknown[0]}; use --engine dequantized")
    if query.is_cuda:
        rows = (part[0].transpose(0, 1).to(value.dtype).contiguous() for part in (query, key, value))
        pieces = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        window = (sliding_window - 1 if sliding_window else -1, 0)  # how many before a token, and behind it
        return _attend(*rows, *pieces, scale=scaling, window_size=window)[None], None
    out = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        parts, places = (part[:, :, start:end] for part in (query, key, value)), torch.arange(end - start)
        back = places[:, None] - places
        seen = (back >= 0) & (back < (sliding_window or end))  # (rows, rows)
        out.append(F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=scaling, enable_gqa=True))
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attend_within)


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Let the vocabulary head work in float32: logits of 20 in bfloat16 come in steps of 0.125."""

    def widely(module, inputs, output):
        bias = None if module.bias is None else module.bias.float()
        with torch.autocast(inputs[0].device.type, enabled=False):
            return F.linear(inputs[0].float(), module.weight.float(), bias)

    head = model.get_output_embeddings()
    with head.register_forward_hook(widely) if isinstance(head, nn.Linear) else nullcontext():
        yield


class GenericModel(PackedModel):
    """The same by the layers of the model itself, and by PEFT's modules in them."""

    shares_prefix = False

    def _prepare(self, *, trainable: bool, compiled: bool) -> None:
        own = [each for each in self._base.parameters() if each.requires_grad]
        self.adapter = FlatAdapter(own, [(each, each.data) for each in own]) if trainable else None
        layers = [e for e in self._base.modules() if compiled and isinstance(e, GradientCheckpointingLayer)]
        self._compiled = [(e, torch.compile(e.forward, fullgraph=True, dynamic=False)) for e in layers]
        torch._dynamo.config.recompile_limit = 64  # kinds of layers, shapes and uses, all by one code

    def logits(self, pack: Pack) -> torch.Tensor:
        half, tokens, longest = self.dtype != torch.float32, len(pack.input_ids), self.shape.longest
        ends = (pack.last + 1).cummax(0).values  # an unused slot ends where the last review does
        rest = torch.arange(longest, tokens + longest, longest, device=self.device) + ends[-1]
        pieces = F.pad(torch.cat((ends, rest)).clamp(max=tokens), (1, 0)).int()
        self._base.eval()  # no dropout, and the same code for training and scoring
        mixed = torch.autocast(self.device.type, self.dtype if half else None, half, cache_enabled=False)
        config = self._base.config.get_text_config()
        before, config._attn_implementation = config._attn_implementation, NAME
        for layer, forward in self._compiled:
            layer.forward = forward
        try:
            with mixed, float32_head(self._base):
                return self._base(
                    input_ids=pack.input_ids[None], position_ids=pack.positions[None], use_cache=False,
                    cu_seq_lens_q=pieces, max_length_q=longest, logits_to_keep=pack.last,
                ).logits[0].float()  # fmt: skip
        finally:  # other passes find the model as it was
            config._attn_implementation = before
            for layer, _ in self._compiled:
                del layer.forward


PACKED_MODELS: dict[str, type[PackedModel]] = {"packed": PackedModel, "generic": GenericModel}
"""By their names as in --engine."""
