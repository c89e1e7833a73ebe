"""QLoRA through the Hugging Face Trainer: base rounded to NF4 and frozen, loss on the label position only.

Dettmers et al. 2023 (QLoRA) on Hu et al. 2021 (LoRA). One `QLoraTrainer` serves three engines that compute
the same steps: `plain` and `resident` run the model as transformers does, `packed` runs
`sentiment_core.packed`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from sentiment_core import environment
from sentiment_core.artifacts import HistoryWriter, read_history, utc_now, write_run, write_text
from sentiment_core.base_models import check_disk, resolve
from sentiment_core.batching import plan_steps
from sentiment_core.config import ConfigError, TrainConfig, flag
from sentiment_core.data import TrainSplit, split_train
from sentiment_core.intervals import wilson
from sentiment_core.models import (
    add_lora,
    check_causal,
    load_base,
    make_resident,
    quiet_transformers,
)
from sentiment_core.packed import PackedLlama
from sentiment_core.place import Place, choose_engine, choose_micro_batch, find_place, one_device
from sentiment_core.schema import DataInfo, LoraInfo, RunRecord
from sentiment_core.scoring import SentimentScorer
from sentiment_core.trainer import History, MicroBatches, Milestones, QLoraTrainer, pack_shape

ADAPTER_DTYPE = torch.float16
"""Type the adapter is saved in: half the file, and finer than bfloat16 at the size of these weights."""


# ---- a run


@dataclass(frozen=True)
class Folders:
    """Where a run writes: the artifact, and the checkpoints beside it that are not for sharing."""

    run: Path
    work: Path

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    @property
    def settings(self) -> Path:
        return self.work / "settings.json"


def train(config: TrainConfig, *, assets: Path, work: Path, resume: bool = False, overwrite: bool = False):
    """Train one run and write its artifacts.

    Returns:
        (RunRecord, folder of the run).

    Raises:
        ConfigError, DataError, BaseModelError: one sentence each.
    """
    place = find_place(config.precision)
    folders = Folders(assets / "runs" / config.name, work / config.name)
    prepare_folders(folders, config, place, resume=resume, overwrite=overwrite)
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if place.is_main else (lambda text: None)

    started = time.perf_counter()
    split = split_train(
        config.dataset,
        validation=config.validation,
        exclude=config.exclude,
        limit=config.limit,
        seed=config.seed,
    )
    say(f"Reviews: {len(split.train):,} to train on, {len(split.validation):,} to validate, "
        f"dropped {split.excluded or 'none'} ({time.perf_counter() - started:.1f} s)")  # fmt: skip
    session = Session.begin(config, split, place, folders, resume=resume, say=say)
    session.run()
    record = session.finish() if place.is_main else None
    return record, folders.run


def prepare_folders(
    folders: Folders, config: TrainConfig, place: Place, *, resume: bool, overwrite: bool
) -> None:
    """Make the run's folders, or check that a run can be resumed in them.

    Raises:
        ConfigError: the run exists already, there is nothing to resume, or its settings were others.
    """
    settings = json.dumps(dataclasses.asdict(config), indent=1, default=list)
    if resume:
        if not folders.settings.exists() or not folders.checkpoints.exists():
            raise ConfigError(f"--resume: there is no checkpoint in {folders.work}; start the run without it")
        began = json.loads(folders.settings.read_text(encoding="utf-8"))
        now = json.loads(settings)
        changed = [k for k in now if k not in ("engine", "micro_batch_size") and began.get(k) != now[k]]
        if changed:
            name = changed[0]
            raise ConfigError(
                f"--resume: {flag(name)} is {now[name]!r}, the run began with {began.get(name)!r}; "
                "use the same settings, or another --run-id"
            )
        return
    if (folders.run / "run.json").exists() and not overwrite:
        raise ConfigError(
            f"run {config.name!r} exists in {folders.run.parent}; give another --run-id, or --overwrite"
        )
    if place.is_main:
        check_disk(folders.run, 200_000_000, f"run {config.name!r}")
        shutil.rmtree(folders.work, ignore_errors=True)
        for leftover in ("run.json", "history.jsonl"):
            (folders.run / leftover).unlink(missing_ok=True)
        shutil.rmtree(folders.run / "adapter", ignore_errors=True)
        write_text(folders.settings, settings + "\n")


class Session:
    """Everything that one training run holds while it runs."""

    @classmethod
    def begin(cls, config: TrainConfig, split: TrainSplit, place: Place, folders: Folders, *, resume, say):
        self = cls()
        self.config, self.split, self.place, self.folders, self.say = config, split, place, folders, say
        base = resolve(config.base_model)
        check_causal(base)
        torch.manual_seed(config.seed)
        self.loaded = load_base(base, device=place.device, compute_dtype=place.dtype, resident=False)
        free = torch.cuda.mem_get_info(place.device)[0] if place.device.type == "cuda" else None
        self.engine = choose_engine(config, self.loaded, free)
        if self.engine != "plain":
            make_resident(self.loaded.model, place.dtype)
        self.model = add_lora(
            self.loaded.model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout
        )
        micro = choose_micro_batch(config, self.loaded.model.config, self.engine, place, free)
        self.accumulation = config.batch_size // (micro * place.world_size)
        encoder = self.loaded.encoder
        self.encoded = encoder.encode_cached(split.train.texts, config.max_length_tokens)
        self.validation = encoder.encode_cached(split.validation.texts, config.max_length_tokens)
        self.plan = plan_steps(
            self.encoded.lengths, config.batch_size, epochs=config.epochs, seed=config.seed
        )
        say(f"Training {config.name}: {len(self.plan)} steps of {config.batch_size} reviews "
            f"({micro} a pass), engine {self.engine}, {place.precision}, {place.world_size} × "
            f"{environment.hardware(place.device.type).device}")  # fmt: skip
        self._make_trainer(resume)
        return self

    def _make_trainer(self, resume: bool) -> None:
        config, place = self.config, self.place
        parts = self.accumulation * place.world_size
        packed = None
        shape = pack_shape(self.encoded, self.plan, parts) if self.engine == "packed" else None
        if shape:
            packed = PackedLlama(self.model, shape, trainable=True, compiled=place.device.type == "cuda")
        elif config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self.model.enable_input_require_grads()
        self.scorer = SentimentScorer(self.loaded, self.model, engine="packed" if packed else "padded")
        sizes = [len(step) for step in self.plan]
        tokens = [int(self.encoded.lengths[step].sum()) for step in self.plan]
        self.checkpoint = get_last_checkpoint(str(self.folders.checkpoints)) if resume else None
        if resume and self.checkpoint is None:
            raise ConfigError(
                f"--resume: there is no checkpoint in {self.folders.checkpoints}; start without it"
            )
        first_step = int(self.checkpoint.rsplit("-", 1)[1]) if self.checkpoint else 0
        writer = None
        if place.is_main:
            writer = HistoryWriter(self.folders.run, resume_at=first_step if resume else None)
        per_epoch = len(self.plan) // config.epochs
        self.history = History(
            writer, np.cumsum([0, *sizes]), np.cumsum([0, *tokens]), steps_per_epoch=per_epoch
        )
        self.first_step = first_step
        marks = np.linspace(0, len(self.plan), config.epochs * config.evaluations_per_epoch + 1)[1:]
        milestones = {max(1, round(m)) for m in marks}
        with quiet_transformers():
            self.trainer = QLoraTrainer(
                model=self.model,
                args=self._arguments(),
                train_dataset=self.plan,
                eval_dataset=[0],
                callbacks=[Milestones(milestones), self.history],
                batches=MicroBatches(
                    self.encoded,
                    self.split.train.labels,
                    self.plan,
                    accumulation=self.accumulation,
                    rank=place.rank,
                    world_size=place.world_size,
                    shape=shape,
                    pad_id=self.loaded.encoder.tokenizer.pad_token_id or 0,
                ),
                validate=self.validate,
                label_ids=self.loaded.encoder.label_ids,
                packed=packed,
            )
        from transformers.trainer_callback import PrinterCallback

        self.trainer.remove_callback(PrinterCallback)

    def _arguments(self) -> TrainingArguments:
        config, place = self.config, self.place
        steps = len(self.plan)
        arguments = TrainingArguments(
            output_dir=str(self.folders.checkpoints),
            max_steps=steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=self.accumulation,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
            warmup_steps=round(config.warmup_fraction * steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch_fused" if place.device.type == "cuda" else "adamw_torch",
            bf16=place.precision == "bf16",
            fp16=place.precision == "fp16",
            use_cpu=place.device.type == "cpu",
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=10 * steps,  # Milestones says when
            save_steps=10 * steps,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_accuracy",
            greater_is_better=True,
            logging_strategy="steps",
            logging_steps=max(1, steps // 120),
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            seed=config.seed,
        )
        return one_device(arguments)

    def validate(self) -> dict[str, float]:
        """Mean negative log-likelihood of the label word, and accuracy, over the validation reviews."""
        labels = self.split.validation.labels
        scores = self.scorer.log_likelihoods(self.validation)
        self.right = int((scores.argmax(axis=1) == labels).sum())
        loss = float(-scores[np.arange(len(labels)), labels].mean())
        return {"eval_loss": loss, "eval_accuracy": self.right / len(labels)}

    def run(self) -> None:
        if self.place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the warm-up's passes are as large as any
        started = time.perf_counter()
        self.trainer.warm_up()
        before = self.validate()
        self.warmup_seconds = time.perf_counter() - started
        spent = 0.0
        if self.checkpoint:
            rows = read_history(self.folders.run)
            spent = float(rows["seconds"].max()) if len(rows) else 0.0
        total = int(self.history.seen[-1])
        self.history.start(self.first_step, total, spent, sys.stderr)
        if not self.checkpoint:
            self.history.row(0, before)
        try:
            self.trainer.train(resume_from_checkpoint=self.checkpoint)
        finally:
            self.history.close()
        if self.place.device.type == "cuda":
            torch.cuda.synchronize()
        self.wall_seconds = self.history.seconds

    def finish(self) -> RunRecord:
        """Round the adapter to the type it is saved in, validate that, and write the artifacts."""
        config, split = self.config, self.split
        save_adapter(self.model, self.folders.run / "adapter", base_name=self.loaded.info.name)
        final = self.validate()
        n = len(split.validation)
        hardware = environment.hardware(self.place.device.type, self.place.world_size)
        gpu = self.place.device.type == "cuda"
        lora = self.model.peft_config["default"]
        record = RunRecord(
            run_id=config.name,
            created_at=utc_now(),
            commit=environment.commit(),
            base_model=self.loaded.info,
            lora=LoraInfo(
                rank=lora.r,
                alpha=lora.lora_alpha,
                dropout=lora.lora_dropout,
                targets=tuple(sorted({name.rsplit(".", 1)[-1] for name in lora.target_modules})),
            ),
            prompt=self.loaded.encoder.info,
            data=DataInfo(
                source=split.train.source,
                fingerprint=split.train.fingerprint,
                train=len(split.train),
                validation=n,
                excluded=dict(split.excluded),
            ),
            config=_shareable(config, self.place.precision),
            command=environment.command_line(),
            engine=self.engine,
            hardware=hardware,
            versions=environment.versions(),
            wall_seconds=round(self.wall_seconds, 2),
            warmup_seconds=round(self.warmup_seconds, 2),
            reviews_per_second=round(self.history.seen[-1] / self.wall_seconds, 2),
            tokens_per_second=round(self.history.tokens[-1] / self.wall_seconds, 1),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if gpu else _resident_bytes(),
            trainable_parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            steps=len(self.plan),
            validation_accuracy=wilson(self.right, n),
            validation_loss=final["eval_loss"],
        )
        write_run(self.folders.run, record)
        return record


def _shareable(config: TrainConfig, precision: str) -> dict[str, Any]:
    """The settings without this machine's folders, and with the precision that "auto" became."""
    settings = dataclasses.asdict(config) | {"precision": precision}
    for name in ("dataset", "base_model"):
        settings[name] = Path(settings[name]).name if os.path.exists(settings[name]) else settings[name]
    settings["exclude"] = [Path(path).name for path in config.exclude]
    return settings


def save_adapter(model: nn.Module, folder: Path, *, base_name: str) -> None:
    """Save the adapter as safetensors in ADAPTER_DTYPE, and round the live one to the same values."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.to(ADAPTER_DTYPE).float())
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {name: tensor.to("cpu", ADAPTER_DTYPE).contiguous() for name, tensor in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = base_name
    config.target_modules = {name.rsplit(".", 1)[-1] for name in config.target_modules}
    config.save_pretrained(str(folder))


def _resident_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(record: RunRecord, folder: Path) -> str:
    """What a person wants to know at the end of a run."""
    accuracy = record.validation_accuracy
    share = record.trainable_parameters / record.base_model.parameters
    return "\n".join(
        (
            f"Run folder      {folder}",
            f"Validation      {accuracy.value:.2%} of {accuracy.n:,} right ({accuracy.low:.2%} to "
            f"{accuracy.high:.2%}), loss {record.validation_loss:.3f}",
            f"Time            {record.wall_seconds:.1f} s training, {record.warmup_seconds:.1f} s warm-up, "
            f"on {record.hardware.count} × {record.hardware.device}",
            f"Speed           {record.reviews_per_second:,.1f} reviews/s, "
            f"{record.tokens_per_second:,.0f} tokens/s",
            f"Peak memory     {record.peak_memory_bytes / 1e9:.2f} GB",
            f"Trained         {record.trainable_parameters:,} weights, {share:.1%} of the base",
            f"Next            python eval.py --run {record.run_id} --system all "
            f"--dataset {record.data.source}",
        )
    )
