"""What a live Llama runs on: weights rounded to NF4, the adapter merged in, cast, cached.

The base's linear layers are rounded to NF4 and unpacked to float32; the adapter is added in float32; only the
sum is cast to the number format that the processor is fast in. The dial has the adapter beside the base: a
product is then W·x + B·(α·A·x), exact for every α. A process of its own writes the result once to the user's
cache, under the content of base and adapter: a later start needs no bitsandbytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import psutil
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from sentiment_core.artifacts.schema import DIAL
from sentiment_core.engines.packed.adapter import GROUPS as LINEAR_GROUPS
from sentiment_core.engines.packed.adapter import group_bias, group_weight, target
from sentiment_core.engines.packed.model import can_pack
from sentiment_core.models import base_models
from sentiment_core.models.base_models import BaseModel, BaseModelError, base_identity, file_sha256
from sentiment_core.models.loading import QUANTIZATION, load_adapter, load_base, model_folder
from sentiment_core.models.tokens import PromptEncoder

NUMBER_FORMATS = ("bf16", "int8", "fp32")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
GROUPS = ("qkv", "o", "gate_up", "down")  # a layer's four matrix products, in `packed`'s order

Tensors = dict[str, torch.Tensor]
"""One system's by name. Of every layer N: "N.norm1", "N.norm2", the four of GROUPS as "N.qkv" … (in eight
bits with a "….scale" per output row; a Qwen2's "N.qkv.bias", too), and the prompt prefix's rotated keys and
values "N.k", "N.v" (kv_heads, prefix, head_dim), computed in float32. And "embedding", "norm", and in float32
"head" (2, hidden), one row per label word, "inv_freq", "rope_scale". The dial's: "N.qkv.A" (r, in),
"N.qkv.B" (out, r), scaled, and for each α of `DIAL` "N.k@α", "N.v@α"."""

KEPT = 4  # folders of the cache, one per run and format; the least recently used go first

MAKING = 11
"""Bytes of memory a weight while they are made: in float32, with copies of the matrices side by side."""


def dtype_of(number_format: str) -> torch.dtype:
    """What activations are computed in."""
    return torch.bfloat16 if number_format == "bf16" else torch.float32


def load_weights(
    base: BaseModel, adapter: Path | None, number_format: str, encoder: PromptEncoder
) -> tuple[Base, list[Tensors]]:
    """The base's weights; and with an adapter, what differs in the merged ones, and the dial's.
    Raises BaseModelError: the base cannot be had, or the adapter does not fit it."""
    config = Path(model_folder(base)) / "config.json"
    parts = [adapter / name for name in ADAPTER_FILES] if adapter else []
    for part in parts:
        if not part.is_file():
            raise BaseModelError(f"{adapter} holds no {part.name}; train the run again (python train.py)")
    key: list[Any] = [  # whatever changes the base's part of the files; this module's code, too
        number_format, base_identity(base) or base.spec, file_sha256(config) if config.is_file() else None,
        QUANTIZATION, base_models.CONVERSION_VERSION, encoder.prefix_ids, encoder.label_ids,
        file_sha256(Path(__file__)),
    ]  # fmt: skip
    of_base = json.dumps(key)
    name = hashlib.sha256((of_base + "".join(map(file_sha256, parts))).encode()).hexdigest()[:24]
    make = partial(_make_in_child, base, adapter, number_format)
    with tempfile.TemporaryDirectory() as own:
        try:
            folder = base_models.sealed_folder("live", name, make)
            _keep_few(folder)
        except OSError:  # the cache cannot be written
            make(folder := Path(own))
        first, *more = (load_file(path) for path in sorted(folder.glob("*.safetensors")))
        # copied, as a mapped file that is cut short later would end the process
        shared = _bases.get(of_base) or Base(copied(first))
        _bases[of_base] = shared
        return shared, [copied(changed) for changed in more]


@dataclass(eq=False)
class Base:
    """A base model's tensors, one copy for all runs on it that are in memory; and its models."""

    tensors: Tensors
    _made: dict[Any, tuple[Tensors, Any]] = field(default_factory=dict)

    def made(self, device: torch.device, make: Callable[..., Any], *given: Any) -> tuple[Tensors, Any]:
        """The tensors on the device, and the model `make(tensors, *given)` of them; both once."""
        if (device, given) not in self._made:
            moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
            self._made[device, given] = moved, make(moved, *given)
        return self._made[device, given]


_bases: WeakValueDictionary[str, Base] = WeakValueDictionary()


def copied(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _keep_few(used: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only cache is kept as it is
        os.utime(used, ns=(time.time_ns(),) * 2)  # the file system's own clock may tick slowly
        folders = sorted(used.parent.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in folders[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


# ---- building


def _make_in_child(base: BaseModel, adapter: Path | None, number_format: str, folder: Path) -> None:
    """Fill the folder from a process of its own, which gives back all the memory that building takes.
    It sees no GPU: on a ZeroGPU Space nothing may begin CUDA outside of a marked function."""
    files = Path(model_folder(base)).glob("*.safetensors")
    count = sum(path.stat().st_size for path in files) / 2  # bfloat16
    needed, free = MAKING * count / 1e9, psutil.virtual_memory().available / 1e9
    if free < needed:
        raise BaseModelError(
            f"Making the live model of {base.name!r} needs {needed:.1f} GB of memory, and {free:.1f} GB are "
            "free; choose a smaller base model, or a larger machine"
        )
    job = [base.spec, str(adapter.resolve()) if adapter else "", number_format, str(folder)]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "SPACES_ZERO_GPU": "", "SENTIMENT_CACHE": str(base_models.CACHE)}
    done = base_models.run_child(
        [sys.executable, "-m", "sentiment_core.live.weights", *job], capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[2], env=os.environ | hidden,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip() or f"the process ended with {done.returncode}").splitlines()[-1]
        raise BaseModelError(f"the live weights of {base.name!r} could not be made ({reason})")


def _make(base: str, adapter: str, number_format: str, folder: str) -> int:
    """What the child process does; its exit status. The sentence that says why it failed is its last line.
    It writes the base's tensors and, with an adapter, what differs in the merged ones, and the dial's."""
    try:
        loaded = load_base(base_models.resolve(base), compute_dtype=torch.float32)
        tensors, ratios = _take(loaded.model, number_format, loaded.encoder)
        weights = [tensors]
        if adapter:
            model = load_adapter(loaded.model, Path(adapter))
            dial = _smoothed(_take_dial(loaded.model, loaded.encoder), ratios, ".A", ".B")
            merged, _ = _take(model.merge_and_unload(), number_format, loaded.encoder)
            differing = {name: t for name, t in merged.items() if not torch.equal(t, tensors[name])}
            weights += [differing, _cast(dial, number_format)]
        size = sum(tensor.nbytes for part in weights for tensor in part.values())
        base_models.check_disk(Path(folder), size + 50_000_000, "The live model's cache")
        for part, name in zip(weights, ("1-base", "2-merged", "3-dial"), strict=False):
            save_file(part, Path(folder) / f"{name}.safetensors")
    except (OSError, ValueError) as error:  # a BaseModelError is a ValueError
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2
    return 0


@torch.no_grad()
def _take(model: Any, number_format: str, encoder: PromptEncoder) -> tuple[Tensors, Tensors]:
    """Copy a float32 Llama's tensors into the number format; and the ratios that smoothed them for int8."""
    rotary = model.model.rotary_emb
    tensors = {
        "embedding": model.get_input_embeddings().weight,
        "norm": model.model.norm.weight,
        "head": model.get_output_embeddings().weight[list(encoder.label_ids)],
        "inv_freq": rotary.inv_freq,
        "rope_scale": torch.tensor(float(rotary.attention_scaling)),
    }
    tensors |= _prefix(model, encoder)
    for number, layer in enumerate(model.model.layers):
        tensors[f"{number}.norm1"] = layer.input_layernorm.weight
        tensors[f"{number}.norm2"] = layer.post_attention_layernorm.weight
        for name, group in zip(GROUPS, LINEAR_GROUPS, strict=True):
            weight = group_weight(layer, group)
            tensors[f"{number}.{name}"] = weight if group[1:] else weight.clone()  # merging is in place
            if (bias := group_bias(layer, group)) is not None:
                tensors[f"{number}.{name}.bias"] = bias
    ratios = _ratios(model, encoder, tensors) if number_format == "int8" else {}
    tensors = _smoothed(tensors, ratios)
    return _cast(in_int8(tensors) if number_format == "int8" else tensors, number_format), ratios


def _prefix(model: Any, encoder: PromptEncoder, mark: str = "") -> Tensors:
    """The keys and values of the prompt's prefix; `mark` ends their names."""
    ids = torch.tensor([encoder.prefix_ids])
    layers = model.model(input_ids=ids, use_cache=True).past_key_values.layers
    keys = {f"{number}.k{mark}": layer.keys[0] for number, layer in enumerate(layers)}
    return keys | {f"{number}.v{mark}": layer.values[0] for number, layer in enumerate(layers)}


@torch.no_grad()
def _take_dial(model: Any, encoder: PromptEncoder) -> Tensors:
    """The adapter on a float32 Llama: of each group A, one above the other, and B, block-diagonal."""
    from peft.helpers import rescale_adapter_scale  # not among a start's imports

    tensors: Tensors = {}
    for number, layer in enumerate(model.model.layers):
        for name, group in zip(GROUPS, LINEAR_GROUPS, strict=True):
            a, b = zip(*(low_rank(target(layer, part)) for part in group), strict=True)
            tensors[f"{number}.{name}.A"], tensors[f"{number}.{name}.B"] = torch.cat(a), torch.block_diag(*b)
    for alpha in DIAL:
        with rescale_adapter_scale(model, alpha):
            tensors |= _prefix(model, encoder, f"@{alpha}")
    return tensors


def low_rank(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(r, in), (out, r) of a linear module's adapter, scaled; r is 0 where it has none."""
    if not hasattr(module, "lora_A"):
        return module.weight[:0], module.weight[:, :0]
    (name,) = module.active_adapters
    return module.lora_A[name].weight, module.lora_B[name].weight * module.scaling[name]


def _cast(tensors: Tensors, number_format: str) -> Tensors:
    exact = ("head", "inv_freq", "scale")  # rope_scale, too
    return {
        name: t.contiguous() if t.dtype == torch.int8 or name.endswith(exact)
        else t.to(dtype_of(number_format)).contiguous()
        for name, t in tensors.items()
    }  # fmt: skip


# ---- eight bits

CALIBRATION = (
    "I went in expecting nothing and came out humming. The plot is thin, I admit, but the two leads carry it "
    "with such ease that I hardly noticed. Funny, warm, beautifully shot; 9/10 from me!",
    "What a waste of two hours. The script is a heap of clichés, the acting is wooden, and the director "
    "seems to think that loud music makes up for a missing story. Avoid it.\n\nThe worst film of 2004.",
    "Not as bad as people say, not as good as the first one. It drags in the middle (who needs a third car "
    "chase?), yet the ending is honest and the old man's speech made me cry.",
)
"""Texts of our own that show which inputs of each product are large."""

SMOOTHING = 0.65
"""How much of the inputs' unevenness moves into the weights. Of 0.3 to 0.8, about here the answers are
nearest to float32's, as near as with inputs that are not rounded at all: the rest is the weights'."""


@torch.no_grad()
def _ratios(model: Any, encoder: PromptEncoder, tensors: Tensors) -> Tensors:
    """By how much each input channel of a product is made smaller, and its weights larger."""
    largest: Tensors = {}  # absolute value of each input channel behind the prefix
    skipped = len(encoder.prefix_ids)

    def watch(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found = inputs[0][0, skipped:].abs().amax(dim=0)
        largest[name] = torch.maximum(largest[name], found) if name in largest else found

    encoded = encoder.encode(CALIBRATION, 1024)
    with contextlib.ExitStack() as hooks:
        for number, layer in enumerate(model.model.layers):
            mlp, first = layer.mlp, layer.self_attn.q_proj
            for name, part in (("qkv", first), ("gate_up", mlp.gate_proj), ("down", mlp.down_proj)):
                hooks.enter_context(part.register_forward_pre_hook(partial(watch, f"{number}.{name}")))
        for place in range(len(encoded)):
            model.model(input_ids=torch.from_numpy(encoded[place].astype("int64"))[None], use_cache=False)
    weights = {name: tensors[name].abs().amax(dim=0).clamp_min(1e-5) for name in largest}
    return {
        name: inputs.clamp_min(1e-5) ** SMOOTHING / weights[name] ** (1 - SMOOTHING)
        for name, inputs in largest.items()
    }


def _smoothed(tensors: Tensors, ratios: Tensors, read: str = "", made: str = "") -> Tensors:
    """The same function, large input channels made smaller and their weights larger (Xiao et al. 2022).

    Few channels are ten times as large as the others and would leave those few of the 255 steps. Matrices are
    changed in place, which saves their size in memory; norms, which may be a model's own, are not.

    Args:
        read, made: how the names end of what multiplies a product's inputs and of what makes its outputs.
    """
    out = dict(tensors)
    for name, ratio in ratios.items():
        number, product = name.split(".")
        out[name + read].mul_(ratio)
        norm, before = f"{number}.norm{1 if product == 'qkv' else 2}", f"{number}.gate_up{made}"
        if product == "down":
            out[before].chunk(2)[1].div_(ratio[:, None])  # the "up" half
        elif norm in tensors:
            out[norm] = tensors[norm] / ratio
    return out


def in_int8(tensors: Tensors) -> Tensors:
    """The matrix products' weights in eight bits, symmetric, with one scale per output row."""
    out = dict(tensors)
    for name, weight in tensors.items():
        if name.partition(".")[2] in GROUPS:
            scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
            out[name] = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            out[f"{name}.scale"] = scale
    return out


Product = Callable[[torch.Tensor], torch.Tensor]


def linear(tensors: Tensors, name: str, fast_int8: bool) -> Product:
    """x (n, in) float32 -> x · weightᵀ + bias, by those of that name, the weight in 8 bits where it has 8.

    PyTorch's 8-bit kernel rounds x with one scale for all of it, which a few large tokens spoil; so every
    token is brought to the same largest value first, which gives each a scale of its own.

    Args:
        fast_int8: whether the processor multiplies 8 bits without overflow (VNNI); without it two products
            overflow the 16 bits that they are added in.
    """
    weight, bias = tensors[name], tensors.get(f"{name}.bias")
    if weight.dtype != torch.int8:
        return lambda x: F.linear(x, weight, bias)
    scale = tensors[f"{name}.scale"].double()
    with warnings.catch_warnings():  # PyTorch means to drop quantized tensors some day; `live` checks
        warnings.simplefilter("ignore")
        zeros = torch.zeros(len(scale), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(weight, scale, zeros, 0)
    packed = torch.ops.quantized.linear_prepack(quantized, None)

    def product(x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-9)
        y = torch.ops.quantized.linear_dynamic(x / largest, packed, not fast_int8).mul_(largest)
        return y if bias is None else y.add_(bias)

    return product


def adapted(product: Product, tensors: Tensors, name: str, alpha: float) -> Product:
    """The base's product of that name with α times the adapter: W·x + B·(α·A·x)."""
    a, b = tensors[f"{name}.A"], tensors[f"{name}.B"]
    return lambda x: product(x) + F.linear(alpha * F.linear(x, a), b)


# ---- which models


def is_lean(config) -> bool:
    """Whether `load_weights` and `LiveLlama` know this model's layers."""
    rope = getattr(config, "rope_parameters", None) or {}
    static = rope.get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
    return static and can_pack(config, torch.device("cpu"))


if __name__ == "__main__":
    sys.exit(_make(*sys.argv[1:]))
