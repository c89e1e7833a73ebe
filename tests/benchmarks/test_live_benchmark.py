"""The live benchmark runs on the tiny model and leaves a record that the one reader takes."""

import pytest

from sentiment_core.artifacts.schema import BenchmarkRecord
from sentiment_core.artifacts.store import read_record
from sentiment_core.benchmarks import __main__ as benchmark
from sentiment_core.benchmarks.live import review_texts


@pytest.mark.slow
def test_live_benchmark_on_the_tiny_model(tiny_model, tmp_path, capsys):
    output = tmp_path / "live.json"
    flags = ["live", "--quick", "--base-model", str(tiny_model), "--words", "30", "--output", str(output)]
    assert benchmark.main(flags) == 0
    record = read_record(output, BenchmarkRecord, "")
    assert record.kind == "live"
    ours, peers, long = record.rows[:3], record.rows[3:5], record.rows[5:]
    assert [row.system for row in ours] == ["ours, bf16", "ours, int8", "ours, fp32"]
    assert all("DistilBERT" in row.system for row in peers)
    assert [row.system.rpartition(", ")[2] for row in long] == [
        "long reviews: first answer",
        "long reviews: whole answer",
    ] * 2
    assert long[0].seconds_per_review.value <= long[1].seconds_per_review.value
    assert all(row.seconds_per_review.value > 0 for row in record.rows)
    assert record.rows[0].first_step_seconds > 0
    assert record.rows[0].peak_memory_bytes > 1e6
    shown = capsys.readouterr().out
    assert all(row.system in shown for row in record.rows)


def test_reviews_have_the_length_asked_for():
    texts = review_texts("", 200, 5)
    assert len(set(texts)) == 5
    assert {len(text.split()) for text in texts} == {200}


def test_a_run_that_is_not_there_is_a_sentence(capsys):
    assert benchmark.main(["live", "--quick", "--run", "no-such-run"]) == 2
    assert "no-such-run" in capsys.readouterr().err
