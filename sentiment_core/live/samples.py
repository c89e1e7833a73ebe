"""What a run's models say of our own reviews, stored with the run: the page opens with it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from sentiment_core.artifacts import store
from sentiment_core.artifacts.schema import ReadingTrace, SampleAnswer, SampleAnswers, SampleReview, Which
from sentiment_core.data.reviews import review_id
from sentiment_core.live.classifier import SYSTEMS, LiveClassifier, TooLong

DIGITS = 6


def store_answers(run: store.Run, samples: Sequence[SampleReview], *, base_model: str | None = None) -> bool:
    """Write `sample_answers.json` of a finished run, in float32; whether that was to be done.
    Raises BaseModelError: as `LiveClassifier.load`."""
    assert run.record, "an unfinished run has no answers"
    with suppress(store.ArtifactError):
        if store.read_sample_answers(run, samples).keys() == {sample.id for sample in samples}:
            return False
    model = LiveClassifier.load(run, base_model=base_model, number_format="fp32")
    answers = {sample.id: answer_to(model, sample.text) for sample in samples}
    about = {"adapter_sha256": store.adapter_sha256(run), "prompt_hash": run.record.prompt.hash}
    store.write_record(run.path / "sample_answers.json", SampleAnswers(**about, answers=answers))
    return True


def answer_to(model: LiveClassifier, text: str) -> SampleAnswer:
    """Both models' traces, whose last rows are the answers, and the dial."""
    traces: dict[Which, ReadingTrace] = {}
    for system in SYSTEMS:
        [trace] = [step for step in model.read(text, system) if isinstance(step, ReadingTrace)]
        traces[system] = trace.model_copy(update={"p_positive": rounded(trace.p_positive)})
    dial: tuple[float, ...] = ()
    with suppress(TooLong):
        dial = rounded(model.dial(text))
    return SampleAnswer(review_id=review_id(text), traces=traces, dial=dial)


def rounded(numbers: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(number, DIGITS) for number in numbers)
