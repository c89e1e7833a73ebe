"""The loss: the label word's negative log-likelihood, of a label or of what a teacher says."""

import torch
import torch.nn.functional as F
from torch.special import entr


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
