"""Blocks of attention equal attention, and stretches cover their prompt."""

import pytest
import torch
import torch.nn.functional as F

from sentiment_core.live.forward import _equal_work, attend, causal


def parts(length: int, before: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((2, 6, length, 16), (2, 2, before + length, 16), (2, 2, before + length, 16))
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("length", "before"), [(1, 5), (7, 0), (129, 28), (300, 0), (300, 171)])
def test_blocks_are_attention(length, before, dtype, atol) -> None:
    q, k, v = parts(length, before, dtype)
    mask = torch.ones(length, before + length, dtype=torch.bool).tril(before)
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(
        attend(q, k, v, causal(q.shape[2], k.shape[2], q)).double(), exact.transpose(1, 2), atol=atol, rtol=0
    )
    last = torch.tensor([length - 1, length // 2])
    seen = torch.arange(before + length) <= before + last[:, None]
    whole = [(slice(None), None, seen[:, None, None])]
    once = attend(q[torch.arange(2), :, last, None], k, v, whole)[:, 0]
    torch.testing.assert_close(once.double(), exact[torch.arange(2), :, last], atol=atol, rtol=0)


@pytest.mark.parametrize("cores", range(2, 9))
def test_stretches_end_where_their_prompt_does(cores) -> None:
    for length in range(48 * cores, 1_100):
        cuts = _equal_work(length, cores, behind=28)
        assert (cuts[0], cuts[-1], cuts) == (0, length, sorted(set(cuts)))
