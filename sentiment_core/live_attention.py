"""Attention of one stretch of tokens to itself and to what came before, made for one CPU core.

PyTorch's kernel takes a mask as any other numbers: it computes the half that is masked too. With a thousand
tokens that is most of an answer's time, so here every block of tokens meets only what it may see.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCK = 128
"""Tokens computed at once; their scores against a thousand others still fit a core's cache."""

WHOLE = 256
"""Up to so many tokens PyTorch's kernel is as fast or faster, masked half and all."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last tokens; no gradients on the way in blocks.

    Args:
        q: (batch, heads, length, head_dim), of the last `length` tokens.
        k, v: (batch, kv_heads, tokens, head_dim), of all tokens up to the last; tokens >= length.

    Returns:
        (batch, length, heads, head_dim).
    """
    length = q.shape[2]
    if length <= WHOLE or q.device.type != "cpu" or q.requires_grad:
        mask = _no_future(length, k.shape[2], q)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2)
    return torch.stack([_in_blocks(*one) for one in zip(q, k, v, strict=True)])


def attend_once(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The same for one token of each row, at place `last` (batch,): q (batch, heads, d) -> the same shape."""
    seen = torch.arange(k.shape[2], device=k.device) <= last[:, None, None, None]
    return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=seen, enable_gqa=True)[:, :, 0]


def _no_future(length: int, tokens: int, like: torch.Tensor) -> torch.Tensor:
    mask = torch.full((length, tokens), float("-inf"), dtype=like.dtype, device=like.device)
    return mask.triu(tokens - length + 1)


def _in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(heads, length, d), (kv_heads, tokens, d) twice -> (length, heads, d); scores in float32."""
    heads, length, d = q.shape
    groups, tokens, _ = k.shape
    before, shared = tokens - length, heads // groups
    keys = k.float().transpose(1, 2)
    out = torch.empty(length, heads, d, dtype=q.dtype)
    space = torch.empty(shared * BLOCK * tokens)
    diagonal = _no_future(BLOCK, BLOCK, space)
    for start in range(0, length, BLOCK):
        rows = min(BLOCK, length - start)
        seen = before + start + rows
        scores = space[: shared * rows * seen].view(shared * rows, seen)
        for group in range(groups):
            own = slice(group * shared, (group + 1) * shared)
            asking = q[own, start : start + rows].reshape(shared * rows, d).float() * d**-0.5
            torch.mm(asking, keys[group, :, :seen], out=scores)
            scores.view(shared, rows, seen)[..., before + start :] += diagonal[:rows, :rows]
            found = torch.softmax(scores, dim=-1).to(v.dtype) @ v[group, :seen]
            out[start : start + rows, own] = found.view(shared, rows, d).transpose(0, 1)
    return out
