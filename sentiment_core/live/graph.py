"""A Llama with its adapter as an ONNX graph: NF4 as bitsandbytes packs it, LoRA apart, switched by a number.

One pass reads the same tokens behind beginnings of the same past (`live.trace.tree`): a review behind the
prompt's prefix, or the prompt's end behind each clause of a review that was read before. Inputs:

    ids (n,) int32             tokens
    seen (m,) int32            how much of the past each copy of them stands behind
    past (2 layers, kv_heads, p, head_dim)   keys and values, layer by layer, as `present` gives them
    alpha (1,)                 weights = base + alpha · adapter

Outputs: log_odds (m,) of Positive after each copy, and present, of past and new tokens.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from bitsandbytes.functional import dequantize_blockwise
from onnx.external_data_helper import set_external_data
from torch.nn import Buffer
from transformers import AttentionInterface, DynamicCache

from sentiment_core.artifacts.store import Run
from sentiment_core.live.number_format import usable_cores
from sentiment_core.live.trace import tree
from sentiment_core.live.weights import low_rank
from sentiment_core.models.base_models import BaseModelError, live_base
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.models.tokens import PromptEncoder

LENGTHS = {"ids": {0: "n"}, "seen": {0: "m"}, "past": {2: "p"}, "log_odds": {0: "m"}, "present": {2: "t"}}

DIGITS = '{"type":"Digits","individual_digits":true}'
SPLIT = r'{"type":"Split","pattern":{"Regex":"\\p{N}"},"behavior":"Isolated","invert":false}'
"""The same pre-tokenizer, by a pattern that means the same in Rust and in JavaScript."""


class Packed(torch.autograd.Function):
    """ONNX Runtime's product with NF4 weights; while it is traced, only its shape counts."""

    @staticmethod
    def forward(ctx, x, packed, scales, sizes):
        return x.new_zeros(*x.shape[:-1], sizes["N_i"])

    @staticmethod
    def symbolic(g, x, packed, scales, sizes):
        y = g.op("com.microsoft::MatMulBnb4", x, packed, scales, quant_type_i=1, **sizes)
        return y.setType(x.type().with_sizes([1, None, sizes["N_i"]]))


class Product(torch.nn.Module):
    """x · Wᵀ + α · x · Aᵀ · Bᵀ, of a PEFT layer over bitsandbytes' `Linear4bit`."""

    alpha: torch.Tensor

    def __init__(self, module: Any) -> None:
        super().__init__()
        frozen, state = module.base_layer, module.base_layer.weight.quant_state
        self.sizes = {"N_i": frozen.out_features, "K_i": frozen.in_features, "block_size_i": state.blocksize}
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset  # quantized, too
        self.packed, self.scales = Buffer(frozen.weight.data.flatten()), Buffer(scales.half())
        self.down, self.up = (Buffer(w.detach().T.half()) for w in low_rank(module))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = Packed.apply(x, self.packed, self.scales.float(), self.sizes)
        return y + (x @ self.down.float() * self.alpha) @ self.up.float()


def attend(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
    """A key head's queries as rows of one product: in WebAssembly far faster than the fused operator."""
    rows = q.reshape(1, module.config.num_key_value_heads, -1, module.head_dim) * scaling
    attended = (rows @ k.transpose(2, 3) + mask).softmax(dim=-1) @ v
    return attended.reshape(1, module.config.num_attention_heads, -1, module.head_dim).transpose(1, 2), None


AttentionInterface.register("rows", attend)


class BothModels(torch.nn.Module):
    """Args: a PEFT model over a base of bitsandbytes' `Linear4bit`, and the two label tokens."""

    def __init__(self, model: Any, label_ids: tuple[int, int]) -> None:
        super().__init__()
        llama = model.get_base_model()
        llama.set_attn_implementation("rows")
        negative, positive = llama.get_output_embeddings().weight.detach()[list(label_ids)].float()
        self.head, self.llama = Buffer(positive - negative), llama.model
        self.group = llama.config.num_attention_heads // llama.config.num_key_value_heads
        # the embedding in eight bits with a scale for each 32 numbers, as some are far larger
        table = llama.get_input_embeddings().weight.detach().float().unflatten(1, (-1, 32))
        self.scale = Buffer((table.abs().amax(2, keepdim=True).clamp_min(1e-6) / 127).half())
        self.table = Buffer((table / self.scale.float()).round().clamp(-127, 127).to(torch.int8))
        names = [name for name, _ in self.llama.named_modules() if name.endswith("_proj")]
        self.products = [Product(self.llama.get_submodule(name)) for name in names]
        for name, product in zip(names, self.products, strict=True):
            self.llama.set_submodule(name, product)

    def forward(self, ids: Any, seen: Any, past: Any, alpha: Any) -> tuple[torch.Tensor, torch.Tensor]:
        positions, visible, last = tree(seen, ids.shape[0], past.shape[2])
        mask = torch.where(visible, 0.0, -1e9).repeat(self.group, 1)
        for product in self.products:
            product.alpha = alpha
        cache: Any = DynamicCache([(past[n, None], past[n + 1, None]) for n in range(0, len(past), 2)])
        x = (self.table[ids] * self.scale.float()[ids]).flatten(1).repeat(seen.shape[0], 1)
        places = {"attention_mask": mask[None, None], "position_ids": positions[None]}
        read = self.llama(inputs_embeds=x[None], **places, past_key_values=cache).last_hidden_state[0, last]
        kept = [t for layer in cache.layers for t in (layer.keys, layer.values)]
        eights = [torch.cat(kept[i : i + 8]) for i in range(0, len(kept), 8)]  # as many as a GPU takes
        return read @ self.head, torch.cat(eights)

    def save(self, folder: Path) -> None:
        """`graph.onnx`, with the weights beside it in `base.bin` and `adapter.bin`."""
        path, config, some = folder / "graph.onnx", self.llama.config, torch.zeros(2, dtype=torch.int32)
        past = torch.zeros(2 * config.num_hidden_layers, config.num_key_value_heads, 3, config.head_dim)
        settings: dict[str, Any] = {
            "input_names": ("ids", "seen", "past", "alpha"), "output_names": ("log_odds", "present"),
            "dynamic_axes": LENGTHS, "opset_version": 18, "custom_opsets": {"com.microsoft": 1},
            "do_constant_folding": False, "dynamo": False,
        }  # fmt: skip
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(self, (some, some, past, torch.ones(1)), path, **settings)
        model = onnx.load(path)
        for one in model.graph.initializer:
            set_external_data(one, "adapter.bin" if one.name.endswith(("down", "up")) else "base.bin")
        onnx.save(model, path)


class ExportedModel:
    """The exported graph through onnxruntime on a CPU, asked as the page's worker asks it."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, usable_cores()
        self._session = onnxruntime.InferenceSession(folder / "graph.onnx", options)
        self.past = [self._session.get_inputs()[2].shape[i] for i in (0, 1, 3)]
        self.nothing = np.zeros((*self.past[:2], 0, self.past[2]), np.float32)

    def run(self, ids: Sequence[int], past: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
        """Log-odds of a prompt that goes on behind the past, and all keys and values."""
        given = {"ids": np.array(ids, np.int32), "seen": np.array([past.shape[2]], np.int32)}
        given |= {"past": past, "alpha": np.array([alpha], np.float32)}
        log_odds, present = map(np.asarray, self._session.run(None, given))
        return float(log_odds[0]), present


def write_graph(run: Run, folder: Path) -> PromptEncoder:
    """Graph, weights, the prefix's keys and values of both models, tokenizer; returns the encoder.
    Raises BaseModelError: the base cannot be had, or is no Llama."""
    loaded = load_base(live_base(run.record), dequantized=False)
    if (kind := loaded.model.config.model_type) != "llama":
        raise BaseModelError(f"run {run.run_id!r} is on a {kind}; only what is on a llama can be exported")
    folder.mkdir()
    BothModels(load_adapter(loaded.model, run.adapter_path), loaded.encoder.label_ids).save(folder)
    model, prefix = ExportedModel(folder), loaded.encoder.prefix_ids
    np.stack([model.run(prefix, model.nothing, alpha)[1] for alpha in (0, 1)]).tofile(folder / "prefix.bin")
    tokenizer = loaded.encoder.plain.to_str().replace(DIGITS, SPLIT)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return loaded.encoder
