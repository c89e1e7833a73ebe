"""Attention of a pack: each review's tokens see the prefix that its prompt shares, and their own past.

Two implementations for a GPU. `varlen`, the default, is PyTorch's variable-length attention, for packs in
which every review holds its whole prompt. `tiles` is `sentiment_core.attention_kernels`, for packs in which
the shared prefix stands once; it agrees with the reference in Triton's interpreter and compiles for compute
capabilities 8.0 and 9.0, but has not been timed yet, so it has to be asked for: SENTIMENT_ATTENTION=tiles.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sentiment_core.config import ConfigError

if TYPE_CHECKING:
    from sentiment_core.packed_layer import LayerShape

Attend = Callable[..., torch.Tensor]
"""(qkv, cos, sin, boundaries, tiles, shape) -> (T, heads D); qkv (T, (heads + 2 kv_heads) D) not rotated."""

TILE = 64
"""Rows that the tile kernels handle together."""


def attention_kind() -> str:
    """ "varlen" or "tiles", as SENTIMENT_ATTENTION says.

    Raises:
        ConfigError: it says something else.
    """
    kind = os.environ.get("SENTIMENT_ATTENTION") or "varlen"
    if kind not in ("varlen", "tiles"):
        raise ConfigError(f"SENTIMENT_ATTENTION is {kind!r}; use varlen or tiles")
    return kind


def shares_prefix() -> bool:
    """Whether packs hold the prompts' common beginning once."""
    return attention_kind() == "tiles"


def gpu_attention() -> Attend:
    """The implementation asked for.

    Raises:
        ImportError: it is "tiles", and there is no Triton.
    """
    if attention_kind() == "varlen":
        return varlen_attention()
    from sentiment_core.attention_kernels import attend_tiles

    return attend_tiles


# ---- parts


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on x (…, T, heads, D) with cos, sin (…, T, 1, D)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def rotate_queries_and_keys(qkv, cos, sin, shape: LayerShape) -> torch.Tensor:
    """qkv with its heads of q and k rotated and those of v as they are, same shape."""
    split = (shape.heads + shape.kv_heads) * shape.head_dim
    qk = qkv[:, :split].unflatten(-1, (-1, shape.head_dim))
    return torch.cat((rotate(qk, cos[:, None], sin[:, None]).flatten(1), qkv[:, split:]), dim=1)


def split_heads(qkv: torch.Tensor, shape: LayerShape) -> list[torch.Tensor]:
    """qkv as q (T, heads, D), k and v (T, kv_heads, D)."""
    widths = [n * shape.head_dim for n in (shape.heads, shape.kv_heads, shape.kv_heads)]
    return [part.unflatten(-1, (-1, shape.head_dim)) for part in qkv.split(widths, dim=-1)]


# ---- implementations


def varlen_attention() -> Attend:
    """PyTorch's variable-length attention (Dao 2023); its keywords changed between releases."""
    from torch.nn.attention.varlen import varlen_attn

    accepted = inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    grouped = {"enable_gqa": True} if "enable_gqa" in accepted else {}

    def attend(qkv, cos, sin, boundaries, tiles, shape: LayerShape) -> torch.Tensor:
        q, k, v = split_heads(qkv, shape)
        cos, sin = cos[:, None], sin[:, None]
        q, k, v = rotate(q, cos, sin), rotate(k, cos, sin), v.contiguous()
        if not grouped and q.shape[1] != k.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
            v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        longest = shape.longest
        return varlen_attn(q, k, v, boundaries, boundaries, longest, longest, **causal, **grouped).flatten(1)

    return attend


def attend_each(qkv, cos, sin, boundaries, tiles, shape: LayerShape) -> torch.Tensor:
    """The reference, for a CPU: one review after the other, with the prefix before each."""
    q, k, v = split_heads(rotate_queries_and_keys(qkv, cos, sin, shape), shape)
    segments = sorted({(start, end, offset) for start, _, end, offset in tiles.tolist() if start < end})
    out = []
    for start, end, offset in segments:
        if offset < 0:
            out.append(qkv.new_zeros(end - start, shape.heads * shape.head_dim))
            continue
        keys, values = k[start:end], v[start:end]
        if offset:
            keys, values = torch.cat((k[:offset], keys)), torch.cat((v[:offset], values))
        seen = torch.ones(end - start, len(keys), dtype=torch.bool, device=qkv.device).tril(offset)
        heads_first = (t.transpose(0, 1)[None] for t in (q[start:end], keys, values))
        attended = F.scaled_dot_product_attention(*heads_first, attn_mask=seen, enable_gqa=True)
        out.append(attended[0].transpose(0, 1).flatten(1))
    return torch.cat(out)
