"""A run learns from what another one says of unlabelled reviews, which are nobody's test or train reviews."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sentiment_core.artifacts.store import ArtifactError, read_history, read_run
from sentiment_core.config import TrainConfig
from sentiment_core.data.reviews import load_reviews
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.training import session, teacher
from tests.own_reviews import frame, write_dataset

OWN = 60


@pytest.fixture(scope="module")
def taught(tiny_model, tmp_path_factory):
    """Folders, the teacher's record, the student's settings, record and folder."""
    root = tmp_path_factory.mktemp("taught")
    dataset = write_dataset(root)
    places = {"assets": root / "assets", "work": root / "work"}
    base = TrainConfig(
        dataset=str(dataset), base_model=str(tiny_model), run_id="teacher", validation=40, epochs=2, limit=96,
        batch_size=16, learning_rate=4e-3, evaluations_per_epoch=1, max_length_tokens=256, lora_rank=8,
    )  # fmt: skip
    first, _ = session.train(base, **places)
    known = [load_reviews(str(dataset), split).texts[0] for split in ("train", "test")]
    texts = [*known, *frame(OWN, seed=77)["text"], frame(OWN, seed=77)["text"][0]]
    pd.DataFrame({"text": texts}).to_parquet(root / "more.parquet")
    settings = dataclasses.replace(
        base, run_id="student", teacher="teacher", unlabelled=str(root / "more.parquet"), soft_weight=0.5
    )
    return places, first, settings, *session.train(settings, **places)


def test_a_student_learns_from_labels_and_from_its_teacher(taught):
    _, first, _, record, folder = taught
    info = record.teacher
    assert (info.run_id, info.base_model, info.teacher) == ("teacher", first.base_model.name, None)
    assert info.excluded == {"in_test_split": 1, "in_train_split": 1, "duplicate": 1}
    assert (info.reviews, info.source, info.temperature, info.weight) == (OWN, "more.parquet", 2.0, 0.5)
    assert record.data.train == first.data.train
    assert read_history(folder)["examples"].max() == 2 * (first.data.train + OWN), "both, in each epoch"
    assert record.config["unlabelled"] == "more.parquet", "no path of this machine"


def test_its_answers_are_kept_without_texts_and_asked_once(taught, tiny_model, monkeypatch):
    places, _, settings, *_ = taught
    [path] = (places["work"] / "soft-labels").iterdir()
    kept = pd.read_parquet(path)
    assert list(kept) == ["review_id", "p_positive"]
    loaded = load_base(resolve(str(tiny_model)))
    model = load_adapter(loaded.model, places["assets"] / "runs" / "teacher" / "adapter")
    said = SentimentScorer(loaded, model)(frame(OWN, seed=77)["text"].tolist(), 256)
    np.testing.assert_allclose(kept["p_positive"], said, atol=1e-5)
    monkeypatch.setattr(teacher, "load_base", lambda *a, **k: pytest.fail("asked again"))
    context = session.devices.find_device()
    again = teacher.prepare(settings, context, assets=places["assets"], work=places["work"])
    np.testing.assert_array_equal(again.p_positive, kept["p_positive"])
    split = session.split_train(settings.dataset, validation=40, limit=96)
    split = dataclasses.replace(split, also=split.validation.take([0, 1]))
    settings = dataclasses.replace(settings, also_weight=3.0)
    prompts = session.learned(loaded.encoder, settings, split, again)
    assert len(prompts.encoded) == 98 + OWN
    wanted = [*split.train.labels[90:], *split.also.labels, *kept["p_positive"][:4]]
    np.testing.assert_allclose(prompts.targets[90:102], wanted)
    assert prompts.temperatures[90:102].tolist() == [1.0] * 8 + [2.0] * 4
    assert prompts.weights[90:102].tolist() == [1.0] * 6 + [3.0] * 2 + [0.5] * 4


def test_a_record_says_the_whole_ancestry(taught, tmp_path):
    places, _, settings, record, _ = taught
    grandchild = dataclasses.replace(settings, run_id="grandchild", teacher="student", epochs=1)
    session.train(grandchild, assets=places["assets"], work=tmp_path)
    info = read_run(places["assets"] / "runs" / "grandchild").record.teacher
    assert (info.run_id, info.teacher) == ("student", record.teacher)


def test_a_teacher_that_is_not_there_is_said(taught, tmp_path):
    _, _, settings, *_ = taught
    with pytest.raises(ArtifactError, match="nobody is not there or unfinished; train it"):
        session.train(
            dataclasses.replace(settings, teacher="nobody", run_id="x"), assets=tmp_path, work=tmp_path
        )
