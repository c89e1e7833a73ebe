"""Named endpoints for programs: classify, classify_batch, metrics, runs."""

# No postponed annotations here: Gradio reads the return types of the endpoints as they stand.

from functools import partial
from itertools import zip_longest
from typing import TypedDict

import gradio as gr

from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.answers import word_of
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.inputs import MAX_ROWS, InputRefused, clean_text
from sentiment_core.dashboard.serving import MODEL_EVENT, ModelUnavailable


class Answer(TypedDict):
    """One review's answers; null where nothing is fine-tuned."""

    base_p_positive: float
    base_label: str
    fine_tuned_p_positive: float | None
    fine_tuned_label: str | None
    run_id: str


class MetricRow(TypedDict):
    """One stored metric; low and high are its 95 % interval, null where none is defined."""

    eval_id: str
    system: str
    run_id: str | None
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


class RunRow(TypedDict):
    """One training run; the figures of an unfinished one are null."""

    run_id: str
    finished: bool
    base_model: str | None
    parameters: int | None
    trainable_parameters: int | None
    wall_seconds: float | None
    device: str | None
    validation_accuracy: float | None


refusal = partial(gr.Error, print_exception=False)


def register(context: Context) -> None:
    """Add the endpoints to the Blocks being built."""

    def known_run(run: str) -> Run | None:
        """The run of that name, or the default one; refused where there is no such run."""
        chosen = context.store.run(run)
        if run and (chosen is None or chosen.run_id != run):
            names = ", ".join(r.run_id for r in context.store.finished_runs()) or "none"
            raise refusal(f"No such run. Finished runs: {names}.")
        return chosen

    def answers(texts: list[str], run: str) -> list[Answer]:
        chosen = known_run(run)
        run_id = chosen.run_id if chosen else ""
        try:
            found = context.serving.probabilities(chosen, [clean_text(text) for text in texts])
        except (InputRefused, ModelUnavailable) as error:
            raise refusal(str(error)) from None
        return [
            {
                "base_p_positive": base,
                "base_label": word_of(base),
                "fine_tuned_p_positive": fine,
                "fine_tuned_label": None if fine is None else word_of(fine),
                "run_id": run_id,
            }
            for base, fine in zip_longest(found["base"], found.get("fine-tuned", []))
        ]

    def classify(text: str, run: str = "") -> Answer:
        """Classify one review with both models.

        Parameters:
            text: the review, up to 20,000 characters.
            run: which fine-tuned run; empty for the page's default.
        """
        return answers([text], run)[0]

    def classify_batch(texts: list[str], run: str = "") -> list[Answer]:
        """Classify up to 1,000 reviews with both models; the answers come in the same order.

        Parameters:
            texts: the reviews, each up to 20,000 characters.
            run: which fine-tuned run; empty for the page's default.
        """
        if not isinstance(texts, list) or not texts:
            raise refusal("Send a list of reviews.")
        if len(texts) > MAX_ROWS:
            raise refusal(f"{len(texts):,} reviews are too many; up to {MAX_ROWS:,} at a time.")
        return answers(texts, run)

    def metrics(run: str = "", dataset: str = "") -> list[MetricRow]:
        """Every stored metric of every evaluation.

        Parameters:
            run: only this run's and those without a run; empty for all.
            dataset: only this dataset; empty for all.
        """
        known_run(run)
        if dataset and dataset not in context.store.datasets():
            raise refusal(f"No such dataset. Evaluated: {', '.join(context.store.datasets()) or 'none'}.")
        return [
            {  # pyrefly: ignore[bad-unpacking] pydantic's dict knows no keys
                **record.model_dump(include={"eval_id", "system", "run_id"}),
                "dataset": record.dataset.name,
                "metric": name,
                **metric.model_dump(include={"value", "low", "high", "n"}),
            }
            for record in (evaluation.record for evaluation in context.store.listing().evals)
            if (not run or record.run_id in (None, run)) and (not dataset or record.dataset.name == dataset)
            for name, metric in record.metrics.items()
        ]

    def runs() -> list[RunRow]:
        """The training runs and what they cost."""
        return [
            {
                "run_id": run.run_id,
                "finished": r is not None,
                "base_model": r.base_model.name if r else None,
                "parameters": r.base_model.parameters if r else None,
                "trainable_parameters": r.trainable_parameters if r else None,
                "wall_seconds": r.wall_seconds if r else None,
                "device": r.hardware.device if r else None,
                "validation_accuracy": r.validation_accuracy.value if r else None,
            }
            for run in context.store.listing().runs
            for r in [run.record]
        ]

    for endpoint in (classify, classify_batch):
        gr.api(endpoint, **MODEL_EVENT)
    for endpoint in (metrics, runs):
        gr.api(endpoint)
