"""Load a base model rounded to NF4 and put an adapter on it.

Two forms of the same numbers: `Linear4bit` layers, unpacked at every use (little memory), and "dequantized"
ones, the same NF4 values unpacked once into the compute type (more speed). An adapter sits on either.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, decoders, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers import logging as transformers_logging

from sentiment_core.artifacts.schema import BaseModelInfo
from sentiment_core.models.base_models import BaseModel, BaseModelError, base_identity, converted_folder
from sentiment_core.models.tokens import PromptEncoder

QUANTIZATION = "nf4, double quantization"

for _noisy in ("httpx", "torchao", "bitsandbytes", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)
for _message in (".*_check_is_size.*", ".*is_gradient_checkpointing.*"):
    warnings.filterwarnings("ignore", message=_message)


def model_folder(base: BaseModel) -> str:
    """Where transformers loads `base` from: a folder, or a Hub id. Fetches the embedded model when needed."""
    if (embedded := base.embedded) is None:
        return str(base.location)
    convert = partial(_convert_gguf, pre_tokenizer=PRE_TOKENIZERS.get(embedded.tokenizer))
    return str(converted_folder(embedded, convert))


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    # SmolLM2 splits every digit off before byte-level BPE
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    ),
}  # fmt: skip
"""What splits a text before its merges, by llama.cpp's name; transformers' GGUF readers leave some out."""


def _convert_gguf(gguf: Path, folder: Path, *, pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> None:
    """Write a GGUF file's weights as safetensors (bfloat16) with its tokenizer, a byte-level one repaired."""
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        if getattr(model, "hf_quantizer", None):  # a GGUF reader's, which refuses to save
            model.hf_quantizer.remove_quantization_config(model)
        model.save_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    if (kind := type(backend.model).__name__) != "BPE":  # so transformers 5.17 reads Gemma's
        read = f"transformers {transformers.__version__} reads the tokenizer of {gguf.name} as {kind}"
        raise BaseModelError(f"{read}, not BPE; use 5.23 or newer")
    if pre_tokenizer is not None:
        backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
        tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers neither logs below errors nor draws progress bars."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()


def pretrained(kind: Any, base: BaseModel, **settings: Any) -> Any:
    """`kind.from_pretrained`, quiet. Raises BaseModelError: the model is missing or unfit."""
    try:
        with quiet_transformers():
            return kind.from_pretrained(model_folder(base), revision=base.revision or "main", **settings)
    except BaseModelError:
        raise
    except OSError as error:
        raise BaseModelError(
            f"base model {base.name!r} is neither in the cache nor can it be fetched "
            f"({str(error).splitlines()[0]}); check the name, go online once, or give a local folder"
        ) from None
    except (ValueError, KeyError) as error:
        raise BaseModelError(
            f"base model {base.name!r} cannot be used as a causal language model "
            f"({str(error).splitlines()[0]}); docs/training.md names ones that can"
        ) from None


@dataclass(frozen=True)
class LoadedModel:
    """A base model rounded to NF4, ready to score or to carry an adapter."""

    model: Any  # a PreTrainedModel, whose own annotations know neither `generate` nor `to(device)`
    encoder: PromptEncoder
    info: BaseModelInfo
    device: torch.device
    compute_dtype: torch.dtype


def load_tokenizer(base: BaseModel) -> Any:
    """Raises BaseModelError when there is none to be had."""
    return pretrained(AutoTokenizer, base)


def load_base(
    base: BaseModel, *, device: torch.device | str = "cpu", compute_dtype: torch.dtype = torch.float32,
    dequantized: bool = True, rounded: bool = True,
) -> LoadedModel:  # fmt: skip
    """Load a base model with its linear layers rounded to NF4 (double quantization), frozen.

    Args:
        compute_dtype: what the matrix products run in; bitsandbytes unpacks the 4-bit values to it.
        dequantized: unpack once, into plain linear layers, instead of at every use. The values are the same.
        rounded: False leaves the weights as they were published.
    Raises BaseModelError: not there and no network, no causal language model, or label words that clash.
    """
    device = torch.device(device)
    encoder = PromptEncoder(load_tokenizer(base))
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )  # fmt: skip
    model = pretrained(
        AutoModelForCausalLM, base, dtype=compute_dtype, use_safetensors=True, attn_implementation="sdpa",
        quantization_config=nf4 if rounded else None, device_map={"": device},
    )  # fmt: skip
    if dequantized and rounded:
        dequantize(model, compute_dtype)
    model.requires_grad_(False)
    embedded = base.embedded
    info = BaseModelInfo(
        name=base.name, quantization=QUANTIZATION if rounded else "none",
        source="folder" if base.is_local else embedded.requirements[0] if embedded else str(base.location),
        revision=base.revision or base_identity(base), parameters=model.num_parameters(),
        licence=embedded.licence if embedded else None,
    )  # fmt: skip
    return LoadedModel(model.eval(), encoder, info, device, compute_dtype)


def dequantize(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace every 4-bit linear layer by a plain one that holds the same, unpacked, values; all frozen."""
    with quiet_transformers():
        model.dequantize(dtype)
    model.is_loaded_in_4bit = False  # pyrefly: ignore[bad-argument-type] peft and the trainer ask for it
    model.requires_grad_(False)


def add_lora(model: nn.Module, *, rank: int, alpha: float, dropout: float):
    """A fresh LoRA adapter on every linear layer of the decoder (Hu et al. 2021; Dettmers et al. 2023)."""
    from peft import LoraConfig, get_peft_model

    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    return get_peft_model(model, LoraConfig(**settings, target_modules="all-linear", task_type="CAUSAL_LM"))


def load_adapter(model: nn.Module, folder: Path):
    """Put a saved adapter (safetensors only) on a base model.
    Raises BaseModelError: there is no safetensors adapter in the folder, or it belongs to another model."""
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise BaseModelError(f"{folder} holds no adapter_model.safetensors; train the run (python train.py)")
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise BaseModelError(f"the adapter in {folder} does not fit this base model: {error}") from None


def load_merged(base: BaseModel, adapter: Path, *, device: torch.device | str = "cpu") -> LoadedModel:
    """The base's rounded values with the adapter added in float32; the sum is rounded once, to bfloat16.
    Raises BaseModelError as `load_base` and `load_adapter` do."""
    loaded = load_base(base, device=device)
    merged = load_adapter(loaded.model, adapter).merge_and_unload().to(torch.bfloat16)
    return replace(loaded, model=merged, compute_dtype=torch.bfloat16)


def check_causal(base: BaseModel) -> None:
    """Raises BaseModelError for what is no causal language model, from its configuration alone."""
    names = list(pretrained(AutoConfig, base).architectures or ())
    if names and not any(n.endswith(("ForCausalLM", "LMHeadModel")) for n in names):
        raise BaseModelError(
            f"base model {base.name!r} is a {names[0]}, not a causal language model; "
            "docs/training.md names ones that work"
        )
