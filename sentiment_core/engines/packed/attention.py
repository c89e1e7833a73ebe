"""Attention of a pack with its rotary embedding: a review's tokens see the shared prefix and their own past.

On a GPU an op with a backward runs the kernels of `sentiment_core.engines.packed.kernels`; on a CPU their
reference does it. Both take qkv (tokens, (heads + 2 kv_heads) head_dim), not rotated; cos and sin
(tokens, head_dim) of each row's position; tiles (n, 4) int32 as a pack has them; and give
(tokens, heads head_dim).
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F

from sentiment_core.engines.packed.layout import TILE, LayerShape

Attend = Callable[..., torch.Tensor]  # (qkv, cos, sin, tiles, layer shape) -> attended

STEP = 64  # rows of queries that a tile of keys takes at a time
CHUNK = 256  # rows whose share in the prefix's gradient one program adds up
LOG2E = 1.4426950408889634


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on x (…, T, heads, D) with cos, sin (…, T, 1, D)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def attend_each(qkv, cos, sin, tiles, shape: LayerShape) -> torch.Tensor:
    """One review after the other, with the prefix before each."""
    widths = [n * shape.head_dim for n in (shape.heads, shape.kv_heads, shape.kv_heads)]
    # (tokens, heads or kv_heads, head_dim)
    q, k, v = (part.unflatten(-1, (-1, shape.head_dim)) for part in qkv.split(widths, dim=-1))
    q, k = (rotate(part, cos[:, None], sin[:, None]) for part in (q, k))
    segments = sorted({(start, end, offset) for start, _, end, offset in tiles.tolist() if start < end})
    out = []
    for start, end, offset in segments:
        if offset < 0:
            out.append(qkv.new_zeros(end - start, shape.heads * shape.head_dim))
            continue
        keys, values = (torch.cat((part[:offset], part[start:end])) for part in (k, v))
        seen = torch.ones(end - start, len(keys), dtype=torch.bool, device=qkv.device).tril(offset)
        heads_first = (t.transpose(0, 1)[None] for t in (q[start:end], keys, values))
        attended = F.scaled_dot_product_attention(*heads_first, attn_mask=seen, enable_gqa=True)
        out.append(attended[0].transpose(0, 1).flatten(1))  # (rows, heads head_dim)
    return torch.cat(out)


def _prefix_block(prefix: int) -> int:
    return min(TILE, max(16, 1 << (prefix - 1).bit_length()))  # a power of two


@functools.cache
def _pair(device: torch.device, heads: int, kv_heads: int) -> int:
    """How many heads that share their keys one program takes: two where the GPU has 128 KiB for it."""
    roomy = device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)
    return 2 if roomy and heads // kv_heads % 2 == 0 else 1


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def _two_streams(device: torch.device) -> Iterator[AbstractContextManager]:
    """Gives a context whose launches run beside those outside it; all are done at the end.

    The last programs of a kernel leave most of a GPU idle, which the first ones of another then fill.
    """
    if device.type != "cuda":
        yield nullcontext()
        return
    main, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(main)
    yield torch.cuda.stream(side)
    main.wait_stream(side)


@torch.library.custom_op("sentiment::attend_forward", mutates_args=())
def attend_forward(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, tiles: torch.Tensor,
    prefix: int, heads: int, kv_heads: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """What attention gives and what its backward needs.

    Returns:
        out (tokens, heads head_dim); qkv rotated; lse (heads, tokens) float32, the softmax's norms as
        base-2 logarithms.
    """
    from sentiment_core.engines.packed import kernels

    total, dim = qkv.shape[0], qkv.shape[1] // (heads + 2 * kv_heads)
    shape = (heads, kv_heads, dim)
    rotated = torch.empty_like(qkv)
    kernels.rotate[(math.ceil(total / TILE), heads + 2 * kv_heads)](
        qkv, cos, sin, rotated, total, *shape, TILE, num_warps=4
    )
    out = qkv.new_empty(total, heads * dim)
    lse = qkv.new_empty(heads, total, dtype=torch.float32)
    pair = _pair(qkv.device, heads, kv_heads)
    kernels.forward[(tiles.shape[0], heads // pair)](
        rotated, tiles, out, lse, total, dim**-0.5 * LOG2E, *shape, prefix, _prefix_block(prefix), TILE, pair,
        num_warps=4 * pair, num_stages=2,
    )  # fmt: skip
    return out, rotated, lse


@attend_forward.register_fake
def _(qkv, cos, sin, tiles, prefix, heads, kv_heads):
    dim = qkv.shape[1] // (heads + 2 * kv_heads)
    out = qkv.new_empty(qkv.shape[0], heads * dim)
    return out, torch.empty_like(qkv), qkv.new_empty(heads, qkv.shape[0], dtype=torch.float32)


@torch.library.custom_op("sentiment::attend_backward", mutates_args=())
def attend_backward(
    d_out: torch.Tensor, qkv: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor, tiles: torch.Tensor,
    cos: torch.Tensor, sin: torch.Tensor, prefix: int, heads: int, kv_heads: int,
) -> torch.Tensor:  # fmt: skip
    """Gradient of qkv before the rotary embedding.

    Args:
        qkv: rotated.
        delta: (heads, tokens) float32, sum over each head of d_out · out.
    """
    from sentiment_core.engines.packed import kernels

    total, dim = qkv.shape[0], qkv.shape[1] // (heads + 2 * kv_heads)
    block, root, d_qkv = _prefix_block(prefix), dim**-0.5, torch.empty_like(qkv)
    scale, shape = root * LOG2E, (heads, kv_heads, dim, prefix)
    given = (qkv, d_out, lse, delta, tiles, cos, sin, d_qkv, total, scale, root)
    pair = _pair(qkv.device, heads, kv_heads)
    with _two_streams(qkv.device) as beside:
        kernels.backward_keys[(tiles.shape[0], kv_heads)](
            *given, *shape, TILE, STEP, num_warps=4, num_stages=1
        )
        with beside:
            kernels.backward_queries[(tiles.shape[0], heads // pair)](
                *given, *shape, block, TILE, pair, num_warps=4 * pair, num_stages=2
            )
            if prefix:
                blocks, chunks = math.ceil(prefix / block), math.ceil(total / CHUNK)
                partial = qkv.new_empty(chunks, kv_heads, 2, blocks * block, dim, dtype=torch.float32)
                kernels.backward_prefix[(chunks, kv_heads, blocks)](
                    qkv, d_out, lse, delta, partial, total, scale, *shape, block, TILE, CHUNK,
                    num_warps=4, num_stages=2,
                )  # fmt: skip
                kernels.write_prefix[(kv_heads, blocks)](partial.sum(0), cos, sin, d_qkv, root, *shape, block)
    return d_qkv


@attend_backward.register_fake
def _(d_out, qkv, lse, delta, tiles, cos, sin, prefix, heads, kv_heads):
    return torch.empty_like(qkv)


class _Attention(torch.autograd.Function):
    """Rotary embedding and attention; the kernels' backward covers both."""

    @staticmethod
    def forward(ctx, qkv, cos, sin, tiles, shape: LayerShape):
        out, rotated, lse = attend_forward(
            qkv.contiguous(), cos, sin, tiles, shape.prefix, shape.heads, shape.kv_heads
        )
        ctx.save_for_backward(rotated, out, lse, tiles, cos, sin)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx, d_out):
        (rotated, out, lse, tiles, cos, sin), shape = ctx.saved_tensors, ctx.shape
        products = (d_out.float() * out.float()).unflatten(-1, (-1, shape.head_dim))
        delta = products.sum(-1).t().contiguous()  # (heads, tokens)
        d_qkv = attend_backward(
            d_out.contiguous(), rotated, lse, delta, tiles, cos, sin,
            shape.prefix, shape.heads, shape.kv_heads,
        )  # fmt: skip
        return d_qkv, None, None, None, None


def attend_tiles(qkv, cos, sin, tiles, shape: LayerShape) -> torch.Tensor:
    """All reviews at once, by the kernels."""
    return _Attention.apply(qkv, cos, sin, tiles, shape)
