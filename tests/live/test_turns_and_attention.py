"""Blocks of attention equal attention; single answers go before batches and traces."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F

from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.live.forward import attend
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
    seen = torch.arange(before + length) <= before + last[:, None]
    once = attend(q[torch.arange(2), :, last, None], k, v, seen[:, None, None])[:, 0]
    torch.testing.assert_close(once.double(), exact[torch.arange(2), :, last], atol=atol, rtol=0)


@pytest.mark.parametrize("length", [9, 300])
def test_a_mask_says_what_is_seen(length) -> None:
    """Also by several tokens of one row, as the last layer of a trace asks."""
    q, k, v = (t[:1] for t in parts(length, 30, torch.float32))
    mask = torch.rand(length, 30 + length, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 0] = True
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=mask, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(attend(q, k, v, mask).double(), exact, atol=1e-5, rtol=0)
    last = torch.tensor([2, length // 2, length - 1])
    once = attend(q[0, :, last].transpose(0, 1)[:, :, None], k, v, mask[last][:, None, None])[:, 0]
    torch.testing.assert_close(once.double(), exact[0, last], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def classifier(run, tiny_model, cache) -> LiveClassifier:  # noqa: F811
    return LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")


def test_a_batch_waits_while_somebody_wants_an_answer(classifier) -> None:
    done = threading.Event()

    def longer() -> None:
        classifier.classify_many([LONG] * 3, "base")
        done.set()

    worker = threading.Thread(target=longer)
    with classifier._turns.answer():
        worker.start()
        assert not done.wait(0.5)
    assert done.wait(60)
    worker.join()


def test_a_batch_yields_before_every_layer_and_reading_takes_turns(classifier, monkeypatch) -> None:
    calls: list[str] = []
    turns = classifier._turns
    answer = turns.answer
    monkeypatch.setattr(turns, "yield_to_interactive", lambda *_: calls.append("yield"))
    monkeypatch.setattr(turns, "answer", lambda: (calls.append("answer"), answer())[1])
    classifier.classify_many([LONG] * 3, "base")
    assert set(calls) == {"yield"}
    calls.clear()
    list(classifier.read(LONG, "base"))
    assert calls == ["answer", "answer"], "the answer, then the trace"


def test_nobody_waits_for_a_trace_that_nobody_reads_on(classifier) -> None:
    reading = classifier.read(LONG, "base")
    next(reading)
    assert classifier.classify("Fine.", "base").read == 1
    classifier._turns.yield_to_interactive()
    assert len(list(reading)) == 1


def test_an_answer_that_fails_lets_the_others_go_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.answer():
        raise ZeroDivisionError
    turns.yield_to_interactive()
    with turns.answer():
        pass
