"""What an adapter answers in its other forms, measured on the tiny model and told where people look."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import eval as cli
from sentiment_core.artifacts.report import export_rows
from sentiment_core.artifacts.schema import BenchmarkRecord
from sentiment_core.artifacts.store import read_record
from sentiment_core.benchmarks import export
from sentiment_core.dashboard.tabs.method import method_html
from sentiment_core.models import loading
from sentiment_core.models.base_models import BaseModelError
from sentiment_core.publishing.card import card_of
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import write_small_files
from tests.live.test_classifier import make_run
from tests.own_reviews import write_dataset


@pytest.mark.slow
def test_every_form_is_held_against_the_model_as_evaluated(tiny_model, tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path, tiny_model)
    dataset = write_dataset(tmp_path / "own", train=40, test=40)
    plain = loading.load_base

    def unrounded_is_not_at_hand(base, *, rounded=True, **how):
        if not rounded:
            raise BaseModelError("no network")
        return plain(base, **how)

    monkeypatch.setattr(loading, "load_base", unrounded_is_not_at_hand)
    monkeypatch.setattr(export, "NUMBER_FORMATS", ("int8",))
    flags = [
        "--check-export",
        str(run.path),
        f"--dataset={dataset}",
        f"--base-model={tiny_model}",
        "--limit=30",
    ]
    assert cli.main([*flags, "--assets", str(tmp_path)]) == 0
    assert "Left out: plain PEFT on the base, not rounded, fp32 (no network)" in capsys.readouterr().err
    first, *others = read_record(tmp_path / "benchmarks" / "export.json", BenchmarkRecord, "").rows
    assert (first.flipped, first.mean_change, first.accuracy.n) == (0, 0, 30)
    assert [row.system for row in others] == [
        "plain PEFT on the NF4 values, fp32", "merged into the NF4 values, bf16",
        "live, int8, CPU",
    ]  # fmt: skip
    changes = {row.system: row.mean_change for row in others}
    assert 1e-4 < changes["live, int8, CPU"] < 0.02
    assert all(row.mean_change <= row.largest_change < 0.2 for row in others)

    rows = export_rows(run, tmp_path)
    assert [row[0] for row in rows[1:]] == [first.system, *changes]
    for row in rows:
        assert f"| {' | '.join(row)} |".replace("|Δp|", "Δp") in card_of(run, tmp_path).text
    write_small_files(tmp_path)
    page = method_html(context_of(tmp_path), run)
    assert all(f"<td>{cell}</td>" in page for cell in rows[-1][1:])
    weights = run.adapter_path / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    assert export_rows(run, tmp_path) == [], "another adapter's"
    weights.write_bytes(b"no weights")
    assert export_rows(run, tmp_path) == [], "a damaged one takes no page down"


def test_a_form_is_compared_on_the_reviews_it_was_asked_about():
    p = np.array([0.9, np.nan, 0.4, 0.8])
    row = export.row_of("half", p, np.array([0.8, 0.1, 0.6, 0.8]), np.array([1, 1, 1, 0]))
    assert (row.accuracy.value, row.accuracy.n, row.flipped) == (pytest.approx(1 / 3), 3, 1)
    assert (row.mean_change, row.largest_change) == (pytest.approx(0.1), pytest.approx(0.2))
