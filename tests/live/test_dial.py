"""The dial's points are merged weights' answers, and what is stored of our samples is what the models say."""

import numpy as np
import pytest

from sentiment_core import config
from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import DIAL, ReadingTrace, SampleReview
from sentiment_core.artifacts.store import ArtifactError, read_run, read_sample_answers, read_sample_reviews
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.live import classifier as live_classifier
from sentiment_core.live.classifier import DIAL_TOKENS, SYSTEMS, LiveClassifier, TooLong
from sentiment_core.live.samples import store_answers
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from tests.live.test_classifier import TEXTS, run  # noqa: F401 (a fixture)

SAMPLES = [
    SampleReview(id="one", text="A cold film; but the acting was superb. Go and see!", label=1, kind="mixed"),
    SampleReview(id="long", text="So much happens, and so little matters. " * 9, label=0, kind="negative"),
]
RUN = config.ASSETS / "runs" / "smollm2-135m"


def load(run, tiny_model, number_format: str = "fp32") -> LiveClassifier:  # noqa: F811
    return LiveClassifier.load(run, base_model=str(tiny_model), number_format=number_format)


@pytest.fixture(scope="module")
def classifier(run, tiny_model) -> LiveClassifier:  # noqa: F811
    return load(run, tiny_model)


@pytest.fixture(scope="module")
def merged(run, tiny_model, classifier) -> dict[float, np.ndarray]:  # noqa: F811
    """α -> P(positive) of TEXTS, by whole prompts through weights that hold α times the adapter."""
    found = {}
    for alpha in DIAL:
        loaded = load_base(resolve(str(tiny_model)))
        model = load_adapter(loaded.model, run.adapter_path)
        for module in model.modules():
            if hasattr(module, "lora_A"):
                module.scaling["default"] *= alpha
        found[alpha] = SentimentScorer(loaded, model.merge_and_unload())(TEXTS, classifier.max_length_tokens)
    return found


def points(classifier: LiveClassifier, merged: dict[float, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(α, texts) each: the dial's and the merged weights', of the texts that are short enough."""
    short = [i for i, one in enumerate(TEXTS) if len(classifier.encoder.review_ids([one])[0]) <= DIAL_TOKENS]
    assert len(short) > 4
    turned = np.transpose([list(classifier.dial(TEXTS[i])) for i in short])
    return turned, np.array([merged[alpha][short] for alpha in DIAL])


def test_a_point_is_the_merged_weights_answer(classifier, merged):
    turned, expected = points(classifier, merged)
    assert np.ptp(expected, axis=0).max() > 1e-2, "the points must differ for this test to mean anything"
    np.testing.assert_allclose(turned, expected, atol=2e-6, rtol=0)


def test_other_models_turn_the_dial_by_their_scale(run, tiny_model, merged, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live_classifier, "is_lean", lambda config: False)
    np.testing.assert_allclose(*points(load(run, tiny_model), merged), atol=2e-6, rtol=0)


@pytest.mark.parametrize("number_format", ["int8", "bf16"])
def test_other_number_formats_stay_near(run, tiny_model, classifier, merged, number_format):  # noqa: F811
    """The dial, and the trace."""
    served = load(run, tiny_model, number_format)
    turned, expected = points(served, merged)
    assert np.abs(turned - expected).mean() < 0.02
    *_, expected = classifier.read(SAMPLES[0].text, "fine-tuned")
    *_, answer, found = served.read(SAMPLES[0].text, "fine-tuned")
    assert found.ends == expected.ends
    assert found.p_positive[-1] == answer.p_positive
    assert np.abs(np.subtract(found.p_positive, expected.p_positive)).mean() < 0.02


def test_a_long_review_and_a_base_alone_have_no_dial(classifier, tiny_model, monkeypatch):
    monkeypatch.setattr(live_classifier, "DIAL_TOKENS", 100)
    with pytest.raises(TooLong, match="up to 100 tokens; this one has"):
        next(classifier.dial("word " * 400))
    with pytest.raises(ValueError, match="no finished run"):
        next(load(None, tiny_model).dial("Fine."))


# ---- what is stored of our samples


def test_stored_answers_are_the_live_ones_and_are_made_once(run, tiny_model, classifier, monkeypatch):  # noqa: F811
    assert read_sample_answers(run, SAMPLES) == {}
    monkeypatch.setattr(LiveClassifier, "load", lambda *_, **more: classifier)
    monkeypatch.setattr(live_classifier, "DIAL_TOKENS", 100)
    assert store_answers(run, SAMPLES, base_model=str(tiny_model))
    assert not store_answers(run, SAMPLES)
    stored = read_sample_answers(run, SAMPLES)
    assert list(stored) == ["one", "long"]
    assert len(stored["one"].dial) == len(DIAL)
    assert stored["long"].dial == ()
    for sample in SAMPLES:
        check_stored(classifier, sample, stored[sample.id])
    assert store_answers(run, SAMPLES[:1]), "another set of samples"


def check_stored(classifier: LiveClassifier, sample: SampleReview, stored) -> None:
    for system in SYSTEMS:
        *_, answer, trace = classifier.read(sample.text, system)
        assert isinstance(trace, ReadingTrace)
        assert stored.traces[system].ends == trace.ends
        assert stored.traces[system].p_positive == pytest.approx(trace.p_positive, abs=1e-4)
        assert stored.traces[system].p_positive[-1] == pytest.approx(answer.p_positive, abs=1e-4)
    if stored.dial:
        assert stored.dial == pytest.approx(list(classifier.dial(sample.text)), abs=1e-4)


def test_answers_to_something_else_are_refused(run, classifier, monkeypatch):  # noqa: F811
    monkeypatch.setattr(LiveClassifier, "load", lambda *_, **more: classifier)
    store_answers(run, SAMPLES)
    changed = SAMPLES[0].model_copy(update={"text": "Another text."})
    with pytest.raises(ArtifactError, match="another text; run eval"):
        read_sample_answers(run, [changed, SAMPLES[1]])
    other = run.record.model_copy(update={"prompt": run.record.prompt.model_copy(update={"hash": "0" * 16})})
    with pytest.raises(ArtifactError, match="another prompt"):
        read_sample_answers(store.Run(run.path, other), SAMPLES)
    monkeypatch.setattr(store, "adapter_sha256", lambda run: "0" * 64)
    with pytest.raises(ArtifactError, match="another adapter"):
        read_sample_answers(run, SAMPLES)


@pytest.mark.model
def test_the_committed_answers_are_the_real_models(real_classifier):
    samples = read_sample_reviews()
    stored = read_sample_answers(read_run(RUN), samples)
    assert set(stored) == {sample.id for sample in samples}
    shortest = min(samples, key=lambda sample: len(sample.text))
    check_stored(real_classifier, shortest, stored[shortest.id])
