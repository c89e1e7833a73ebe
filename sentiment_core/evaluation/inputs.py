"""What an evaluation starts from: the run, its base model, the reviews under test and the train rows."""

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sentiment_core.artifacts.frames import group_columns as group_names
from sentiment_core.artifacts.remote import fetch_run
from sentiment_core.artifacts.schema import DatasetInfo
from sentiment_core.artifacts.store import Run, read_finished
from sentiment_core.config import ConfigError, EvalConfig, TrainConfig
from sentiment_core.data import reviews as data
from sentiment_core.data.sources import NAMED, open_source
from sentiment_core.engines.device import DTYPES, DeviceContext, free_memory
from sentiment_core.models import loading
from sentiment_core.models.base_models import base_of
from sentiment_core.models.tokens import Encoded, PromptEncoder, check_fits

GROUP_CHARACTERS, GROUP_VALUES = 60, 50
"""A column of the dataset is carried along when its values are this short and this few (pairs aside)."""


@dataclass(frozen=True)
class TestSet:
    reviews: data.Reviews
    info: DatasetInfo
    overlap_ids: tuple[str, ...]  # reviews whose text also stands in train
    short_name: str  # with split and limit, as evaluation names begin


class Inputs:
    """What the systems of one call share: the run, the reviews and their prompts, train rows, the base model.
    Raises ConfigError, DataError, BaseModelError, ArtifactError: one sentence each."""

    def __init__(self, config: EvalConfig, context: DeviceContext, assets: Path) -> None:
        self.config, self.context, self.say = config, context, context.say
        self.trained = find_run(config.run, assets) if config.run else None
        self.run = self.trained.record if self.trained else None
        self.base = base_of(config.base_model, self.run)
        if self.run:
            check_fits(self.run, self.encoder)
        self.max_length = config.max_length_tokens or (self.run or TrainConfig).max_length_tokens
        self._loaded: loading.LoadedModel | None = None

    @cached_property
    def encoder(self) -> PromptEncoder:
        return PromptEncoder(loading.load_tokenizer(self.base))

    @cached_property
    def test(self) -> TestSet:
        config, splits = self.config, open_source(self.config.dataset).splits
        split = config.split if splits else "all"  # of an undivided source
        reviews = data.load_reviews(config.dataset, config.split, limit=config.limit, seed=config.seed)
        trained = split == "test" and "train" in splits
        known = data.load_reviews(config.dataset, "train").ids if trained else ()
        name = safe_name(reviews.name)
        name += f"-{safe_name(split)}" if split not in ("test", "all") else ""
        name += f"-n{config.limit}" if config.limit else ""
        found = {"n": len(reviews), "fingerprint": reviews.fingerprint, "source": reviews.source}
        info = DatasetInfo(name=reviews.name, split=split, **found)
        return TestSet(reviews, info, tuple(sorted(set(known) & set(reviews.ids))), name)

    @cached_property
    def fingerprint(self) -> str:
        return self.test.reviews.fingerprint

    @cached_property
    def encoded(self) -> Encoded:
        started = time.perf_counter()
        encoded = self.encoder.encode_cached(self.test.reviews.texts, self.max_length)
        self.say(
            f"Reviews: {len(encoded):,} from {self.test.reviews.source}, "
            f"{int(encoded.lengths.sum()):,} prompt tokens ({time.perf_counter() - started:.1f} s)"
        )
        return encoded

    def prompts(self, rows: np.ndarray) -> Encoded:
        """The zero-shot prompts of these reviews."""
        ids = [self.encoded[row] for row in rows]
        return Encoded.from_lists(ids, self.encoded.truncated[rows], self.encoded.shared)

    @cached_property
    def train_split(self) -> data.TrainSplit:
        """The train rows of the run, or those that train.py's defaults would take.
        Raises ConfigError: they are not the rows that the run was trained on, or its source is not here."""
        run, (source, exclude) = self.run, self.train_rows()
        if run is None:
            most = len(data.load_reviews(source, "train")) // 10
            held = min(TrainConfig.validation, most) if most > 1 else 0
            return data.split_train(source, validation=held, exclude=exclude, seed=TrainConfig.seed)
        sizes = {"validation": run.config["validation"], "limit": run.config.get("limit")}
        try:
            split = data.split_train(source, exclude=exclude, seed=run.config["seed"], **sizes)
        except data.DataError as error:
            raise ConfigError(
                f"the baselines need the train rows of run {run.run_id!r}: {error} "
                "(--train-dataset says where they are)"
            ) from None
        if split.train.fingerprint != run.data.fingerprint:
            unseen = f" without {', '.join(run.config['exclude'])}" if run.config.get("exclude") else ""
            raise ConfigError(
                f"{source} gives train rows with fingerprint {split.train.fingerprint}, run {run.run_id!r} "
                f"was trained on {run.data.fingerprint} ({run.data.source}{unseen}); "
                "name the same with --train-dataset and --exclude"
            )
        return split

    def train_rows(self) -> tuple[str, tuple[str, ...]]:
        """Where they come from, and what is excluded from it.

        --train-dataset, else the run's source, found again under --dataset when that is a local copy;
        --exclude, else what the run excluded, where it is here.
        """
        config, tested = self.config, open_source(self.config.dataset)
        here, otherwise, trained = "train" in tested.splits, TrainConfig.dataset, ()
        if self.run:
            otherwise, trained = self.run.data.source, self.run.config.get("exclude", ())
            here = tested.shown == otherwise
        excluded = config.exclude or tuple(one for one in trained if one in NAMED or os.path.exists(one))
        return config.train_dataset or (config.dataset if here else otherwise), excluded

    def base_model(self, precision: str, *, shared: bool = True) -> loading.LoadedModel:
        """The base model without an adapter, loaded once as long as the precision stays.
        shared: False hands it over for good, to a system that puts an adapter on it."""
        dtype, device, engine = DTYPES[precision], self.context.device, self.config.engine
        if self._loaded and self._loaded.compute_dtype != dtype:
            self._loaded = None
        free_memory()  # what the last system left counts when this one sizes its batches
        if not (loaded := self._loaded):
            loaded = loading.load_base(self.base, device=device, compute_dtype=dtype, dequantized=False)
            if self.run:
                check_fits(self.run, loaded.encoder, loaded.info.revision)
            if engine == "auto" and device.type == "cuda":
                roomy = 2 * loaded.info.parameters < 0.5 * torch.cuda.mem_get_info(device)[0]  # bytes
                engine = "dequantized" if roomy else "nf4"
            if engine != "nf4":
                loading.dequantize(loaded.model, dtype)
        self._loaded = loaded if shared else None
        return loaded


def find_run(name: str, assets: Path) -> Run:
    """A finished run by its name under assets/runs, by its folder, or by its Hub id user/name.
    Raises ConfigError: no such run. ArtifactError: it is unfinished, or cannot be had or read."""
    runs = assets / "runs"
    folder = next((path for path in (runs / name, Path(name)) if path.is_dir()), None)
    if folder is None:
        if name.count("/") == 1 and not name.startswith((".", "/")):
            return fetch_run(name)
        known = sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []
        raise ConfigError(
            f"--run {name!r} is not under {runs} (there: {', '.join(known) or 'nothing'}); "
            "train it with train.py, or give its folder or Hub id"
        )
    return read_finished(folder)


def safe_name(name: str) -> str:
    """A name with nothing but letters, digits, ".", "_" and "-".

    >>> safe_name("Qwen/Qwen2.5 0.5B")
    'Qwen2.5-0.5B'
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last) or "unnamed"


def group_columns(reviews: data.Reviews) -> dict[str, pd.Series]:
    """The dataset's further columns that hold short values, few of them unless they tie pairs together."""
    kept: dict[str, pd.Series] = {}
    for column in group_names(reviews.frame.columns.drop(["text", "split"])):
        values = reviews.frame[column]
        shown = values.dropna().astype(str)
        few = len(shown) and (column == "pair_id" or shown.nunique() <= GROUP_VALUES)
        if few and shown.str.len().max() <= GROUP_CHARACTERS and not shown.isin(reviews.texts).any():
            plain = values.where(values.isna(), values.astype(str))  # objects of any kind and mixture
            kept[column] = plain if values.dtype == object else values
    return kept
