"""The loss is the label word's for a label, and the distance from the teacher for what a teacher says."""

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, kl_divergence

from sentiment_core.engines.loss import label_loss

IDS = torch.tensor([5, 2])


def loss_of(logits: torch.Tensor, targets: list[float], temperature: float) -> torch.Tensor:
    return label_loss(logits, IDS, torch.tensor(targets), torch.full((len(targets),), temperature))


def test_a_labels_loss_is_its_words_negative_log_likelihood() -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = [0, 1, 1, 0, 1, 0]
    expected = F.cross_entropy(logits, IDS[labels], reduction="none")
    found = loss_of(logits, [float(label) for label in labels], 1.0)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), logits)[0])


def test_a_soft_targets_loss_is_least_where_the_student_says_the_same() -> None:
    log_odds, temperature = torch.linspace(-3, 3, 7), 2.0
    targets = log_odds.sigmoid().tolist()
    pair = torch.stack((torch.zeros(7), log_odds), dim=1)  # of words 5 and 2
    logits = torch.full((7, 9), -40.0).index_copy(1, IDS, pair)
    torch.testing.assert_close(loss_of(logits, targets, temperature), torch.zeros(7), atol=1e-5, rtol=0)
    for step in (-0.3, 0.3):
        moved = logits.index_copy(1, IDS, pair + torch.tensor([0.0, step]))
        assert (loss_of(moved, targets, temperature) > 1e-4).all()
        said, wanted = (Bernoulli(logits=odds / temperature) for odds in (log_odds + step, log_odds))
        expected = temperature**2 * kl_divergence(wanted, said)
        torch.testing.assert_close(loss_of(moved, targets, temperature), expected, atol=1e-5, rtol=1e-4)
    rest = logits.clone()
    rest[:, 0] = 5.0
    assert (loss_of(rest, targets, temperature) > 1).all(), "another word would come"
