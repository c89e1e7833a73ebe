"""One call of eval.py: which systems on which reviews, each scored, summarized and written as artifacts."""

import pkgutil
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.frames import OVERLAP_SETTING, summarize
from sentiment_core.artifacts.schema import EvalRecord
from sentiment_core.artifacts.store import read_eval, utc_now, write_eval
from sentiment_core.config import ConfigError, EvalConfig
from sentiment_core.engines.device import decided_by_main, find_device
from sentiment_core.evaluation.inputs import Inputs, group_columns
from sentiment_core.evaluation.shards import PartStore, score
from sentiment_core.evaluation.systems.base import EvaluatedSystem
from sentiment_core.models.base_models import writing
from sentiment_core.systems import ENCODERS, SYSTEMS

Outcomes = list[tuple[EvalRecord, bool]]
"""Each evaluation, and whether it was found finished with the same settings and kept."""


def evaluate(config: EvalConfig, *, assets: Path, work: Path, overwrite: bool = False) -> Outcomes:
    """Evaluate what the settings ask for; on every process of a launch but the first, returns nothing.
    Raises ConfigError, DataError, BaseModelError, ArtifactError: one sentence each."""
    inputs = Inputs(config, find_device(config.precision), assets)
    every = [name for name in SYSTEMS if name not in ENCODERS]
    asked = every if config.system == "all" else [config.system]
    systems = [pkgutil.resolve_name(SYSTEMS[name].work)(name, inputs) for name in asked]
    folders = {system: assets / "evals" / system.eval_id for system in systems}
    there = () if overwrite else folders.items()
    kept = decided_by_main(inputs.context, lambda: {each.eval_id for each, at in there if finished(each, at)})
    outcomes: Outcomes = []
    for system, folder in folders.items():
        if system.eval_id in kept:
            inputs.say(f"{system.eval_id}: already finished with the same settings, kept")
            outcomes += [(read_eval(folder).record, True)] if inputs.context.is_main else []
        elif record := run(system, folder, work / "evals" / system.eval_id):
            outcomes.append((record, False))
    PartialState().wait_for_everyone()  # the first one may still be at a system that it does alone
    PartialState().destroy_process_group()
    for system in systems:
        shutil.rmtree(work / "evals" / system.eval_id, ignore_errors=True)
    return outcomes


def finished(system: EvaluatedSystem, folder: Path) -> bool:
    """Whether a finished evaluation can stand for this one. Raises ConfigError: it has other settings."""
    if not (folder / "eval.json").exists():
        return False
    before = read_eval(folder).record.settings
    for name, now in system.decisive().items():
        if before.get(name) != now:
            raise ConfigError(
                f"evaluation {system.eval_id!r} exists in {folder.parent} with another {name} "
                f"({before.get(name)!r}, now {now!r}); --overwrite replaces it"
            )
    return True


def run(system: EvaluatedSystem, folder: Path, work_folder: Path) -> EvalRecord | None:
    """Score, summarize and write one evaluation; the record on the main process."""
    inputs, context = system.inputs, system.inputs.context
    inputs.say(system.eval_id)
    if not system.on_devices:
        context = replace(context, device=torch.device("cpu"), world_size=1)
        if not context.is_main:
            return None
    store, work = PartStore(work_folder, system.identity(), context), system.work()
    if (scored := score(system, work, store)) is None:
        return None
    values, seconds, warmup = scored
    answers = work.answers(values)
    forms = answers.pop("answer_forms", ())
    reviews, encoded = inputs.test.reviews, inputs.encoded
    columns = {
        "review_id": reviews.ids, "label": reviews.labels, "prediction": answers["prediction"],
        "p_positive": answers["p_positive"], "tokens": encoded.lengths.astype(np.int32),
        "truncated": encoded.truncated,
    }  # fmt: skip
    predictions = pd.DataFrame(columns | answers | group_columns(reviews))
    config, overlap = system.config, inputs.test.overlap_ids
    settings = system.decisive() | {"max_length_tokens": inputs.max_length}  # what decided them comes first
    settings |= {"limit": config.limit, "limit_seed": config.seed} if config.limit else {}
    settings |= work.settings | {"identity": system.identity()}
    settings |= {OVERLAP_SETTING: list(overlap)} if overlap else {}
    record = EvalRecord(
        eval_id=system.eval_id, system=system.id, run_id=system.run_id, created_at=utc_now(),
        commit=provenance.commit(), command=provenance.command_line(), versions=provenance.versions(),
        hardware=provenance.hardware(context.device.type, context.world_size),
        base_model=work.base_model, prompt=inputs.encoder.info if work.base_model else None,
        dataset=inputs.test.info, answer_forms=forms,
        settings=settings | {"warmup_seconds": round(warmup, 2)},
        wall_seconds=round(seconds, 3), reviews_per_second=round(len(values) / max(seconds, 1e-9), 2),
        **summarize(predictions, overlap_ids=overlap),
    )  # fmt: skip
    (folder / "eval.json").unlink(missing_ok=True)  # from here to the end it is unfinished
    with writing(folder):
        write_eval(folder, record, predictions)
    return record


def describe(outcomes: Outcomes, assets: Path) -> str:
    rows = {}
    for record, kept in outcomes:
        accuracy = record.metrics["accuracy"]
        rows[record.measured_title] = {
            "Accuracy (95 % interval)": f"{accuracy.value:.2%} ({accuracy.low:.2%}–{accuracy.high:.2%})",
            "n": f"{accuracy.n:,}", "Unparsed": f"{record.unparsed:,}",
            "Seconds": f"{record.wall_seconds:.1f}", "Reviews/s": f"{record.reviews_per_second:,.0f}",
            "": "kept" if kept else "",
        }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").to_string()
    lines = [*map(str.rstrip, table.splitlines()), "", f"Folder  {assets / 'evals'}"]
    lines += [f"        {record.eval_id}" for record, _ in outcomes]
    return "\n".join([*lines, "Next    python app.py"])
