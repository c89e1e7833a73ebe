"""One layer on reviews laid end to end: attention within each, products with the adapter's share."""

import torch
import torch.nn.functional as F

from sentiment_core.engines.packed.attention import Attend
from sentiment_core.engines.packed.layout import LayerShape


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


class _Linear(torch.autograd.Function):
    """A frozen product and its adapter's of rank r: y = x Wᵀ + (x Aᵀ) Bᵀ.

    The sum of two products is taken in float32, where compiling fuses it into what follows; in the compute
    type it would become a product that adds to a copy. x Wᵀ and x Aᵀ are one product, which reads x once, and
    so is backward: dx = [dy, dy B] · [W; A].
    """

    @staticmethod
    def forward(ctx, x, stacked, a, b):
        """x (tokens, in), stacked [W; A] (out + r, in), a (r, in), b (out, r) scaled -> (tokens, out)."""
        y, t = F.linear(x, stacked).split((len(b), len(a)), dim=1)  # (tokens, out), (tokens, r)
        t = t.contiguous()
        ctx.save_for_backward(x, t, stacked, b)
        y = y.float() + F.linear(t, b).float()
        return y.to(x.dtype, copy=True)  # torch 2.11 compiles no gradient behind a cast that changes nothing

    @staticmethod
    def backward(ctx, dy):
        x, t, stacked, b = ctx.saved_tensors
        d_t = dy @ b
        return torch.cat((dy, d_t), dim=1) @ stacked, None, d_t.t() @ x, dy.t() @ t


class _NormedLinear(torch.autograd.Function):
    """RMSNorm, then a frozen product and its adapter's as one: y = [h, h Aᵀ] · [W, B]ᵀ with h = norm(x).

    Written apart, the adapter's share is a second tensor as large as y, to be written, read and added.
    h Aᵀ comes from x, as rstd · x (A · diag(norm))ᵀ, so that h itself goes straight into [h, h Aᵀ].
    y comes in equal parts: a gradient of one tensor would have to be joined of theirs.
    """

    @staticmethod
    def forward(ctx, x, norm, joined, a, b, eps: float, parts: int):
        """x (tokens, in), norm (in,), joined [W, B] (out, in + r), a (r, in), b (out, r) scaled
        -> parts of (tokens, out / parts)."""
        wide = x.float()
        rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        h = norm * (wide * rstd).to(x.dtype)  # (tokens, in)
        # x reaches 24,000 in some channels, which leaves float16 no room for x (A · diag(norm))ᵀ
        half = x.dtype == torch.float16
        t = F.linear(h, a) if half else (F.linear(x, a * norm).float() * rstd).to(x.dtype)  # (tokens, r)
        both = torch.cat((h, t), dim=1)
        ctx.save_for_backward(x, rstd, norm, joined, a, both)
        return tuple(F.linear(both, part) for part in joined.chunk(parts))

    @staticmethod
    def backward(ctx, *dys):
        x, rstd, norm, joined, a, both = ctx.saved_tensors
        width = x.shape[1]
        first, *more = ((dy @ part).float() for dy, part in zip(dys, joined.chunk(len(dys)), strict=True))
        d_both = sum(more, first)  # (tokens, in + r)
        d_t = d_both[:, width:].to(x.dtype)
        d_a, d_b = d_t.t() @ both[:, :width], torch.cat([dy.t() @ both[:, width:] for dy in dys])
        d_h = (d_both[:, :width] + (d_t @ a).float()) * norm.float()
        unit = x.float() * rstd
        d_x = (rstd * (d_h - unit * (d_h * unit).mean(-1, keepdim=True))).to(x.dtype)
        return d_x, None, None, d_a, d_b, None, None


def _linear(x: torch.Tensor, weight: torch.Tensor, lora: tuple):
    """weight is W without an adapter and [W; A] with one."""
    return F.linear(x, weight) if lora[0] is None else _Linear.apply(x, weight, *lora)


def _normed_linear(x, norm: torch.Tensor, weight: torch.Tensor, lora: tuple, eps: float, parts: int = 1):
    """weight is W without an adapter and [W, B] with one."""
    if lora[0] is None:
        return F.linear(rms_norm(x, norm, eps), weight).chunk(parts, dim=-1)
    return _NormedLinear.apply(x, norm, weight, *lora, eps, parts)


def layer(x, frozen, lora, cos, sin, tiles, shape: LayerShape, attend: Attend):
    """One layer on reviews laid end to end.

    Args:
        x: (tokens, hidden).
        frozen: two norms (hidden,), the bias behind q, k, v or None, and four weights, W (out, in) without an
            adapter, and with one [W, B] behind a norm, else [W; A].
        lora: four pairs of A and B, or of Nones.
        cos, sin, tiles: as attention takes them.
    Returns (tokens, hidden).
    """
    return _mlp(x, _attended(x, frozen, lora, cos, sin, tiles, shape, attend), frozen, lora, shape)


def last_layer(x, frozen, lora, cos, sin, tiles, shape: LayerShape, attend: Attend, rows: torch.Tensor):
    """The last layer: behind attention only `rows` (reviews,) go on."""
    attended = _attended(x, frozen, lora, cos, sin, tiles, shape, attend)
    return _mlp(x[rows], attended[rows], frozen, lora, shape)


def _attended(x, frozen, lora, cos, sin, tiles, shape: LayerShape, attend: Attend):
    norm, _, bias, w_qkv, *_ = frozen
    (qkv,) = _normed_linear(x, norm, w_qkv, lora[0], shape.eps)  # (tokens, (heads + 2 kv_heads) head_dim)
    qkv = qkv if bias is None else qkv + bias
    return attend(qkv, cos, sin, tiles, shape)  # (tokens, heads head_dim)


def _mlp(x, attended, frozen, lora, shape: LayerShape):
    _, norm, _, _, w_o, w_gate_up, w_down = frozen
    x = x + _linear(attended, w_o, lora[1])  # (tokens, hidden)
    gate, up = _normed_linear(x, norm, w_gate_up, lora[2], shape.eps, 2)  # each (tokens, inner)
    return x + _linear(F.silu(gate) * up, w_down, lora[3])
