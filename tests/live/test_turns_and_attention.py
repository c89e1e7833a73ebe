"""Blocks of attention equal attention; single answers go before batches and explanations."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F

from sentiment_core.live import forward, trace
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.live.forward import attend, attend_once
from sentiment_core.live.trace import Turns
from tests.live.test_classifier import cache, run  # noqa: F401 (fixtures)

LONG = "It drags, it shouts, it repeats itself; and yet the last scene moved me. " * 8


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
    torch.testing.assert_close(attend(q, k, v).double(), exact.transpose(1, 2), atol=atol, rtol=0)
    last = torch.tensor([length - 1, length // 2])
    once = attend_once(q[torch.arange(2), :, last], k, v, before + last)
    torch.testing.assert_close(once.double(), exact[torch.arange(2), :, last], atol=atol, rtol=0)


def test_gradients_pass_where_they_are_wanted() -> None:
    q, k, v = parts(forward.WHOLE + 9, 4, torch.float32)
    attend(q.requires_grad_(), k.requires_grad_(), v.requires_grad_()).square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (q, k, v))


@pytest.fixture(scope="module")
def classifier(run, tiny_model, cache) -> LiveClassifier:  # noqa: F811
    return LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")


@pytest.mark.parametrize("work", ["batch", "words"])
def test_longer_work_waits_while_somebody_wants_an_answer(classifier, work) -> None:
    done = threading.Event()

    def longer() -> None:
        if work == "batch":
            classifier.classify_many([LONG] * 3, "base")
        else:
            list(classifier.explain(LONG))
        done.set()

    worker = threading.Thread(target=longer)
    with classifier._turns.answer():
        worker.start()
        assert not done.wait(0.5)
    assert done.wait(60)
    worker.join()


def test_an_answer_that_fails_lets_the_others_go_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.answer():
        raise ZeroDivisionError
    turns.yield_to_interactive()
    with turns.answer():
        pass


def test_how_many_words_are_tried_depends_on_the_length_alone(classifier, monkeypatch) -> None:
    def tried() -> int:
        return len(list(classifier.explain(LONG))[-1].words)

    assert tried() == trace.CANDIDATES
    monkeypatch.setattr(trace, "TOKENS", 1)  # as if the review were very long
    assert tried() == trace.FEWEST
