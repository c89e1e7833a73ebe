"""A Llama with its adapter as an ONNX graph: NF4 as bitsandbytes packs it, LoRA apart, switched by a number.

One pass reads segments of tokens that stand behind the same past, each of which sees its own beginning of
that past and itself alone: a review behind the prompt's prefix, or the prompt's end behind each clause of a
review that was read before (`live.trace.tree`). Inputs, all int32 but the floats:

    ids, positions, seen, copy (n,)   tokens, their places in their texts, how much of the past each may see,
                                      and the number of its segment
    last (m,)                         the tokens after which the two label words are compared
    past (2 layers, kv_heads, tokens, head_dim) float32   keys and values, layer by layer, as `present` gives
    alpha (1,) float32                weights = base + alpha · adapter

Outputs: log_odds (m,) of Positive, and present, past and new tokens one behind the other.
Attention is MatMul, Softmax, MatMul, a key head's queries as rows of one product: in WebAssembly several times
faster than the fused operator.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from sentiment_core.engines.packed.adapter import target
from sentiment_core.labels import Label

BLOCK = 64
"""Weights that share one scale, bitsandbytes' default."""
INPUTS = {"ids": ["n"], "positions": ["n"], "seen": ["n"], "copy": ["n"], "last": ["m"]}


class Graph:
    """Nodes, and weights whose bytes stand in files beside the graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[TensorProto] = []
        self.files: dict[str, bytearray] = defaultdict(bytearray)

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """The name of the node's output, or a list of several."""
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, dtype), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, array: torch.Tensor, file: str = "base.bin") -> str:
        """The array, in its own number format, for the graph's use in float32 if it is in float16."""
        content = np.ascontiguousarray(array.detach().numpy())
        data, kind = self.files[file], helper.np_dtype_to_tensor_dtype(content.dtype)
        data.extend(bytes(-len(data) % 64))  # aligned
        one = TensorProto(name=f"w{len(self.weights)}", data_type=kind, dims=content.shape, data_location=1)
        for key, value in (("location", file), ("offset", len(data)), ("length", content.nbytes)):
            one.external_data.add(key=key, value=str(value))
        data.extend(content.tobytes())
        self.weights.append(one)
        return self.op("Cast", one.name, to=1) if content.dtype == np.float16 else one.name

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> ModelProto:
        def info(name: str, shape: list[Any]) -> Any:
            return helper.make_tensor_value_info(name, 6 if name in INPUTS else 1, shape)

        given, made = ([info(*one) for one in each.items()] for each in (inputs, outputs))
        graph = helper.make_graph(self.nodes, "sentiment", given, made, self.weights)
        domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=9)


class LlamaGraph(Graph):
    """Args: a PEFT model (or a bare one) over a base whose linear layers are bitsandbytes' `Linear4bit`."""

    def __init__(self, model: Any, label_ids: tuple[int, int]) -> None:
        super().__init__()
        self.llama = getattr(model, "get_base_model", lambda: model)()
        self.config, self.label_ids = self.llama.config, list(label_ids)
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.head_dim = self.config.head_dim

    def build(self) -> ModelProto:
        layers, (x, positions) = self.llama.model.layers, (self._embedded(), self._float("positions"))
        self.angles, self.mask = self._angles(positions), self._mask()
        past = self.op("Split", "past", axis=0, outputs=2 * len(layers), num_outputs=2 * len(layers))
        present = []
        for number, layer in enumerate(layers):
            kv = past[2 * number : 2 * number + 2]
            x, kept = self._layer(x, layer, kv, last="last" if layer is layers[-1] else "")
            present += kept
        head = self.llama.get_output_embeddings().weight[self.label_ids].T
        logits = self.op("MatMul", self._norm(x, self.llama.model.norm), self.weight(head))
        sign = [0.0, 0.0]
        sign[Label.POSITIVE], sign[Label.NEGATIVE] = 1.0, -1.0
        self.op("MatMul", logits, self.constant(sign, np.float32))
        self.nodes[-1].output[0] = "log_odds"
        self.op("Concat", *present, axis=0)
        self.nodes[-1].output[0] = "present"
        shape: list[Any] = [2 * len(layers), self.kv_heads, "p", self.head_dim]
        inputs = INPUTS | {"past": shape, "alpha": [1]}
        return self.model(inputs, {"log_odds": ["m"], "present": [*shape[:2], "p + n", self.head_dim]})

    # ---- what the layers share

    def _float(self, name: str) -> str:
        return self.op("Cast", name, to=1)

    def _embedded(self) -> str:
        """Rows of the embedding, in eight bits with one scale each."""
        table = self.llama.get_input_embeddings().weight.detach().float()
        scale = table.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        rows, scales = self.weight((table / scale).round().to(torch.int8)), self.weight(scale)
        found = self.op("Gather", rows, "ids", axis=0), self.op("Gather", scales, "ids", axis=0)
        return self.op("Mul", self._float(found[0]), found[1])

    def _angles(self, positions: str) -> list[str]:
        """cos and sin of the rotary embedding, (n, 1, head_dim)."""
        frequencies = self.llama.model.rotary_emb.inv_freq.numpy()
        column = self.op("Reshape", positions, self.constant([-1, 1, 1]))
        turned = self.op("Mul", column, self.constant(np.tile(frequencies, 2), np.float32))
        return [self.op(kind, turned) for kind in ("Cos", "Sin")]

    def _mask(self) -> str:
        """(n, past + n), 0 where a token may see, else far below it."""

        def side(name: str, *shape: int) -> str:
            return self.op("Reshape", name, self.constant(shape))

        length = self.op("Gather", self.op("Shape", "past"), self.constant(2))
        bounds = self.constant(0), self.op("Cast", length, to=6), self.constant(1, np.int32)
        places = self.op("Range", self.op("Cast", bounds[0], to=6), *bounds[1:])
        before = self.op("Less", side(places, 1, -1), side("seen", -1, 1))
        same = self.op("Equal", side("copy", 1, -1), side("copy", -1, 1))
        earlier = self.op("LessOrEqual", side("positions", 1, -1), side("positions", -1, 1))
        allowed = self.op("Concat", before, self.op("And", same, earlier), axis=1)
        return self.op("Where", allowed, *(self.constant(value, np.float32) for value in (0, -1e9)))

    # ---- a layer

    def _layer(self, x: str, layer: Any, past: list[str], last: str) -> tuple[str, list[str]]:
        """The layer's outputs, of the tokens `last` alone if named, and its keys and values."""
        normed = self._norm(x, layer.input_layernorm)
        k, v = (
            self._heads(self._linear(normed, layer, name), self.kv_heads) for name in ("k_proj", "v_proj")
        )
        keys, values = (
            self.op("Transpose", one, perm=[1, 0, 2]) for one in (self._rotated(k, self.angles), v)
        )
        kept = [self._behind(*pair) for pair in zip(past, (keys, values), strict=True)]
        (cos, sin), mask = self.angles, self.mask
        if last:
            x, normed, cos, sin, mask = (self.op("Gather", t, last) for t in (x, normed, cos, sin, mask))
        q = self._rotated(self._heads(self._linear(normed, layer, "q_proj"), self.heads), [cos, sin])
        x = self.op("Add", x, self._linear(self._attended(q, kept, mask), layer, "o_proj"))
        normed = self._norm(x, layer.post_attention_layernorm)
        gate, up = (self._linear(normed, layer, name) for name in ("gate_proj", "up_proj"))
        gated = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        return self.op("Add", x, self._linear(gated, layer, "down_proj")), kept

    def _norm(self, x: str, norm: Any) -> str:
        scale = self.weight(norm.weight.float())
        return self.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=norm.variance_epsilon)

    def _linear(self, x: str, layer: Any, name: str) -> str:
        """x · Wᵀ + α · x · Aᵀ · Bᵀ."""
        module = target(layer, name)
        frozen = getattr(module, "base_layer", module)
        (n, k), state = (frozen.out_features, frozen.in_features), frozen.weight.quant_state
        scales = nf4_scales(state).half()
        weight = self.weight(frozen.weight.data.flatten()), self.weight(scales)
        shape = {"N": n, "K": k, "block_size": BLOCK, "quant_type": 1}
        y = self.op("MatMulBnb4", x, *weight, domain="com.microsoft", **shape)
        if module is frozen:
            return y
        ((key, a),) = module.lora_A.items()
        b = module.lora_B[key].weight * module.scaling[key]
        inner = self.op("MatMul", x, self.weight(a.weight.T.half(), "adapter.bin"))
        scaled = self.op("Mul", inner, "alpha")
        return self.op("Add", y, self.op("MatMul", scaled, self.weight(b.T.half(), "adapter.bin")))

    def _heads(self, x: str, heads: int) -> str:
        return self.op("Reshape", x, self.constant([-1, heads, self.head_dim]))

    def _rotated(self, x: str, angles: list[str]) -> str:
        first, second = self.op("Split", x, axis=2, outputs=2, num_outputs=2)
        turned = self.op("Concat", self.op("Neg", second), first, axis=2)
        return self.op("Add", *(self.op("Mul", *pair) for pair in zip((x, turned), angles, strict=True)))

    def _behind(self, past: str, new: str) -> str:
        """(1, kv_heads, past + n, head_dim)."""
        shape = self.constant([1, self.kv_heads, -1, self.head_dim])
        return self.op("Concat", past, self.op("Reshape", new, shape), axis=2)

    def _attended(self, q: str, kept: list[str], mask: str) -> str:
        """(n, heads · head_dim) of q (n, heads, head_dim)."""
        group, size = self.heads // self.kv_heads, self.head_dim
        q = self.op("Mul", q, self.constant(size**-0.5, np.float32))
        q = self.op("Reshape", q, self.constant([-1, self.kv_heads, group, size]))
        q = self.op("Transpose", q, perm=[1, 2, 0, 3])
        rows = self.constant([1, self.kv_heads, -1, size])
        keys = self.op("Transpose", kept[0], perm=[0, 1, 3, 2])
        scores = self.op("MatMul", self.op("Reshape", q, rows), keys)
        apart = self.op("Concat", self.constant([self.kv_heads, group]), self.op("Shape", mask), axis=0)
        shares = self.op("Softmax", self.op("Add", self.op("Reshape", scores, apart), mask), axis=-1)
        shares = self.op("Reshape", shares, self.op("Shape", scores))
        out = self.op(
            "Reshape", self.op("MatMul", shares, kept[1]), self.constant([self.kv_heads, group, -1, size])
        )
        out = self.op("Transpose", out, perm=[2, 0, 1, 3])
        return self.op("Reshape", out, self.constant([-1, self.heads * size]))


def nf4_scales(state: Any) -> torch.Tensor:
    """Each block's largest absolute value, of bitsandbytes' own double quantization undone."""
    from bitsandbytes.functional import dequantize_blockwise

    if not state.nested:
        return state.absmax
    return dequantize_blockwise(state.absmax, state.state2) + state.offset
