"""Further labelled texts beside the dataset's, and one adapter that is the mean of several runs'."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import train
from sentiment_core.artifacts.store import ArtifactError, adapter_sha256, read_history, read_run
from sentiment_core.config import ConfigError, TrainConfig
from sentiment_core.dashboard.components.header import run_titles
from sentiment_core.dashboard.tabs import loss, method
from sentiment_core.data.reviews import match_key, split_train
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.publishing.card import card_of
from sentiment_core.training import session
from tests.dashboard.test_tabs import context_of
from tests.own_reviews import frame, write_dataset

OWN = 30
COLUMNS = "?text_column=Text&label_column=Sentiment"


@pytest.fixture(scope="module")
def two(tiny_model, tmp_path_factory):
    """Folders, the settings and records of two runs that differ in learning rate; both learned more texts."""
    root = tmp_path_factory.mktemp("soup")
    dataset = write_dataset(root / "films")
    cut, tested = split_train(str(dataset), validation=40), pd.read_parquet(dataset / "test.parquet")
    known = [cut.train.texts[0], cut.validation.texts[0], tested["text"].iloc[0]]
    own = frame(OWN, seed=77)
    texts = [*(f"  {text.upper()}" for text in known), *own["text"], own["text"][0]]
    labels = np.where([0, 1, 0, *own["label"], own["label"][0]], "Positive", "Negative")
    table = pd.DataFrame({"Sentiment": labels, "Text": texts, "batch_id": range(len(texts))})
    table.to_csv(root / "more.tsv", sep="\t", index=False)
    first = TrainConfig(
        dataset=str(dataset), base_model=str(tiny_model), run_id="one", also=f"{root / 'more.tsv'}{COLUMNS}",
        validation=40, epochs=1, batch_size=16, learning_rate=4e-3, evaluations_per_epoch=1,
        max_length_tokens=256, lora_rank=8,
    )  # fmt: skip
    settings = first, dataclasses.replace(first, run_id="two", learning_rate=2e-3)
    places = {"assets": root / "assets", "work": root / "work"}
    return places, settings, [session.train(one, **places)[0] for one in settings]


@pytest.fixture(scope="module")
def soup(two):
    """Made as a user makes it: all settings but the local paths are those of the first run."""
    places, (first, _), _ = two
    flags = ["--soup", "one", "--soup", "two", "--run-id", "mean", "--base-model", first.base_model]
    flags += ["--dataset", first.dataset, "--also", first.also, "--engine", "packed"]
    assert train.main([*flags, "--assets", str(places["assets"]), "--work", str(places["work"])]) == 0
    return read_run(places["assets"] / "runs" / "mean")


def test_further_texts_are_learned_once_and_none_stands_in_validation(two):
    _, (config, _), (record, _) = two
    cut = split_train(config.dataset, validation=40, also=config.also)
    alone = split_train(config.dataset, validation=40)
    assert (cut.train.fingerprint, cut.validation.fingerprint) == (
        alone.train.fingerprint, alone.validation.fingerprint,
    ), "comparable with a run without them"  # fmt: skip
    keys = [match_key(text) for text in (cut.train + cut.also).texts]
    assert len({*keys}) == len(keys) == len(alone.train) + OWN
    assert not {*keys} & {match_key(text) for text in cut.validation.texts}
    once = {"in_test_split": 1, "in_validation": 1, "in_train_split": 1, "duplicate": 1}
    assert record.data.excluded == alone.excluded | {f"more: {reason}": n for reason, n in once.items()}
    assert record.data.also.model_dump() == {
        "source": f"more.tsv{COLUMNS}", "fingerprint": cut.also.fingerprint, "train": OWN,
    }  # fmt: skip
    assert record.config["also"] == f"more.tsv{COLUMNS}", "no path of this machine"
    assert (record.data.train, record.data.labelled) == (len(alone.train), len(alone.train) + OWN)


def test_a_soup_is_the_mean_of_its_parts_and_is_validated_as_they_were(two, soup):
    places, (config, _), records = two
    runs = [read_run(places["assets"] / "runs" / name) for name in ("one", "two")]
    files = [load_file(run.adapter_path / "adapter_model.safetensors") for run in (*runs, soup)]
    for name, poured in files[2].items():
        mean = (files[0][name].float() + files[1][name].float()) / 2
        assert torch.equal(poured, mean.half())
    assert any(not torch.equal(files[0][name], files[1][name]) for name in files[0])
    record, history = soup.record, read_history(soup.path)
    assert record.parts == {run.run_id: adapter_sha256(run) for run in runs}
    assert record.data == records[0].data
    assert record.steps == 0
    assert record.wall_seconds == pytest.approx(sum(one.wall_seconds for one in records))
    [row] = history.to_dict("records")
    assert row["examples"] == sum(read_history(run.path)["examples"].max() for run in runs)
    assert np.sum(row["eval_counts"]) == record.validation_accuracy.n == 40
    held = split_train(config.dataset, validation=40).validation
    loaded = load_base(resolve(config.base_model))
    p = SentimentScorer(loaded, load_adapter(loaded.model, soup.adapter_path))(held.texts, 256)
    right = float(((p >= 0.5) == held.labels).mean())
    assert right == record.validation_accuracy.value == row["eval_accuracy"]


def test_page_and_card_tell_a_soup_from_its_record(two, soup):
    context = context_of(two[0]["assets"])
    titles = run_titles(context, story=True)
    assert titles["mean"].startswith(f"Our recipe + more.tsv{COLUMNS}, mean of 2 runs, ")
    panel = loss.loss_panel({"mean": context.store.history(soup)}, soup.record)
    assert "Mean of the adapters of one and two; times add up." in panel.caption
    assert "validation accuracy after" in panel.title
    html = method.method_html(context, soup)
    assert f"besides, {OWN} texts of more.tsv" in html
    assert "1 more: in validation" in html
    card = str(card_of(soup, two[0]["assets"]))
    assert "the mean of those of `one` and `two`" in card


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"base_model": {"name": "other"}}, "base_model.name"), ({"lora": {"rank": 4}}, "lora.rank"),
     ({"data": {"validation": 20}}, "data.validation"), ({}, None)],
)  # fmt: skip
def test_runs_that_are_not_alike_are_refused(two, tmp_path, wrong, words):
    places, (first, _), _ = two
    for name in ("one", "two"):
        shutil.copytree(places["assets"] / "runs" / name, tmp_path / "runs" / name)
    path = tmp_path / "runs" / "two" / "run.json"
    record = json.loads(path.read_text())
    for part, change in wrong.items():
        record[part] |= change
    path.write_text(json.dumps(record)) if words else path.unlink()
    config = dataclasses.replace(first, run_id="mean", soup=("one", "two"))
    said = f"differ in {words};" if words else "two is not there or unfinished; train it"
    with pytest.raises(ConfigError if words else ArtifactError, match=said):
        session.train(config, assets=tmp_path, work=tmp_path / "work")


def test_a_soup_from_other_reviews_or_of_one_run_is_refused(two, tmp_path):
    places, (first, _), _ = two
    other = dataclasses.replace(first, run_id="other", soup=("one", "two"), limit=200)
    with pytest.raises(ConfigError, match=r"what is given, differ in data\.fingerprint;"):
        session.train(other, assets=places["assets"], work=tmp_path)
    with pytest.raises(ConfigError, match="a mean needs two runs or more"):
        dataclasses.replace(first, soup=("one", "one"))
