"""What a record says of its surroundings."""

from __future__ import annotations

import sys

from sentiment_core import environment


def test_the_command_names_no_folder_of_this_machine(monkeypatch):
    given = [
        "/home/me/train.py",
        "--dataset",
        "/data/imdb",
        "--exclude",
        "../sets/pairs.parquet",
        "--limit",
        "5",
    ]
    monkeypatch.setattr(sys, "argv", given)
    expected = "python train.py --dataset imdb --exclude pairs.parquet --limit 5"
    assert environment.command_line() == expected


def test_the_commit_can_be_given(monkeypatch):
    monkeypatch.setenv("SENTIMENT_COMMIT", "abc")
    assert environment.commit() == "abc"


def test_hardware_and_versions_are_named():
    assert environment.hardware().device
    assert {"python", "torch", "transformers", "peft"} <= set(environment.versions())
