"""The live benchmark runs on the tiny model and leaves a record that the one reader takes."""

from itertools import pairwise
from types import SimpleNamespace

import gguf
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sentiment_core.artifacts import report
from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.artifacts.store import Run, read_record, write_record
from sentiment_core.benchmarks import __main__ as benchmark
from sentiment_core.benchmarks import live
from sentiment_core.benchmarks.live import review_texts
from sentiment_core.dashboard.tabs import method
from sentiment_core.data.reviews import load_reviews
from sentiment_core.engines.scorer import SentimentScorer, log_odds
from sentiment_core.live.number_format import processor_has
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_merged
from tests import own_reviews
from tests.dashboard.test_tabs import context_of
from tests.fake_artifacts import RUN, write_assets
from tests.live.test_classifier import make_run
from tests.own_reviews import write_dataset


def tiny_encoder(folder):
    config = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "[PAD]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)


def test_an_encoders_answer_depends_on_at_most_512_tokens_of_any_length(tmp_path, monkeypatch, tiny_model):
    tiny_encoder(tmp_path / "enc")
    monkeypatch.chdir(tmp_path)
    answer = live.load_onnx("enc", 8, "", str(tiny_model), str(tmp_path))
    texts = "bad good", "bad " * 511 + "good", "bad " * 512 + "good", "bad " * 512
    short, whole, longer, cut = (next(iter(answer(text))).p_positive for text in texts)
    assert abs(short - whole) > 1e-4
    assert longer == cut


def test_the_merged_models_graph_answers_as_the_model_does_within_rounding(tiny_model, tmp_path, monkeypatch):
    run, base = make_run(tmp_path, tiny_model), resolve(str(tiny_model))
    monkeypatch.setattr(live, "finished", lambda *names: (run, base))
    loaded = load_merged(base, run.adapter_path)
    texts = own_reviews.frame(8, seed=1)["text"]
    told = SentimentScorer(loaded, engine="padded").log_likelihoods(loaded.encoder.encode(texts, 1024))
    expected = expit(log_odds(told) / run.record.temperature)
    answer = live.load_onnx("", 8, "tiny", "", str(tmp_path))
    found = np.array([next(iter(answer(text))).p_positive for text in texts])
    assert np.abs(found - expected).max() < 0.03
    assert np.corrcoef(found, expected)[0, 1] > 0.9


def test_a_gguf_in_bfloat16_has_the_same_values(tmp_path):
    values = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_uint32("llama.block_count", 1)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("matrix", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("vector", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf.GGUFReader(live._unpacked(tmp_path / "base.gguf", tmp_path / "bf16.gguf"))
    assert found.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert found.fields["llama.block_count"].contents() == 1
    matrix, vector = found.tensors
    assert matrix.tensor_type == gguf.GGMLQuantizationType.BF16
    before = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    assert gguf.quants.dequantize(matrix.data, matrix.tensor_type) == pytest.approx(before, rel=2**-8)
    assert (vector.data == values[0]).all()


@pytest.mark.slow
def test_live_benchmark_on_the_tiny_model(tiny_model, tmp_path, capsys, monkeypatch):
    tiny_encoder(tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "live.json"
    flags = ["live", "--quick", "--base-model", str(tiny_model), "--words", "30", "--output", str(output)]
    assert benchmark.main(flags) == 0
    record = read_record(output, BenchmarkRecord, "")
    assert record.kind == "live"
    assert ("avx2" in record.settings["instructions"]) == processor_has("avx2")
    ours, others, traced, long = (record.rows[i:j] for i, j in pairwise((0, 3, 9, 12, 16)))
    assert [row.system for row in ours] == ["ours, bf16", "ours, int8", "ours, fp32"]
    *others, encoder, absent = others
    assert [row.note for row in others] == [
        *["not measured: tiny-llama does not come as a GGUF"] * 2,
        *["not measured: without --run there is no adapter to merge"] * 2,
    ]
    assert (encoder.system, encoder.note) == ("ONNX Runtime, all-MiniLM-L6-v2, int8", live.HEADLESS)
    assert "all-mpnet-base-v2' is neither in the cache nor can it be fetched" in absent.note
    for answer, both in zip(ours, traced, strict=True):
        assert both.system == f"{answer.system}, answer and trace"
        assert both.seconds_per_review.value > answer.seconds_per_review.value
    assert [row.system.rpartition(", ")[2] for row in long] == [
        "long reviews: first answer",
        "long reviews: whole answer",
    ] * 2
    assert long[0].seconds_per_review.value <= long[1].seconds_per_review.value
    assert all(row.seconds_per_review.value > 0 for row in record.rows if row not in (*others, absent))
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


def test_a_number_format_is_held_against_the_stored_predictions_and_says_so(tmp_path, monkeypatch):
    """One of 20 labels is another; the page and the docs state it from the record alone."""
    data = str(write_dataset(tmp_path / "own", train=40, test=20))
    reviews, root = load_reviews(data, "test"), tmp_path / "assets"
    its = SimpleNamespace(system="fine-tuned", run_id="tiny", dataset=SimpleNamespace(name=reviews.name))
    stored = pd.DataFrame({"review_id": reviews.ids, "p_positive": 0.9})
    listed = SimpleNamespace(evals=[SimpleNamespace(record=its, predictions=lambda: stored)])
    monkeypatch.setattr(live, "list_artifacts", lambda _: listed)

    def answer(text):
        yield SimpleNamespace(p_positive=0.5, read=0.4)
        yield SimpleNamespace(p_positive=0.1 if text == reviews.texts[3] else 0.9, read=1)

    fields = live.agreement(Run(root / "runs" / "tiny", None), data, {"ours, int8": answer}, 20)["ours, int8"]
    took = Metric(value=0.2, low=0.1, high=0.3, n=5, higher_is_better=False)
    rows = (
        BenchmarkRow(system="ours, int8", seconds_per_review=took, **fields),
        BenchmarkRow(system="a peer", note="not measured: it is not here"),
    )
    write_assets(root)
    about = report.store.read_run(root / "runs" / RUN).record
    write_record(root / "benchmarks" / "live.json", BenchmarkRecord(
        kind="live", created_at=about.created_at, command="x", base_model="tiny", hardware=about.hardware,
        versions={}, settings={"words": 200}, rows=rows,
    ))  # fmt: skip
    context = context_of(root)
    page, docs = str(method.method_html(context, context.store.run(RUN))), report.speed_table(root)
    assert "19 of 20 labels as stored, mean |Δp| 0.0400" in page
    assert "19 of 20 labels as stored, mean \\|Δp\\| 0.0400" in docs
    assert "| a peer | – |" in docs
    assert "not measured: it is not here" in page


def test_sentences_on_pairs_and_confidence_are_computed_from_predictions():
    frame = pd.DataFrame({
        "pair_id": [*"aabbcc"], "version": ["original", "edited"] * 3, "label": [1, 0] * 3,
        "prediction": [1, 0, 1, 1, 1, 1], "p_positive": [0.999, 0.01, 0.8, 0.995, 0.9, 0.6],
    })  # fmt: skip
    compared, sure = method.pairs_compared(frame), method.overconfidence(frame)
    assert (compared.n, compared.broken, compared.fixed) == (3, 2, 0)
    assert compared.mcnemar_p == 0.5
    assert (sure["errors"], sure["accuracy"]) == (1, pytest.approx(4 / 6))
    assert sure["mean"] == pytest.approx((0.999 + 0.99 + 0.8 + 0.995 + 0.9 + 0.6) / 6)
