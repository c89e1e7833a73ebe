"""The Hugging Face Trainer with our batches, loss, validation and history: plain, and with packs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import Trainer, TrainerCallback

from sentiment_core.artifacts.schema import HistoryRow
from sentiment_core.artifacts.store import HistoryWriter
from sentiment_core.config import TrainConfig, UserError
from sentiment_core.engines.batching import round_up, split_alike, split_balanced
from sentiment_core.engines.device import DeviceContext, decided_by_main
from sentiment_core.engines.generic import PACKED_MODELS, float32_head
from sentiment_core.engines.loss import label_loss
from sentiment_core.engines.packed.layout import Pack, PackShape, pack_sequences, packed_tokens
from sentiment_core.engines.scorer import SentimentScorer, left_pad, p_positive
from sentiment_core.metrics import histogram
from sentiment_core.models.base_models import seal, writing
from sentiment_core.models.loading import LoadedModel
from sentiment_core.models.tokens import Encoded, PromptEncoder

PENDING = "pending_loss.json"


@dataclass(frozen=True)
class Prompts:
    """Reviews as prompts, and what is to be learned of each."""

    encoded: Encoded
    targets: np.ndarray  # (n,) float32 P(positive); 0 or 1 for a label
    temperatures: np.ndarray  # (n,) float32, of a teacher's targets; 1 for a label
    weights: np.ndarray  # (n,) float32, share in a step's mean, before it is brought to a sum of 1


@dataclass
class MicroBatches(Dataset):
    """One process's forward passes in order, padded: item i belongs to step i // accumulation."""

    prompts: Prompts
    encoder: PromptEncoder
    plan: list[np.ndarray]  # the reviews of each step
    accumulation: int  # passes a step on each device
    context: DeviceContext
    engine: str  # as in --engine

    split = staticmethod(split_alike)

    def __len__(self) -> int:
        return len(self.plan) * self.accumulation

    @functools.cached_property
    def parts(self) -> list[list[np.ndarray]]:
        """Each step's reviews, split over passes and processes."""
        lengths, count = self.prompts.encoded.lengths, self.accumulation * self.context.world_size
        return [self.split(step, lengths, count) for step in self.plan]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        (number, micro), world = divmod(index, self.accumulation), self.context.world_size
        rows = self.parts[number][micro * world + self.context.rank]
        learned = {n: getattr(self.prompts, n)[rows] for n in ("targets", "temperatures", "weights")}
        # gradients are averaged over devices
        learned["weights"] *= np.float32(world)
        learned["weights"] /= self.prompts.weights[self.plan[number]].sum()
        return self.collate(rows, learned)

    def collate(self, rows: np.ndarray, learned: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        batch = left_pad([self.prompts.encoded[i] for i in rows], self.encoder.tokenizer.pad_token_id or 0)
        return batch | {name: torch.from_numpy(values) for name, values in learned.items()}


class PackedBatches(MicroBatches):
    """The same laid end to end, in one static shape."""

    split = staticmethod(split_balanced)

    @functools.cached_property
    def shape(self) -> PackShape:
        """What holds every part of every step."""
        lengths = self.prompts.encoded.lengths
        prefix = self.prompts.encoded.shared if PACKED_MODELS[self.engine].shares_prefix else 0
        pieces = [*itertools.chain(*self.parts)]
        tokens = max(packed_tokens(lengths[piece], prefix) for piece in pieces)
        return PackShape(round_up(tokens, 16), max(map(len, pieces)), int(lengths.max()), prefix)

    def collate(self, rows: np.ndarray, learned: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return vars(pack_sequences(self.prompts.encoded, rows, self.shape, **learned))


def check_finite(loss: float, step: int) -> None:
    """Raises UserError where training diverged."""
    if not math.isfinite(loss):
        told = f"the loss is {loss} at step {step}"
        raise UserError(f"{told}; use --precision bf16 or fp32, or a lower --learning-rate")


class QLoraTrainer(Trainer):
    """The Hugging Face Trainer with our batches, our loss at the label position, and our validation.
    loaded: the base model that `model`, a PEFT model, is built on.
    batches: this process's `MicroBatches`, in order.
    held_out, labels: the validation reviews. history: whose clock stands still while these are scored."""

    Batches = MicroBatches
    model: Any

    def __init__(
        self, *, config: TrainConfig, loaded: LoadedModel, batches: Any, held_out: Encoded,
        labels: np.ndarray, history: History, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(callbacks=[Milestones(self, config, kwargs["args"].max_steps), history], **kwargs)
        self.batches, self.held_out, self.labels, self.history = batches, held_out, labels, history
        self.scorer = SentimentScorer(loaded, self.model, engine="padded")
        self.scores = np.zeros((0, 2), dtype=np.float32)  # of the last validation

    def get_train_dataloader(self) -> DataLoader:
        pinned = self.args.device.type == "cuda"
        # batch_size None would be shorter, but resuming skips batches by their sampler
        return DataLoader(self.batches, batch_size=1, collate_fn=lambda items: items[0], pin_memory=pinned)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the Trainer's estimate walks all modules at every step

    def warm_up(self) -> None:
        """What can be done before the clock starts: nothing here."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None):
        """One forward and backward pass. The losses of a step's passes add up to its mean."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        targets, temperatures, weights = (inputs.pop(n) for n in ("targets", "temperatures", "weights"))
        with self.compute_loss_context_manager(), float32_head(self.model):
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
            label_ids = torch.tensor(self.batches.encoder.label_ids, device=logits.device)
            loss = (label_loss(logits, label_ids, targets, temperatures) * weights).sum()
        self.accelerator.backward(loss)
        return loss.detach()

    def validate(self) -> dict[str, Any]:
        """The `eval_` fields of a HistoryRow; the loss is the label word's mean negative log-likelihood."""
        labels = self.labels
        with self.history.paused():
            self.scores = scores = self.scorer.log_likelihoods(self.held_out)  # (n, 2)
        loss, p = float(-scores[np.arange(len(labels)), labels].mean()), p_positive(scores)
        check_finite(loss, self.state.global_step)
        return {
            "eval_loss": loss,
            "eval_accuracy": float(((p >= 0.5) == labels).mean()),
            "eval_share_positive": float((p >= 0.5).mean()),
            "eval_counts": histogram.counts(labels, p).tolist(),
        }

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"):
        metrics = self.validate()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model, trial) -> None:
        """With the loss since the last logged step, which the Trainer forgets; sealed when all is there."""
        checkpoint = Path(str(self.args.output_dir), f"checkpoint-{self.state.global_step}")
        with writing(checkpoint):
            super()._save_checkpoint(model, trial)
            losses = gather_object([self._tr_loss.item()])  # every process has written its part
            if self.batches.context.is_main:
                pending = {"loss": sum(losses) / len(losses), "logged": self._globalstep_last_logged}
                (checkpoint / PENDING).write_text(json.dumps(pending), encoding="utf-8")
                seal(checkpoint)

    def _load_rng_state(self, checkpoint) -> None:
        super()._load_rng_state(checkpoint)
        pending = json.loads(Path(checkpoint, PENDING).read_text(encoding="utf-8"))
        self._tr_loss += pending["loss"]
        self._globalstep_last_logged = pending["logged"]


class PackedQLoraTrainer(QLoraTrainer):
    """The same by the packed engine, which trains and validates, with all gradients in one flat tensor."""

    Batches = PackedBatches

    def __init__(self, *, loaded: LoadedModel, **kwargs: Any) -> None:
        super().__init__(loaded=loaded, **kwargs)
        longest = max(int(each.lengths.max()) for each in (self.batches.prompts.encoded, self.held_out))
        shape = dataclasses.replace(self.batches.shape, longest=round_up(longest, 256))
        how = {"compiled": self.args.device.type == "cuda", "label_ids": loaded.encoder.label_ids}
        self.engine = PACKED_MODELS[self.batches.engine](self.model, shape, trainable=True, **how)
        self.adapter = self.engine.adapter
        self.scorer = SentimentScorer(loaded, self.model, engine=self.batches.engine, packed=self.engine)
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        # on the engine's tensors: of the packed one the same numbers in 14 tensors instead of hundreds
        self.optimizer = kind(self.adapter.leaves, **settings | {"weight_decay": self.args.weight_decay})
        self._passes = 0

    def warm_up(self) -> None:
        self.engine.warm_up(Pack(**self.batches[0]))

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None):
        """One pass; behind a step's last one the gradients are averaged over all devices."""
        if self._passes == 0:  # the Trainer moved, wrapped or loaded the model since
            self.adapter.reattach()
        if self._passes % self.args.gradient_accumulation_steps == 0:
            self.adapter.zero_gradients()
        self._passes += 1
        scaler, scale = self.accelerator.scaler, self.engine.loss_scale
        if scaler is not None:
            scale.copy_(scaler.scale(torch.ones_like(scale)))
        loss = self.engine.step(Pack(**inputs))
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            torch.distributed.all_reduce(self.adapter.flat_gradient)
            self.adapter.flat_gradient.div_(self.args.world_size)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        self.accelerator.unscale_gradients(self.optimizer)
        norm = self.adapter.flat_gradient.norm()
        scale = (self.args.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        self.adapter.flat_gradient.mul_(scale)
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return self.adapter.flat_gradient.norm() if grad_norm is None else grad_norm


class Milestones(TrainerCallback):
    """Evaluates and saves so often an epoch, spread evenly over the steps, at last behind the last one.

    If asked, validates after steps 1, 2, 4, 8, … too, where most is learned: a row of history, no
    checkpoint. Saves between evaluations, too, where the last checkpoint is so many minutes old.
    """

    def __init__(self, trainer: QLoraTrainer, config: TrainConfig, steps: int) -> None:
        marks = np.linspace(0, steps, config.epochs * config.evaluations_per_epoch + 1)[1:]
        self.trainer, self.config, self.steps = trainer, config, {max(1, round(mark)) for mark in marks}

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()

    on_save = on_train_begin

    def on_step_end(self, args, state, control, **kwargs):
        step, context = state.global_step, self.trainer.batches.context
        control.should_evaluate = control.should_save = step in self.steps
        if not control.should_save and (context.world_size == 1 or step % args.logging_steps == 0):
            most = 60 * self.config.checkpoint_minutes  # by the main process's clock, which costs a broadcast
            control.should_save = decided_by_main(context, lambda: time.monotonic() - self.saved >= most)
        if self.config.early_validations and step.bit_count() == 1 and step not in self.steps:
            self.trainer.history.row(step, self.trainer.validate())
        return control


class History(TrainerCallback):
    """Appends to history.jsonl and draws the progress bar.
    writer: None in all processes but the main one, which then neither write nor draw.
    plan: the reviews of each step. lengths: (n,) tokens of each review's prompt."""

    def __init__(
        self, writer: HistoryWriter | None, plan: list[np.ndarray], lengths: np.ndarray, epochs: int
    ) -> None:
        self.writer, self.steps_per_epoch = writer, len(plan) // epochs
        self.seen = np.cumsum([0, *(len(step) for step in plan)])  # (steps + 1,) reviews
        self.tokens = np.cumsum([0, *(int(lengths[step].sum()) for step in plan)])  # (steps + 1,)
        self.start(0, 0.0, None)

    @property
    def seconds(self) -> float:
        """Since training began, validation and pauses between resumed parts not counted."""
        return self.spent + time.perf_counter() - self.started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock, once the device has done what it was given."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        began = time.perf_counter()
        yield
        pause = time.perf_counter() - began
        self.started, self.validation_seconds = self.started + pause, self.validation_seconds + pause

    def start(self, first_step: int, spent: float, out: TextIO | None) -> None:
        """Start the clock at `spent` seconds, and the bar."""
        self.spent, self.started, self.validation_seconds = spent, time.perf_counter(), 0.0
        self.bar = tqdm(
            total=int(self.seen[-1]), initial=int(self.seen[first_step]), unit=" reviews", smoothing=0.1,
            file=out, dynamic_ncols=True, mininterval=0.5, disable=self.writer is None or out is None,
        )  # fmt: skip

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Write what `values` has of a HistoryRow's fields and is finite."""
        place = {
            "step": step, "epoch": round(step / self.steps_per_epoch, 4), "examples": int(self.seen[step]),
            "tokens": int(self.tokens[step]), "seconds": round(self.seconds, 3),
        }  # fmt: skip
        known = {k: v for k, v in values.items() if k in HistoryRow.model_fields}
        finite = {k: v for k, v in known.items() if k == "eval_counts" or math.isfinite(v)}
        if self.writer is not None:
            with writing(self.writer.path):
                self.writer.append(HistoryRow.model_validate(finite | place))

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(int(self.seen[state.global_step]) - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = logs or {}
        check_finite(logs.get("loss", 0.0), state.global_step)
        if "loss" in logs or "eval_loss" in logs:
            self.row(state.global_step, logs)
        names = {"loss": "loss", "eval_accuracy": "val"}
        if shown := {names[key]: f"{logs[key]:.3f}" for key in names if key in logs}:
            self.bar.set_postfix(shown, refresh=False)
