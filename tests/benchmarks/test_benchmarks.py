"""The training and scoring benchmarks run on the tiny model (that they work, not how fast)."""

import argparse
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from sentiment_core.artifacts.schema import BenchmarkRecord
from sentiment_core.artifacts.store import read_record
from sentiment_core.benchmarks import __main__ as benchmark
from sentiment_core.benchmarks import score
from sentiment_core.benchmarks import train as benchmark_train
from sentiment_core.data.reviews import load_reviews
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_tokenizer
from sentiment_core.models.tokens import PromptEncoder
from tests.own_reviews import write_dataset


@pytest.fixture(scope="module")
def common(tiny_model, tmp_path_factory):
    dataset = write_dataset(tmp_path_factory.mktemp("reviews"), train=160, test=40)
    return ["--dataset", str(dataset), "--base-model", str(tiny_model)]


def rows(path):
    """Those that were measured, and the notes of the others by system."""
    record = read_record(path, BenchmarkRecord, "")
    assert record.hardware.device
    assert record.versions["torch"]
    measured = [row for row in record.rows if not row.note.startswith("not measured: ")]
    for row in measured:
        rate = row.reviews_per_second
        assert 0 < rate.low <= rate.value <= rate.high
        assert row.first_step_seconds > 0
    return measured, {row.system: row.note for row in record.rows if row not in measured}


def sft_config(*, padding_free, max_length, **settings):
    assert padding_free
    assert max_length is None
    return transformers.TrainingArguments(**settings, logging_steps=1, remove_unused_columns=False)


class SFTTrainer(transformers.Trainer):
    """TRL's, as it lays reviews end to end: of where they end it tells their places alone."""

    def __init__(self, model, args, *, train_dataset, processing_class):
        super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=self.laid)

    @staticmethod
    def laid(rows):
        ids = [token for row in rows for token in row["input_ids"]]
        learned = [mask for row in rows for mask in row["completion_mask"]]
        places = [place for row in rows for place in range(len(row["input_ids"]))]
        labels = [token if mask else -100 for token, mask in zip(ids, learned, strict=True)]
        named = {"input_ids": ids, "position_ids": places, "labels": labels}
        return {name: torch.tensor([values]) for name, values in named.items()}


@pytest.mark.slow
def test_training_peers_do_one_task_or_are_named_as_not_measured(common, tmp_path, monkeypatch, capsys):
    """Padded and padding-free passes of the same weights have the same losses, TRL's, too."""
    losses, output = [], tmp_path / "train.json"

    def on_log(self, args, state, control, logs=None, **more):
        losses.append((logs or {}).get("loss"))

    monkeypatch.setattr(benchmark_train.BlockClock, "on_log", on_log, raising=False)
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(SFTConfig=sft_config, SFTTrainer=SFTTrainer))
    flags = ["--blocks", "1", "--steps", "1", "--validation", "40", "--output", str(output)]
    alike = ["--systems", "compiled,padding-free,trl", "--batch-size", "40"]
    assert benchmark.main(["train", *common, *flags, *alike]) == 0
    logged = [loss for loss in losses if loss]
    assert logged[:2] == pytest.approx(logged[2:4], rel=1e-4)
    assert logged[0] == pytest.approx(logged[4], rel=1e-4)
    assert benchmark.main(["train", *common, *flags]) == 0
    measured, others = rows(output)
    assert {row.batch_size for row in measured if not row.system.startswith("study")} == {48}
    assert len(measured) == len(benchmark_train.PEERS) - 2
    assert sum(why.startswith("not measured: No module named 'liger_kernel") for why in others.values()) == 1
    assert others["Unsloth"].startswith("not measured: it replaces parts of PyTorch")
    assert "reviews_per_second.value" in capsys.readouterr().out


def test_ours_on_two_devices_is_the_same_command_and_a_row_of_its_own(common, monkeypatch):
    """The processes' own part is training's; here the command runs in this one."""

    def launch(command, **_):
        parts = "-m torch.distributed.run --standalone --nproc_per_node=2 -m sentiment_core.benchmarks"
        assert command[1:7] == parts.split()
        return SimpleNamespace(returncode=benchmark.main(command[7:]))

    monkeypatch.setattr(benchmark_train, "subprocess", SimpleNamespace(run=launch))
    dataset, model = common[1], common[3]
    arguments = argparse.Namespace(
        dataset=dataset, base_model=model, blocks=1, steps=1, validation=40, limit=None, gpus=2
    )
    [row] = benchmark_train._on_several(arguments, 16)
    assert (row.system, row.devices, row.batch_size) == ("ours", 1, 16)
    assert row.reviews_per_second.value > 0
    two = SimpleNamespace(world_size=2, device=torch.device("cpu"))
    clock = benchmark_train.BlockClock(np.arange(3), 1, 1, two)
    clock.ends = [1.0, 2.0]
    row = clock.row("ours", "", 16)
    assert (row.system, row.devices) == ("ours, 2 GPUs", 2)


def test_scoring_is_compared_from_texts_with_each_ones_accuracy(common, tmp_path):
    output = tmp_path / "score.json"
    assert benchmark.main(["score", *common, "--few", "8", "--repeats", "1", "--output", str(output)]) == 0
    measured, others = rows(output)
    assert [row.system for row in measured][-2:] == ["ours", "ours, 40 reviews"]
    assert {row.accuracy.n for row in measured} == {8, 40}
    assert [*others] == ["vLLM"]
    alike = {row.accuracy.value for row in measured if row.system.startswith(("transformers loop", "ours"))}
    assert len(alike) <= 2


def test_vllm_is_asked_for_the_labels_alone_behind_the_same_tokens(tiny_model, common, monkeypatch):
    """Its stand-in computes with the weights that it is given; P(positive) is that of the merged model."""
    given, resets = [], []

    def load(folder, **_):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.bfloat16

        def generate(prompts, asked, use_tqdm):
            assert (asked.max_tokens, asked.temperature) == (1, 0)
            for ids in (prompt["prompt_token_ids"] for prompt in prompts):
                given.append(ids)
                found = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1).tolist()
                first = {token: SimpleNamespace(logprob=found[token]) for token in asked.logprob_token_ids}
                yield SimpleNamespace(outputs=[SimpleNamespace(logprobs=[first])])

        return SimpleNamespace(generate=generate, reset_prefix_cache=lambda: resets.append(len(given)))

    stand_in = SimpleNamespace(LLM=load, SamplingParams=SimpleNamespace, __version__="0.26.0")
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    make = [resolve(str(tiny_model)), None, SimpleNamespace(device=torch.device("cpu"))]
    asked, merged = score._vllm(*make), score._merged(*make)
    prompts = merged.encoder.encode(["A fine film.", "A dull film, too long.", score.LONG], score.MAX_LENGTH)
    with torch.inference_mode():
        found = [asked.score(prompts), asked.score(prompts)]
        assert found[0] == pytest.approx(merged.score(prompts), abs=5e-3)
    assert np.ptp(found[0]) > 0.01
    assert given == [ids.tolist() for ids in prompts] * 2
    assert resets == [0, len(prompts)]
    assert asked.note.startswith("0.26.0")

    free = iter((100, 30))  # of the device's bytes before the engine and with it
    monkeypatch.setattr(score, "bytes_free", lambda _: next(free))
    reviews = load_reviews(common[1], "test", limit=4)
    assert score.timed("vLLM", lambda: asked, reviews, 1, make[2]).peak_memory_bytes == 70


def test_a_peer_that_cuts_the_question_off_is_refused(common, tmp_path, monkeypatch, capsys):
    def right(*given):
        scoring = score._loop(*given)
        scoring.encoder.tokenizer.truncation_side = "right"
        return scoring

    monkeypatch.setattr(score, "PEERS", {"a notebook's loop": right})
    assert benchmark.main(["score", *common, "--few", "8", "--output", str(tmp_path / "s.json")]) == 2
    assert "a notebook's loop cuts the question off long prompts" in capsys.readouterr().err


def test_parity_trains_engines_alike_and_tells_their_accuracy(common, tmp_path):
    output = tmp_path / "parity.json"
    flags = ["--engines", "packed,generic,dequantized", "--validation", "40", "--output", str(output)]
    assert benchmark.main(["parity", *common, *flags]) == 0
    *packing, last = read_record(output, BenchmarkRecord, "").rows
    assert [row.system for row in (*packing, last)] == ["packed", "generic", "dequantized"]
    assert last.validation_accuracy.n == 40
    for row in packing:
        assert row.validation_accuracy == last.validation_accuracy
        assert abs(row.validation_loss - last.validation_loss) < 1e-4


def test_seeds_tell_mean_spread_and_each_accuracy(common, tmp_path):
    output = tmp_path / "seeds.json"
    flags = ["--presets", "best", "--seeds", "2", "--validation", "40", "--limit", "32"]
    assert benchmark.main(["seeds", *common, *flags, "--output", str(output)]) == 0
    record = read_record(output, BenchmarkRecord, "")
    [row], [found] = record.rows, record.settings["accuracies"].values()
    assert len(found) == 2
    metric = row.validation_accuracy
    assert (metric.value, metric.low, metric.high) == (sum(found) / 2, min(found), max(found))
    assert metric.n == 40
    assert "mean of 2 seeds" in row.note


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("train --validation 40 --systems ours,theirs", "--systems names 'theirs'"),
        ("parity --engines packed,magic", "--engines names 'magic'; use some of nf4, dequantized, packed"),
        ("score --dataset none.csv", "none.csv is not there"),
    ],
)
def test_what_cannot_be_is_one_sentence(common, flags, sentence, capsys):
    kind, *others = flags.split()
    assert benchmark.main([kind, *common, *others]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


@pytest.mark.model
def test_a_loop_over_the_real_tokens_keeps_the_question(monkeypatch):
    base = resolve("smollm2-135m")
    encoder = PromptEncoder(load_tokenizer(base))
    monkeypatch.setattr(score, "_adapted", lambda *_: (SimpleNamespace(encoder=encoder), None))
    [ids] = score._loop(base, None, None).encode([score.LONG])
    assert (len(ids), ids[-len(encoder.suffix_ids) :]) == (score.MAX_LENGTH, encoder.suffix_ids)
