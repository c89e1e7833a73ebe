"""Which number format a model is served in, and what a measurement of this processor decides."""

import pytest

from sentiment_core.live import number_format
from sentiment_core.live.number_format import best, choose_number_format
from sentiment_core.models import base_models


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 3.0, 0.6), "int8"),
        ((1.0, 3.0, 0.9), "fp32"),  # not worth the rounding
        ((1.0, 0.4, 0.3), "int8"),
        ((1.0, 0.4, 0.38), "bf16"),
        ((1.0, 0.9, 0.84), "int8"),
    ],
)
def test_a_rounder_format_is_served_where_it_is_clearly_faster(seconds, chosen):
    assert best(dict(zip(("fp32", "bf16", "int8"), seconds, strict=True))) == chosen


def test_this_processor_is_measured_once_and_again_where_that_is_damaged(monkeypatch, tmp_path):
    monkeypatch.setattr(base_models, "CACHE", tmp_path)
    first = choose_number_format(None, cuda=False)
    [kept] = tmp_path.rglob("*.json")
    monkeypatch.setattr(number_format, "seconds", lambda name: {"bf16": 1.0, "int8": 9.0, "fp32": 9.0}[name])
    assert choose_number_format(None, cuda=False) == first
    kept.write_text('{"fp32": ')
    assert choose_number_format(None, cuda=False) == "bf16"
    assert choose_number_format("fp32", cuda=False) == "fp32", "what is asked for is not measured"
