"""Training speed on the same reviews: the study's settings, plain PEFT + bitsandbytes, and ours.

All run the Hugging Face Trainer for some blocks of steps; a callback waits for the device at the end of each
block and takes the time. The first block (compiling, memory allocation) is left out; the time to the end of
the first step is told apart. Where the host has several GPUs, ours runs once more on `--gpus` of them, one
process each, with as many reviews a step and with as many a GPU as on one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import prepare_model_for_kbit_training
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.artifacts.store import read_record
from sentiment_core.benchmarks import measure
from sentiment_core.benchmarks.measure import now
from sentiment_core.config import ConfigError, TrainConfig, flag
from sentiment_core.data.reviews import TrainSplit, split_train
from sentiment_core.engines.device import DeviceContext, find_device, free_memory, one_device
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import add_lora, load_base, quiet_transformers
from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.training.session import Session


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the systems one after the other in this process."""
    context = find_device()
    names = measure.asked("--systems", arguments.systems, list(PEERS))
    split = split_train(arguments.dataset, validation=arguments.validation, limit=arguments.limit)
    rows = []
    for name in names:
        rows.append(PEERS[name](arguments, context, split))
        free_memory()
    if "ours" in names and context.world_size == 1 and 1 < arguments.gpus <= torch.cuda.device_count():
        for batch_size in (arguments.batch_size, arguments.batch_size * arguments.gpus):
            rows += _on_several(arguments, batch_size)
    settings = {"blocks": arguments.blocks, "reviews": len(split.train), "dataset": split.train.source}
    return measure.record(arguments, rows, arguments.base_model, **settings)


class BlockClock(TrainerCallback):
    """Reviews per second of each block of steps, the first left out. seen: (steps + 1,) after each step."""

    def __init__(self, seen: np.ndarray, steps: int, blocks: int, context: DeviceContext) -> None:
        self.seen, self.steps, self.blocks, self.device = seen, steps, blocks, context.device
        self.world_size = context.world_size
        self.rates: list[float] = []
        self.began = self.since = self.first_step = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = now(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step == 1:
            self.first_step = now(self.device) - self.began
        if step % self.steps == 0:
            at = now(self.device)
            if step > self.steps:
                self.rates.append(float(self.seen[step] - self.seen[step - self.steps]) / (at - self.since))
            self.since = at
            control.should_training_stop = len(self.rates) == self.blocks
        return control

    def row(self, system: str, note: str, batch_size: int, preparation: float = 0.0) -> BenchmarkRow:
        """preparation: seconds before training began that the first step had to wait for."""
        return BenchmarkRow(
            system=system + (f", {self.world_size} GPUs" if self.world_size > 1 else ""),
            reviews_per_second=measure.spread(self.rates), first_step_seconds=preparation + self.first_step,
            peak_memory_bytes=measure.peak_memory(self.device), devices=self.world_size,
            batch_size=batch_size, note=note,
        )  # fmt: skip


def _usual(
    arguments: argparse.Namespace, context: DeviceContext, split: TrainSplit, *, title: str, study: bool
) -> BenchmarkRow:
    """PEFT's LoRA on bitsandbytes' 4-bit layers, 16 reviews a step: as in the study, or as in tutorials."""
    gpu = context.device.type == "cuda"
    half, micro, usual_steps = (torch.float16, 4, 4) if study else (torch.bfloat16, 16, 20)
    steps = arguments.steps or usual_steps
    total = steps * (arguments.blocks + 1)
    loaded = load_base(
        resolve(arguments.base_model), device=context.device, dequantized=not gpu,
        compute_dtype=half if gpu else torch.float32,
    )  # fmt: skip
    model = loaded.model
    if study:
        model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    clock = BlockClock(np.arange(total + 1) * 16, steps, arguments.blocks, context)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        settings = TrainingArguments(
            output_dir=folder, max_steps=total, per_device_train_batch_size=micro, learning_rate=2e-4,
            gradient_accumulation_steps=16 // micro, fp16=gpu and study, bf16=gpu and not study,
            use_cpu=not gpu, save_strategy="no", logging_steps=10, disable_tqdm=True, report_to=[],
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(
            model=add_lora(model, rank=16, alpha=32, dropout=0.0), args=one_device(settings),
            # pyrefly: ignore[bad-argument-type] a list is a dataset
            train_dataset=_language_model_rows(loaded.encoder, split, 16 * total),
            data_collator=DataCollatorForLanguageModeling(loaded.encoder.tokenizer, mlm=False),
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.row(title, f"language-model loss, 512 tokens, blocks of {steps} steps of 16 reviews", 16)


def _language_model_rows(encoder: PromptEncoder, split: TrainSplit, most: int) -> list[dict[str, list[int]]]:
    """Prompt, label word and end of turn as one text each, of at most 512 tokens."""
    few = split.train.take(np.random.default_rng(0).permutation(len(split.train))[:most])
    encoded, end = encoder.encode(few.texts, 510), encoder.tokenizer.eos_token_id
    labels = [encoder.label_ids[label] for label in few.labels]
    return [{"input_ids": [*encoded[i].tolist(), label, end]} for i, label in enumerate(labels)]


def _ours(arguments: argparse.Namespace, context: DeviceContext, split: TrainSplit) -> BenchmarkRow:
    config = TrainConfig(
        dataset=arguments.dataset, base_model=arguments.base_model, validation=arguments.validation,
        batch_size=arguments.batch_size, run_id="benchmark", limit=arguments.limit, epochs=1,
        evaluations_per_epoch=1, checkpoint_minutes=1e6,
    )  # fmt: skip
    steps = arguments.steps or 50
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        places = Path(folder) / "run", Path(folder) / "work"
        session = Session(config, split, None, context, *places, None)
        if len(session.plan) < steps * 2:
            steps = max(1, len(session.plan) // (arguments.blocks + 1))
        clock = BlockClock(session.history.seen, steps, arguments.blocks, context)
        session.trainer.add_callback(clock)
        began = time.perf_counter()
        session.trainer.warm_up()
        preparation = time.perf_counter() - began
        session.history.start(0, 0.0, None)
        session.trainer.train()
        session.history.bar.close()
    note = (
        f"engine {session.engine}, {config.max_length_tokens} tokens, blocks of {steps} steps of "
        f"{config.batch_size} reviews; first step after compile and capture"
    )
    return clock.row("ours", note, config.batch_size, preparation)


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


PEERS: dict[str, Callable[[argparse.Namespace, DeviceContext, TrainSplit], BenchmarkRow]] = {
    "study": partial(_usual, title="study's settings (4 × 4, FP16, checkpointing)", study=True),
    "nf4": partial(_usual, title="PEFT + bitsandbytes, batch 16", study=False),
    "ours": _ours,
}

FLAGS = measure.FLAGS | {
    "validation": (1000, "reviews left out of training"),
    "blocks": (5, "timed blocks of each system"),
    "steps": (0, "steps in a block; 0: what suits each system"),
    "batch-size": (TrainConfig().batch_size, "of ours"),
    "systems": (",".join(PEERS), "which to measure"),
    "gpus": (2, "measure ours on so many too, where they are"),
}
