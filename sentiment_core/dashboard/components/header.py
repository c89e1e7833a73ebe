"""The header: what happened in one sentence, and the three figures that matter."""

from collections import Counter

from markupsafe import Markup

from sentiment_core.artifacts.schema import EvalRecord, RunRecord
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.parts import render, seconds
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.store import DATASET_TITLES, actors_of, noun
from sentiment_core.models.base_models import EMBEDDED

TITLE = "QLoRA, before and after"
ABOUT = "Watch a small language model read movie reviews, before and after a minute of fine-tuning."
PAIRS = "counterfactual_imdb_test"
NEARLY_EVERY = 0.9  # a base that calls this share of the reviews positive called "nearly every film good"
PRESET_TITLES = {"best": "Our recipe", "study": "The study’s settings"}  # of runs, by their preset
MOST_PROBLEMS = 8  # problems that are told one by one; the rest are counted


def head_html(context: Context, run: Run | None) -> tuple[Markup, Markup]:
    """What happened, in one sentence and its figures, in plain words for a base that could tell; and
    accuracy, contrast consistency, time, as far as there are artifacts of them."""
    evals, pairs = (before_and_after(context, run, name) for name in (context.dataset("imdb"), PAIRS))
    pairs = {who: one for who, one in pairs.items() if "consistency" in one.metrics}
    record = run.record if run else None
    sources = [one.dataset.name for one in evals.values()] + ([record.data.source] if record else [])
    told = {"evals": evals, "record": record, "noun": noun(*sources)}
    look = {"share_positive": share_positive, "nearly_every": NEARLY_EVERY, "base_title": base_title}
    return render("title", **told, **look), render("stats", **told, pairs=pairs)


def before_and_after(context: Context, run: Run | None, dataset: str | None) -> dict[str, EvalRecord]:
    """Actor -> its record on the dataset, the base model first."""
    return {actor: one.record for actor, one in actors_of(context.store.evals(run, dataset)).items()}


def share_positive(record: EvalRecord) -> float:
    """The share of all reviews that were called positive."""
    cells = record.confusion
    return (cells.negative_positive + cells.positive_positive) / record.dataset.n


def run_titles(context: Context, *others: Run | None, story: bool = False) -> dict[str, str]:
    """run_id -> a name for people, "Our recipe, 39 s", with the base where there are several; a `story` tells
    base and data, too. Of runs that would share a name, those not called like their base go by their own.
    others: of which those from the Hub are named as well, by repository and commit."""
    runs = [*context.store.finished_runs(), *(run for run in others if run and run.hub)]
    records = {run.run_id: run.record for run in runs if run.record}
    kinds = {name: (_recipe(name, one), base_title(one.base_model.name)) for name, one in records.items()}
    counts, several, titles = Counter(kinds.values()), story or len({*(b for _, b in kinds.values())}) > 1, {}
    for (run_id, one), (recipe, base) in zip(records.items(), kinds.values(), strict=True):
        named = counts[recipe, base] == 1 or run_id == one.base_model.name
        parts = [recipe if named else run_id, *[base] * several]
        parts += [seconds(one.wall_seconds), *[f"{one.data.labelled:,} {noun(one.data.source)}"] * story]
        titles[run_id] = ", ".join(parts)
    return titles


def _recipe(run_id: str, record: RunRecord) -> str:
    """How it was trained: its preset, or who taught it; what it learned besides; of how many the mean."""
    if "@" in run_id:
        return run_id.replace("@", " at ")[: run_id.index("@") + 11]
    recipe, also = PRESET_TITLES.get(str(record.config.get("preset")), run_id), record.data.also
    if teacher := record.teacher:
        own = teacher.base_model == record.base_model.name
        recipe = "Self-training" if own else f"Taught by {base_title(teacher.base_model)}"
    recipe += f" + {DATASET_TITLES.get(also.source, also.source)}" if also else ""
    return recipe + (f", mean of {len(record.parts)} runs" if record.parts else "")


def base_title(name: str) -> str:
    """A base model as people know it, "SmolLM2-135M"."""
    return (EMBEDDED[name].hub_id if name in EMBEDDED else name).rsplit("/", 1)[-1].removesuffix("-Instruct")


def problems_html(context: Context) -> str:
    """What was passed over, with the folder and the remedy; nothing where all is well."""
    problems, root = context.store.problems(), context.store.root  # whose place on the disk nobody learns
    told = [problem.message.replace(str(root), root.name) for problem in problems[:MOST_PROBLEMS]]
    return render("problems", told=told, n=len(problems)) if told else ""
