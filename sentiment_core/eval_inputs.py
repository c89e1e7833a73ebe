"""What an evaluation starts from: the run, its base model, the reviews under test and the train rows."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sentiment_core.artifacts import read_run
from sentiment_core.base_models import BaseModel, BaseModelError, file_sha256, resolve
from sentiment_core.config import ConfigError, EvalConfig, TrainConfig
from sentiment_core.data import (
    DEFAULT_DATASET,
    DataError,
    Reviews,
    TrainSplit,
    load_reviews,
    overlapping_ids,
    split_train,
)
from sentiment_core.schema import PREDICTION_COLUMNS, DatasetInfo, RunRecord
from sentiment_core.sources import open_source

GROUP_CHARACTERS, GROUP_VALUES = 60, 50
"""A column of the dataset is carried along when its values are this short and this few (pairs aside)."""


# ---- run and base model


def find_run(name: str, assets: Path) -> RunRecord:
    """A finished run by its name under assets/runs, or by its folder; `folder_of` has the same rule.

    Raises:
        ConfigError: no such run, or an unfinished one.
        ArtifactError: its record cannot be read.
    """
    folder = folder_of(name, assets)
    if not folder.is_dir():
        runs = assets / "runs"
        known = sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []
        raise ConfigError(
            f"--run {name!r} is not under {runs} (there: {', '.join(known) or 'nothing'}); "
            "train it with train.py, or give its folder"
        )
    record = read_run(folder).record
    if record is None:
        raise ConfigError(f"--run {name!r} is unfinished (no run.json); finish it with train.py --resume")
    return record


def folder_of(name: str, assets: Path) -> Path:
    named = assets / "runs" / name
    return named if named.is_dir() or not Path(name).is_dir() else Path(name)


def base_of(flag: str, run: RunRecord | None) -> BaseModel:
    """The base model: the flag's, else the run's, else the default.

    Raises:
        ConfigError: the run's base is a folder that is not here.
    """
    if run is None:
        return resolve(flag or None)
    name = flag or run.config.get("base_model") or run.base_model.name
    base = resolve(name)
    if base.name != run.base_model.name:
        raise ConfigError(
            f"--base-model {name!r} is not the base of run {run.run_id!r} ({run.base_model.name!r}); "
            "leave the flag out, or give that model's folder"
        )
    if run.base_model.source == "folder" and not base.is_local:
        raise ConfigError(
            f"run {run.run_id!r} was trained on the folder {run.base_model.name!r}, which is not here; "
            "give its path with --base-model"
        )
    return base


def base_key(base: BaseModel) -> str:
    """What tells two base models of one name apart."""
    if base.embedded is not None:
        return base.embedded.sha256
    if not base.is_local:
        return f"{base.location}@{base.revision or 'main'}"
    files = sorted(Path(str(base.location)).glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        large = path.stat().st_size > 2 << 30
        digest.update(f"{path.name} {path.stat().st_size if large else file_sha256(path)}\n".encode())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """A name with nothing but letters, digits, ".", "_" and "-".

    >>> safe_name("Qwen/Qwen2.5 0.5B")
    'Qwen2.5-0.5B'
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last) or "unnamed"


def adapter_hash(run: Path) -> str:
    """SHA-256 of a run's adapter.

    Raises:
        BaseModelError: it is not there.
    """
    path = run / "adapter" / "adapter_model.safetensors"
    if not path.is_file():
        raise BaseModelError(f"{run} holds no adapter/{path.name}; train the run again (python train.py)")
    return file_sha256(path)


# ---- the reviews


@dataclass(frozen=True)
class Subject:
    """The reviews under test."""

    reviews: Reviews
    split: str
    """"all" for an undivided source."""
    overlap_ids: tuple[str, ...]
    short_name: str
    """With split and limit, as evaluation names begin."""

    @classmethod
    def load(cls, config: EvalConfig) -> Subject:
        source = open_source(config.dataset)
        split = config.split if source.splits else "all"
        reviews = load_reviews(config.dataset, config.split, limit=config.limit, seed=config.seed)
        overlap = overlapping_ids(config.dataset) if split == "test" else set()
        name = safe_name(reviews.name)
        name += f"-{safe_name(split)}" if split not in ("test", "all") else ""
        name += f"-n{config.limit}" if config.limit else ""
        return cls(reviews, split, tuple(sorted(overlap & set(reviews.ids))), name)

    @property
    def info(self) -> DatasetInfo:
        reviews = self.reviews
        return DatasetInfo(
            name=reviews.name,
            split=self.split,
            n=len(reviews),
            fingerprint=reviews.fingerprint,
            source=reviews.source,
        )


def group_columns(reviews: Reviews) -> pd.DataFrame:
    """The dataset's further columns that hold short values, few of them unless they tie pairs together."""
    texts = set(reviews.texts)
    kept: dict[str, pd.Series] = {}
    for column in reviews.group_columns:
        values = reviews.frame[column]
        present = values.dropna()
        scalars = present.map(lambda value: isinstance(value, str | bool | int | float | np.generic)).all()
        if column in PREDICTION_COLUMNS or not len(present) or not scalars:
            continue
        shown = present.astype(str)
        few = column == "pair_id" or shown.nunique() <= GROUP_VALUES
        if few and shown.str.len().max() <= GROUP_CHARACTERS and not shown.isin(texts).any():
            mixed = values.dtype == object and present.map(type).nunique() > 1
            kept[column] = values.where(values.isna(), values.astype(str)) if mixed else values
    return pd.DataFrame(kept, index=reviews.frame.index)


# ---- the train rows


def train_rows(config: EvalConfig, run: RunRecord | None) -> TrainSplit:
    """The train rows of the run, or those that train.py's defaults would take.

    Raises:
        ConfigError: they are not the rows that the run was trained on, or its source is not here.
    """
    source = _train_source(config, run)
    if run is None:
        most = len(load_reviews(source, "train")) // 10
        held = min(TrainConfig.validation, most) if most > 1 else 0
        return split_train(source, validation=held, exclude=config.exclude, seed=TrainConfig.seed)
    excluded = tuple(run.config.get("exclude", ()))
    try:
        split = split_train(
            source,
            validation=run.config["validation"],
            exclude=config.exclude or tuple(path for path in excluded if os.path.exists(path)),
            limit=run.config.get("limit"),
            seed=run.config["seed"],
        )
    except DataError as error:
        raise ConfigError(
            f"the baselines need the train rows of run {run.run_id!r}: {error} "
            "(--train-dataset says where they are)"
        ) from None
    if split.train.fingerprint != run.data.fingerprint:
        unseen = f" without {', '.join(excluded)}" if excluded else ""
        raise ConfigError(
            f"{source} gives train rows with fingerprint {split.train.fingerprint}, run {run.run_id!r} "
            f"was trained on {run.data.fingerprint} ({run.data.source}{unseen}); "
            "name the same with --train-dataset and --exclude"
        )
    return split


def _train_source(config: EvalConfig, run: RunRecord | None) -> str:
    """--train-dataset, else the run's source, found again under --dataset when that is a local copy."""
    if config.train_dataset:
        return config.train_dataset
    tested = open_source(config.dataset)
    if run is None:
        return config.dataset if "train" in tested.splits else DEFAULT_DATASET
    return config.dataset if tested.shown == run.data.source else run.data.source
