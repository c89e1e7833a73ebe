"""The Hugging Face Trainer with our batches, loss, validation and history, for all three engines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import Trainer, TrainerCallback

from sentiment_core.artifacts import HistoryWriter
from sentiment_core.batching import round_up, split_alike, split_balanced
from sentiment_core.config import UserError
from sentiment_core.models import Encoded
from sentiment_core.packed import GraphedPass, Pack, PackedLlama, PackShape, lay_out, packed_tokens
from sentiment_core.schema import HistoryRow
from sentiment_core.scoring import float32_head, left_pad

# ---- micro-batches


class MicroBatches(Dataset):
    """One rank's forward passes in order: item i belongs to step i // accumulation."""

    def __init__(
        self,
        encoded: Encoded,
        labels: np.ndarray,
        plan: list[np.ndarray],
        *,
        accumulation: int,
        rank: int,
        world_size: int,
        shape: PackShape | None,
        pad_id: int,
    ) -> None:
        self.encoded, self.labels, self.plan = encoded, labels, plan
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        self.shape, self.pad_id = shape, pad_id

    def __len__(self) -> int:
        return len(self.plan) * self.accumulation

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        step, micro = divmod(index, self.accumulation)
        split = split_balanced if self.shape else split_alike
        parts = split(self.plan[step], self.encoded.lengths, self.accumulation * self.world_size)
        rows = parts[micro * self.world_size + self.rank]
        share = self.world_size / len(self.plan[step])  # gradients are averaged over devices
        weights = np.full(len(rows), share, dtype=np.float32)
        if self.shape:
            return vars(lay_out(self.encoded, rows, self.shape, self.labels, weights))
        return left_pad([self.encoded[i] for i in rows], self.pad_id) | {
            "labels": torch.from_numpy(self.labels[rows].astype(np.int64)),
            "weights": torch.from_numpy(weights),
        }


def pack_shape(encoded: Encoded, plan: list[np.ndarray], parts: int) -> PackShape:
    """The one static shape that holds every part of every step."""
    lengths, prefix = encoded.lengths, encoded.shared
    pieces = [piece for step in plan for piece in split_balanced(step, lengths, parts)]
    return PackShape(
        tokens=round_up(max(packed_tokens(lengths[piece], prefix) for piece in pieces), 128),
        reviews=max(len(piece) for piece in pieces),
        longest=round_up(int(lengths.max()), 128),
        prefix=prefix,
    )


# ---- trainer


class DivergedError(UserError):
    """The loss is no longer a finite number."""


class QLoraTrainer(Trainer):
    """The Hugging Face Trainer with our batches, our loss at the label position, and our validation.

    Args:
        batches: this rank's micro-batches, in order.
        validate: scores the validation reviews; returns {"eval_loss", "eval_accuracy"}.
        label_ids: token ids of the two label words.
        packed: the packed model, for the packed engine.
    """

    def __init__(
        self,
        *args: Any,
        batches: MicroBatches,
        validate: Callable[[], dict[str, float]],
        label_ids: tuple[int, int],
        packed: PackedLlama | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.batches, self.validate = batches, validate
        self.label_ids = torch.tensor(label_ids, device=self.args.device)
        self.packed = packed
        self._attached = False
        self._passes = 0
        self.loss_scale = torch.ones((), device=self.args.device)
        self.packed_pass = GraphedPass(self._packed_loss, self.args.device) if packed else None

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.batches,
            batch_size=1,
            shuffle=False,
            collate_fn=_only,
            pin_memory=self.args.device.type == "cuda",
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the Trainer's estimate walks all modules at every step

    def warm_up(self) -> None:
        """Compile and capture before the clock starts."""
        if self.packed_pass is not None:
            self.packed.adapter.zero_gradients()
            self.packed_pass.warm_up(Pack(**self.batches[0]))

    def _packed_loss(self, pack: Pack) -> torch.Tensor:
        loss = self.packed.loss(pack, self.label_ids)
        (loss * self.loss_scale).backward()
        return loss.detach()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None):
        """One forward and backward pass. The loss of a step's passes adds up to the mean over its reviews."""
        if self.packed_pass is None:
            model.train()
            inputs = self._prepare_inputs(inputs)
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs)
            self.accelerator.backward(loss)
            return loss.detach()
        adapter = self.packed.adapter
        if not self._attached:  # the Trainer moved, wrapped or loaded the model since
            adapter.reattach()
            self._attached = True
        if self._passes % self.args.gradient_accumulation_steps == 0:
            adapter.zero_gradients()
        self._passes += 1
        if self.accelerator.scaler is not None:
            self.loss_scale.copy_(self.accelerator.scaler.scale(torch.ones_like(self.loss_scale)))
        loss = self.packed_pass(Pack(**inputs)).clone()
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            torch.distributed.all_reduce(adapter.flat_gradient)
            adapter.flat_gradient.div_(self.args.world_size)
        return loss

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """On the stacked tensors where there are some: the same numbers in 14 tensors instead of hundreds."""
        if self.packed is None or self.optimizer is not None:
            return super().create_optimizer(*args)
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        parameters = self.packed.adapter.parameters()
        self.optimizer = kind(parameters, **settings | {"weight_decay": self.args.weight_decay})
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        if self.packed is None:
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients(self.optimizer)
        gradient = self.packed.adapter.flat_gradient
        norm = gradient.norm()
        gradient.mul_((self.args.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))  # as torch's clip_grad_norm_
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if grad_norm is None and self.packed is not None:
            return self.packed.adapter.flat_gradient.norm()
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch: Any = None):
        labels, weights = inputs.pop("labels"), inputs.pop("weights")
        with float32_head(self.model):
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        nll = F.cross_entropy(logits, self.label_ids[labels], reduction="none")
        return (nll * weights).sum()

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"):
        metrics = self.validate()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _only(items: list[Any]) -> Any:
    return items[0]


class Milestones(TrainerCallback):
    """Evaluate and save at the planned steps, the last one among them."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = control.should_save = state.global_step in self.steps
        return control


class History(TrainerCallback):
    """Appends to history.jsonl and draws the progress bar (main process only)."""

    def __init__(
        self, writer: HistoryWriter | None, seen: np.ndarray, tokens: np.ndarray, steps_per_epoch: int
    ):
        self.writer, self.seen, self.tokens, self.steps_per_epoch = writer, seen, tokens, steps_per_epoch
        self.spent = 0.0
        self.started = time.perf_counter()
        self.bar: tqdm | None = None

    @property
    def seconds(self) -> float:
        return self.spent + time.perf_counter() - self.started

    def start(self, first_step: int, total: int, spent: float, out: Any) -> None:
        self.spent, self.started = spent, time.perf_counter()
        if self.writer:
            self.bar = tqdm(
                total=total, initial=int(self.seen[first_step]), unit=" reviews", smoothing=0.1, file=out,
                dynamic_ncols=True, mininterval=0.5,
            )  # fmt: skip

    def row(self, step: int, values: dict[str, float]) -> None:
        if self.writer is None:
            return
        known = {k: v for k, v in values.items() if k in HistoryRow.model_fields and k != "epoch"}
        finite = {k: float(v) for k, v in known.items() if math.isfinite(v)}
        self.writer.append(
            HistoryRow(
                step=step,
                epoch=round(step / self.steps_per_epoch, 4),
                examples=int(self.seen[step]),
                tokens=int(self.tokens[step]),
                seconds=round(self.seconds, 3),
                **finite,
            )
        )

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(int(self.seen[state.global_step]) - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise DivergedError(
                f"the loss is {logs['loss']} at step {state.global_step}; "
                "use --precision bf16 or fp32, or a lower --learning-rate"
            )
        if "loss" in logs or "eval_loss" in logs:
            self.row(state.global_step, logs)
        if self.bar is not None:
            shown = {
                k: f"{logs[n]:.3f}" for k, n in (("loss", "loss"), ("val", "eval_accuracy")) if n in logs
            }
            if shown:
                self.bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
