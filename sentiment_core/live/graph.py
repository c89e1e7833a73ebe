"""A Llama with its adapter as an ONNX graph: NF4 as bitsandbytes packs it, LoRA apart, switched by a number.

One pass reads segments of tokens that stand behind the same past, each of which sees its own beginning of it
and itself alone: a review behind the prompt's prefix, or the prompt's end behind each clause of a review that
was read before (`live.trace.tree`). Inputs, all int32 but the last two, which are float32:

    ids, positions, seen, copy (n,)   tokens, their places in their texts, how much of the past each may see,
                                      and the number of its segment
    last (m,)                         the tokens after which the two label words are compared
    past (2 layers, kv_heads, p, head_dim)   keys and values, layer by layer, as `present` gives them
    alpha (1,)                        weights = base + alpha · adapter

Outputs: log_odds (m,) of Positive, and present, of past and new tokens. Attention is MatMul, Softmax, MatMul,
a key head's queries as rows of one product: in WebAssembly some times faster than the fused operator.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from bitsandbytes.functional import dequantize_blockwise
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

from sentiment_core.artifacts.store import Run
from sentiment_core.engines.packed.adapter import target
from sentiment_core.labels import Label
from sentiment_core.live.number_format import usable_cores
from sentiment_core.live.weights import low_rank
from sentiment_core.models.base_models import BaseModelError, live_base
from sentiment_core.models.loading import load_adapter, load_base
from sentiment_core.models.tokens import PromptEncoder

EMBEDDED_BLOCK = 32
INPUTS = {"ids": ["n"], "positions": ["n"], "seen": ["n"], "copy": ["n"], "last": ["m"]}
SIGNS = [1.0 if label == Label.POSITIVE else -1.0 for label in (0, 1)]

DIGITS = '{"type":"Digits","individual_digits":true}'
SPLIT = r'{"type":"Split","pattern":{"Regex":"\\p{N}"},"behavior":"Isolated","invert":false}'
"""The same pre-tokenizer, by a pattern that means the same in Rust and in JavaScript."""


class LlamaGraph:
    """Args: a PEFT model over a base of bitsandbytes' `Linear4bit`, and the two label tokens."""

    def __init__(self, model: Any, label_ids: tuple[int, int]) -> None:
        self.llama, self.label_ids = model.get_base_model(), list(label_ids)
        config = self.llama.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size, self.nodes, self.weights = config.head_dim, [], []
        self.lengths = Counter[str]()  # of the files beside the graph, in bytes

    def build(self) -> onnx.ModelProto:
        op, layers, kept = self.op, self.llama.model.layers, []
        x, self.mask, self.angles = self._embedded(), self._mask(), self._angles()
        for n, layer in enumerate(layers):
            past = [op("Gather", "past", self.constant([i])) for i in (2 * n, 2 * n + 1)]
            x, pair = self._layer(x, layer, past, "last" if layer is layers[-1] else "")
            kept += pair
        head = self.llama.get_output_embeddings().weight[self.label_ids].float().T
        logits = op("MatMul", self._norm(x, self.llama.model.norm), self.weight(head))
        op("MatMul", logits, self.constant(SIGNS, np.float32), name="log_odds")
        eights = (kept[i : i + 8] for i in range(0, len(kept), 8))  # as many as a GPU takes
        op("Concat", *(op("Concat", *some, axis=0) for some in eights), axis=0, name="present")
        shape: list[Any] = [2 * len(layers), self.kv_heads, "p", self.size]
        given = [helper.make_tensor_value_info(name, 6, dims) for name, dims in INPUTS.items()]
        floats = {"past": shape, "alpha": [1], "log_odds": ["m"], "present": [*shape[:2], "t", self.size]}
        infos = [helper.make_tensor_value_info(name, 1, dims) for name, dims in floats.items()]
        graph = helper.make_graph(self.nodes, "sentiment", given + infos[:2], infos[2:], self.weights)
        domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=9)

    def op(self, kind: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """The name of the node's output, or a list of several."""
        names = [name or f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, dtype), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, array: torch.Tensor, file: str = "base.bin") -> str:
        """The array, stored in its own number format; one in float16 is for use in float32."""
        one = numpy_helper.from_array(array.detach().numpy(), f"w{len(self.weights)}")
        offset = self.lengths[file] + -self.lengths[file] % 64  # aligned
        set_external_data(one, file, offset)
        self.lengths[file] = offset + array.nbytes
        self.weights.append(one)
        return self.op("Cast", one.name, to=1) if array.dtype == torch.float16 else one.name

    def reshaped(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(shape))

    # ---- what the layers share

    def _embedded(self) -> str:
        """Rows of the embedding, in eight bits with a scale for each few numbers, as some are far larger."""
        table = self.llama.get_input_embeddings().weight.detach().float()
        blocks = table.reshape(len(table), -1, EMBEDDED_BLOCK)
        scale = (blocks.abs().amax(dim=2, keepdim=True).clamp_min(1e-6) / 127).half()
        parts = (blocks / scale.float()).round().clamp(-127, 127).to(torch.int8), scale
        rows, scales = (self.op("Gather", self.weight(part), "ids", axis=0) for part in parts)
        return self.reshaped(self.op("Mul", self.op("Cast", rows, to=1), scales), -1, table.shape[1])

    def _angles(self) -> list[str]:
        """cos and sin of the rotary embedding, (n, 1, head_dim)."""
        places = self.reshaped(self.op("Cast", "positions", to=1), -1, 1, 1)
        frequencies = np.tile(self.llama.model.rotary_emb.inv_freq.numpy(), 2)
        turned = self.op("Mul", places, self.constant(frequencies, np.float32))
        return [self.op(kind, turned) for kind in ("Cos", "Sin")]

    def _mask(self) -> str:
        """(n, p + n), 0 where a token may see, else far below it."""
        row, column = ({n: self.reshaped(n, *shape) for n in INPUTS} for shape in ((1, -1), (-1, 1)))
        length = self.op("Gather", self.op("Shape", "past"), self.constant(2))
        places = self.op("Range", self.constant(0), length, self.constant(1))
        before = self.op("Less", self.op("Cast", places, to=6), column["seen"])
        same = self.op("Equal", row["copy"], column["copy"])
        own = self.op("And", same, self.op("LessOrEqual", row["positions"], column["positions"]))
        levels = (self.constant(value, np.float32) for value in (0, -1e9))
        return self.op("Where", self.op("Concat", before, own, axis=1), *levels)

    # ---- a layer

    def _layer(self, x: str, layer: Any, past: list[str], last: str) -> tuple[str, list[str]]:
        """The layer's outputs, of the tokens `last` alone if named, and its keys and values."""
        op, (cos, sin), mask = self.op, self.angles, self.mask
        normed = self._norm(x, layer.input_layernorm)
        made = (self._linear(normed, layer, name) for name in ("k_proj", "v_proj"))
        k, v = (self.reshaped(one, -1, self.kv_heads, self.size) for one in made)
        new = (op("Transpose", one, perm=[1, 0, 2]) for one in (self._rotated(k, cos, sin), v))
        whole = (self.reshaped(one, 1, self.kv_heads, -1, self.size) for one in new)
        kept = [op("Concat", *pair, axis=2) for pair in zip(past, whole, strict=True)]
        if last:
            x, normed, cos, sin, mask = (op("Gather", t, last) for t in (x, normed, cos, sin, mask))
        q = self.reshaped(self._linear(normed, layer, "q_proj"), -1, self.heads, self.size)
        attended = self._attended(self._rotated(q, cos, sin), kept, mask)
        x = op("Add", x, self._linear(attended, layer, "o_proj"))
        normed = self._norm(x, layer.post_attention_layernorm)
        gate, up = (self._linear(normed, layer, name) for name in ("gate_proj", "up_proj"))
        gated = op("Mul", op("Mul", gate, op("Sigmoid", gate)), up)
        return op("Add", x, self._linear(gated, layer, "down_proj")), kept

    def _norm(self, x: str, norm: Any) -> str:
        scale, epsilon = self.weight(norm.weight.float()), norm.variance_epsilon
        return self.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=epsilon)

    def _linear(self, x: str, layer: Any, name: str) -> str:
        """x · Wᵀ + α · x · Aᵀ · Bᵀ."""
        module = target(layer, name)
        frozen, state = module.base_layer, module.base_layer.weight.quant_state
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset  # quantized, too
        shape = {"N": frozen.out_features, "K": frozen.in_features, "block_size": state.blocksize}
        packed = self.weight(frozen.weight.data.flatten()), self.weight(scales.half())
        y = self.op("MatMulBnb4", x, *packed, domain="com.microsoft", quant_type=1, **shape)
        down, up = (self.weight(w.T.half(), "adapter.bin") for w in low_rank(module))
        inner = self.op("Mul", self.op("MatMul", x, down), "alpha")
        return self.op("Add", y, self.op("MatMul", inner, up))

    def _rotated(self, x: str, cos: str, sin: str) -> str:
        first, second = self.op("Split", x, outputs=2, axis=2, num_outputs=2)
        turned = self.op("Concat", self.op("Neg", second), first, axis=2)
        return self.op("Add", self.op("Mul", x, cos), self.op("Mul", turned, sin))

    def _attended(self, q: str, kept: list[str], mask: str) -> str:
        """(n, heads · head_dim) of q (n, heads, head_dim)."""
        op, heads, group, size = self.op, self.kv_heads, self.heads // self.kv_heads, self.size
        q = self.reshaped(op("Mul", q, self.constant(size**-0.5, np.float32)), -1, heads, group, size)
        q = self.reshaped(op("Transpose", q, perm=[1, 2, 0, 3]), 1, heads, -1, size)
        scores = op("MatMul", q, op("Transpose", kept[0], perm=[0, 1, 3, 2]))
        apart = op("Concat", self.constant([heads, group]), op("Shape", mask), axis=0)
        shares = op("Softmax", op("Add", op("Reshape", scores, apart), mask), axis=-1)
        out = op("MatMul", op("Reshape", shares, op("Shape", scores)), kept[1])
        out = op("Transpose", self.reshaped(out, heads, group, -1, size), perm=[2, 0, 1, 3])
        return self.reshaped(out, -1, self.heads * size)


class ExportedModel:
    """The exported graph through onnxruntime on a CPU, asked as the page's worker asks it."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, usable_cores()
        self._session = onnxruntime.InferenceSession(folder / "graph.onnx", options)
        self.past = [self._session.get_inputs()[5].shape[i] for i in (0, 1, 3)]
        self.nothing = np.zeros((*self.past[:2], 0, self.past[2]), np.float32)

    def run(self, ids: Sequence[int], past: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
        """Log-odds of a prompt that goes on behind the past, and all keys and values."""
        n, before = len(ids), past.shape[2]
        whole = {"ids": ids, "positions": range(before, before + n), "seen": [before] * n, "copy": [0] * n}
        given = {name: np.array(value, np.int32) for name, value in (whole | {"last": [n - 1]}).items()}
        more = {"past": past, "alpha": np.array([alpha], np.float32)}
        log_odds, present = map(np.asarray, self._session.run(None, given | more))
        return float(log_odds[0]), present


def write_graph(run: Run, folder: Path, base_model: str | None = None) -> PromptEncoder:
    """Graph, weights, the prefix's keys and values of both models, tokenizer; returns the encoder.
    Raises BaseModelError: the base cannot be had, or is no Llama."""
    loaded = load_base(live_base(run.record, base_model), dequantized=False)
    if (kind := loaded.model.config.model_type) != "llama":
        raise BaseModelError(f"run {run.run_id!r} is on a {kind}; only what is on a llama can be exported")
    graph = LlamaGraph(load_adapter(loaded.model, run.adapter_path), loaded.encoder.label_ids)
    folder.mkdir()
    onnx.save(graph.build(), folder / "graph.onnx")
    model, prefix = ExportedModel(folder), loaded.encoder.prefix_ids
    np.stack([model.run(prefix, model.nothing, alpha)[1] for alpha in (0, 1)]).tofile(folder / "prefix.bin")
    tokenizer = loaded.encoder.plain.to_str().replace(DIGITS, SPLIT)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return loaded.encoder
