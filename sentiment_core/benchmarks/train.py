"""Training speed on one task: ours, and what a user would take instead.

All learn the label word alone from the same prompts of at most 1,024 tokens, with as many reviews a step and
as many steps (the study: 16, and a quarter of them), through the Hugging Face Trainer. A callback waits for
the device at the end of each block of steps and takes the time; the first block is left out. Told apart is
the time from loading the model (weights converted and tokens made before) to the end of the first step,
compiling and capturing included. What cannot be had here is named as not measured. Where the host has several
GPUs, ours runs once more on `--gpus` of them, one process each, with as many reviews a step and with as many
a GPU as on one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.benchmark import timer
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids
from transformers.trainer_callback import PrinterCallback

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.artifacts.store import read_record
from sentiment_core.benchmarks import measure
from sentiment_core.config import PRESETS, ConfigError, TrainConfig, flag
from sentiment_core.data.reviews import TrainSplit, split_train
from sentiment_core.engines import device as devices
from sentiment_core.engines.batching import split_balanced
from sentiment_core.engines.device import DeviceContext
from sentiment_core.engines.generic import attend_within
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import LoadedModel, add_lora, load_base, load_tokenizer, quiet_transformers
from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.training.session import Session, load_model


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    context = devices.find_device()
    names = measure.asked("--systems", arguments.systems, list(PEERS))
    split = split_train(arguments.dataset, validation=arguments.validation, limit=arguments.limit)
    encoder = PromptEncoder(load_tokenizer(resolve(arguments.base_model)))
    for reviews in (split.train, split.validation):
        encoder.encode_cached(reviews.texts, TrainConfig.max_length_tokens)
    rows = []
    for title, peer in (PEERS[name] for name in PEERS if name in names):
        rows.append(measure.or_not(title, partial(peer, title, arguments, context, split)))
        devices.free_memory()
    if "ours" in names and context.world_size == 1 and 1 < arguments.gpus <= torch.cuda.device_count():
        for batch_size in (arguments.batch_size, arguments.batch_size * arguments.gpus):
            rows += _on_several(arguments, batch_size)
    settings = {"blocks": arguments.blocks, "steps": arguments.steps, "reviews": len(split.train)}
    return measure.record(arguments, rows, arguments.base_model, dataset=split.train.source, **settings)


class BlockClock(transformers.TrainerCallback):
    """Reviews per second of each block of steps, the first left out. seen: (steps + 1,) after each step."""

    def __init__(self, seen: np.ndarray, steps: int, blocks: int, context: DeviceContext) -> None:
        self.seen, self.steps, self.blocks = seen, steps, blocks
        self.device, self.world_size = context.device, context.world_size
        self.began = self.first_step = 0.0
        self.ends: list[float] = []  # of each block

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = timer()
        measure.reset_peak(self.device)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step == 1:
            self.first_step = timer() - self.began
        if step % self.steps == 0:
            self.ends.append(timer())
            control.should_training_stop = len(self.ends) > self.blocks
        return control

    def row(self, system: str, note: str, batch_size: int, preparation: float = 0.0) -> BenchmarkRow:
        """preparation: seconds before training began that the first step had to wait for."""
        reviews = np.diff(self.seen[:: self.steps])[1 : len(self.ends)]
        return BenchmarkRow(
            system=system + (f", {self.world_size} GPUs" if self.world_size > 1 else ""),
            reviews_per_second=measure.spread(reviews / np.diff(self.ends)), devices=self.world_size,
            first_step_seconds=preparation + self.first_step, batch_size=batch_size, note=note,
            peak_memory_bytes=torch.cuda.max_memory_reserved() or None,
        )  # fmt: skip


# ---- the systems: (title, flags, where, reviews) -> what was measured


def _session(
    title: str, arguments: argparse.Namespace, context: DeviceContext, split: TrainSplit, *, note: str = "",
    load: Callable[..., Any] = load_model, trainer_of: Callable[[Session, int], Any] | None = None,
    **settings: Any,
) -> BenchmarkRow:  # fmt: skip
    """load: in place of `load_model`. trainer_of: (session, steps) -> what trains, instead of our Trainer."""
    names = ("dataset", "base_model", "validation", "limit", "batch_size")
    given = {name: getattr(arguments, name) for name in names} | OWN | settings
    config = TrainConfig(**given, run_id="benchmark")
    if context.device.type == "cpu" and config.engine == "nf4":
        config = replace(config, engine="dequantized")
    elif config.precision != "auto":
        context = devices.find_device(config.precision)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        began, places = timer(), (Path(folder) / "run", Path(folder) / "work")
        session = Session(config, split, None, context, *places, None, load=load)
        most = min(arguments.steps, len(session.plan) // (arguments.blocks + 1))
        steps = max(1, most // 4 if config.gradient_checkpointing else most)  # the study's take long
        clock = BlockClock(session.history.seen, steps, arguments.blocks, context)
        trainer = trainer_of(session, steps * (1 + arguments.blocks)) if trainer_of else session.trainer
        trainer.add_callback(clock)
        session.trainer.warm_up()
        preparation = timer() - began
        trainer.train()
    note = f"{note or 'engine ' + session.engine}, {session.micro} reviews a pass, blocks of {steps} steps"
    return clock.row(title, note, config.batch_size, preparation)


def _unrounded(
    config: TrainConfig, context: DeviceContext, *, flat: bool = False, compiled: bool = False,
    liger: bool = False,
) -> tuple[LoadedModel, Any, str, int]:  # fmt: skip
    """As `load_model`, the weights in bf16 and not quantized. flat: for reviews end to end."""
    torch.manual_seed(config.seed)
    gpu = context.device.type == "cuda"
    where: dict[str, Any] = {"device": context.device, "compute_dtype": context.dtype}
    loaded = load_base(resolve(config.base_model), **where, rounded=False)
    if flat:
        loaded.model.set_attn_implementation("end_to_end")
    if liger:
        # pyrefly: ignore[missing-import] where it is installed
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=loaded.model, fused_linear_cross_entropy=False)
    model = add_lora(loaded.model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=0.0)
    for layer in loaded.model.model.layers if compiled and gpu else ():
        layer.compile(dynamic=True)
    free = devices.bytes_free(context.device)
    # a pass without padding is sized by a prompt's mean tokens, or somewhat more
    sized = replace(config, max_length_tokens=350) if flat else config
    micro = devices.choose_micro_batch(sized, loaded.model.config, "dequantized", context, free)
    return loaded, model, "dequantized", micro


def _flattened(session: Session, steps: int) -> Any:
    """A pass's reviews end to end, by transformers' collator; of each, the logits where it ends."""
    batches: Any = session.trainer.batches
    model = session.loaded.model
    flatten = transformers.DataCollatorWithFlattening(return_flash_attn_kwargs=True)

    def collate(rows: np.ndarray, learned: dict[str, np.ndarray]) -> dict[str, Any]:
        flat = flatten([{"input_ids": batches.prompts.encoded[i]} for i in rows])
        del flat["labels"]
        return flat | {name: torch.from_numpy(values) for name, values in learned.items()}

    def ended(logits_to_keep: int, forward: Any = model.forward, **inputs: Any) -> Any:
        out = forward(**inputs, logits_to_keep=inputs["cu_seq_lens_q"][1:] - 1)
        out.logits = out.logits.transpose(0, 1)  # (reviews, 1, vocabulary), as if they were padded
        return out

    batches.collate, batches.split, model.forward = collate, split_balanced, ended
    return session.trainer


def _sft(session: Session, steps: int) -> Any:
    """TRL's SFTTrainer, the label word as the completion, without padding."""
    from datasets import Dataset

    # pyrefly: ignore[missing-import] where it is installed
    from trl import SFTConfig, SFTTrainer

    batches, args, encoder = session.trainer.batches, session.trainer.args, session.loaded.encoder
    encoded, batches.split = batches.prompts.encoded, split_balanced
    words = np.array(encoder.label_ids)[session.split.train.labels]
    rows = [
        {"input_ids": [*encoded[i], words[i]], "completion_mask": [0] * len(encoded[i]) + [1]}
        for part in chain(*batches.parts[:steps]) for i in part
    ]  # fmt: skip
    settings = SFTConfig(
        output_dir=args.output_dir, max_steps=steps, gradient_accumulation_steps=batches.accumulation,
        per_device_train_batch_size=session.micro, learning_rate=session.config.learning_rate,
        train_sampling_strategy="sequential", gradient_checkpointing=False, report_to=[], padding_free=True,
        bf16=session.context.precision == "bf16", use_cpu=session.context.device.type == "cpu",
        save_strategy="no", disable_tqdm=True, max_length=None,
    )  # fmt: skip
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": encoder.tokenizer}
    trainer = SFTTrainer(session.trainer.model, devices.one_device(settings), **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


@lru_cache(maxsize=1)  # in all layers the same
def _bounds(position_ids: torch.Tensor) -> dict[str, Any]:
    (bounds, _), (longest, _) = prepare_fa_kwargs_from_position_ids(position_ids)
    return {"cu_seq_lens_q": bounds, "max_length_q": int(longest)}


def _attend(*given: Any, position_ids: Any = None, **more: Any) -> tuple[torch.Tensor, None]:
    """PyTorch's attention over reviews end to end; from TRL come only the places in them."""
    return attend_within(*given, **({} if "cu_seq_lens_q" in more else _bounds(position_ids)), **more)


transformers.AttentionInterface.register("end_to_end", _attend)


def _on_several(arguments: argparse.Namespace, batch_size: int) -> tuple[BenchmarkRow, ...]:
    """The same command's row of ours, from processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "train.json"
        own = {"kind": None, "systems": "ours", "batch_size": batch_size, "output": output}
        given = vars(arguments) | own
        words = [f"{flag(name)}={value}" for name, value in given.items() if value is not None]
        launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={arguments.gpus}"]
        command = [sys.executable, "-m", *launch, "-m", "sentiment_core.benchmarks", "train", *words]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "4"}, check=False)
        if done.returncode:
            raise ConfigError(f"ours on {arguments.gpus} GPUs ended with {done.returncode}; see above")
        return read_record(output, BenchmarkRecord, "").rows


OWN: dict[str, Any] = {
    "epochs": 1, "evaluations_per_epoch": 1, "early_validations": False, "checkpoint_minutes": 1e6,
    "learning_rate": 2e-4,  # at the recipe's, which is for the smallest, a larger base's loss may become NaN
}  # fmt: skip
ALIKE = "passes of like length"
REPLACES = "it replaces parts of PyTorch, transformers and PEFT for all that follows"
STUDY: dict[str, Any] = PRESETS["study"] | {"engine": "nf4", "gradient_checkpointing": True}


def _bf16(note: str, trainer_of: Any = None, **how: bool) -> Callable[..., BenchmarkRow]:
    """LoRA on weights that are not quantized; how: as `_unrounded` takes it."""
    return partial(_session, load=partial(_unrounded, **how), trainer_of=trainer_of, note=note)


PEERS: dict[str, tuple[str, Callable[..., BenchmarkRow]]] = {
    "study": (
        "study's settings (4 × 4, FP16, checkpointing)",
        partial(_session, **STUDY, note="its rank, length and loss are not known"),
    ),
    "nf4": ("PEFT + bitsandbytes 4-bit layers", partial(_session, engine="nf4", note=ALIKE)),
    "compiled": ("bf16 LoRA, torch.compile", _bf16(f"not quantized, {ALIKE}", compiled=True)),
    "padding-free": ("bf16 LoRA, padding-free", _bf16("not quantized", _flattened, flat=True)),
    "trl": ("TRL, padding-free", _bf16("SFTTrainer, not quantized, padding-free", _sft, flat=True)),
    "unsloth": ("Unsloth", partial(measure.absent, REPLACES)),
    "generic": ("ours, engine generic", partial(_session, engine="generic")),
    "ours": ("ours", _session),
    # the last: it replaces parts of transformers for the process
    "liger": (
        "bf16 LoRA, padding-free, Liger kernels",
        _bf16("not quantized", _flattened, flat=True, liger=True),
    ),
}

FLAGS = measure.FLAGS | {
    "validation": (1000, "reviews left out of training"),
    "blocks": (4, "timed blocks of each system"),
    "steps": (6, "steps in a block"),
    "batch-size": (TrainConfig().batch_size, "reviews a step"),
    "systems": (",".join(PEERS), "which to measure"),
    "gpus": (2, "measure ours on so many too, where they are"),
}
