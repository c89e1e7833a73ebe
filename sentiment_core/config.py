"""Settings of train.py and eval.py: frozen, each documented and bounded once; `cli` makes flags of them."""

import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sentiment_core.systems import ENCODERS, SYSTEMS

DEFAULT_BASE_MODEL = "smollm2-135m"

_CHECKOUT = Path(__file__).resolve().parent.parent
_ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
ASSETS = Path(os.environ.get("SENTIMENT_ASSETS") or _ROOT / "assets")
"""Folder of artifacts: the checkout's, or where the package is installed the one of the working folder."""
CHALLENGE_FILE = _ROOT / "assets" / "challenge" / "reviews.csv"  # our own, wherever the artifacts are
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("SENTIMENT_CACHE") or _CACHES / "sentiment-qlora")
"""Converted base models, tokenized reviews and fetched data; safe to delete at any time."""

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
REPORTERS = ("none", "tensorboard", "wandb", "trackio")
PACKING = ("packed", "generic")  # engines that lay reviews end to end
ENGINES = ("auto", "nf4", "dequantized", *PACKING)
FORMER_ENGINES = {"plain": "nf4", "resident": "dequantized"}  # in commands and artifacts of before


class UserError(ValueError):
    """Something that whoever called can correct; the message is one sentence that says how."""


class ConfigError(UserError):
    """Settings out of bounds, or that contradict each other; the message names the flags."""


COLUMN_FLAGS = {
    "text_column": "its column of texts (default: text)",
    "label_column": "its column of labels (default: label)",
    "dataset_config": "which configuration, where the Hub's dataset has several",
    "label_map": "what its labels mean, as in 1=negative,2=negative,4=positive,5=positive",
}
"""What is said of a dataset besides its name. It becomes part of the name, so that records keep it and every
command finds the columns again: "reviews.csv?text_column=body&label_column=stars"."""


def split_name(dataset: str) -> tuple[str, str]:
    """A dataset's plain name, and what follows its "?": `COLUMN_FLAGS` as in a web address, "" for none."""
    name, _, about = dataset.partition("?")
    return (dataset, "") if os.path.exists(dataset) else (name, about)


Bound = tuple[Callable[[Any], bool], str]  # what must hold, and what the error says when it does not
AT_LEAST_1: Bound = (lambda value: value >= 1, "it must be at least 1")
POSITIVE: Bound = (lambda value: value > 0, "it must be above 0")
NOT_NEGATIVE: Bound = (lambda value: value >= 0, "it cannot be negative")
FRACTION: Bound = (lambda value: 0 <= value < 1, "it must be from 0 up to, not including, 1")
BOTH_LABELS: Bound = (lambda n: n is None or n >= 2, "at least 2 reviews are needed, one of each label")
TWO: Bound = (lambda runs: len({*runs}) != 1, "a mean needs two runs or more")
ROOM: Bound = (lambda value: value >= 64, "the prompt alone needs 43, use 64 or more")


def _setting(default: Any, help: str, bound: Bound | None = None, **more: Any) -> Any:
    """A field with its flag's help text; `choices` and `many` are argparse matters, `about` further flags."""
    return field(default=default, metadata={"help": help, "bound": bound, **more})


def _check_bounds(config: Any) -> None:
    for item in fields(config):
        value, bound, kind = getattr(config, item.name), item.metadata.get("bound"), type(item.default)
        if kind in (bool, int, float, str) and not isinstance(value, (int, kind) if kind is float else kind):
            raise ConfigError(f"{flag(item.name)} is {value!r}; it must be of type {kind.__name__}")
        if bound and not bound[0](value):
            raise ConfigError(f"{flag(item.name)} is {value}; {bound[1]}")


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    # The study's own protocol: batch 4 per device × 4 accumulation, 2e-4, one epoch, FP16, evaluation and
    # checkpoint per epoch. Schedule and warm-up are the Trainer's defaults, which it did not change.
    "study": {
        "batch_size": 16, "micro_batch_size": 4, "learning_rate": 2e-4, "epochs": 1, "precision": "fp16",
        "evaluations_per_epoch": 1, "schedule": "linear", "warmup_fraction": 0.0,
    },
    # For a CPU: few, short reviews, and validated at the beginning and the end alone.
    "laptop": {
        "limit": 640, "validation": 100, "max_length_tokens": 256, "batch_size": 8, "micro_batch_size": 8,
        "learning_rate": 5e-4, "epochs": 1, "evaluations_per_epoch": 1, "early_validations": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one training run. The defaults are the preset "best"."""

    dataset: str = _setting("stanfordnlp/imdb", "Hub id, file, or folder of files", about=COLUMN_FLAGS)
    base_model: str = _setting(DEFAULT_BASE_MODEL, "causal LM: embedded name, Hub id (id@revision), folder")
    run_id: str = _setting("", "name of the run's folder; by default the base model's (and preset's) name")
    exclude: tuple[str, ...] = _setting((), "file to keep unseen, or counterfactual; repeatable", many="PATH")
    also: str = _setting("", "further labelled texts to train on: a source, as records name it, ?columns too")
    also_weight: float = _setting(1.0, "with --also: each one's weight beside another's 1", POSITIVE)
    soup: tuple[str, ...] = _setting((), "no training: mean of runs' adapters; repeatable", TWO, many="RUN")
    teacher: str = _setting("", "finished run whose answers to unlabelled reviews are learned, too")
    unlabelled: str = _setting("unsupervised", "with --teacher: a split of the dataset, or another source")
    soft_temperature: float = _setting(2.0, "with --teacher: what softens its answers", POSITIVE)
    soft_weight: float = _setting(1.0, "with --teacher: its answer's weight beside a label's 1", POSITIVE)
    limit: int | None = _setting(None, "train on this many reviews, stratified and seeded", BOTH_LABELS)
    validation: int = _setting(1000, "reviews cut from train to choose the checkpoint by", AT_LEAST_1)
    epochs: int = _setting(2, "passes over the training reviews; two validated better than one", AT_LEAST_1)
    batch_size: int = _setting(48, "reviews per optimizer step, over all devices", AT_LEAST_1)
    micro_batch_size: int = _setting(0, "reviews a forward pass and device; 0 picks what fits", NOT_NEGATIVE)
    learning_rate: float = _setting(1e-3, "peak learning rate", POSITIVE)
    schedule: str = _setting("cosine", "after warm-up", choices=("cosine", "linear", "constant"))
    warmup_fraction: float = _setting(0.05, "share of the steps over which the learning rate rises", FRACTION)
    weight_decay: float = _setting(0.0, "AdamW's decay of the adapter's weights", NOT_NEGATIVE)
    max_grad_norm: float = _setting(1.0, "longer gradients are scaled down to it; 0: never", NOT_NEGATIVE)
    max_length_tokens: int = _setting(1024, "longer reviews lose their middle, as 2.3 %% of IMDB's do", ROOM)
    lora_rank: int = _setting(16, "rank of the adapter's matrices", AT_LEAST_1)
    lora_alpha: float = _setting(32.0, "the adapter's output is scaled by alpha / rank", POSITIVE)
    lora_dropout: float = _setting(0.0, "dropout in front of the adapter", FRACTION)
    precision: str = _setting(
        "auto", "number format of the matrix products; auto: bf16 where the GPU has it, fp16 on older ones, "
        "fp32 on a CPU", choices=PRECISIONS,
    )  # fmt: skip
    engine: str = _setting(
        "auto", "nf4: 4-bit weights unpacked at every use; dequantized: unpacked once, same values; packed: "
        "dequantized, reviews laid end to end without padding, one CUDA graph; generic: the same by a "
        "model's own layers, in packed's place where it does not know them; auto: the fastest that fits",
        choices=ENGINES,
    )  # fmt: skip
    evaluations_per_epoch: int = _setting(2, "validations, each with a checkpoint", AT_LEAST_1)
    early_validations: bool = _setting(True, "validate after steps 1, 2, 4, 8, …, too, without a checkpoint")
    checkpoint_minutes: float = _setting(1.0, "most time between two checkpoints", POSITIVE)
    gradient_checkpointing: bool = _setting(False, "recompute activations: slower, less memory")
    seed: int = _setting(0, "order of the reviews, validation part and the adapter's start values")
    report_to: str = _setting("none", "where the Trainer reports its figures, too", choices=REPORTERS)
    preset: str = _setting("best", "settings to start from; flags that are given win", choices=tuple(PRESETS))

    def __post_init__(self) -> None:
        _check_bounds(self)
        batch, micro = self.batch_size, self.micro_batch_size
        if micro and batch % micro:
            raise ConfigError(f"--micro-batch-size {micro} does not divide --batch-size {batch}")
        named = f"--engine {self.engine}"
        if self.engine in PACKING and self.lora_dropout:
            raise ConfigError(f"{named} has no dropout; use --lora-dropout 0 or --engine dequantized")
        if self.engine in PACKING and self.gradient_checkpointing:
            raise ConfigError(f"{named} does not recompute activations; drop --gradient-checkpointing")
        if self.report_to != "none" and not importlib.util.find_spec(self.report_to):
            missing = f"the package {self.report_to} is not installed"
            raise ConfigError(f"--report-to {self.report_to}: {missing}; pip install {self.report_to}")
        if self.teacher and self.teacher == self.name:
            raise ConfigError(f"--teacher {self.name!r} is the run itself; give the new one another --run-id")
        if self.run_id and not re.fullmatch(r"[^\W_][\w.-]*", self.run_id):
            raise ConfigError(f"--run-id {self.run_id!r} must be letters, digits, '.', '_' or '-'")

    @property
    def name(self) -> str:
        if self.run_id:
            return self.run_id
        model = re.sub(r"[^\w.-]", "-", self.base_model.rsplit("/", 1)[-1])
        taught = "-taught" if self.teacher else ""
        return model.lower() + taught + ("" if self.preset == "best" else f"-{self.preset}")


@dataclass(frozen=True)
class EvalConfig:
    """All settings of one call of eval.py."""

    run: str = _setting("", "run to evaluate: a name under assets/runs, a folder, or user/name on the Hub")
    system: str = _setting("fine-tuned", "which system, or all of them", choices=("all", *SYSTEMS))
    dataset: str = _setting("stanfordnlp/imdb", "as in train.py, or challenge", about=COLUMN_FLAGS)
    split: str = _setting("test", "which part of it")
    base_model: str = _setting("", "without --run: embedded name, Hub id or folder; of an encoder, too")
    limit: int | None = _setting(None, "score this many reviews, stratified and seeded", BOTH_LABELS)
    train_dataset: str = _setting("", "what the baselines learn from; by default the run's own source")
    exclude: tuple[str, ...] = _setting((), "as in train.py, for what the baselines learn from", many="PATH")
    max_length_tokens: int = _setting(0, "prompt limit; 0 takes the run's, else 1024", NOT_NEGATIVE)
    max_new_tokens: int = _setting(16, "length of a free answer", AT_LEAST_1)
    batch_tokens: int = _setting(0, "tokens scored at once; 0 picks what fits the device", NOT_NEGATIVE)
    precision: str = _setting("auto", "number format of the matrix products", choices=PRECISIONS)
    engine: str = _setting("auto", "as in train.py", choices=ENGINES)
    seed: int = _setting(0, "few-shot examples, unlabelled train reviews, --limit")

    def __post_init__(self) -> None:
        if self.system in ("fine-tuned", "all") and not self.run:
            needed = "--run NAME (a folder under assets/runs; train.py makes one)"
            raise ConfigError(f"--system {self.system} needs {needed}")
        if self.system in ENCODERS and (self.run or not self.base_model):
            raise ConfigError(f"--system {self.system} needs --base-model ENCODER and no --run")
        _check_bounds(self)


def repository() -> str:
    """Web address of the code: `SENTIMENT_REPOSITORY`, else the files of the Space that runs it, else ""."""
    space = os.environ.get("SPACE_ID")
    files = f"https://huggingface.co/spaces/{space}/tree/main" if space else ""
    address = os.environ.get("SENTIMENT_REPOSITORY") or files
    return address.rstrip("/") if address.startswith(("https://", "http://")) else ""


def flag(name: str) -> str:
    """The command-line flag of a setting: "batch_size" -> "--batch-size"."""
    return "--" + name.replace("_", "-")
