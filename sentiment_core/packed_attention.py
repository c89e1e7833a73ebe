"""Attention of a pack: each review's tokens see the prefix that all prompts share, and their own past.

On a GPU the Triton kernels of `sentiment_core.attention_op` do it; here is their reference, for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sentiment_core.packed_layer import LayerShape

Attend = Callable[..., torch.Tensor]
"""(qkv, cos, sin, tiles, shape) -> (T, heads D); qkv (T, (heads + 2 kv_heads) D) not rotated."""

TILE = 64
"""Rows that the kernels handle together."""


def attention_on(device: torch.device) -> Attend:
    """What computes it there.

    Raises:
        ImportError: it is a GPU, and there is no Triton.
    """
    if device.type != "cuda":
        return attend_each
    from sentiment_core.attention_op import attend_tiles

    return attend_tiles


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on x (…, T, heads, D) with cos, sin (…, T, 1, D)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def attend_each(qkv, cos, sin, tiles, shape: LayerShape) -> torch.Tensor:
    """One review after the other, with the prefix before each. Arguments as of `Attend`."""
    widths = [n * shape.head_dim for n in (shape.heads, shape.kv_heads, shape.kv_heads)]
    q, k, v = (part.unflatten(-1, (-1, shape.head_dim)) for part in qkv.split(widths, dim=-1))
    q, k = (rotate(part, cos[:, None], sin[:, None]) for part in (q, k))
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
