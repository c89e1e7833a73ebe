"""QLoRA through the Hugging Face Trainer: base rounded to NF4 and frozen, loss on the label position only.

Dettmers et al. 2023 (QLoRA) on Hu et al. 2021 (LoRA). Four engines compute the same steps: `nf4` and
`dequantized` run the model as transformers does, `packed` and `generic` lay reviews end to end (`engines`).
"""

import copy
import dataclasses
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from accelerate import PartialState
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainingArguments

from sentiment_core.artifacts import provenance, store
from sentiment_core.artifacts.schema import AlsoInfo, DataInfo, LoraInfo, RunRecord
from sentiment_core.artifacts.store import HistoryWriter, read_history, utc_now, write_record, write_text
from sentiment_core.config import PACKING, ConfigError, TrainConfig, flag, split_name
from sentiment_core.data.reviews import TrainSplit, split_train
from sentiment_core.engines import device as devices
from sentiment_core.engines.batching import plan_steps
from sentiment_core.engines.device import DeviceContext
from sentiment_core.engines.scorer import log_odds
from sentiment_core.metrics.classification import fit_temperature
from sentiment_core.metrics.intervals import wilson
from sentiment_core.models import loading
from sentiment_core.models.base_models import SEAL, check_disk, is_intact, published_as, resolve, writing
from sentiment_core.models.tokens import PromptEncoder
from sentiment_core.models.weight_sample import sample_weights
from sentiment_core.training import teacher
from sentiment_core.training.trainer import History, PackedQLoraTrainer, Prompts, QLoraTrainer

# Type the adapter is saved in: half the file, and finer than bfloat16 at the size of these weights.
ADAPTER_DTYPE = torch.float16


def train(config: TrainConfig, *, assets: Path, work: Path, resume: bool = False, overwrite: bool = False):
    """Train one run and write its artifacts: (RunRecord, None but in the main process; folder of the run).
    Raises ConfigError, DataError, BaseModelError: one sentence each."""
    context = devices.find_device(config.precision)
    folder, work = assets / "runs" / config.name, work / config.name

    def prepare() -> str | None:
        if not resume:
            return prepare_folders(folder, work, config, overwrite)
        found = newest_whole(work / "checkpoints", context.say)
        check_same_settings(work, config)
        return found.name

    name = devices.decided_by_main(context, prepare)
    checkpoint = on_every_host(work / "checkpoints" / name, context) if name else None
    chosen = {name: getattr(config, name) for name in ("validation", "exclude", "limit", "seed", "also")}
    split = split_train(config.dataset, **chosen)
    context.say(f"Reviews: {len(split.train + split.also):,} to train on, {len(split.validation):,} to "
                f"validate, dropped {split.excluded or 'none'}")  # fmt: skip
    parts = parts_of(config, split, assets / "runs")
    asked = config.teacher and not parts
    lessons = teacher.prepare(config, context, assets=assets, work=work.parent) if asked else None
    session = Session(config, split, lessons, context, folder, work, checkpoint)
    context.say(f"Training {config.name}: {len(session.plan)} steps of {config.batch_size} reviews "
                f"({session.micro} a pass), engine {session.engine}, {context.precision}, "
                f"{context.world_size} × {provenance.hardware(context.device.type).device}")  # fmt: skip
    session.pour(parts) if parts else session.run()
    return (session.finish() if context.is_main else None), folder


def parts_of(config: TrainConfig, split: TrainSplit, folder: Path) -> list[store.Run]:
    """The runs of --soup. Raises ArtifactError: one is unfinished. ConfigError: they, or what is given here,
    differ in what their mean needs, or the same validation."""
    runs = [store.read_finished(folder / name) for name in config.soup]
    names = (
        "base_model.name", "base_model.revision", "lora.rank", "lora.alpha", "prompt", "teacher",
        "max_length_tokens", "data.fingerprint", "data.validation", "data.also",
    )  # fmt: skip
    found = [dict(zip(names, attrgetter(*names)(run.record), strict=True)) for run in runs]
    here = {"lora.rank": config.lora_rank, "lora.alpha": config.lora_alpha}
    here |= {"base_model.name": resolve(config.base_model).name, "data.fingerprint": split.train.fingerprint}
    for one in found[1:] + [one | here for one in found[:1]]:
        if odd := [name for name in names if one[name] != found[0][name]]:
            raise ConfigError(f"--soup: runs, or what is given, differ in {', '.join(odd)}; give alike ones")
    return runs


def settings_of(path: Path) -> tuple[dict[str, Any], RunRecord]:
    """The settings in a run.json (or its folder), to repeat them under another name, and the whole record.
    Raises ConfigError or ArtifactError: there is none, or it has settings that this version does not know."""
    path = path / "run.json" if path.is_dir() else path
    record = store.read_record(path, RunRecord, "give the run.json of a finished run")
    known = {item.name for item in dataclasses.fields(TrainConfig)}
    if unknown := ", ".join(sorted(record.config.keys() - known)):
        raise ConfigError(f"--config {path} sets {unknown}, unknown here; use the version that made it")
    name, about = split_name(record.config.get("dataset", ""))
    settings = record.config | {"run_id": f"{record.run_id}-repeat", "report_to": "none", "dataset": name}
    settings |= {"exclude": tuple(record.config.get("exclude", ()))} | dict(parse_qsl(about))
    base = record.base_model
    if base.revision and base.source != "folder" and resolve(base.name).location:
        settings["base_model"] = f"{base.name}@{base.revision}"  # the Hub's commit, not what it has today
    return settings, record


def prepare_folders(folder: Path, work: Path, config: TrainConfig, overwrite: bool) -> None:
    """Empty the run's folders and write its settings. Raises ConfigError where the run exists already."""
    run = f"run {config.name!r}"
    if (folder / "run.json").exists() and not overwrite:
        raise ConfigError(f"{run} exists in {folder.parent}; give another --run-id, or --overwrite")
    check_disk(folder, 200_000_000, run)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    write_text(work / "settings.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")


def check_same_settings(work: Path, config: TrainConfig) -> None:
    may_change = ("engine", "micro_batch_size", "checkpoint_minutes", "report_to")  # the result is the same
    began = json.loads((work / "settings.json").read_text(encoding="utf-8"))
    for name, value in json.loads(json.dumps(dataclasses.asdict(config))).items():
        if name not in may_change and began.get(name) != value:
            raise ConfigError(
                f"--resume: {flag(name)} is {value!r}, the run began with {began.get(name)!r}; "
                "use the same settings, or another --run-id"
            )


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path:
    """The newest checkpoint that is whole; newer ones, cut short by a kill or damaged, are removed.
    Raises ConfigError where there is none."""
    for checkpoint in sorted(folder.glob("checkpoint-[0-9]*"), key=step_of, reverse=True):
        if is_whole(checkpoint):
            return checkpoint
        say(f"Left out: {checkpoint} was not written to its end, or was damaged since.")
        shutil.rmtree(checkpoint, ignore_errors=True)
    raise ConfigError(f"--resume: there is no checkpoint in {folder}; start the run without it")


def is_whole(checkpoint: Path) -> bool:
    """Whether it is as it was sealed, and so is the best one, which the run's end goes back to."""
    if not is_intact(checkpoint):
        return False
    best = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["best_global_step"]
    return best is None or is_intact(checkpoint.with_name(f"checkpoint-{best}"))


def on_every_host(checkpoint: Path, context: DeviceContext) -> Path:
    """The main process's checkpoint, copied to each host that has it not: its work folder may be its own."""
    if context.world_size > 1:
        files = devices.decided_by_main(
            context, lambda: {file.name: file.read_bytes() for file in checkpoint.iterdir()}
        )
        same = is_intact(checkpoint) and (checkpoint / SEAL).read_bytes() == files[SEAL]
        if PartialState().is_local_main_process and not same:
            shutil.rmtree(checkpoint, ignore_errors=True)  # of another run
            checkpoint.mkdir(parents=True)
            for name, content in files.items():
                (checkpoint / name).write_bytes(content)
        PartialState().wait_for_everyone()
    return checkpoint


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def load_model(config: TrainConfig, context: DeviceContext) -> tuple[loading.LoadedModel, Any, str, int]:
    """The base model, the same with a fresh adapter around it, the engine, and reviews a forward pass."""
    base = resolve(config.base_model)
    loading.check_causal(base)
    torch.manual_seed(config.seed)
    loaded = loading.load_base(base, device=context.device, compute_dtype=context.dtype, dequantized=False)
    free = devices.bytes_free(context.device)
    engine = devices.choose_engine(config, loaded, free)
    if engine != "nf4":
        loading.dequantize(loaded.model, context.dtype)
    lora = {name: getattr(config, f"lora_{name}") for name in ("rank", "alpha", "dropout")}
    model = loading.add_lora(loaded.model, **lora)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    micro = devices.choose_micro_batch(config, loaded.model.config, engine, context, free)
    return loaded, model, engine, micro


class Session:
    """One training run: the model loaded, the steps planned and the trainer made.
    lessons: what a teacher says of unlabelled reviews, if there is one.
    folder, work: where the artifact goes, and the checkpoints, which are not for sharing.
    checkpoint: folder of the one to continue from, None to begin. load: in place of `load_model`."""

    def __init__(
        self, config: TrainConfig, split: TrainSplit, lessons: teacher.Lessons | None, context: DeviceContext,
        folder: Path, work: Path, checkpoint: Path | None, load: Callable[..., Any] = load_model,
    ) -> None:  # fmt: skip
        self.config, self.split, self.teacher = config, split, lessons.info if lessons else None
        self.context, self.folder, self.parts = context, folder, []
        self.loaded, model, self.engine, self.micro = load(config, context)
        accumulation = config.batch_size // (self.micro * context.world_size)
        encoder = self.loaded.encoder
        prompts = learned(encoder, config, split, lessons)
        held_out = encoder.encode_cached(split.validation.texts, config.max_length_tokens)
        lengths = prompts.encoded.lengths
        plan = plan_steps(lengths, config.batch_size, epochs=config.epochs, seed=config.seed)
        self.plan = [] if config.soup else plan
        self.checkpoint, self.first_step = checkpoint, step_of(checkpoint) if checkpoint else None
        writer = HistoryWriter(folder, resume_at=self.first_step) if context.is_main else None
        self.history = History(writer, plan, lengths, config.epochs)
        kind = PackedQLoraTrainer if self.engine in PACKING else QLoraTrainer
        batches = kind.Batches(prompts, encoder, plan, accumulation, context, self.engine)
        with loading.quiet_transformers():
            # eval_dataset has to be there; `held_out` is what is scored
            self.trainer = kind(
                model=model, args=training_arguments(config, context, work, len(plan), accumulation),
                train_dataset=plan, eval_dataset=[0], config=config, loaded=self.loaded, held_out=held_out,
                labels=split.validation.labels, batches=batches, history=self.history,
            )  # fmt: skip
        self.trainer.remove_callback(PrinterCallback)

    def run(self) -> None:
        gpu = self.context.device.type == "cuda"
        if gpu:
            torch.cuda.reset_peak_memory_stats()  # the warm-up's passes are as large as any
        started = time.perf_counter()
        self.trainer.warm_up()
        before = self.trainer.validate()
        self.warmup_seconds = time.perf_counter() - started
        spent = max(0.0, read_history(self.folder)["seconds"].max())  # NaN where it has no row
        self.history.start(self.first_step or 0, spent, sys.stderr)
        if not self.checkpoint:
            self.history.row(0, before)
        try:
            self.trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        finally:
            self.history.bar.close()
        if gpu:
            torch.cuda.synchronize()
        self.wall_seconds = self.history.seconds

    def pour(self, runs: list[Any]) -> None:
        """Instead of `run`: make the adapter the mean of the runs' (Wortsman et al. 2022, arXiv 2203.05482).
        It is of A and of B: 37 MB on the 1.5B base at rank 16, where PEFT's "cat", the exact mean of products
        at twice the rank, has 74. As A began alike, with one seed, both are nearly the same."""
        files = [load_file(run.adapter_path / "adapter_model.safetensors") for run in runs]
        mean = {name: torch.stack([file[name].float() for file in files]).mean(0) for name in files[0]}
        set_peft_model_state_dict(self.trainer.model, mean)
        ends = [(*read_history(r.path)[["examples", "tokens"]].max(), r.record.wall_seconds) for r in runs]
        self.history.seen, self.history.tokens, (self.wall_seconds,) = np.sum(ends, axis=0)[:, None]
        self.parts, self.warmup_seconds, self.teacher = runs, 0.0, runs[0].record.teacher
        self.history.start(0, self.wall_seconds, None)
        self.history.row(0, self.trainer.validate())

    def finish(self) -> RunRecord:
        """Round the adapter to the type it is saved in, validate that, and write the artifacts."""
        (self.folder / "run.json").unlink(missing_ok=True)  # from here to the end it is unfinished
        folder, base = self.folder / "adapter", resolve(self.config.base_model)
        with writing(folder):
            save_adapter(self.trainer.model, folder, *published_as(base))
        final = self.trainer.validate()
        config, context, model, seconds = self.config, self.context, self.trainer.model, self.wall_seconds
        data, also, n = self.split.train, self.split.also, len(self.split.validation)
        lora = model.peft_config["default"]
        peak = torch.cuda.max_memory_allocated() or provenance.peak_memory()  # a GPU's, else the process's
        targets = tuple(_targets(lora))
        told = AlsoInfo(source=also.source, fingerprint=also.fingerprint, train=len(also))
        record = RunRecord(
            run_id=config.name, created_at=utc_now(), commit=provenance.commit(),
            base_model=self.loaded.info, prompt=self.loaded.encoder.info,
            lora=LoraInfo(rank=lora.r, alpha=lora.lora_alpha, dropout=lora.lora_dropout, targets=targets),
            data=DataInfo(source=data.source, fingerprint=data.fingerprint, train=len(data), validation=n,
                          excluded=self.split.excluded, also=told if also else None),
            config=_shareable(config, context.precision), command=provenance.command_line(),
            engine=self.engine, hardware=provenance.hardware(context.device.type, context.world_size),
            versions=provenance.versions(),
            wall_seconds=round(seconds, 2), warmup_seconds=round(self.warmup_seconds, 2),
            validation_seconds=round(self.history.validation_seconds, 2),
            reviews_per_second=round(self.history.seen[-1] / seconds, 2),
            tokens_per_second=round(self.history.tokens[-1] / seconds, 1),
            peak_memory_bytes=max([peak, *(run.record.peak_memory_bytes for run in self.parts)]),
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            steps=len(self.plan),
            validation_accuracy=wilson(round(final["eval_accuracy"] * n), n),
            validation_loss=final["eval_loss"],
            temperature=fit_temperature(self.split.validation.labels, log_odds(self.trainer.scores)),
            weights=sample_weights(base, targets),
            teacher=self.teacher,
            parts={run.run_id: store.adapter_sha256(run) for run in self.parts},
        )  # fmt: skip
        write_record(self.folder / "run.json", record)
        return record


def learned(
    encoder: PromptEncoder, config: TrainConfig, split: TrainSplit, lessons: teacher.Lessons | None
) -> Prompts:
    """Prompts with their labels, and behind them a teacher's reviews with its answers."""
    more, said = (lessons.reviews.texts, lessons.p_positive) if lessons else ([], [])
    reviews, sizes = split.train + split.also, (len(split.train), len(split.also), len(more))
    return Prompts(
        encoder.encode_cached(reviews.texts + more, config.max_length_tokens),
        targets=np.concatenate((reviews.labels, said), dtype=np.float32),
        temperatures=np.repeat((1.0, 1.0, config.soft_temperature), sizes).astype(np.float32),
        weights=np.repeat((1.0, config.also_weight, config.soft_weight), sizes).astype(np.float32),
    )


def training_arguments(
    config: TrainConfig, context: DeviceContext, work: Path, steps: int, accumulation: int
) -> TrainingArguments:
    """The settings as the Trainer wants them. accumulation: forward passes a step on each device."""
    gpu, never = context.device.type == "cuda", 10 * steps  # evaluated and saved when Milestones says
    arguments = TrainingArguments(
        output_dir=str(work / "checkpoints"), max_steps=steps, seed=config.seed,
        per_device_train_batch_size=1, gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate, warmup_steps=round(config.warmup_fraction * steps),
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused" if gpu else "adamw_torch",
        bf16=context.precision == "bf16", fp16=context.precision == "fp16", use_cpu=not gpu,
        eval_strategy="steps", eval_steps=never, save_steps=never, save_total_limit=2,
        load_best_model_at_end=context.is_main, metric_for_best_model="eval_accuracy",
        logging_steps=max(1, steps // 120), logging_nan_inf_filter=False, disable_tqdm=True,
        report_to=config.report_to, run_name=config.name, project="sentiment-qlora",
        remove_unused_columns=False, ddp_find_unused_parameters=False,
    )  # fmt: skip
    return devices.one_device(arguments)


def _shareable(config: TrainConfig, precision: str) -> dict[str, Any]:
    """The settings without this machine's folders, and with the precision that "auto" became."""
    settings = dataclasses.asdict(config) | {"precision": precision}
    settings["exclude"] = [_without_folders(name) for name in config.exclude]
    settings["soup"], places = list(config.soup), ("dataset", "base_model", "unlabelled", "also")
    return settings | {name: _without_folders(settings[name]) for name in places}


def _without_folders(name: str) -> str:
    place, about = split_name(name)
    place = Path(place).name if os.path.exists(place) else place
    return f"{place}?{about}" if about else place


def _targets(lora: Any) -> list[str]:
    """Names of the adapted modules, without where they lie."""
    return sorted({name.rsplit(".", 1)[-1] for name in lora.target_modules})


def save_adapter(model: Any, folder: Path, base_name: str, base_revision: str | None) -> None:
    """Save the adapter as PEFT does, in ADAPTER_DTYPE, and round the live one to the same values.
    base_name, base_revision: where plain PEFT finds the base model."""
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
    config.base_model_name_or_path, config.revision = base_name, base_revision
    config.target_modules = _targets(config)
    config.save_pretrained(str(folder))


def describe(record: RunRecord, folder: Path) -> str:
    accuracy, hardware = record.validation_accuracy, record.hardware
    share = record.trainable_parameters / record.base_model.parameters
    dataset = shlex.quote(record.data.source)
    return f"""\
Run folder      {folder}
Validation      accuracy {accuracy.value:.2%} ({accuracy.low:.2%} to {accuracy.high:.2%}) \
on {accuracy.n:,} reviews, loss {record.validation_loss:.3f}
Time            {record.wall_seconds:.1f} s training, {record.warmup_seconds:.1f} s warm-up, \
{record.validation_seconds or 0:.1f} s validation, on {hardware.count} × {hardware.device}
Speed           {record.reviews_per_second:,.1f} reviews/s, {record.tokens_per_second:,.0f} tokens/s
Peak memory     {record.peak_memory_bytes / 1e9:.2f} GB
Trained         {record.trainable_parameters:,} weights, {share:.1%} of the base
Next            python eval.py --run {record.run_id} --system all --dataset {dataset}"""
