"""Named endpoints for programs: classify, classify_batch, metrics, runs."""

# No postponed annotations here: Gradio reads the return types of the endpoints as they stand.

from collections.abc import AsyncGenerator
from itertools import zip_longest
from operator import attrgetter
from typing import Any, TypedDict

import gradio as gr
from gradio.context import LocalContext

from sentiment_core.artifacts.store import ArtifactError, Run
from sentiment_core.dashboard.components.answers import word_of
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.inputs import MAX_ROWS, InputRefused, clean_text
from sentiment_core.dashboard.serving import MODEL_EVENT, Refused


class Row(TypedDict):
    """What the models would answer if the review ended at this character; null as in `Answer`."""

    end: int
    base_p_positive: float
    fine_tuned_p_positive: float | None


class Answer(TypedDict):
    """One review's answers; null where nothing is fine-tuned."""

    base_p_positive: float
    base_label: str
    fine_tuned_p_positive: float | None
    fine_tuned_label: str | None
    run_id: str
    engine: str | None  # elsewhere: the adapter and base that answered there, with their hashes, and where
    trace: list[Row] | None  # how the answers came while reading, the text stripped; null unless asked for


async def found_by(events: AsyncGenerator[Any]) -> Any:
    """What the last of them found; gr.Error where that is `Refused`, or where who asked has left: Gradio ends
    generators then, but lets coroutines run on."""
    blocks: Any = LocalContext.blocks.get(None)
    asked = blocks and blocks._queue.event_ids_to_events[LocalContext.event_id.get()]
    async for event in events:
        if asked and not asked.alive:
            await events.aclose()  # now: the error's traceback holds them
            raise gr.Error("Nobody waits for this any more.")
        if isinstance(event, Refused):
            raise gr.Error(event.sentence)
    return event.found


def register(context: Context) -> None:
    """Add the endpoints to the Blocks being built."""

    def known_run(run: str) -> Run | None:
        """The run of that name, or the default one; refused where there is no such run."""
        try:
            if "/" in run:
                return context.store.hub_run(run)
        except ArtifactError as error:
            raise gr.Error(f"{error}.") from None
        chosen = context.store.run(run)
        if run and (chosen is None or chosen.run_id != run):
            names = ", ".join(r.run_id for r in context.store.finished_runs()) or "none"
            raise gr.Error(f"No such run. Finished runs: {names}.")
        return chosen

    def answer(base: float, fine: float | None, run: Run | None, trace: list[Row] | None = None) -> Answer:
        return Answer(
            base_p_positive=base, base_label=word_of(base), run_id=run.run_id if run else "", trace=trace,
            engine=context.serving.host.about(run) or None,
            fine_tuned_p_positive=fine, fine_tuned_label=None if fine is None else word_of(fine),
        )  # fmt: skip

    async def answers(texts: list[str], run: Run | None) -> list[Answer]:
        try:
            texts = [clean_text(text) for text in texts]
        except InputRefused as error:
            raise gr.Error(str(error)) from None
        found = await found_by(context.serving.scores(run, texts))
        return [answer(*pair, run) for pair in zip_longest(found["base"], found.get("fine-tuned", []))]

    async def traced(text: str, run: Run | None) -> Answer:
        found = await found_by(context.serving.ask(run, text))
        tuned = found["fine-tuned"].p_positive if "fine-tuned" in found else ()
        triples = zip_longest(found["base"].ends, found["base"].p_positive, tuned)
        rows = [Row(end=end, base_p_positive=p, fine_tuned_p_positive=q) for end, p, q in triples]
        return answer(rows[-1]["base_p_positive"], rows[-1]["fine_tuned_p_positive"], run, rows)

    async def classify(text: str, run: str = "", trace: bool = False) -> Answer:
        """Classify one review with both models.

        Parameters:
            text: the review, up to 20,000 characters.
            run: which fine-tuned run; empty for the page's default.
            trace: also what the models would answer if the review ended after each of its clauses.
        """
        chosen = known_run(run)
        return await traced(text, chosen) if trace else (await answers([text], chosen))[0]

    async def classify_batch(texts: list[str], run: str = "") -> list[Answer]:
        """Classify up to 5,000 reviews with both models; the answers come in the same order.

        Parameters:
            texts: the reviews, each up to 20,000 characters.
            run: which fine-tuned run; empty for the page's default.
        """
        if not isinstance(texts, list) or not texts:
            raise gr.Error("Send a list of reviews.")
        if len(texts) > MAX_ROWS:
            raise gr.Error(f"{len(texts):,} reviews are too many; up to {MAX_ROWS:,} at a time.")
        return await answers(texts, known_run(run))

    def metrics(run: str = "", dataset: str = "") -> list[dict[str, Any]]:
        """Every stored metric of every evaluation: eval_id, system, run_id (null without one), dataset,
        metric, value, n, and low and high of its 95 % interval, null where none is defined.

        Parameters:
            run: only this run's and those without a run; empty for all.
            dataset: only this dataset; empty for all.
        """
        if known := known_run(run) if run else None:
            run = known.run_id
        if dataset and dataset not in context.store.datasets():
            raise gr.Error(f"No such dataset. Evaluated: {', '.join(context.store.datasets()) or 'none'}.")
        return [
            record.model_dump(include={"eval_id", "system", "run_id"})
            | {"dataset": record.dataset.name, "metric": name}
            | metric.model_dump(include={"value", "low", "high", "n"})
            for record in (evaluation.record for evaluation in context.store.listing().evals)
            if (not run or record.run_id in (None, run)) and (not dataset or record.dataset.name == dataset)
            for name, metric in record.metrics.items()
        ]

    def runs() -> list[dict[str, Any]]:
        """The training runs and what they cost; the figures of an unfinished one are null."""
        figures = {
            "base_model": "base_model.name", "parameters": "base_model.parameters",
            "trainable_parameters": "trainable_parameters", "wall_seconds": "wall_seconds",
            "device": "hardware.device", "validation_accuracy": "validation_accuracy.value",
        }  # fmt: skip
        return [
            {"run_id": run.run_id, "finished": run.record is not None}
            | {name: run.record and attrgetter(place)(run.record) for name, place in figures.items()}
            for run in context.store.listing().runs
        ]

    for endpoint in (classify, classify_batch):
        gr.api(endpoint, **MODEL_EVENT)
    for endpoint in (metrics, runs):
        gr.api(endpoint)
