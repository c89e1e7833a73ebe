"""Where a run computes: one process alone, and the precisions that a CPU refuses."""

import pytest
import torch

from sentiment_core.config import ConfigError
from sentiment_core.engines.device import find_device


def test_a_process_alone_is_the_main_one_and_starts_no_group():
    context = find_device("bf16")
    assert (context.rank, context.world_size, context.is_main) == (0, 1, True)
    assert context.dtype == torch.bfloat16
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_half_precision_needs_a_gpu():
    assert find_device().device == torch.device("cpu")
    with pytest.raises(ConfigError, match="--precision fp16 needs a GPU"):
        find_device("fp16")
