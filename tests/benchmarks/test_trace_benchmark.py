"""The benchmark of the reading trace: what it computes, on the tiny model and on numbers made by hand."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from sentiment_core.artifacts import report
from sentiment_core.artifacts.store import ArtifactError, read_benchmark
from sentiment_core.benchmarks import __main__ as benchmark
from sentiment_core.benchmarks import measure, trace
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.live.transformers import LiveTransformers
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from tests.live.test_classifier import run  # noqa: F401 (a fixture)
from tests.own_reviews import write_dataset

TEXT = "A cold, dull film; but the acting was superb. Yes! Go and see it."


@pytest.fixture
def scorer(run, tiny_model):  # noqa: F811
    loaded = load_base(resolve(str(tiny_model)))
    return SentimentScorer(loaded, load_adapter(loaded.model, run.adapter_path), engine="padded")


def live(scorer) -> LiveTransformers:
    return LiveTransformers(scorer.loaded, scorer.model, 1.0)


def test_clauses_are_left_out_of_the_review(scorer):
    """The first numbers are the trace, the others what is left without each row."""
    encoder = scorer.loaded.encoder
    [(ids, bounds)] = trace.clauses_of([TEXT, "Short."], encoder, 256)
    decode = encoder.tokenizer.decode
    rows = [decode(ids[start:end]) for start, end in pairwise(bounds)]
    assert "".join(rows) == TEXT
    texts = ["".join(rows[: i + 1]) for i in range(len(rows))]
    texts += ["".join(rows[:i] + rows[i + 1 :]) for i in range(len(rows))]
    p = expit(np.concatenate(trace.answers_of(live(scorer), encoder, ids, bounds)))
    np.testing.assert_allclose(p, scorer(texts, 256), atol=1e-5)


def test_gradient_times_input_is_what_a_small_step_of_the_input_does(scorer):
    encoder = scorer.loaded.encoder
    [(ids, bounds)] = trace.clauses_of([TEXT], encoder, 256)
    saliency = trace.clause_saliency(scorer.model, encoder, ids, bounds)
    start, moved = len(encoder.prefix_ids), []
    for step in (0.01, -0.01):

        def scaled(module, inputs, output, step=step):
            output = output.clone()
            output[:, start + bounds[1] : start + bounds[2]] *= 1 + step
            return output

        hook = scorer.loaded.model.get_input_embeddings().register_forward_hook(scaled)
        moved.append(trace.answers_of(live(scorer), encoder, ids, [0, len(ids)])[0][0])
        hook.remove()
    assert saliency.shape == (len(bounds) - 1,)
    assert saliency[1] == pytest.approx((moved[0] - moved[1]) / 0.02, rel=0.05, abs=1e-3)


def test_choices_and_their_changes():
    after, without = [0.0, 3.0, 3.5], [3.4, 1.5, 4.5]  # changes .1, 2, 1; moves from .5 to .95 to .97
    found = trace.compared(*map(np.array, (after, without, [0.1, 0.2, -0.3])))
    assert found == pytest.approx({
        "largest move": 2.0, "random clause": 3.1 / 3, "gradient × input": 1.0, "best single clause": 2.0,
        "largest move minus random clause": 2.9 / 3,
    })  # fmt: skip


def test_it_runs_and_its_result_is_one_sentence(run, tiny_model, tmp_path, monkeypatch, capsys):  # noqa: F811
    data = write_dataset(tmp_path / "own", train=40, test=40)
    monkeypatch.setattr(measure, "ASSETS", run.path.parent.parent)
    output = tmp_path / "benchmarks" / "trace.json"
    flags = ["--run=tiny", f"--base-model={tiny_model}", f"--dataset={data}", f"--output={output}"]
    with pytest.raises(ArtifactError, match="is not there; make it with"):
        report.trace_sentence(tmp_path)
    assert benchmark.main(["trace", *flags, "--reviews", "4"]) == 0
    changes = [row.log_odds_change for row in read_benchmark("trace", tmp_path).rows]
    assert all(m.low <= m.value <= m.high and m.n == 4 for m in changes)
    assert changes[3].value == max(m.value for m in changes)
    assert f"{changes[0].value:.2f}" in report.trace_sentence(tmp_path)
    assert "n = 4 test reviews" in report.trace_sentence(tmp_path)
    assert "largest move minus random clause" in capsys.readouterr().out
    assert benchmark.main(["trace", *flags, "--reviews", "400"]) == 2
    assert "--reviews is 400" in capsys.readouterr().err
