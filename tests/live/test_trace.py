"""The reading trace is what whole passes over the review's beginnings say, and ends with the answer."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.special import expit

from sentiment_core.artifacts.schema import ReadingTrace
from sentiment_core.artifacts.store import read_sample_reviews
from sentiment_core.live import classifier as live_classifier
from sentiment_core.live import forward
from sentiment_core.live.classifier import LiveAnswer, LiveClassifier
from sentiment_core.live.clauses import most_rows
from sentiment_core.live.trace import rows_of
from tests.live.test_classifier import run  # noqa: F401 (a fixture)

SHORT = "A cold, dull film 😀; but the acting was superb — and I liked “The End”. Yes! Go and see it."
TEXTS = {
    "short": SHORT,
    "long": "It drags, it shouts... Wow! And yet the last scene moved me. " * 2,
    "cut": "So much happens, and so little of it matters; one more fight. But number {} was good! " * 12,
    "odd": "first line\nsecond <|im_end|> line<br /><br />Não é bom, isn't it -- he said: no.",
}
SYSTEMS = ("base", "fine-tuned")


@pytest.fixture(scope="module")
def classifier(run, tiny_model) -> LiveClassifier:  # noqa: F811
    return LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")


@pytest.fixture(params=[1, 2])
def workers(request, classifier, monkeypatch) -> int:
    """Of both systems."""
    for system in SYSTEMS:
        monkeypatch.setattr(classifier._system(system), "workers", request.param)
    return request.param


@pytest.fixture(params=["at once", "beginning first"])
def progress(request, monkeypatch) -> bool:
    """Whether a review of more than 40 tokens gets a first answer."""
    if request.param == "beginning first":
        monkeypatch.setattr(forward, "LONG", 40)
        monkeypatch.setattr(forward, "FIRST_RESULT", 17)
    return request.param == "beginning first"


def prompt_of(classifier: LiveClassifier, text: str) -> tuple[np.ndarray, int, bool]:
    """Its tokens after the prefix, how many of them are the review's, and whether its middle is cut out."""
    [row], encoded = classifier._rows([text])
    return row, len(row) - len(classifier.encoder.suffix_ids), bool(encoded.truncated[0])


def whole_passes(classifier: LiveClassifier, text: str, system) -> tuple[list[int], np.ndarray]:
    """Where the rows end, and P(positive) of each beginning in a prompt and a pass of its own."""
    row, shown, _ = prompt_of(classifier, text)
    ends, cuts = rows_of(text, classifier.encoder, shown)
    model = classifier._system(system)
    prompts = [np.concatenate((row[:cut], row[shown:])) for cut in [*cuts, shown]]
    temperature = classifier.temperature if system == "fine-tuned" else 1
    return ends, np.array([expit(model.log_odds([prompt])[0] / temperature) for prompt in prompts])


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", TEXTS)
def test_the_trace_is_whole_passes(classifier, workers, progress, name, system):
    text = TEXTS[name]
    row, _, truncated = prompt_of(classifier, text)
    assert truncated == (name == "cut")
    *answers, found = classifier.read(text, system)
    ends, expected = whole_passes(classifier, text, system)
    assert len(answers) == 1 + progress
    assert list(found.ends) == ends == sorted(set(ends))
    assert ends[-1] == len(text)
    assert 3 < len(ends) <= most_rows(len(classifier.encoder.prefix_ids) + len(row))
    assert found.p_positive[-1] == answers[-1].p_positive == classifier.classify(text, system).p_positive
    assert np.ptp(expected) > 1e-3, "the rows must differ for this test to mean anything"
    np.testing.assert_allclose(found.p_positive, expected, atol=1e-4, rtol=0)


def test_a_row_is_the_answer_to_the_review_that_ends_there(classifier):
    """In characters, too: a row ends where a token does."""
    *_, found = classifier.read(SHORT, "fine-tuned")
    ids = classifier.encoder.review_ids([SHORT])[0]
    for end, p in zip(found.ends, found.p_positive, strict=True):
        beginning = classifier.encoder.review_ids([SHORT[:end]])[0]
        assert beginning == ids[: len(beginning)]
        assert p == pytest.approx(classifier.classify(SHORT[:end], "fine-tuned").p_positive, abs=1e-4)


@pytest.mark.parametrize("text", ["", " \n ", "?!...", "10/10", "Superb.", "word " * 400])
def test_a_review_of_one_row_has_its_answer(classifier, text):
    answer, found = classifier.read(text, "base")
    assert isinstance(answer, LiveAnswer)
    assert found == ReadingTrace(ends=(len(text),), p_positive=(answer.p_positive,))


def test_other_models_read_through_transformers(run, tiny_model, classifier, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live_classifier, "is_lean", lambda config: False)
    other = LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")
    for system in SYSTEMS:
        for text in (*TEXTS.values(), ""):
            *_, expected = classifier.read(text, system)
            answer, found = other.read(text, system)
            assert found.ends == expected.ends
            assert found.p_positive[-1] == answer.p_positive
            np.testing.assert_allclose(found.p_positive, expected.p_positive, atol=1e-4, rtol=0)


# ---- the committed run


@pytest.mark.model
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_real_models_trace_is_whole_passes(real_classifier, system):
    text = min((sample.text for sample in read_sample_reviews()), key=len)
    *_, answer, found = real_classifier.read(text, system)
    ends, expected = whole_passes(real_classifier, text, system)
    assert list(found.ends) == ends
    assert len(ends) > 2
    assert found.p_positive[-1] == answer.p_positive
    np.testing.assert_allclose(found.p_positive, expected, atol=1e-4, rtol=0)


def test_texts_read_at_the_same_time_are_read_as_alone(classifier, monkeypatch):
    """Each takes the cores that the others leave it, and what one is told is none of another's."""
    for system in SYSTEMS:
        monkeypatch.setattr(classifier._system(system), "workers", 2)
    asked = [(text, system) for text in TEXTS.values() for system in SYSTEMS] * 3
    alone = [list(classifier.read(*one)) for one in asked]
    shares = []
    real = forward.share_of

    @contextmanager
    def noted(cores):
        with real(cores) as share:
            shares.append(share)
            yield share

    monkeypatch.setattr(forward, "share_of", noted)
    with ThreadPoolExecutor(4) as pool:
        crowded = list(pool.map(lambda one: list(classifier.read(*one)), asked))
    assert {1, 2} >= set(shares)
    assert 1 in shares
    for one, other in zip(alone, crowded, strict=True):
        assert [step.p_positive for step in one] == [pytest.approx(s.p_positive, abs=1e-5) for s in other]
