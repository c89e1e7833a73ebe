"""What a record says of its surroundings."""

import subprocess
import sys

import numpy as np
import pytest

from sentiment_core.artifacts import provenance


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/me/train.py --dataset /data/imdb --exclude ../sets/pairs.parquet --limit 5",
         "python train.py --dataset imdb --exclude pairs.parquet --limit 5"),
        ("/home/me/x/sentiment_core/benchmarks/__main__.py live", "python -m sentiment_core.benchmarks live"),
    ],
)  # fmt: skip
def test_the_command_names_no_folder_of_this_machine(given, told, monkeypatch):
    monkeypatch.setattr(sys, "argv", given.split())
    assert provenance.command_line() == told


def test_the_commit_can_be_given(monkeypatch):
    monkeypatch.setenv("SENTIMENT_COMMIT", "abc")
    assert provenance.commit() == "abc"


def test_hardware_and_versions_are_named():
    assert provenance.hardware().device
    assert {"python", "torch", "transformers", "peft"} <= set(provenance.versions())


def test_the_peak_is_the_processs_own_and_not_of_what_started_it():
    held = np.ones(100_000_000)
    code = "from sentiment_core.artifacts import provenance; print(provenance.peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 1e7 < int(child.stdout) < held.nbytes < provenance.peak_memory()
