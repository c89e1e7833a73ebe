"""The tile kernels give what the reference gives; run by test_attention_kernels in a process of their own."""

import numpy as np
import pytest
import torch

from sentiment_core.engines.packed.attention import attend_each, attend_tiles
from sentiment_core.engines.packed.layer import last_layer, layer
from sentiment_core.engines.packed.layout import LayerShape, tiles_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PADDING = 70
TOLERANCE = {"atol": 2e-2, "rtol": 2e-2} if DEVICE == "cuda" else {"atol": 1e-3, "rtol": 1e-3}  # TF32 there


def pack(prefix: int, lengths: list[int], shape: LayerShape):
    """Random qkv of reviews with these lengths behind a prefix, and the tiles and angles of their rows."""
    segments, row = ([(0, prefix, 0)] if prefix else []), prefix
    for length in lengths:
        segments.append((row, row + length, prefix))
        row += length
    segments.append((row, row + PADDING, -1))
    total = row + PADDING
    positions = torch.zeros(total)
    for start, end, offset in segments:
        positions[start:end] = torch.arange(end - start) + max(offset, 0)
    dim = shape.head_dim
    angles = positions[:, None] * (1 / 10_000 ** (torch.arange(0, dim, 2) / dim))
    cos, sin = (torch.cat((f(angles),) * 2, dim=-1).to(DEVICE) for f in (torch.cos, torch.sin))

    tiles = torch.from_numpy(tiles_of(np.array(segments), total // 64 + len(lengths) + 2)).to(DEVICE)
    torch.manual_seed(prefix)
    qkv = torch.randn(total, (shape.heads + 2 * shape.kv_heads) * dim, device=DEVICE)
    return qkv, cos, sin, tiles


@pytest.mark.parametrize(("prefix", "heads"), [(0, 4), (70, 4), (70, 6)])
def test_kernels_equal_the_reference_in_values_and_gradients(prefix, heads):
    """Reviews shorter than, as long as, and longer than a tile; query heads that share keys, two or three."""
    shape = LayerShape(heads=heads, kv_heads=2, head_dim=16, eps=1e-5, prefix=prefix)
    qkv, cos, sin, tiles = pack(prefix, [70, 3, 64, 1], shape)
    d_out = torch.randn(len(qkv), shape.heads * shape.head_dim, device=DEVICE)
    results = []
    for attend in (attend_each, attend_tiles):
        x = qkv.clone().requires_grad_()
        out = attend(x, cos, sin, tiles, shape)
        out.backward(d_out)
        results.append((out.detach(), x.grad))
    tolerance = {"atol": 2e-5, "rtol": 1e-4} if DEVICE == "cpu" else TOLERANCE
    torch.testing.assert_close(results[1], results[0], **tolerance)


def test_rows_that_hold_nothing_are_zero_and_get_no_gradient():
    shape = LayerShape(heads=2, kv_heads=1, head_dim=32, eps=1e-5, prefix=9)
    qkv, cos, sin, tiles = pack(9, [40, 80], shape)
    x = qkv.requires_grad_()
    out = attend_tiles(x, cos, sin, tiles, shape)
    out.sum().backward()
    assert not out[-PADDING:].any()
    assert not x.grad[-PADDING:].any()
    assert x.grad[:-PADDING].any(dim=1).all()


def test_a_compiled_layer_gives_what_the_layer_gives():
    """In one graph, forward and backward, for all rows and for the labels' rows alone."""
    shape = LayerShape(heads=2, kv_heads=1, head_dim=32, eps=1e-5, prefix=20)
    qkv, cos, sin, tiles = pack(20, [70, 3], shape)
    torch.manual_seed(0)
    width, inner, rank = 64, 96, 4
    sizes = [(width, 2 * width), (width, width), (width, 2 * inner), (inner, width)]
    lora = [(torch.randn(rank, i) * 0.1, torch.randn(o, rank) * 0.1) for i, o in sizes]
    weights = [
        torch.cat((torch.randn(o, i) * i**-0.5, b if behind_norm else a), dim=1 if behind_norm else 0)
        for (i, o), (a, b), behind_norm in zip(sizes, lora, (True, False) * 2, strict=True)
    ]
    frozen: list = [t.to(DEVICE) for t in (torch.ones(width), torch.ones(width), *weights)]
    frozen.insert(2, None)  # no bias
    x = torch.randn(len(qkv), width)

    def results(function, attend, *rows):
        leaves = [t.clone().to(DEVICE).requires_grad_() for t in (x, *(t for pair in lora for t in pair))]
        pairs = tuple(zip(leaves[1::2], leaves[2::2], strict=True))
        out = function(leaves[0], tuple(frozen), pairs, cos, sin, tiles, shape, attend, *rows)
        (out * torch.linspace(0, 1, out.numel(), device=DEVICE).view_as(out)).sum().backward()
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    some = torch.tensor([89, 92, 0], device=DEVICE)
    for function, rows in ((layer, ()), (last_layer, (some,))):
        compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")
        wanted = results(function, attend_each, *rows)
        torch.testing.assert_close(results(compiled, attend_tiles, *rows), wanted, **TOLERANCE)
