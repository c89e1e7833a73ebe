"""Where a run computes: device, number format, engine, and how many reviews fit in a forward pass."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from accelerate.utils.memory import clear_device_cache

from sentiment_core.config import PACKING, ConfigError, TrainConfig, UserError
from sentiment_core.engines.generic import engine_for_packs
from sentiment_core.models.base_models import end_with_parent
from sentiment_core.models.loading import LoadedModel

T = TypeVar("T")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class DeviceContext:
    """Where and in what number format a run computes."""

    device: torch.device
    precision: str
    rank: int
    world_size: int

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """On stderr, once a launch."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)


def find_device(precision: str = "auto") -> DeviceContext:
    """This process's device (one GPU per process under accelerate or torchrun) and the precision to use.

    The processes of one launch find each other here; a process alone starts no group.
    Raises ConfigError where the precision is not for this device.
    """
    on_gpu = torch.cuda.is_available()
    if not on_gpu and precision == "fp16":
        raise ConfigError("--precision fp16 needs a GPU; use --precision fp32 or bf16 on a CPU")
    processes = PartialState(cpu=not on_gpu, timeout=timedelta(hours=12))  # wait so long for others
    rank, world = processes.process_index, processes.num_processes
    if world > 1:
        end_with_parent()  # a launcher's processes do not by themselves
    device, best = torch.device("cpu"), "fp32"
    if on_gpu:
        device = torch.device("cuda", torch.cuda.current_device())
        # with padding, cuDNN's backward pass gives NaN for some lengths (torch 2.11, H200, heads of 128)
        torch.backends.cuda.enable_cudnn_sdp(False)
        best = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if precision == "bf16" and best == "fp16":
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"--precision bf16: {name} has no bfloat16 arithmetic; use --precision fp16")
    return DeviceContext(device, best if precision == "auto" else precision, rank, world)


def decided_by_main(context: DeviceContext, decide: Callable[[], T]) -> T:
    """What `decide` returns on the main process, on all; a UserError that it raises is raised on all."""
    outcome: Any = None
    if context.is_main:
        try:
            outcome = decide()
        except UserError as error:
            outcome = error
    if context.world_size > 1:
        [outcome] = broadcast_object_list([outcome])
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def one_device(arguments: Any) -> Any:
    """Keep a Trainer that sees several GPUs in one process from spreading its model over them."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


free_memory = partial(clear_device_cache, garbage_collection=True)
"""Free what a model left behind: models refer to themselves, and PyTorch keeps a GPU's freed blocks."""


def bytes_free(device: torch.device) -> int | None:
    """Of a GPU's memory, whoever holds the rest; None on a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def choose_engine(config: TrainConfig, loaded: LoadedModel, free_bytes: int | None) -> str:
    """The fastest engine that this model, device and free memory (None: it does not matter) allow.
    Raises ConfigError where the engine that was asked for cannot be had here."""
    packs = engine_for_packs(config.engine, loaded.model, loaded.device)
    if config.engine == "nf4" and loaded.device.type == "cpu":
        raise ConfigError(
            "--engine nf4 needs a GPU: bitsandbytes has no backward pass for its packed CPU layers; "
            "use --engine dequantized (the same values, unpacked once)"
        )
    if config.engine != "auto":
        return packs if packs and config.engine == "packed" else config.engine
    wants = packs and not config.lora_dropout and not config.gradient_checkpointing
    if loaded.device.type == "cuda" and wants and loaded.compute_dtype != torch.float32:
        one = activation_bytes(loaded.model.config, packs) * config.max_length_tokens * 4
        if free_bytes is None or one < 0.6 * free_bytes:
            return packs
    needed = 2 * loaded.info.parameters + activation_bytes(loaded.model.config, "dequantized") * 1024
    return "dequantized" if free_bytes is None or needed < 0.6 * free_bytes else "nf4"


def activation_bytes(model_config: Any, engine: str) -> int:
    """Rough bytes kept per token for the backward pass, without recomputation."""
    hidden = model_config.hidden_size
    inner = getattr(model_config, "intermediate_size", None) or 4 * hidden
    times = {"packed": (6, 5), "generic": (10, 7)}.get(engine, (20, 12))
    per_layer = times[0] * hidden + times[1] * inner
    return 2 * per_layer * model_config.num_hidden_layers


def choose_micro_batch(
    config: TrainConfig, model_config: Any, engine: str, context: DeviceContext, free: int | None
) -> int:
    """Reviews per forward pass on one device: as asked, else the most that memory allows.
    Raises ConfigError where the batch does not divide over the devices."""
    if config.batch_size % context.world_size:
        raise ConfigError(
            f"--batch-size {config.batch_size} does not divide over {context.world_size} devices; "
            f"use a multiple of {context.world_size}"
        )
    share = config.batch_size // context.world_size
    if config.micro_batch_size:
        return math.gcd(config.micro_batch_size, share)
    tokens = 350 if engine in PACKING else config.max_length_tokens  # mean or longest prompt
    keep = activation_bytes(model_config, engine) * tokens / (20 if config.gradient_checkpointing else 1)
    most = 4 if free is None else max(1, int(0.6 * free / keep))
    return next(size for size in range(min(share, most), 0, -1) if share % size == 0)
