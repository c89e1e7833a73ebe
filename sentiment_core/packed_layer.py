"""One Llama layer on reviews laid end to end: attention within each, products with the adapter's share."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def attend_each(q, k, v, boundaries, longest):
    """Reference for a CPU: one segment after the other. q (T, H, D), k and v (T, Hkv, D) -> (T, H, D)."""
    bounds = boundaries.tolist()
    out = []
    for start, end in itertools.pairwise(bounds):
        if end > start:
            part = (t[start:end].transpose(0, 1)[None] for t in (q, k, v))
            attended = F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)
            out.append(attended[0].transpose(0, 1))
    return torch.cat(out)


def varlen_attention() -> Callable:
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


# ---- parts of a layer


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


class _Linear(torch.autograd.Function):
    """A frozen product and its adapter's: y = x Wᵀ + (x Aᵀ) Bᵀ.

    Sums of two products are taken in float32, where compiling fuses them into what follows; in the compute
    type they would become a product that adds to a copy. Backward takes dy W and dy B in one product.
    """

    @staticmethod
    def forward(ctx, x, joined, a, b):
        """x (T, in), joined [W, B] (out, in + r), a (r, in), b (out, r) scaled -> (T, out)."""
        t = F.linear(x, a)
        ctx.save_for_backward(x, t, joined, a)
        return _add(F.linear(x, joined[:, : x.shape[1]]), F.linear(t, b))

    @staticmethod
    def backward(ctx, dy):
        x, t, joined, a = ctx.saved_tensors
        d_both = dy @ joined
        d_t = d_both[:, x.shape[1] :]
        return _add(d_both[:, : x.shape[1]], d_t @ a), None, d_t.t() @ x, dy.t() @ t


class _NormedLinear(torch.autograd.Function):
    """RMSNorm, then a frozen product and its adapter's as one: y = [h, h Aᵀ] · [W, B]ᵀ with h = norm(x).

    Written apart, the adapter's share is a second tensor as large as y, to be written, read and added.
    h Aᵀ comes from x, as rstd · x (A · diag(norm))ᵀ, so that h itself goes straight into [h, h Aᵀ].
    """

    @staticmethod
    def forward(ctx, x, norm, joined, a, b, eps: float):
        """x (T, in), norm (in,), joined [W, B] (out, in + r), a (r, in), b (out, r) scaled -> (T, out)."""
        wide = x.float()
        rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        h = norm * (wide * rstd).to(x.dtype)
        t = (F.linear(x, a * norm).float() * rstd).to(x.dtype)
        both = torch.cat((h, t), dim=1)
        ctx.save_for_backward(x, rstd, norm, joined, a, both)
        return F.linear(both, joined)

    @staticmethod
    def backward(ctx, dy):
        x, rstd, norm, joined, a, both = ctx.saved_tensors
        width = x.shape[1]
        d_both = dy @ joined
        d_t = d_both[:, width:]
        d_a, d_b = d_t.t() @ both[:, :width], dy.t() @ both[:, width:]
        d_h = (d_both[:, :width].float() + (d_t @ a).float()) * norm.float()
        unit = x.float() * rstd
        d_x = (rstd * (d_h - unit * (d_h * unit).mean(-1, keepdim=True))).to(x.dtype)
        return d_x, None, None, d_a, d_b, None


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.float() + y.float()).to(x.dtype)


def _linear(x: torch.Tensor, weight: torch.Tensor, lora: tuple):
    """weight is W without an adapter and [W, B] with one."""
    return F.linear(x, weight) if lora[0] is None else _Linear.apply(x, weight, *lora)


def _normed_linear(x: torch.Tensor, norm: torch.Tensor, weight: torch.Tensor, lora: tuple, eps: float):
    if lora[0] is None or x.dtype == torch.float16:
        # x reaches 24,000 in some channels, which leaves float16 no room for x (A · diag(norm))ᵀ
        return _linear(rms_norm(x, norm, eps), weight, lora)
    return _NormedLinear.apply(x, norm, weight, *lora, eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on x (T, H, D) with cos, sin (T, 1, D)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


@dataclass(frozen=True)
class LayerShape:
    """What the layer function needs to know beside tensors."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    longest: int


def layer(x, frozen, lora, cos, sin, boundaries, shape: LayerShape, attend: Callable):
    """One Llama layer on x (T, hidden). frozen: two norms, four weights; lora: four (A, B) pairs or Nones.

    With an adapter the four weights are [W, B] each.
    """
    norm1, norm2, w_qkv, w_o, w_gate_up, w_down = frozen
    widths = [shape.heads * shape.head_dim] + [shape.kv_heads * shape.head_dim] * 2
    q, k, v = _normed_linear(x, norm1, w_qkv, lora[0], shape.eps).split(widths, dim=-1)
    q = rotate(q.unflatten(-1, (shape.heads, shape.head_dim)), cos, sin)
    k = rotate(k.unflatten(-1, (shape.kv_heads, shape.head_dim)), cos, sin)
    v = v.unflatten(-1, (shape.kv_heads, shape.head_dim)).contiguous()
    attended = attend(q, k, v, boundaries, shape.longest).flatten(1)
    x = x + _linear(attended, w_o, lora[1])
    gate, up = _normed_linear(x, norm2, w_gate_up, lora[2], shape.eps).chunk(2, dim=-1)
    return x + _linear(F.silu(gate) * up, w_down, lora[3])
