"""One call of eval.py: which systems on which reviews, each scored, summarized and written as artifacts."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.frames import OVERLAP_SETTING, summarize
from sentiment_core.artifacts.schema import EvalRecord
from sentiment_core.artifacts.store import read_eval, utc_now, write_eval
from sentiment_core.config import ConfigError, EvalConfig
from sentiment_core.engines.device import find_device
from sentiment_core.evaluation.inputs import Inputs, group_columns
from sentiment_core.evaluation.shards import PartStore, Scored, process_group, score
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Work
from sentiment_core.systems import SYSTEMS


@dataclass(frozen=True)
class Outcome:
    """One evaluation: made by this call, or found finished with the same settings and kept."""

    record: EvalRecord
    folder: Path
    kept: bool = False


def evaluate(config: EvalConfig, *, assets: Path, work: Path, overwrite: bool = False) -> list[Outcome]:
    """Evaluate what the settings ask for; on every process of a launch but the first, returns nothing.

    Raises:
        ConfigError, DataError, BaseModelError, ArtifactError: one sentence each.
    """
    inputs = Inputs(config, find_device(config.precision), assets)
    asked = SYSTEMS if config.system == "all" else (config.system,)
    systems = [pkgutil.resolve_name(SYSTEMS[name].work)(name, inputs) for name in asked]
    folders = [assets / "evals" / system.eval_id for system in systems]
    kept = [
        not overwrite and finished(system, folder, keep=config.system == "all")
        for system, folder in zip(systems, folders, strict=True)
    ]
    outcomes: list[Outcome] = []
    with process_group(inputs.context):
        for system, folder, keep in zip(systems, folders, kept, strict=True):
            if keep:
                inputs.say(f"{system.eval_id}: already finished with the same settings, kept")
                outcomes.append(Outcome(read_eval(folder).record, folder, kept=True))
            elif record := run(system, folder, work / "evals" / system.eval_id):
                outcomes.append(Outcome(record, folder))
    return outcomes if inputs.context.is_main else []


def finished(system: EvaluatedSystem, folder: Path, *, keep: bool) -> bool:
    """Whether a finished evaluation can stand for this one.

    Raises:
        ConfigError: there is one that may be neither kept nor replaced.
    """
    if not (folder / "eval.json").exists():
        return False
    before = read_eval(folder).record.settings
    for name, now in system.decisive().items():
        if before.get(name) != now:
            raise ConfigError(
                f"evaluation {system.eval_id!r} exists in {folder.parent} with another {name} "
                f"({before.get(name)!r}, now {now!r}); --overwrite replaces it"
            )
    if not keep:
        raise ConfigError(
            f"evaluation {system.eval_id!r} is finished in {folder.parent}; --overwrite repeats it"
        )
    return True


def run(system: EvaluatedSystem, folder: Path, work_folder: Path) -> EvalRecord | None:
    """Score, summarize and write one evaluation; the record on the main process."""
    inputs = system.inputs
    inputs.say(system.eval_id)
    context = inputs.context if system.on_devices else replace(inputs.context, world_size=1)
    if not system.on_devices and not context.is_main:
        return None
    store = PartStore(work_folder, system.identity(), context)
    if context.is_main:
        store.open()
    work = system.work()
    on_gpu = system.on_devices and context.device.type == "cuda"
    scored = score(work, store, inputs.encoded.lengths, warm_up=on_gpu, label=system.id, say=inputs.say)
    if scored is None:
        return None
    answers = work.answers(scored.values)
    predictions = predictions_table(inputs, answers)
    hardware = provenance.hardware("cuda" if on_gpu else "cpu", context.world_size if on_gpu else 1)
    record = EvalRecord(
        eval_id=system.eval_id,
        system=system.id,
        created_at=utc_now(),
        commit=provenance.commit(),
        base_model=work.base_model,
        run_id=system.run_id,
        prompt=inputs.encoder.info if work.base_model else None,
        dataset=inputs.test.info,
        answer_forms=answers.get("answer_forms", ()),
        settings=settings_of(system, work, scored),
        command=provenance.command_line(),
        wall_seconds=round(scored.seconds, 3),
        reviews_per_second=round(len(predictions) / max(scored.seconds, 1e-9), 2),
        hardware=hardware,
        versions=provenance.versions(),
        **summarize(predictions, overlap_ids=inputs.test.overlap_ids),
    )
    (folder / "eval.json").unlink(missing_ok=True)  # from here to the end it is unfinished
    write_eval(folder, record, predictions)
    store.remove()
    return record


def predictions_table(inputs: Inputs, answers: dict[str, Any]) -> pd.DataFrame:
    """PREDICTION_COLUMNS and the groups of the dataset, one row a review."""
    reviews, encoded = inputs.test.reviews, inputs.encoded
    predictions = pd.DataFrame(
        {
            "review_id": reviews.ids,
            "label": reviews.labels,
            "prediction": answers["prediction"],
            "p_positive": answers["p_positive"],
            "tokens": encoded.lengths.astype(np.int32),
            "truncated": encoded.truncated,
        }
    )
    return pd.concat([predictions, group_columns(reviews)], axis=1)


def settings_of(system: EvaluatedSystem, work: Work, scored: Scored) -> dict[str, Any]:
    """What decided the predictions first, see `EvaluatedSystem.decisive`."""
    inputs, config = system.inputs, system.config
    settings = system.decisive() | {"max_length_tokens": inputs.max_length}
    if config.limit:
        settings |= {"limit": config.limit, "limit_seed": config.seed}
    settings |= work.settings | {"identity": system.identity()}
    settings["warmup_seconds"] = round(scored.warmup_seconds, 2)
    if inputs.test.overlap_ids:
        settings[OVERLAP_SETTING] = list(inputs.test.overlap_ids)
    return settings


# ---- what a person sees


def describe(outcomes: list[Outcome], assets: Path) -> str:
    """A table of what was evaluated, where it is, and what to do next."""
    titles = [SYSTEMS[outcome.record.system].title for outcome in outcomes]
    table = pd.DataFrame([_row(outcome) for outcome in outcomes], index=titles)
    lines = [line.rstrip() for line in table.to_string().splitlines()]
    lines += ["", f"Folder  {assets / 'evals'}"]
    lines += [f"        {outcome.folder.name}" for outcome in outcomes]
    return "\n".join([*lines, "Next    python app.py"])


def _row(outcome: Outcome) -> dict[str, str]:
    record = outcome.record
    accuracy = record.metrics["accuracy"]
    return {
        "Accuracy (95 % interval)": f"{accuracy.value:.2%} ({accuracy.low:.2%}–{accuracy.high:.2%})",
        "n": f"{accuracy.n:,}",
        "Unparsed": f"{record.unparsed:,}",
        "Seconds": f"{record.wall_seconds:.1f}",
        "Reviews/s": f"{record.reviews_per_second:,.0f}",
        "": "kept" if outcome.kept else "",
    }
