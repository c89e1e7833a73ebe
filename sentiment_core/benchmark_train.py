"""Training speed on the same reviews: the study's settings, plain PEFT + bitsandbytes, and ours.

All three run the Hugging Face Trainer for some blocks of steps; a callback waits for the device at the end
of each block and takes the time. The first block (compiling, memory allocation) is left out; the time to
the end of the first step is told apart. Where the host has several GPUs, ours runs once more on `--gpus` of
them, one process each, with as many reviews a step and with as many a GPU as on one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from sentiment_core import environment
from sentiment_core.artifacts import read_record, utc_now
from sentiment_core.base_models import resolve
from sentiment_core.config import DEFAULT_BASE_MODEL, ConfigError, TrainConfig
from sentiment_core.data import TrainSplit, split_train
from sentiment_core.models import PromptEncoder, add_lora, load_base, quiet_transformers
from sentiment_core.place import Place, find_place, free_memory, one_device
from sentiment_core.schema import BenchmarkRecord, BenchmarkRow, Metric
from sentiment_core.training import Folders, Session, prepare_folders

STUDY = "study's settings (4 × 4, FP16, checkpointing)"
PLAIN = "PEFT + bitsandbytes, batch 16"
OURS = "ours"

Measured = tuple["BlockClock", float, str]
"""Rates, seconds of preparation before the first step, and a note."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default=TrainConfig.dataset, help="reviews to train on")
    parser.add_argument("--base-model", default=DEFAULT_BASE_MODEL, help="as in train.py")
    parser.add_argument("--blocks", type=int, default=5, help="timed blocks of each system")
    parser.add_argument(
        "--steps", type=int, default=0, help="steps in a block (default: what suits each system)"
    )
    parser.add_argument("--limit", type=int, default=None, help="train on this many reviews")
    parser.add_argument("--validation", type=int, default=1000, help="reviews left out of training")
    parser.add_argument(
        "--batch-size", type=int, default=TrainConfig().batch_size, help="of ours, as in train.py"
    )
    parser.add_argument("--systems", default="study,plain,ours", help="which to measure")
    parser.add_argument(
        "--gpus", type=int, default=2, help="measure ours on this many GPUs too, where the host has them"
    )


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the systems one after the other in this process."""
    place = find_place()
    split = split_train(arguments.dataset, validation=arguments.validation, limit=arguments.limit)
    rows = []
    systems = {"study": (STUDY, _study), "plain": (PLAIN, _plain), "ours": (OURS, _ours)}
    asked = arguments.systems.split(",")
    if unknown := sorted(set(asked) - set(systems)):
        raise ConfigError(f"--systems names {unknown[0]!r}; use some of {', '.join(systems)}")
    for name in asked:
        system, measure = systems[name]
        system += f", {place.world_size} GPUs" if place.world_size > 1 else ""
        rows.append(_row(system, *measure(arguments, place, split)))
        free_memory()
    if "ours" in asked and place.world_size == 1 and 1 < arguments.gpus <= torch.cuda.device_count():
        for batch_size in (arguments.batch_size, arguments.batch_size * arguments.gpus):
            rows += _on_several(arguments, batch_size)
    return BenchmarkRecord(
        kind="train",
        created_at=utc_now(),
        commit=environment.commit(),
        command=environment.command_line(),
        base_model=Path(arguments.base_model).name,
        hardware=environment.hardware(place.device.type, place.world_size),
        versions=environment.versions(),
        settings={"blocks": arguments.blocks, "reviews": len(split.train), "dataset": split.train.source},
        rows=tuple(rows),
    )


class BlockClock(TrainerCallback):
    """Reviews per second of each block of steps, the first block left out.

    Args:
        seen: (steps + 1,) reviews seen after each step.
    """

    def __init__(self, seen: np.ndarray, steps: int, blocks: int, device: torch.device) -> None:
        self.seen, self.steps, self.blocks, self.device = seen, steps, blocks, device
        self.rates: list[float] = []
        self.first_step = 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = self._now()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step == 1:
            self.first_step = self._now() - self.began
        if step % self.steps == 0:
            now = self._now()
            if step > self.steps:
                self.rates.append(float(self.seen[step] - self.seen[step - self.steps]) / (now - self.since))
            self.since = now
            control.should_training_stop = len(self.rates) == self.blocks
        return control


def _row(system: str, clock: BlockClock, preparation: float, note: str) -> BenchmarkRow:
    gpu = clock.device.type == "cuda"
    return BenchmarkRow(
        system=system,
        reviews_per_second=Metric(
            value=float(np.median(clock.rates)),
            low=min(clock.rates),
            high=max(clock.rates),
            n=len(clock.rates),
        ),
        first_step_seconds=preparation + clock.first_step,
        peak_memory_bytes=torch.cuda.max_memory_reserved(clock.device) if gpu else None,
        note=note,
    )


# ---- the usual way


class LanguageModelRows(Dataset):
    """Prompt, label word and end of turn as one text each, the loss on every token, as tutorials do it."""

    def __init__(self, encoder: PromptEncoder, split: TrainSplit, most: int, max_length_tokens: int) -> None:
        few = split.train.take(np.random.default_rng(0).permutation(len(split.train))[:most])
        encoded = encoder.encode(few.texts, max_length_tokens - 2)
        end = encoder.tokenizer.eos_token_id
        self.rows = [
            [*encoded[i].tolist(), encoder.label_ids[label], end] for i, label in enumerate(few.labels)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[int]:
        return self.rows[index]


def _pad_right(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def _on_several(arguments: argparse.Namespace, batch_size: int) -> tuple[BenchmarkRow, ...]:
    """The same command's row of ours, from processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "train.json"
        flags = {
            "--dataset": arguments.dataset, "--base-model": arguments.base_model, "--systems": "ours",
            "--blocks": arguments.blocks, "--steps": arguments.steps, "--validation": arguments.validation,
            "--batch-size": batch_size, "--output": output,
        }  # fmt: skip
        if arguments.limit is not None:
            flags["--limit"] = arguments.limit
        launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={arguments.gpus}"]
        words = [str(word) for pair in flags.items() for word in pair]
        command = [sys.executable, "-m", *launch, "-m", "sentiment_core.benchmark", "train", *words]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "4"}, check=False)
        if done.returncode:
            raise ConfigError(f"ours on {arguments.gpus} GPUs ended with {done.returncode}; see above")
        return read_record(output, BenchmarkRecord, "").rows


def _usual(
    arguments: argparse.Namespace, place: Place, split: TrainSplit, *, micro: int, precision: str,
    checkpointing: bool, steps: int,
) -> Measured:  # fmt: skip
    gpu = place.device.type == "cuda"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision] if gpu else torch.float32
    steps = arguments.steps or steps
    total = steps * (arguments.blocks + 1)
    loaded = load_base(
        resolve(arguments.base_model), device=place.device, compute_dtype=dtype, resident=not gpu
    )
    rows = LanguageModelRows(loaded.encoder, split, 16 * total, 512)
    model = loaded.model
    if checkpointing:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    model = add_lora(model, rank=16, alpha=32, dropout=0.0)
    clock = BlockClock(np.arange(total + 1) * 16, steps, arguments.blocks, place.device)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        trainer = Trainer(
            model=model,
            args=one_device(
                TrainingArguments(
                    output_dir=folder,
                    max_steps=total,
                    per_device_train_batch_size=micro,
                    gradient_accumulation_steps=16 // micro,
                    learning_rate=2e-4,
                    fp16=gpu and precision == "fp16",
                    bf16=gpu and precision == "bf16",
                    use_cpu=not gpu,
                    save_strategy="no",
                    logging_steps=10,
                    disable_tqdm=True,
                    report_to=[],
                    remove_unused_columns=False,
                )
            ),
            train_dataset=rows,
            data_collator=_pad_right,
            callbacks=[clock],
        )
        _quiet(trainer)
        trainer.train()
    return clock, 0.0, f"language-model loss, 512 tokens, blocks of {steps} steps of 16 reviews"


def _study(arguments: argparse.Namespace, place: Place, split: TrainSplit) -> Measured:
    return _usual(arguments, place, split, micro=4, precision="fp16", checkpointing=True, steps=4)


def _plain(arguments: argparse.Namespace, place: Place, split: TrainSplit) -> Measured:
    return _usual(arguments, place, split, micro=16, precision="bf16", checkpointing=False, steps=20)


def _quiet(trainer: Trainer) -> None:
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


# ---- ours


def _ours(arguments: argparse.Namespace, place: Place, split: TrainSplit) -> Measured:
    changes: dict[str, Any] = {"limit": arguments.limit, "epochs": 1, "evaluations_per_epoch": 1}
    config = TrainConfig(
        dataset=arguments.dataset, base_model=arguments.base_model, validation=arguments.validation,
        batch_size=arguments.batch_size, run_id="benchmark", **changes,
    )  # fmt: skip
    steps = arguments.steps or 50
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        folders = Folders(Path(folder) / "runs" / "benchmark", Path(folder) / "work")
        prepare_folders(folders, config, place, resume=False, overwrite=True)
        session = Session.begin(config, split, place, folders, resume=False, say=lambda text: None)
        if len(session.plan) < steps * 2:
            steps = max(1, len(session.plan) // (arguments.blocks + 1))
        clock = BlockClock(session.history.seen, steps, arguments.blocks, place.device)
        session.trainer.add_callback(clock)
        began = time.perf_counter()
        session.trainer.warm_up()
        preparation = time.perf_counter() - began
        session.history.start(0, 0, 0.0, None)
        session.trainer.train()
        session.history.close()
    note = f"engine {session.engine}, {config.max_length_tokens} tokens, blocks of {steps} steps of "
    return clock, preparation, note + f"{config.batch_size} reviews; first step after compile and capture"
