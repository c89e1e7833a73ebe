"""Settings of train.py and eval.py: frozen, each documented once, the flags made from them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sentiment_core.base_models import DEFAULT_BASE_MODEL
from sentiment_core.systems import SYSTEMS

ASSETS = Path(os.environ.get("SENTIMENT_ASSETS") or Path(__file__).resolve().parent.parent / "assets")
"""Folder of artifacts."""

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
ENGINES = ("auto", "plain", "resident", "packed")


class ConfigError(ValueError):
    """Settings that contradict each other; the message names the flags."""


def _setting(default: Any, help: str, **more: Any) -> Any:
    """A field with its flag's help text; `choices`, `kind` (type) and `many` are argparse matters."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one training run. The defaults are the preset "best"."""

    dataset: str = _setting(
        "stanfordnlp/imdb", "Hub id, parquet/CSV/JSONL file, folder of them, or raw aclImdb folder or archive"
    )
    base_model: str = _setting(
        DEFAULT_BASE_MODEL, "embedded name, Hub id (id@revision) or folder of a causal language model"
    )
    run_id: str = _setting("", "name of the run's folder; by default the base model's (and preset's) name")
    exclude: tuple[str, ...] = _setting(
        (), "file whose reviews must stay unseen in training; may be given again", many=True
    )
    limit: int | None = _setting(None, "train on this many reviews, stratified and seeded", kind=int)
    validation: int = _setting(1000, "reviews cut from train to choose settings and checkpoint by")

    epochs: int = _setting(2, "passes over the training reviews; two validated better than one")
    batch_size: int = _setting(48, "reviews per optimizer step, over all devices")
    micro_batch_size: int = _setting(
        0, "reviews per forward pass on one device (batch-size / micro-batch-size passes accumulate); "
        "0 picks what fits"
    )  # fmt: skip
    learning_rate: float = _setting(1e-3, "peak learning rate")
    schedule: str = _setting("cosine", "after warm-up", choices=("cosine", "linear", "constant"))
    warmup_fraction: float = _setting(0.05, "share of the steps over which the learning rate rises")
    weight_decay: float = _setting(0.0, "AdamW's decay of the adapter's weights")
    max_grad_norm: float = _setting(
        1.0, "gradients longer than this are scaled down to it; 0 switches it off"
    )
    max_length_tokens: int = _setting(
        1024, "longer prompts lose the middle of the review, as 2.3 %% of IMDB do at 1024"
    )

    lora_rank: int = _setting(16, "rank of the adapter's matrices")
    lora_alpha: float = _setting(32.0, "the adapter's output is scaled by alpha / rank")
    lora_dropout: float = _setting(0.0, "dropout in front of the adapter")

    precision: str = _setting(
        "auto", "number format of the matrix products; auto: bf16 where the GPU has it, fp16 on older ones, "
        "fp32 on a CPU", choices=PRECISIONS,
    )  # fmt: skip
    engine: str = _setting(
        "auto", "plain: 4-bit weights unpacked at every use; resident: unpacked once, same values; packed: "
        "resident, reviews laid end to end without padding, one CUDA graph; auto: the fastest that fits",
        choices=ENGINES,
    )  # fmt: skip
    evaluations_per_epoch: int = _setting(2, "how often validation is scored and a checkpoint written")
    gradient_checkpointing: bool = _setting(False, "recompute activations: slower, less memory")
    seed: int = _setting(0, "order of the reviews, validation part and the adapter's start values")

    preset: str = "best"

    def __post_init__(self) -> None:
        for name in ("validation", "epochs", "batch_size", "lora_rank", "evaluations_per_epoch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{flag(name)} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{flag(name)} is {getattr(self, name)}; it must be above 0")
        for name in ("warmup_fraction", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{flag(name)} is {getattr(self, name)}; it must be from 0 up to, not including, 1"
                )
        for name in ("weight_decay", "max_grad_norm", "micro_batch_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} is {getattr(self, name)}; it cannot be negative")
        if self.limit is not None and self.limit < 2:
            raise ConfigError(f"--limit is {self.limit}; at least 2 reviews are needed, one of each label")
        if self.max_length_tokens < 64:
            raise ConfigError(
                f"--max-length-tokens is {self.max_length_tokens}; the prompt alone needs 43, use 64 or more"
            )
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"--micro-batch-size {self.micro_batch_size} does not divide --batch-size {self.batch_size}"
            )
        if self.engine == "packed" and self.lora_dropout:
            raise ConfigError("--engine packed has no dropout; use --lora-dropout 0 or --engine resident")
        if self.engine == "packed" and self.gradient_checkpointing:
            raise ConfigError("--engine packed does not recompute activations; drop --gradient-checkpointing")
        if self.run_id and not is_folder_name(self.run_id):
            raise ConfigError(f"--run-id {self.run_id!r} must be letters, digits, '.', '_' or '-'")

    @property
    def name(self) -> str:
        """The run's folder name."""
        if self.run_id:
            return self.run_id
        model = "".join(c if c.isalnum() or c in "._-" else "-" for c in self.base_model.rsplit("/", 1)[-1])
        return model.lower() + ("" if self.preset == "best" else f"-{self.preset}")


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "study": {
        # The study's own protocol: batch 4 per device × 4 accumulation, 2e-4, one epoch, FP16, evaluation and
        # checkpoint per epoch. Schedule and warm-up are the Trainer's defaults, which it did not change.
        "batch_size": 16,
        "micro_batch_size": 4,
        "learning_rate": 2e-4,
        "epochs": 1,
        "precision": "fp16",
        "evaluations_per_epoch": 1,
        "schedule": "linear",
        "warmup_fraction": 0.0,
    },
}


@dataclass(frozen=True)
class EvalConfig:
    """All settings of one call of eval.py."""

    run: str = _setting("", "run to evaluate: a name under assets/runs, or a folder")
    system: str = _setting("fine-tuned", "which system, or all five", choices=("all", *SYSTEMS))
    dataset: str = _setting("stanfordnlp/imdb", "anything the loader knows, a CSV of your own included")
    split: str = _setting("test", "which part of it")
    base_model: str = _setting("", "for the baselines without --run: embedded name, Hub id or folder")
    limit: int | None = _setting(None, "score this many reviews, stratified and seeded", kind=int)
    train_dataset: str = _setting(
        "", "where few-shot examples and TF-IDF's training rows come from; by default the run's own source"
    )
    exclude: tuple[str, ...] = _setting(
        (), "as in train.py: reviews the baselines must not learn from", many=True
    )
    shots: int = _setting(4, "examples in the few-shot prompt, half of each label")
    max_length_tokens: int = _setting(0, "prompt limit; 0 takes the run's, else 1024")
    max_new_tokens: int = _setting(16, "length of a free answer")
    batch_tokens: int = _setting(0, "tokens scored at once; 0 picks what fits the device")
    precision: str = _setting("auto", "number format of the matrix products", choices=PRECISIONS)
    engine: str = _setting("auto", "as in train.py", choices=ENGINES)
    seed: int = _setting(0, "few-shot examples, --limit, bootstrap")

    def __post_init__(self) -> None:
        if self.system in ("fine-tuned", "all") and not self.run:
            raise ConfigError(
                f"--system {self.system} needs --run NAME (a folder under assets/runs; train.py makes one)"
            )
        if self.shots < 2 or self.shots % 2:
            raise ConfigError(f"--shots is {self.shots}; it must be even and at least 2, half of each label")
        if self.limit is not None and self.limit < 2:
            raise ConfigError(f"--limit is {self.limit}; at least 2 reviews are needed, one of each label")
        for name in ("max_length_tokens", "batch_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} is {getattr(self, name)}; it cannot be negative")
        if self.max_new_tokens < 1:
            raise ConfigError(f"--max-new-tokens is {self.max_new_tokens}; it must be at least 1")


def flag(name: str) -> str:
    """The command-line flag of a setting: "batch_size" -> "--batch-size"."""
    return "--" + name.replace("_", "-")


def is_folder_name(name: str) -> bool:
    return bool(name) and name[0].isalnum() and all(c.isalnum() or c in "._-" for c in name)


_C = TypeVar("_C", TrainConfig, EvalConfig)


def add_flags(parser: argparse.ArgumentParser, config: type[TrainConfig] | type[EvalConfig]) -> None:
    """One flag per setting; one that is not given stays out of the namespace, so that presets can fill in."""
    for item in dataclasses.fields(config):
        if "help" not in item.metadata:
            continue
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS}
        options["help"] = item.metadata["help"]
        if isinstance(item.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif item.metadata.get("many"):
            options |= {"action": "append", "metavar": "PATH"}
        else:
            kind = item.metadata.get("kind") or type(item.default)
            options |= {"type": kind, "metavar": "N" if kind is int else "X" if kind is float else "TEXT"}
            if "choices" in item.metadata:
                options["choices"] = item.metadata["choices"]
                del options["metavar"]
            if item.default not in (None, ""):
                options["help"] += f" (default: {item.default})"
        parser.add_argument(flag(item.name), **options)


def from_flags(config: type[_C], given: dict[str, Any], **base: Any) -> _C:
    """Defaults, then `base` (a preset), then what was given.

    Raises:
        ConfigError: contradictions, named by their flags.
    """
    known = {item.name for item in dataclasses.fields(config)}
    settings = base | {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in known}
    return config(**settings)
