"""Causal attention within reviews laid end to end behind one shared prefix: the Triton kernels.

FlashAttention-2 (Dao 2023) over tiles of 64 rows. Compared with a general kernel for variable lengths,

- only tiles that hold tokens are started (`tiles` lists them), in one launch for all reviews;
- where a GPU has room, two heads that read the same keys are one program's, as a tile of 128 rows;
- the shared prefix stands in memory once; every review's tokens attend to it and to their own past;
- query heads that share a key head (Ainslie et al. 2023) add up its gradient in registers, without copies;
- backward turns the gradients of queries and keys back through the rotary embedding before they are
  written, and needs no atomic additions: the same pack gives the same gradient, bit by bit.

Rows of `qkv` hold the heads of q, k and v side by side; attention wants q and k rotated. Rows of `tiles` are
(start, first, end, offset): the review's first row, the tile's first row, the row after the review, and the
position of the review's first token (0 marks the prefix itself, -1 rows that hold nothing and give zeros).
"""

from __future__ import annotations

import triton
import triton.language as tl

# What of a block of keys is seen: all of it, what is before an end, or by each row what is not behind it.
# The causal block needs no end: a row before the end sees nothing from there on.
FULL, ENDING, CAUSAL = (tl.constexpr(kind) for kind in range(3))


@triton.jit
def _angles(cos, sin, rows, inside, D: tl.constexpr):
    at = rows[:, None] * D + tl.arange(0, D // 2)[None, :]  # the second half repeats the first
    c = tl.load(cos + at, mask=inside[:, None], other=0.0).to(tl.float32)
    s = tl.load(sin + at, mask=inside[:, None], other=0.0).to(tl.float32)
    return c, s


@triton.jit
def rotate(
    qkv, cos, sin, rotated, total, H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr
):
    """Rotary position embedding (Su et al. 2021) of the heads of q and k; those of v are copied."""
    rows, head = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    inside = rows < total
    W: tl.constexpr = (H + 2 * KV) * D
    HALF: tl.constexpr = D // 2
    at = rows[:, None] * W + head * D + tl.arange(0, HALF)[None, :]
    left = tl.load(qkv + at, mask=inside[:, None], other=0.0)
    right = tl.load(qkv + at + HALF, mask=inside[:, None], other=0.0)
    if head < H + KV:
        c, s = _angles(cos, sin, rows, inside, D)
        x, y = left.to(tl.float32), right.to(tl.float32)
        left = (x * c - y * s).to(rotated.dtype.element_ty)
        right = (y * c + x * s).to(rotated.dtype.element_ty)
    tl.store(rotated + at, left, mask=inside[:, None])
    tl.store(rotated + at + HALF, right, mask=inside[:, None])


@triton.jit
def _store_rotated_back(to, at, gradient, cos, sin, rows, inside, D: tl.constexpr, N: tl.constexpr):
    """Write at `at` (N,) the gradient of what stood before the rotary embedding."""
    HALF: tl.constexpr = D // 2
    halves = tl.permute(tl.reshape(gradient, (N, 2, HALF)), (0, 2, 1))
    left, right = tl.split(halves)
    c, s = _angles(cos, sin, rows, inside, D)
    to = to + at[:, None] + tl.arange(0, HALF)[None, :]
    tl.store(to, (left * c + right * s).to(to.dtype.element_ty), mask=inside[:, None])
    tl.store(to + HALF, (right * c - left * s).to(to.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _tile(tiles, number):
    at = tiles + number * 4
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def _rows(first, PAIR: tl.constexpr, BLOCK: tl.constexpr):
    """A tile's rows, once for each of PAIR heads that read the same keys, and the heads, (PAIR BLOCK,)."""
    each = tl.arange(0, PAIR * BLOCK)
    return first + each % BLOCK, tl.program_id(1) * PAIR + each // BLOCK


@triton.jit
def _load_keys(k_at, v_at, columns, inside, W: tl.constexpr, D: tl.constexpr, MASK: tl.constexpr):
    d = tl.arange(0, D)
    if MASK == FULL:
        k = tl.load(k_at + columns[:, None] * W + d[None, :])
        v = tl.load(v_at + columns[:, None] * W + d[None, :])
    else:
        k = tl.load(k_at + columns[:, None] * W + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(v_at + columns[:, None] * W + d[None, :], mask=inside[:, None], other=0.0)
    return k, v


@triton.jit
def _attend_block(
    q, k_at, v_at, columns, end, rows, m, norm, acc, scale, W: tl.constexpr, D: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """One more block of keys in the running softmax."""
    inside = columns < end
    k, v = _load_keys(k_at, v_at, columns, inside, W, D, MASK)
    s = tl.dot(q, tl.trans(k)) * scale
    if MASK == CAUSAL:
        s = tl.where(columns[None, :] <= rows[:, None], s, float("-inf"))
    if MASK == ENDING:
        s = tl.where(inside[None, :], s, float("-inf"))
    new = tl.maximum(m, tl.max(s, 1))
    p = tl.exp2(s - new[:, None])
    shrink = tl.exp2(m - new)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
    return new, norm * shrink + tl.sum(p, 1), acc


@triton.jit
def forward(
    qkv, tiles, out, lse, total, scale,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PREFIX: tl.constexpr, PB: tl.constexpr,
    BLOCK: tl.constexpr, PAIR: tl.constexpr,
):  # fmt: skip
    start, first, end, offset = _tile(tiles, tl.program_id(0))
    W: tl.constexpr = (H + 2 * KV) * D
    N: tl.constexpr = PAIR * BLOCK
    rows, head = _rows(first, PAIR, BLOCK)
    d, inside = tl.arange(0, D), rows < end
    to = out + (rows * (H * D) + head * D)[:, None] + d[None, :]
    if offset < 0:
        tl.store(to, tl.zeros((N, D), out.dtype.element_ty), mask=inside[:, None])
        tl.store(lse + head * total + rows, tl.full((N,), float("inf"), tl.float32), mask=inside)
    else:
        k_at = qkv + (H + tl.program_id(1) * PAIR // (H // KV)) * D
        v_at = k_at + KV * D
        q = tl.load(qkv + (rows * W + head * D)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        m = tl.full((N,), float("-inf"), tl.float32)
        norm = tl.zeros((N,), tl.float32)
        acc = tl.zeros((N, D), tl.float32)
        if offset > 0:
            for n in range(0, PREFIX, PB):
                columns = n + tl.arange(0, PB)
                m, norm, acc = _attend_block(
                    q, k_at, v_at, columns, PREFIX, rows, m, norm, acc, scale, W, D, ENDING
                )
        for n in range(start, first, BLOCK):
            columns = n + tl.arange(0, BLOCK)
            m, norm, acc = _attend_block(q, k_at, v_at, columns, first, rows, m, norm, acc, scale, W, D, FULL)
        columns = first + tl.arange(0, BLOCK)
        m, norm, acc = _attend_block(q, k_at, v_at, columns, end, rows, m, norm, acc, scale, W, D, CAUSAL)
        tl.store(to, (acc / norm[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
        tl.store(lse + head * total + rows, m + tl.log2(norm), mask=inside)


@triton.jit
def _load_queries(
    qkv, d_out, lse, delta, rows, inside, head, total, H: tl.constexpr, W: tl.constexpr, D: tl.constexpr
):
    """What backward needs of the rows of one head, or of each row's own; rows outside weigh nothing."""
    d = tl.arange(0, D)
    q = tl.load(qkv + (rows * W + head * D)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
    do = tl.load(d_out + (rows * (H * D) + head * D)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
    lse_r = tl.load(lse + head * total + rows, mask=inside, other=float("inf"))
    delta_r = tl.load(delta + head * total + rows, mask=inside, other=0.0)
    return q, do, lse_r, delta_r


@triton.jit
def _query_block(
    q, do, lse_r, delta_r, k_at, v_at, columns, end, rows, dq, scale, W: tl.constexpr, D: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """One block of keys' share in the gradient of a tile of queries."""
    inside = columns < end
    k, v = _load_keys(k_at, v_at, columns, inside, W, D, MASK)
    p = tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse_r[:, None])
    if MASK == CAUSAL:
        p = tl.where(columns[None, :] <= rows[:, None], p, 0.0)
    if MASK == ENDING:
        p = tl.where(inside[None, :], p, 0.0)
    ds = p * (tl.dot(do, tl.trans(v)) - delta_r[:, None])
    return tl.dot(ds.to(k.dtype), k, dq)


@triton.jit
def backward_queries(
    qkv, d_out, lse, delta, tiles, cos, sin, d_qkv, total, scale, root,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PREFIX: tl.constexpr, PB: tl.constexpr,
    BLOCK: tl.constexpr, PAIR: tl.constexpr,
):  # fmt: skip
    start, first, end, offset = _tile(tiles, tl.program_id(0))
    W: tl.constexpr = (H + 2 * KV) * D
    N: tl.constexpr = PAIR * BLOCK
    rows, head = _rows(first, PAIR, BLOCK)
    inside, at = rows < end, rows * W + head * D
    if offset < 0:
        zeros = tl.zeros((N, D), d_qkv.dtype.element_ty)
        tl.store(d_qkv + at[:, None] + tl.arange(0, D)[None, :], zeros, mask=inside[:, None])
    else:
        k_at = qkv + (H + tl.program_id(1) * PAIR // (H // KV)) * D
        v_at = k_at + KV * D
        q, do, lse_r, delta_r = _load_queries(qkv, d_out, lse, delta, rows, inside, head, total, H, W, D)
        dq = tl.zeros((N, D), tl.float32)
        if offset > 0:
            for n in range(0, PREFIX, PB):
                columns = n + tl.arange(0, PB)
                dq = _query_block(
                    q, do, lse_r, delta_r, k_at, v_at, columns, PREFIX, rows, dq, scale, W, D, ENDING
                )
        for n in range(start, first, BLOCK):
            columns = n + tl.arange(0, BLOCK)
            dq = _query_block(q, do, lse_r, delta_r, k_at, v_at, columns, first, rows, dq, scale, W, D, FULL)
        columns = first + tl.arange(0, BLOCK)
        dq = _query_block(q, do, lse_r, delta_r, k_at, v_at, columns, end, rows, dq, scale, W, D, CAUSAL)
        _store_rotated_back(d_qkv, at, dq * root, cos, sin, rows, inside, D, N)


@triton.jit
def _key_block(
    k, v, columns, qkv, d_out, lse, delta, rows, end, head, total, dk, dv, scale,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One block of queries' share in the gradients of a tile of keys and values (transposed products)."""
    q, do, lse_r, delta_r = _load_queries(qkv, d_out, lse, delta, rows, rows < end, head, total, H, W, D)
    p = tl.exp2(tl.dot(k, tl.trans(q)) * scale - lse_r[None, :])
    p = tl.where(columns[:, None] <= rows[None, :], p, 0.0)
    dv = tl.dot(p.to(do.dtype), do, dv)
    ds = p * (tl.dot(v, tl.trans(do)) - delta_r[None, :])
    return tl.dot(ds.to(q.dtype), q, dk), dv


@triton.jit
def backward_keys(
    qkv, d_out, lse, delta, tiles, cos, sin, d_qkv, total, scale, root,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PREFIX: tl.constexpr, BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    tile, group = tl.program_id(0), tl.program_id(1)
    _, first, end, offset = _tile(tiles, tile)
    W: tl.constexpr = (H + 2 * KV) * D
    G: tl.constexpr = H // KV
    columns, d = first + tl.arange(0, BLOCK), tl.arange(0, D)
    inside = columns < end
    k_at = (H + group) * D
    v_at = k_at + KV * D
    if offset < 0:
        zeros = tl.zeros((BLOCK, D), d_qkv.dtype.element_ty)
        tl.store(d_qkv + columns[:, None] * W + k_at + d[None, :], zeros, mask=inside[:, None])
        tl.store(d_qkv + columns[:, None] * W + v_at + d[None, :], zeros, mask=inside[:, None])
    elif offset >= PREFIX:  # the prefix's own keys come from backward_prefix
        k = tl.load(qkv + columns[:, None] * W + k_at + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(qkv + columns[:, None] * W + v_at + d[None, :], mask=inside[:, None], other=0.0)
        dk = tl.zeros((BLOCK, D), tl.float32)
        dv = tl.zeros((BLOCK, D), tl.float32)
        for member in range(0, G):
            head = group * G + member
            for n in range(first, end, STEP):
                rows = n + tl.arange(0, STEP)
                dk, dv = _key_block(
                    k, v, columns, qkv, d_out, lse, delta, rows, end, head, total, dk, dv, scale, H, W, D
                )
        v_to = d_qkv + columns[:, None] * W + v_at + d[None, :]
        tl.store(v_to, dv.to(d_qkv.dtype.element_ty), mask=inside[:, None])
        _store_rotated_back(d_qkv + k_at, columns * W, dk * root, cos, sin, columns, inside, D, BLOCK)


@triton.jit
def backward_prefix(
    qkv, d_out, lse, delta, partial, total, scale,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PREFIX: tl.constexpr, PB: tl.constexpr,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """A chunk of rows' share in the gradient of the prefix's keys and values, from all rows of the pack."""
    chunk, group, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    W: tl.constexpr = (H + 2 * KV) * D
    G: tl.constexpr = H // KV
    columns, d = block * PB + tl.arange(0, PB), tl.arange(0, D)
    inside = columns < PREFIX
    k_at = (H + group) * D
    k = tl.load(qkv + columns[:, None] * W + k_at + d[None, :], mask=inside[:, None], other=0.0)
    v = tl.load(qkv + columns[:, None] * W + k_at + KV * D + d[None, :], mask=inside[:, None], other=0.0)
    dk = tl.zeros((PB, D), tl.float32)
    dv = tl.zeros((PB, D), tl.float32)
    for member in range(0, G):
        head = group * G + member
        for n in range(0, CHUNK, BLOCK):
            rows = chunk * CHUNK + n + tl.arange(0, BLOCK)
            dk, dv = _key_block(
                k, v, columns, qkv, d_out, lse, delta, rows, total, head, total, dk, dv, scale, H, W, D
            )
    P: tl.constexpr = (PREFIX + PB - 1) // PB * PB
    to = partial + (chunk * KV + group) * (2 * P * D) + columns[:, None] * D + d[None, :]
    tl.store(to, dk)
    tl.store(to + P * D, dv)


@triton.jit
def write_prefix(
    summed, cos, sin, d_qkv, root,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PREFIX: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    group, block = tl.program_id(0), tl.program_id(1)
    W: tl.constexpr = (H + 2 * KV) * D
    P: tl.constexpr = (PREFIX + PB - 1) // PB * PB
    rows, d = block * PB + tl.arange(0, PB), tl.arange(0, D)
    inside = rows < PREFIX
    at = summed + group * (2 * P * D) + rows[:, None] * D + d[None, :]
    dk, dv = tl.load(at), tl.load(at + P * D)
    k_at = (H + group) * D
    v_to = d_qkv + rows[:, None] * W + k_at + KV * D + d[None, :]
    tl.store(v_to, dv.to(d_qkv.dtype.element_ty), mask=inside[:, None])
    _store_rotated_back(d_qkv + k_at, rows * W, dk * root, cos, sin, rows, inside, D, PB)
