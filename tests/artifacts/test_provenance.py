"""What a record says of its surroundings."""

from __future__ import annotations

import sys

from sentiment_core.artifacts import provenance


def test_the_command_names_no_folder_of_this_machine(monkeypatch):
    given = "/home/me/train.py --dataset /data/imdb --exclude ../sets/pairs.parquet --limit 5"
    monkeypatch.setattr(sys, "argv", given.split())
    expected = "python train.py --dataset imdb --exclude pairs.parquet --limit 5"
    assert provenance.command_line() == expected


def test_a_module_is_named_as_one_calls_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/x/sentiment_core/benchmarks/__main__.py", "live"])
    assert provenance.command_line() == "python -m sentiment_core.benchmarks live"


def test_the_commit_can_be_given(monkeypatch):
    monkeypatch.setenv("SENTIMENT_COMMIT", "abc")
    assert provenance.commit() == "abc"


def test_hardware_and_versions_are_named():
    assert provenance.hardware().device
    assert {"python", "torch", "transformers", "peft"} <= set(provenance.versions())
