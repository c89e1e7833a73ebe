"""The vocabulary head in float32, and the loss on it: the label word's negative log-likelihood, of a label or of
what a teacher says.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.special import entr


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Let the vocabulary head work in float32: logits of 20 in bfloat16 come in steps of 0.125."""

    def widely(module, inputs, output):
        bias = None if module.bias is None else module.bias.float()
        with torch.autocast(inputs[0].device.type, enabled=False):
            return F.linear(inputs[0].float(), module.weight.float(), bias)

    head = model.get_output_embeddings()
    with head.register_forward_hook(widely) if isinstance(head, nn.Linear) else nullcontext():
        yield


def label_loss(
    logits: torch.Tensor, label_ids: torch.Tensor, targets: torch.Tensor, temperatures: torch.Tensor
) -> torch.Tensor:
    """Each review's loss: that one of the two label words comes, and which of them.

    The second part is T² times the divergence, at temperature T, of the answer from the target (Hinton et al.
    2015, arXiv 1503.02531). With a label as the target and T = 1 both together are its word's negative
    log-likelihood over the whole vocabulary.

    Args:
        logits: (reviews, vocabulary) float32.
        label_ids: (2,) the label words' tokens, negative first.
        targets: (reviews,) P(positive) at temperature 1; 0 or 1 for a label.
        temperatures: (reviews,) of each target.
    Returns (reviews,) float32.
    """
    pair = logits.index_select(1, label_ids)  # (reviews, 2)
    either = logits.logsumexp(-1) - pair.logsumexp(-1)
    soft = (targets.logit() / temperatures).sigmoid()
    margin = (pair[:, 1] - pair[:, 0]) / temperatures
    which = F.binary_cross_entropy_with_logits(margin, soft, reduction="none")
    return either + temperatures**2 * (which - entr(soft) - entr(1 - soft))
