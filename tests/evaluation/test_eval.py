"""eval.py end to end on the tiny random model: all systems, names, resuming, refusals."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit, logit

import eval as cli
from sentiment_core.artifacts.store import list_artifacts, read_eval, read_run, read_sample_reviews
from sentiment_core.config import TrainConfig
from sentiment_core.data.reviews import load_reviews
from sentiment_core.engines.scorer import SentimentScorer, p_positive
from sentiment_core.evaluation import inputs, predict, runner, shards
from sentiment_core.evaluation.systems import base, generated, scored
from sentiment_core.evaluation.systems.scored import few_shot_prefix, with_prefix
from sentiment_core.live import samples
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.systems import ENCODERS, SYSTEMS
from sentiment_core.training import session
from tests.fake_artifacts import recomputed
from tests.own_reviews import frame, write_dataset

ROOT = Path(cli.__file__).resolve().parent
SAMPLES = ROOT / "assets" / "sample_reviews.jsonl"
N = 24
FEW = ("--dataset", str(SAMPLES), "--limit", str(N))
LENGTH = 256


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "own", train=200, test=40)


@pytest.fixture(scope="module")
def trained(tiny_model, dataset, tmp_path_factory):
    """Assets with one short run."""
    root = tmp_path_factory.mktemp("eval")
    config = TrainConfig(
        dataset=str(dataset), base_model=str(tiny_model), run_id="tiny", validation=40, epochs=1,
        batch_size=16, learning_rate=4e-3, evaluations_per_epoch=1, max_length_tokens=LENGTH, lora_rank=4,
    )  # fmt: skip
    session.train(config, assets=root / "assets", work=root / "work")
    return root / "assets"


@pytest.fixture
def assets(trained, tmp_path):
    """A copy of its own for each test."""
    return Path(shutil.copytree(trained, tmp_path / "assets"))


@pytest.fixture
def call(assets, tiny_model, dataset, tmp_path, capsys):
    """eval.py with these flags; returns (exit status, stdout, stderr)."""

    def run(*flags: str, root: Path = assets, work: Path = tmp_path / "work"):
        given = ["--assets", str(root), "--work", str(work), *flags]
        if "--base-model" not in flags:
            given += ["--base-model", str(tiny_model)]
        if "--train-dataset" not in flags:
            given += ["--train-dataset", str(dataset)]
        status = cli.main(given)
        return status, *capsys.readouterr()

    return run


def refused(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    for part in words:
        assert part in err


def only(assets: Path):
    (found,) = list_artifacts(assets).evals
    return found


def stored(assets: Path, system: str, origin: str = "tiny-llama"):
    return read_eval(assets / "evals" / f"sample_reviews-n24--{system}--{origin}")


def few():
    return load_reviews(str(SAMPLES), "test", limit=N)


COUNTED = ("tfidf-logreg", "nbsvm")


@pytest.fixture(scope="module")
def every(trained, tiny_model, dataset, tmp_path_factory):
    """All systems on some of our sample reviews."""
    root = tmp_path_factory.mktemp("every")
    assets = Path(shutil.copytree(trained, root / "assets"))
    flags = ["--run", "tiny", "--base-model", str(tiny_model), "--train-dataset", str(dataset), *FEW]
    flags += ["--assets", str(assets), "--work", str(root / "work")]
    assert cli.main([*flags, "--system", "all"]) == 0
    return assets


# ---- all systems


def test_all_systems_have_their_names_and_nulls(every):
    listing = list_artifacts(every)
    assert not listing.problems
    records = {e.record.system: e.record for e in listing.evals}
    assert set(records) == set(SYSTEMS) - ENCODERS
    origins = {"tfidf-logreg": "own", "nbsvm": "own", "fine-tuned": "tiny"}
    for system, record in records.items():
        assert record.eval_id == f"sample_reviews-n24--{system}--{origins.get(system, 'tiny-llama')}"
        assert record.run_id == ("tiny" if system == "fine-tuned" else None)
        assert (record.base_model is None) == (record.prompt is None) == (system in COUNTED)
        assert (record.dataset.name, record.dataset.split, record.dataset.n) == ("sample_reviews", "all", N)
        assert record.wall_seconds > 0
        assert record.metrics["accuracy"].n == N
        scored = system not in ("baseline-generated", *COUNTED)
        assert record.settings.get("engine") == ("padded" if scored else None)
    assert not (every.parent / "work" / "evals").exists() or not list((every.parent / "work/evals").iterdir())


def test_every_metric_can_be_recomputed(every):
    for evaluation in list_artifacts(every).evals:
        for name, value in recomputed(evaluation).items():
            assert getattr(evaluation.record, name) == value, (evaluation.record.eval_id, name)


def test_systems_share_ids_labels_and_lengths(every):
    tables = [e.predictions() for e in list_artifacts(every).evals]
    shared = ["review_id", "label", "tokens", "truncated"]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table[shared], tables[0][shared])
    assert tables[0]["tokens"].max() == LENGTH, "the run's own limit"
    assert tables[0]["truncated"].any()


def test_few_shot_keeps_five_draws_and_tells_their_mean(every):
    evaluation = stored(every, "baseline-few-shot-8")
    record, table = evaluation.record, evaluation.predictions()
    assert list(table.columns[6:]) == [*(f"p_positive_{draw}" for draw in (2, 3, 4, 5)), "id", "kind"]
    draws = table.filter(like="p_positive").to_numpy()
    right = (draws >= 0.5) == table["label"].to_numpy()[:, None]
    assert record.draw_accuracies == tuple(right.mean(axis=0))
    accuracy = record.metrics["accuracy"]
    assert accuracy.value == pytest.approx(right.mean())
    assert accuracy.high - accuracy.low > 4 * np.std(record.draw_accuracies, ddof=1) / np.sqrt(5)
    assert len(set(map(tuple, record.settings["shot_ids"]))) == len(np.unique(draws, axis=1).T) == 5
    assert all(len(ids) == record.settings["shots"] == 8 for ids in record.settings["shot_ids"])
    assert {part.by for part in record.slices} == {"kind"}


def test_each_draw_is_scored_behind_its_own_examples(every, tiny_model, dataset):
    evaluation = stored(every, "baseline-few-shot")
    loaded, train = load_base(resolve(str(tiny_model))), load_reviews(str(dataset), "train").frame
    shown = train.set_index("review_id").loc[evaluation.record.settings["shot_ids"][3]]
    prefix = few_shot_prefix(loaded.encoder, shown["text"], shown["label"])
    prompts = with_prefix(prefix, loaded.encoder.encode(few().texts, LENGTH))
    p = p_positive(SentimentScorer(loaded).log_likelihoods(prompts))
    np.testing.assert_allclose(evaluation.predictions()["p_positive_4"], p, atol=1e-4)


def test_free_answers_have_no_probability_and_count_their_forms(every):
    evaluation = stored(every, "baseline-generated")
    table = evaluation.predictions()
    assert table["p_positive"].isna().all()
    assert evaluation.record.unparsed == table["prediction"].isna().sum()
    assert sum(form.count for form in evaluation.record.answer_forms) == N
    assert "roc_auc" not in evaluation.record.metrics


def test_no_review_text_and_no_path_in_the_artifacts(every):
    texts = [sample.text for sample in read_sample_reviews(ROOT / "assets")]
    quotes = {text[start : start + 25] for text in texts for start in range(0, len(text) - 25, 25)}
    for evaluation in list_artifacts(every).evals:
        content = (evaluation.path / "eval.json").read_text()
        content += evaluation.predictions().to_csv()
        assert not [quote for quote in quotes if quote in content]
        assert str(every.parent) not in content


def test_fine_tuned_is_the_scorer_with_the_adapter(every, tiny_model):
    loaded = load_base(resolve(str(tiny_model)))
    scorer = SentimentScorer(loaded, load_adapter(loaded.model, every / "runs" / "tiny" / "adapter"))
    table = stored(every, "fine-tuned", "tiny").predictions()
    temperature = read_run(every / "runs" / "tiny").record.temperature
    assert temperature != 1, "it was fitted"
    p = expit(logit(scorer(few().texts, LENGTH)) / temperature)
    np.testing.assert_allclose(table["p_positive"], p, atol=1e-5)
    np.testing.assert_array_equal(table["prediction"], (table["p_positive"] >= 0.5).astype(int))


def test_recalibrated_cuts_zero_shot_at_the_median_of_train_reviews(every):
    plain, recalibrated = stored(every, "baseline-scored"), stored(every, "baseline-recalibrated")
    settings = recalibrated.record.settings
    log_odds = logit(plain.predictions()["p_positive"].astype(float)) - settings["threshold_log_odds"]
    np.testing.assert_allclose(recalibrated.predictions()["p_positive"], expit(log_odds), atol=1e-5)
    assert (settings["unlabelled_reviews"], settings["unlabelled_seed"]) == (200, 0)


@pytest.mark.parametrize("poison", [None, ["neither"] * 200])
def test_recalibrated_never_sees_a_label(every, call, assets, dataset, tmp_path, poison):
    """Train reviews without a label, or with one that nothing can read, give the same threshold."""
    blind = Path(shutil.copytree(dataset, tmp_path / dataset.name))
    table = pd.read_parquet(dataset / "train.parquet").drop(columns="label")
    (table if poison is None else table.assign(label=poison)).to_parquet(blind / "train.parquet")
    flags = ("--run", "tiny", *FEW, "--train-dataset", str(blind))
    assert call(*flags, "--system", "baseline-recalibrated")[0] == 0
    found, before = (stored(root, "baseline-recalibrated") for root in (assets, every))
    pd.testing.assert_frame_equal(found.predictions(), before.predictions())
    for name in ("threshold_log_odds", "unlabelled_fingerprint", "identity"):
        assert found.record.settings[name] == before.record.settings[name]


def test_finished_evaluations_are_kept_and_told_and_of_other_settings_refused(every, call, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("nothing is to be loaded")

    monkeypatch.setattr(inputs.loading, "load_base", never)
    flags = ("--run", "tiny", *FEW)
    status, out, err = call(*flags, "--system", "all", root=every)
    assert status == 0
    assert err.count("kept") == out.count("kept") == len(set(SYSTEMS) - ENCODERS)
    assert "python app.py" in out
    assert str(every / "evals") in out
    status, _, err = call(*flags, "--system", "baseline-scored", root=every)
    assert (status, err.count("kept")) == (0, 1)
    monkeypatch.setattr(scored, "DRAWS", 3)
    words = "another shot_seeds ([0, 1, 2, 3, 4], now [0, 1, 2])"
    refused(call(*flags, "--system", "baseline-few-shot", root=every), words)


def test_a_runs_answers_to_our_samples_are_stored_with_it(call, assets, tiny_model, monkeypatch):
    """After its evaluation, whichever; not after a baseline's, and not where there are no samples."""
    asked = []
    monkeypatch.setattr(samples, "store_answers", lambda *given, **more: asked.append((given, more)))
    flags = ("--run", "tiny", *FEW, "--overwrite")
    assert call(*flags)[0] == 0
    shutil.copy(SAMPLES, assets)
    assert call(*flags, "--system", "baseline-scored")[0] == 0
    assert not asked
    assert call(*flags)[0] == 0
    [((run, given), more)] = asked
    assert (run.run_id, given, more) == ("tiny", read_sample_reviews(assets), {"base_model": str(tiny_model)})


def test_overwrite_repeats(every, call, tmp_path):
    assets = Path(shutil.copytree(every, tmp_path / "copy"))
    shutil.copy(ROOT / "assets" / "references.json", assets)
    before = stored(assets, "fine-tuned", "tiny")
    (before.path / "predictions.parquet").unlink()
    assert call("--run", "tiny", *FEW, "--overwrite", root=assets)[0] == 0
    assert read_eval(before.path).record.metrics == before.record.metrics
    assert call("--report", root=assets)[1].count("| sample_reviews |") == len(set(SYSTEMS) - ENCODERS)


# ---- names, groups, footnote


def test_split_and_limit_stand_in_the_name(call, assets, dataset):
    flags = ("--system", "baseline-scored", "--dataset", str(dataset), "--max-length-tokens", "128")
    assert call(*flags, "--split", "train", "--limit", "8")[0] == 0
    record = only(assets).record
    assert record.eval_id == "own-train-n8--baseline-scored--tiny-llama"
    assert (record.dataset.split, record.dataset.n, record.settings["limit"]) == ("train", 8, 8)


def test_groups_are_carried_when_short_and_text_never(call, assets, tmp_path):
    table = frame(12, seed=9)
    table["pair_id"] = [n // 2 for n in range(12)]
    table["version"] = ["original", "revised"] * 6
    table["headline"] = table["text"].str[:100]
    table["again"] = table["text"].str[:59]
    table["tokens"] = 3
    table.loc[0, "again"] = table["text"][0]
    table.to_csv(tmp_path / "pairs.csv", index=False)
    flags = ("--system", "baseline-scored", "--dataset", str(tmp_path / "pairs.csv"))
    assert call(*flags, "--max-length-tokens", "128")[0] == 0
    evaluation = only(assets)
    found = evaluation.predictions()
    assert list(found.columns[6:]) == ["pair_id", "version"]
    assert found["version"].tolist() == table["version"].tolist()
    assert "consistency" in evaluation.record.metrics
    assert {s.by for s in evaluation.record.slices} == {"version"}


def test_the_challenge_set_is_found_from_any_folder(call, assets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("--system", "baseline-scored", "--dataset", "challenge")[0] == 0
    record = only(assets).record
    assert record.eval_id == "challenge--baseline-scored--tiny-llama"
    assert [one.accuracy.n for one in record.slices if one.by == "phenomenon"] == [20] * 12
    assert record.metrics["consistency"].n == 24


def test_texts_of_train_are_left_out_of_one_figure(call, assets, dataset, tmp_path):
    folder = tmp_path / "overlapping"
    folder.mkdir()
    train, test = (pd.read_parquet(dataset / f"{split}.parquet") for split in ("train", "test"))
    train.to_parquet(folder / "train.parquet")
    pd.concat([test[:10], train[:3]]).to_parquet(folder / "test.parquet")
    flags = ("--system", "baseline-scored", "--dataset", str(folder), "--max-length-tokens", "128")
    assert call(*flags)[0] == 0
    evaluation = only(assets)
    assert len(evaluation.record.settings["overlap_ids"]) == 3
    assert evaluation.record.metrics["accuracy_without_overlap"].n == 10
    assert recomputed(evaluation)["metrics"] == evaluation.record.metrics


# ---- stopping and going on


def interrupt(monkeypatch, after: int):
    """Ctrl-C in front of batch number `after`; returns how many rows were answered so far."""
    original, rows, batches = generated.GreedyAnswers._answer, [], []

    def answer(self, batch):
        batches.append(1)
        if len(batches) > after:
            raise KeyboardInterrupt
        rows.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(generated.GreedyAnswers, "_answer", answer)
    return rows


def test_a_stopped_evaluation_goes_on_to_the_same_end(call, assets, tmp_path, monkeypatch):
    flags = ("--system", "baseline-generated", *FEW, "--max-new-tokens", "4")
    flags += ("--max-length-tokens", "128", "--batch-tokens", "660")
    whole = tmp_path / "whole"
    assert call(*flags, root=whole)[0] == 0
    monkeypatch.setattr(shards, "SECONDS_BETWEEN_PARTS", 0.0)
    with monkeypatch.context() as patch:
        rows = interrupt(patch, after=2)
        status, _, err = call(*flags)
    assert status == 130
    assert "continues" in err
    assert not (assets / "evals").exists()
    parts = sorted((tmp_path / "work").rglob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    assert len(parts) == 2
    parts[1].write_bytes(b"half a file")
    with monkeypatch.context() as patch:
        rest = interrupt(patch, after=99)
        status, _, err = call(*flags)
    assert status == 0
    assert f"Resuming: {rows[0]} of {N}" in err
    assert sum(rest) == N - rows[0]
    pd.testing.assert_frame_equal(only(assets).predictions(), only(whole).predictions())
    assert only(assets).record.answer_forms == only(whole).record.answer_forms
    assert not list((tmp_path / "work" / "evals").iterdir())


def test_other_settings_start_anew(call, tmp_path, monkeypatch):
    flags = ("--system", "baseline-generated", *FEW, "--max-length-tokens", "128")
    with monkeypatch.context() as patch:
        interrupt(patch, after=1)
        assert call(*flags, "--max-new-tokens", "4", "--batch-tokens", "660")[0] == 130
    with monkeypatch.context() as patch:
        rows = interrupt(patch, after=99)
        status, _, err = call(*flags, "--max-new-tokens", "3")
    assert status == 0
    assert "Resuming" not in err
    assert sum(rows) == N


# ---- texts without labels, more than memory holds


@pytest.fixture
def texts(tmp_path):
    """28 rows, two of them without a text; ids and more beside them."""
    table = pd.DataFrame({"id": range(28), "body": frame(28, seed=3)["text"], "NA": "NA"})
    table.loc[[3, 17], "body"] = ["", " "]
    table.to_csv(tmp_path / "texts.csv", index=False)
    return tmp_path / "texts.csv"


PREDICT = ("--run", "tiny", "--text-column", "body", "--predict")


def test_a_killed_prediction_goes_on_to_the_same_file(call, assets, texts, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "ROWS", {"cpu": 8})
    output, whole = tmp_path / "scored.parquet", tmp_path / "whole.parquet"
    assert call(*PREDICT, str(texts), "--output", str(whole), work=tmp_path / "other")[0] == 0
    write, written = predict._write, []

    def killed(path, *more):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "_write", killed)
        status, _, err = call(*PREDICT, str(texts), "--output", str(output))
    assert (status, output.exists(), len(list((tmp_path / "work").rglob("*.parquet")))) == (130, False, 2)
    assert "continues" in err
    before = list(written)
    with monkeypatch.context() as patch:
        patch.setattr(predict, "_write", lambda path, *more: (written.append(path), write(path, *more)))
        assert call(*PREDICT, str(texts), "--output", str(output))[:2] == (0, f"28 rows, {output}\n")
    assert not set(written[2:]) & set(before), "what was answered is not answered again"
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.glob("*scored*")] == ["scored.parquet"]
    assert not list((tmp_path / "work" / "predictions").iterdir())
    scored, given = pd.read_parquet(output), pd.read_csv(texts, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(scored[list(given)], given, check_dtype=False)
    assert pq.ParquetFile(output).num_row_groups == 4
    there = given["body"].str.strip() != ""
    assert scored["p_positive"].notna().tolist() == scored["prediction"].notna().tolist() == there.tolist()
    loaded = load_base(resolve(str(tiny_model)))
    scorer = SentimentScorer(loaded, load_adapter(loaded.model, assets / "runs" / "tiny" / "adapter"))
    p = scorer([text.replace("<br />", "\n") for text in given["body"][there]], LENGTH)
    p = expit(logit(p) / read_run(assets / "runs" / "tiny").record.temperature)
    np.testing.assert_allclose(scored["p_positive"][there], p, atol=1e-5)
    assert (scored["prediction"][there] == np.where(p >= 0.5, "Positive", "Negative")).all()


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_other_files_are_answered_alike(call, texts, tmp_path, kind):
    given, made = pd.read_csv(texts), {}
    given.to_parquet(tmp_path / "texts.parquet", row_group_size=5)
    given.to_json(tmp_path / "texts.jsonl", orient="records", lines=True)
    for suffix in ("csv", kind):
        made[suffix] = tmp_path / f"{suffix}.parquet"
        assert call(*PREDICT, str(texts.with_suffix(f".{suffix}")), "--output", str(made[suffix]))[0] == 0
    answers = [pd.read_parquet(path)[["p_positive", "prediction", "tokens"]] for path in made.values()]
    pd.testing.assert_frame_equal(*answers)


def test_a_dataset_of_the_hub_is_streamed_and_goes_on_after_a_kill(call, texts, tmp_path, monkeypatch):
    """The real library on two local shards, where it would ask the Hub."""
    monkeypatch.setattr(predict, "ROWS", {"cpu": 8})
    given, load, asked = pd.read_csv(texts, keep_default_na=False), datasets.load_dataset, []
    shards = [str(tmp_path / f"test-{number}.parquet") for number in range(2)]
    given[:13].to_parquet(shards[0], row_group_size=5)
    given[13:].to_parquet(shards[1])

    def load_dataset(name, config, **more):
        asked.append((name, config, more))
        return load("parquet", data_files={"test": shards}, **more)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = (*PREDICT, "me/texts", "--dataset-config", "short", "--output", str(tmp_path / "hub.parquet"))
    refused(call(*hub, "--split", "dev"), "me/texts has no split 'dev'; use --split with one of: test")
    write, written = predict._write, []

    def killed(path, *more):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "_write", killed)
        assert call(*hub)[0] == 130
    monkeypatch.setattr(predict, "_write", lambda path, *more: (written.append(path), write(path, *more)))
    assert call(*hub)[:2] == (0, f"28 rows, {tmp_path / 'hub.parquet'}\n")
    assert len({*written}) == len(written), "no part is answered twice"
    assert {*map(str, asked)} == {str(("me/texts", "short", {"streaming": True}))}
    assert call(*PREDICT, str(texts), "--output", str(tmp_path / "file.parquet"))[0] == 0
    found, wanted = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("hub", "file"))
    pd.testing.assert_frame_equal(found.astype({"id": str}), wanted, check_dtype=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("texts.csv",), "--output"),
        (("texts.csv", "--output", "scored.csv"), "must be a file that ends in .parquet"),
        (("texts.csv", "--output", "there.parquet"), "exists; --overwrite"),
        (("texts.csv", "--output", "new.parquet", "--text-column", "said"), "no column 'said'"),
        (("ragged.csv", "--output", "new.parquet"), "line 3: 3 cells, and the header has 1"),
        (("damaged.parquet", "--output", "new.parquet"), "damaged.parquet cannot be read"),
        (("empty.csv", "--output", "new.parquet"), "has no rows"),
        (("none.csv", "--output", "new.parquet"), "none.csv is not a file"),
        (("texts.csv", "--output", "new.parquet", "--system", "tfidf-logreg"), "--system tfidf-logreg"),
    ],
)
def test_what_cannot_be_predicted_is_refused(call, texts, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("ragged.csv", "body\na\na,b,c\n"),
        ("empty.csv", "body\n"),
        ("damaged.parquet", "PAR1"),
    ):
        (tmp_path / name).write_text(content)
    (tmp_path / "there.parquet").touch()
    refused(call(*PREDICT, *given), words)
    assert not list(tmp_path.glob("*new*"))


# ---- refusals


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--run", "nothing"), "there: tiny"),
        (("--run", "tiny", "--dataset", "no/such/file.csv"), "no/such/file.csv"),
        (("--run", "tiny", "--base-model", "smollm2-135m"), "is not the base of run 'tiny'"),
        (("--run", "tiny", "--base-model", ""), "give its path with --base-model"),
        (("--system", "all"), "--run"),
        (("--system", "fine-tuned"), "--run"),
        (("--run", "tiny", "--limit", "400", "--dataset", str(SAMPLES)), "--limit"),
        (("--run", "tiny", "--dataset", str(SAMPLES), "--max-length-tokens", "20"), "--max-length-tokens"),
        (("--run", "tiny", "--dataset", str(SAMPLES), "--system", "baseline-few-shot-8",
          "--max-length-tokens", "1000"), "8 examples make prompts of"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(call, flags, words):
    refused(call(*flags), words)


def damage_prompt(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["prompt"]["hash"] = "0" * 16
    (run / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "unfinished"),
        (lambda run: (run / "adapter" / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (damage_prompt, "prompt"),
    ],
)
def test_a_run_that_cannot_answer_is_refused(call, assets, damage, words):
    damage(assets / "runs" / "tiny")
    refused(call("--run", "tiny", *FEW), words)


def test_other_train_rows_than_the_runs_are_refused(call, tmp_path):
    other = write_dataset(tmp_path / "other", train=180, test=20)
    flags = ("--run", "tiny", *FEW, "--system", "tfidf-logreg", "--train-dataset")
    refused(call(*flags, str(other)), "fingerprint", "--train-dataset")
    refused(call(*flags, ""), "train rows of run 'tiny': own", "--train-dataset says where")


def test_out_of_memory_names_the_settings_that_help(call, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner, "evaluate", full)
    refused(call("--run", "tiny"), "--batch-tokens, for example 4096")


# ---- small parts


@pytest.mark.parametrize(
    ("name", "safe"), [("Qwen/Qwen2.5 0.5B", "Qwen2.5-0.5B"), ("größe", "gr--e"), ("", "unnamed")]
)
def test_names_are_safe_for_folders(name, safe):
    assert inputs.safe_name(name) == safe


def test_numbers_that_overflowed_are_no_answer():
    found = base.from_scores(np.array([[np.nan, 0.0], [0.0, 1.0]]))
    assert found["prediction"].isna().tolist() == [True, False]
    assert np.isnan(found["p_positive"][0])
