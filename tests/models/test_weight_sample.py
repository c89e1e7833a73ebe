"""The matrix that Method draws: whole, and rounded as bitsandbytes rounds it."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from sentiment_core.models.base_models import resolve
from sentiment_core.models.weight_sample import BLOCK, count_weights, sample_weights


def test_every_weight_of_a_matrix_that_is_there_is_counted_and_each_block_reaches_an_end(tiny_model):
    sample = sample_weights(resolve(str(tiny_model)), ["down_proj", "q_proj"])
    assert (sample.matrix, sample.shape) == ("model.layers.1.self_attn.q_proj", (64, 64))
    assert sum(sample.counts) == 64 * 64
    assert sample.counts[0] + sample.counts[-1] >= 64 * 64 / BLOCK
    assert len(sample.levels) == 16
    base = resolve(str(tiny_model))
    assert sample_weights(base, ["down_proj"]).shape == (64, 128)
    assert sample_weights(base, ["c_attn"]) is None


def test_the_error_is_that_of_bitsandbytes():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    sample = count_weights("w", weight)
    back = dequantize_4bit(*quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4"))
    assert sample.error == pytest.approx(float((back - weight).norm() / weight.norm()), rel=1e-4)
    assert sample.error < sample.even_error
    assert count_weights("zero", torch.zeros(2, BLOCK)).error == 0
