"""Encoders through eval.py on the CPU: a tiny random BERT learns, answers, and stands in the tables."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

import eval as cli
from sentiment_core.artifacts import report
from sentiment_core.artifacts.store import read_eval
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.store import Store
from sentiment_core.data.reviews import load_reviews, split_train
from sentiment_core.evaluation.systems import encoders
from sentiment_core.systems import ENCODERS, SYSTEMS
from tests.own_reviews import BAD, GOOD, OPENERS, SUBJECTS, write_dataset

WORDS = {word for line in (*OPENERS, *GOOD, *BAD, *SUBJECTS, "was and") for word in line.lower().split()}
LENGTH = 24
FIRST, LAST = 2, 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "own", train=240, test=40)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A folder as of a sentence encoder: weights without a head, and a tokenizer."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny-bert"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", *sorted(WORDS)]
    tokenizer = Tokenizer(models.WordPiece({name: at for at, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", LAST), ("[CLS]", FIRST))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=LENGTH, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def call(encoder, dataset, tmp_path_factory):
    """eval.py with a learning rate for tiny models, and fewer pairs; returns (exit status, assets)."""
    root = tmp_path_factory.mktemp("encoders")

    def run(system: str, *flags: str, model: Path = encoder) -> tuple[int, Path]:
        places = ["--assets", str(root / "assets"), "--work", str(root / "work")]
        given = [*flags] if "--dataset" in flags else ["--dataset", str(dataset), *flags]
        return cli.main(["--system", system, "--base-model", str(model), *given, *places]), root / "assets"

    with pytest.MonkeyPatch.context() as patch:
        for kind in (encoders.Full, encoders.Lora):
            patch.setattr(kind, "own", kind.own | {"learning_rate": 3e-3, "batch_size": 16})
        patch.setattr(encoders.SetFit64, "own", encoders.SetFit64.own | {"rounds": 4})
        yield run


@pytest.fixture(scope="module")
def every(call):
    assert {call(system)[0] for system in ENCODERS} == {0}
    return call("encoder-full", "--overwrite")[1]


def record_of(assets: Path, system: str):
    return read_eval(assets / "evals" / f"own--{system}--tiny-bert").record


def test_every_method_learns_and_records_what_it_took(every, dataset):
    split = split_train(str(dataset), validation=24)
    for system in ENCODERS:
        record = record_of(every, system)
        its = record.settings
        assert (record.base_model, record.prompt, record.run_id) == (None, None, None)
        assert its["train_fingerprint"] == split.train.fingerprint
        assert its["validation_fingerprint"] == split.validation.fingerprint
        assert min(its["train_seconds"], its["peak_memory_bytes"], len(its["encoder_sha256"]) - 63) > 0
        few = system.startswith("encoder-setfit") and 2 * its["shots"]
        assert its["train_reviews"] == (few or len(split.train))
        assert its["selected_on"] == ("nothing" if few else "validation")
        assert record.metrics["accuracy"].value >= (0.5 if few == 16 else 0.7)
    trained = {system: record_of(every, system).settings["trained_parameters"] for system in ENCODERS}
    assert trained["encoder-linear"] < trained["encoder-lora"] < trained["encoder-full"]
    assert trained["encoder-full"] == record_of(every, "encoder-lora").settings["parameters"]


def test_the_best_epoch_is_kept_not_the_last(call, every, dataset, tmp_path, monkeypatch):
    epochs = encoders.Full.epochs

    def spoilt(self, lengths, loss):
        for epoch in epochs(self, lengths, loss):
            if epoch == 2:
                self.model["head"].bias.data[0] = 1e6
            yield epoch

    monkeypatch.setattr(encoders.Full, "epochs", spoilt)
    held = split_train(str(dataset), validation=24).validation.frame[["text", "label"]]
    held.to_csv(tmp_path / "held.csv", index=False)
    flags = ("--dataset", str(tmp_path / "held.csv"), "--train-dataset", str(dataset), "--seed", "1")
    assert call("encoder-full", *flags)[0] == 0
    record = read_eval(every / "evals" / "held--encoder-full--tiny-bert").record
    validated = record.settings["validated"]
    assert validated[2] == 0.5
    assert record.metrics["accuracy"].value == record.settings["validation_accuracy"] == max(validated) > 0.7


def test_linear_is_a_regression_on_mean_vectors_of_reviews_without_their_middle(every, encoder, dataset):
    """By independent code: transformers' own tokens, no batches, scikit-learn's probabilities."""
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()

    @torch.inference_mode()
    def vectors(texts: list[str]) -> np.ndarray:
        found = []
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = ids if len(ids) <= LENGTH - 2 else [*ids[: LENGTH // 2 - 1], *ids[1 - LENGTH // 2 :]]
            mean = model(torch.tensor([[FIRST, *ids, LAST]])).last_hidden_state[0].mean(0)
            found.append(mean / mean.square().mean().sqrt())
        return torch.stack(found).numpy()

    train, test = split_train(str(dataset), validation=24).train, load_reviews(str(dataset), "test")
    C = record_of(every, "encoder-linear").settings["chosen_C"]
    fitted = LogisticRegression(C=C, max_iter=5000).fit(vectors(train.texts), train.labels)
    stored = read_eval(every / "evals" / "own--encoder-linear--tiny-bert").predictions()
    expected = fitted.predict_proba(vectors(test.texts))[:, 1]
    np.testing.assert_allclose(stored["p_positive"], expected, atol=2e-3)
    assert stored["tokens"].max() == LENGTH
    assert stored["truncated"].any()


def test_a_further_data_set_is_answered_by_the_same_one_and_control_tokens_stay_text(
    call, every, dataset, tmp_path, capsys
):
    texts = "text,label\nA superb plot [SEP] [PAD] was warm.,1\nThe dull cast was fake.,0\n"
    (tmp_path / "more.csv").write_text(texts)
    flags = ("--dataset", str(tmp_path / "more.csv"), "--train-dataset", str(dataset))
    assert call("encoder-full", *flags)[0] == 0
    assert "Training" not in capsys.readouterr().err
    more = read_eval(every / "evals" / "more--encoder-full--tiny-bert")
    assert more.record.settings["train_seconds"] == record_of(every, "encoder-full").settings["train_seconds"]
    assert more.predictions()["tokens"].tolist() == [3 + 3 + 3 + 3 + 2, 6 + 2]


def test_page_and_report_show_each_with_its_encoder_beside_any_run(every, encoder):
    evals = Store(every).evals(None, "own")
    assert list(evals) == [f"{system} tiny-bert" for system in SYSTEMS if system in ENCODERS]
    panel = panels.accuracy_panel(evals, ())
    best = panel.data.iloc[0]
    assert set(panel.data["title"]) == {f"{SYSTEMS[one].title}, tiny-bert" for one in ENCODERS}
    assert set(panel.data["selected_on"]) == {"validation", "nothing"}
    assert panel.title.startswith(f"{best['title']}: accuracy")
    rows = report.results_table(every)
    for system in ENCODERS:
        its = record_of(every, system).settings
        took = f"{its['train_seconds']:.0f} s, {its['peak_memory_bytes'] / 1e9:.1f} GB"
        assert f"| {SYSTEMS[system].title}, tiny-bert | own |" in rows
        assert took in rows


@pytest.mark.parametrize(
    ("system", "flags", "words"),
    [
        ("encoder-lora", ("--run", "tiny"), "needs --base-model ENCODER and no --run"),
        ("encoder-full", ("--base-model", ""), "needs --base-model ENCODER"),
    ],
)
def test_refusals(call, capsys, system, flags, words):
    assert call(system, *flags)[0] == 2
    assert words in capsys.readouterr().err


def test_a_folder_with_a_pickle_alone_is_refused(call, encoder, tmp_path, capsys):
    other = Path(shutil.copytree(encoder, tmp_path / "pickled-bert"))
    weights = AutoModel.from_pretrained(encoder).state_dict()
    (other / "model.safetensors").unlink()
    torch.save(weights, other / "pytorch_model.bin")
    status, assets = call("encoder-linear", model=other)
    err = capsys.readouterr().err
    assert (status, "safetensors" in err, "Traceback" in err) == (2, True, False)
    assert not list(assets.glob("evals/*pickled*"))
