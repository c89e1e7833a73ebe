"""A Llama that answers one question fast on a few cores: which of the two label words comes next.

It computes what transformers computes, without what a single answer does not need: the prompt's prefix is
in the weights' file as keys and values, products that share an input are one product, only the two label
words' rows of the head exist, and reviews of one batch are padded on the right, where causal attention
makes padding invisible, so that no mask is needed beyond the causal one. Each core computes a part of its
own: some of a batch's reviews, or one stretch of a review, which needs the keys and values of the stretches
before it, layer by layer, and nothing else of them.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from sentiment_core.engines.packed.attention import rotate
from sentiment_core.engines.packed.layer import rms_norm
from sentiment_core.engines.scorer import left_pad
from sentiment_core.labels import Label
from sentiment_core.live.trace import Saliency, Yield, never_yield
from sentiment_core.live.weights import GROUPS, LlamaWeights, dtype_of
from sentiment_core.models.base_models import BaseModel
from sentiment_core.models.loading import load_adapter, load_base

Linear = Callable[[torch.Tensor], torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
"""One layer's keys and values, each (batch or 1, kv_heads, tokens, head_dim). Never written to."""
Cache = list[Pair]

SHORTEST_PART = 48
"""Tokens; a shorter prompt is not worth being shared between cores."""

LONG, FIRST_RESULT = 576, 320
"""Tokens: a prompt longer than the one gets a first answer, on a CPU, once the other have been read."""

PAIRS_PER_TOKEN = 2_700
"""A token's products take as long as its attention to about half as many others (bf16, 135M parameters)."""


class LiveLlama:
    """One system's forward pass.

    Args:
        weights: in `number_format`.
        workers: cores to share the work between; PyTorch's own threads are to be off when there are several.
        fast_int8: whether the processor multiplies 8-bit numbers without overflow (VNNI).
    """

    def __init__(
        self, weights: LlamaWeights, number_format: str, *, workers: int = 1, fast_int8: bool = True
    ) -> None:
        self.workers = workers
        self.shape = weights.shape
        self.dtype = dtype_of(number_format)
        tensors = weights.tensors
        self._embedding, self._norm, self._head = (tensors[n] for n in ("embedding", "norm", "head"))
        self._inv_freq = tensors["inv_freq"]
        self.device = self._embedding.device
        self._layers: list[tuple[torch.Tensor, torch.Tensor, list[Linear]]] = []
        for n in range(self.shape.layers):
            products = [_linear(tensors, f"{n}.{group}", fast_int8) for group in GROUPS]
            self._layers.append((tensors[f"{n}.norm1"], tensors[f"{n}.norm2"], products))
        self.prefix: Cache = [
            (tensors[f"{n}.k"][None], tensors[f"{n}.v"][None]) for n in range(self.shape.layers)
        ]
        self.prefix_length = self.prefix[0][0].shape[2]

    # ---- answers

    def log_odds(self, rows: Sequence[np.ndarray], yield_to_interactive: Yield = never_yield) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative.

        Args:
            rows: token ids of each prompt after the prefix; best of like length.
            yield_to_interactive: called before every layer.
        """
        if len(rows) == 1:
            return np.array([self._stretches(rows[0], self.prefix, yield_to_interactive)])
        parts = [p for p in np.array_split(np.arange(len(rows)), min(self.workers, len(rows))) if len(p)]
        tasks = [
            lambda part=part: self._batch([rows[i] for i in part], yield_to_interactive) for part in parts
        ]
        return np.concatenate(together(tasks))

    def log_odds_progressive(
        self, row: np.ndarray, tail: int, yield_to_interactive: Yield = never_yield
    ) -> Iterator[tuple[int, float]]:
        """(tokens read, log-odds): of a long prompt's beginning, and then of all of it.

        The beginning gets the prompt's end, which is left out again before reading on, so that nothing is
        computed twice.

        Args:
            row: token ids after the prefix.
            tail: how many of them are the prompt's end, after the review.
        """
        done, past = 0, self.prefix
        if len(row) > LONG and self.device.type == "cpu":
            done, kept = FIRST_RESULT, []
            yield (
                done,
                self._stretches(np.concatenate((row[:done], row[-tail:])), past, yield_to_interactive, kept),
            )
            cut = self.prefix_length + done
            past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in kept]
        yield len(row), self._stretches(row[done:], past, yield_to_interactive)

    def log_odds_of_variants(
        self,
        variants: Sequence[np.ndarray],
        row: np.ndarray,
        cache: Cache,
        yield_to_interactive: Yield = never_yield,
    ) -> np.ndarray:
        """(n,) log-odds of prompts that begin as `row` does; the beginning is in `saliency`'s cache."""
        tasks = [
            lambda variant=variant: self._variant(variant, row, cache, yield_to_interactive)
            for variant in variants
        ]
        return np.array(together(tasks))

    @torch.inference_mode()
    def _batch(self, rows: Sequence[np.ndarray], yield_to_interactive: Yield) -> np.ndarray:
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        last = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        tap = _before_layers(yield_to_interactive)
        x = self._run(self.embed(ids), last, self.prefix, self.prefix_length, tap=tap)
        return self._margin(x).double().cpu().numpy()

    def saliency(self, row: np.ndarray, yield_to_interactive: Yield = never_yield) -> Saliency:
        """Log-odds, how much they hang on each token, and keys and values for variants of the prompt.

        The gradient is taken a quarter of the way up, where it picks more of the words that matter than at
        the embeddings, and its length times the hidden state's picks more than their product does.
        """
        kept: Cache = []
        states: list[torch.Tensor] = []

        def tap(layer: int, x: torch.Tensor) -> None:
            yield_to_interactive()
            if layer == self.shape.layers // 4:
                states.append(x.requires_grad_(True))
            elif x.requires_grad:
                x.register_hook(lambda gradient: yield_to_interactive())  # on the way back

        end = self._end(row)
        final = self._run(self.embed(row[None]), end, self.prefix, self.prefix_length, kept, tap)
        margin = self._margin(final)
        (gradient,) = torch.autograd.grad(margin.sum(), states)
        salience = gradient.float().norm(dim=-1) * states[0].detach().float().norm(dim=-1)
        cache = [(k.detach(), v.detach()) for k, v in kept]
        return Saliency(float(margin.detach()), salience.double().cpu().numpy(), cache)

    def _stretches(
        self, row: np.ndarray, past: Cache, yield_to_interactive: Yield, kept: Cache | None = None
    ) -> float:
        """The log-odds of a prompt that goes on behind `past`, its stretches computed at once.

        `kept` receives the keys and values of all of it.
        """
        count = max(1, min(self.workers, len(row) // SHORTEST_PART))
        behind = past[0][0].shape[2]
        cuts = _equal_work(len(row), count, behind)
        handovers: list[Handover[Pair]] = [Handover() for _ in range(count - 1)]

        @torch.inference_mode()
        def stretch(number: int) -> float:
            part = row[cuts[number] : cuts[number + 1]]
            before, tap = behind + cuts[number], _before_layers(yield_to_interactive)
            known = handovers[number - 1] if number else past
            keep = handovers[number] if number < count - 1 else kept
            try:
                x = self._run(self.embed(part[None]), self._end(part), known, before, keep, tap)
                return float(self._margin(x))
            except BaseException as error:
                if isinstance(keep, Handover):
                    keep.fail(error)
                raise

        return together([lambda number=number: stretch(number) for number in range(count)])[-1]

    @torch.inference_mode()
    def _variant(
        self, variant: np.ndarray, row: np.ndarray, cache: Cache, yield_to_interactive: Yield
    ) -> float:
        most = min(len(row), len(variant)) - 1
        differs = np.flatnonzero(row[:most] != variant[:most])
        same = int(differs[0]) if len(differs) else most
        cut = self.prefix_length + same
        past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in cache]
        rest = variant[same:]
        tap = _before_layers(yield_to_interactive)
        return float(self._margin(self._run(self.embed(rest[None]), self._end(rest), past, cut, tap=tap)))

    # ---- the pass

    def embed(self, ids: np.ndarray) -> torch.Tensor:
        """(batch, tokens) ids -> (batch, tokens, hidden)."""
        return F.embedding(torch.from_numpy(ids.astype(np.int64)).to(self.device), self._embedding)

    def _end(self, row: np.ndarray) -> torch.Tensor:
        return torch.tensor([len(row) - 1], device=self.device)

    def _run(
        self,
        x: torch.Tensor,
        last: torch.Tensor,
        past: Iterable[Pair],
        before: int,
        keep: Cache | Handover[Pair] | None = None,
        tap: Callable[[int, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """x (B, L, hidden) behind `past`'s `before` tokens -> hidden state (B, hidden) at each row's `last`.

        Of the last layer only those positions are computed. `keep` receives each layer's keys and values,
        those of `past` among them, as soon as they are there; `tap` sees what goes into each layer.
        """
        batch, length, hidden = x.shape
        shape = self.shape
        cos, sin = self._angles(before, length)
        x = x.reshape(batch * length, hidden)
        every = torch.arange(batch, device=self.device)
        for number, ((norm1, norm2, (qkv, o, gate_up, down)), past_of_layer) in enumerate(
            zip(self._layers, past, strict=False)  # a Handover does not end
        ):
            if tap is not None:
                tap(number, x)
            projected = _lean(lambda x, norm=norm1, qkv=qkv: qkv(rms_norm(x, norm, shape.eps)), x)
            projected = projected.view(batch, length, -1, shape.head_dim)
            qk, v = projected.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=2)
            q, k = rotate(qk, cos, sin).split([shape.heads, shape.kv_heads], dim=2)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            k = torch.cat((past_of_layer[0].expand(batch, -1, -1, -1), k), dim=2)
            v = torch.cat((past_of_layer[1].expand(batch, -1, -1, -1), v), dim=2)
            if keep is not None:
                keep.append((k, v))
            if number == shape.layers - 1:
                x, attended = x[every * length + last], attend_once(q[every, :, last], k, v, before + last)
            else:
                attended = attend(q, k, v)
            x = x + o(attended.reshape(len(x), -1))

            def feed_forward(x: torch.Tensor, norm=norm2, gate_up=gate_up, down=down) -> torch.Tensor:
                gate, up = gate_up(rms_norm(x, norm, shape.eps)).chunk(2, dim=-1)
                return down(F.silu(gate) * up)

            x = x + _lean(feed_forward, x)
        return x

    def _margin(self, x: torch.Tensor) -> torch.Tensor:
        """Last hidden states (B, hidden) -> (B,) float32 log-odds of Positive."""
        logits = F.linear(rms_norm(x, self._norm, self.shape.eps).float(), self._head)
        return logits[:, Label.POSITIVE] - logits[:, Label.NEGATIVE]

    def _angles(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of the rotary embedding, (length, 1, head_dim) each."""
        places = torch.arange(start, start + length, device=self.device, dtype=torch.float32)
        angles = places[:, None] * self._inv_freq[None]
        both = torch.cat((angles, angles), dim=-1)[:, None]
        scale = self.shape.rope_scale
        return (both.cos() * scale).to(self.dtype), (both.sin() * scale).to(self.dtype)


def _lean(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """function(x); where a gradient is wanted, what it keeps for that is computed again instead of stored."""
    if not x.requires_grad:
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)


def _before_layers(yield_to_interactive: Yield) -> Callable[[int, torch.Tensor], None]:
    return lambda layer, x: yield_to_interactive()


def _equal_work(length: int, parts: int, behind: int = 0) -> list[int]:
    """Where to cut so that all parts take as long: later tokens attend to more, so later parts are shorter.

    >>> _equal_work(1000, 2), _equal_work(100, 2), _equal_work(700, 2, behind=300)
    ([0, 567, 1000], [0, 51, 100], [0, 373, 700])
    """
    tokens = np.arange(length + 1)
    work = tokens + ((behind + tokens) ** 2 - behind**2) / PAIRS_PER_TOKEN
    return np.searchsorted(work, work[-1] * np.arange(parts + 1) / parts).tolist()


# ---- products


def _linear(tensors: dict[str, torch.Tensor], name: str, fast_int8: bool) -> Linear:
    weight = tensors[name]
    if weight.dtype == torch.int8:
        return _Int8(weight, tensors[f"{name}.scale"], fast_int8)
    return lambda x: F.linear(x, weight)


class _Int8:
    """x (n, in) float32 · weightᵀ in 8 bits.

    PyTorch's kernel rounds x with one scale for all of it, which a few large tokens spoil; so every token is
    brought to the same largest value first, which gives each a scale of its own.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, fast: bool) -> None:
        self.weight, self.scale = weight, scale
        self.reduce_range = not fast  # without VNNI two products of 8 bits overflow the 16 they are added in
        zeros = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():  # PyTorch means to drop quantized tensors some day; `live` checks
            warnings.simplefilter("ignore")
            quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(quantized, None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            return _Int8Gradient.apply(x, self)
        return self.product(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-9)
        return torch.ops.quantized.linear_dynamic(x / largest, self.packed, self.reduce_range).mul_(largest)


class _Int8Gradient(torch.autograd.Function):
    """The product's gradient towards x, as if x had not been rounded."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, linear: _Int8) -> torch.Tensor:
        ctx.linear = linear
        return linear.product(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        linear = ctx.linear
        return (gradient * linear.scale) @ linear.weight.float(), None


# ---- attention

BLOCK = 128
"""Tokens computed at once; their scores against a thousand others still fit a core's cache."""

WHOLE = 256
"""Up to so many tokens PyTorch's kernel is as fast or faster, masked half and all."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last tokens; no gradients on the way in blocks.

    Args:
        q: (batch, heads, length, head_dim), of the last `length` tokens.
        k, v: (batch, kv_heads, tokens, head_dim), of all tokens up to the last; tokens >= length.

    Returns:
        (batch, length, heads, head_dim).
    """
    length = q.shape[2]
    if length <= WHOLE or q.device.type != "cpu" or q.requires_grad:
        mask = _no_future(length, k.shape[2], q)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2)
    return torch.stack([_in_blocks(*one) for one in zip(q, k, v, strict=True)])


def attend_once(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The same for one token of each row, at place `last` (batch,): q (batch, heads, d) -> the same shape."""
    seen = torch.arange(k.shape[2], device=k.device) <= last[:, None, None, None]
    return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=seen, enable_gqa=True)[:, :, 0]


def _no_future(length: int, tokens: int, like: torch.Tensor) -> torch.Tensor:
    mask = torch.full((length, tokens), float("-inf"), dtype=like.dtype, device=like.device)
    return mask.triu(tokens - length + 1)


def _in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(heads, length, d), (kv_heads, tokens, d) twice -> (length, heads, d); scores in float32."""
    heads, length, d = q.shape
    groups, tokens, _ = k.shape
    before, shared = tokens - length, heads // groups
    keys = k.float().transpose(1, 2)
    out = torch.empty(length, heads, d, dtype=q.dtype)
    space = torch.empty(shared * BLOCK * tokens)
    diagonal = _no_future(BLOCK, BLOCK, space)
    for start in range(0, length, BLOCK):
        rows = min(BLOCK, length - start)
        seen = before + start + rows
        scores = space[: shared * rows * seen].view(shared * rows, seen)
        for group in range(groups):
            own = slice(group * shared, (group + 1) * shared)
            asking = q[own, start : start + rows].reshape(shared * rows, d).float() * d**-0.5
            torch.mm(asking, keys[group, :, :seen], out=scores)
            scores.view(shared, rows, seen)[..., before + start :] += diagonal[:rows, :rows]
            found = torch.softmax(scores, dim=-1).to(v.dtype) @ v[group, :seen]
            out[start : start + rows, own] = found.view(shared, rows, d).transpose(0, 1)
    return out


# ---- threads

_T = TypeVar("_T")


def together(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run the tasks at once, the last one in this thread; raises the first task's error that occurred."""
    results: list[_T | None] = [None] * len(tasks)
    errors: list[BaseException] = []

    def work(place: int) -> None:
        try:
            results[place] = tasks[place]()
        except BaseException as error:
            errors.append(error)

    helpers = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(tasks) - 1)]
    for helper in helpers:
        helper.start()
    work(len(tasks) - 1)
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return results  # type: ignore[return-value]


class Handover(Generic[_T]):
    """What one thread appends and another iterates over, waiting for what is not there yet."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_T | BaseException] = SimpleQueue()

    def append(self, item: _T) -> None:
        self._queue.put(item)

    def fail(self, error: BaseException) -> None:
        """End the iteration with an error: nothing more will come."""
        self._queue.put(error)

    def __iter__(self) -> Iterator[_T]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item


# ---- any other model


class TransformersPair:
    """A base model with an adapter that can be switched off; the weights are there once."""

    def __init__(self, base: BaseModel, adapter: Path | None, dtype: torch.dtype) -> None:
        loaded = load_base(base, compute_dtype=dtype)
        self.encoder = loaded.encoder
        self.has_adapter = adapter is not None
        self.lock = threading.Lock()
        self.model = load_adapter(loaded.model, adapter) if adapter is not None else loaded.model

    def system(self, adapted: bool) -> LiveTransformers:
        return LiveTransformers(self, adapted)

    def to(self, device: torch.device) -> TransformersPair:
        self.model.to(device)
        return self


class LiveTransformers:
    """One system of a pair, with the prompt prefix's cache computed at first use."""

    def __init__(self, pair: TransformersPair, adapted: bool) -> None:
        self.workers = 1
        self._pair = pair
        self._off = pair.has_adapter and not adapted
        self._prefix = None

    @torch.inference_mode()
    def log_odds(self, rows: Sequence[np.ndarray], yield_to_interactive: Yield = never_yield) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative, of token ids after the prefix."""
        yield_to_interactive()
        model, prefix_ids = self._pair.model, self._pair.encoder.prefix_ids
        with self._switched():
            if len(rows) == 1:
                cache = copy.deepcopy(self._prefix_cache())
                ids = torch.from_numpy(rows[0].astype(np.int64))[None].to(model.device)
                logits = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1]
            else:
                whole = [np.concatenate((prefix_ids, row)) for row in rows]
                inputs = left_pad(whole, self._pair.encoder.tokenizer.pad_token_id or 0)
                inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
                logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        return self._margin(logits).double().cpu().numpy()

    def log_odds_progressive(
        self, row: np.ndarray, tail: int, yield_to_interactive: Yield = never_yield
    ) -> Iterator[tuple[int, float]]:
        """(tokens read, log-odds) of the whole prompt."""
        yield len(row), float(self.log_odds([row], yield_to_interactive)[0])

    def log_odds_of_variants(
        self,
        variants: Sequence[np.ndarray],
        row: np.ndarray,
        cache: None,
        yield_to_interactive: Yield = never_yield,
    ) -> np.ndarray:
        """(n,) log-odds, one after the other."""
        return np.concatenate([self.log_odds([variant], yield_to_interactive) for variant in variants])

    def saliency(self, row: np.ndarray, yield_to_interactive: Yield = never_yield) -> Saliency:
        """Log-odds and how much they hang on each token's embedding."""
        yield_to_interactive()
        model, prefix_ids = self._pair.model, self._pair.encoder.prefix_ids
        ids = torch.tensor([[*prefix_ids, *row.tolist()]], device=model.device)
        with self._switched():
            x = model.get_input_embeddings()(ids).detach().requires_grad_(True)
            margin = self._margin(model(inputs_embeds=x, logits_to_keep=1, use_cache=False).logits[:, -1])
            (gradient,) = torch.autograd.grad(margin.sum(), x)
        salience = (gradient.float().norm(dim=-1) * x.detach().float().norm(dim=-1))[0]
        return Saliency(float(margin.detach()), salience[len(prefix_ids) :].double().cpu().numpy(), None)

    def _margin(self, logits: torch.Tensor) -> torch.Tensor:
        pair = logits.float()[:, list(self._pair.encoder.label_ids)]
        return pair[:, Label.POSITIVE] - pair[:, Label.NEGATIVE]

    def _prefix_cache(self):
        if self._prefix is None:
            ids = torch.tensor([self._pair.encoder.prefix_ids], device=self._pair.model.device)
            self._prefix = self._pair.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        return self._prefix

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        """One pass at a time: the switch is the model's."""
        with (
            self._pair.lock,
            self._pair.model.disable_adapter() if self._off else contextlib.nullcontext(),
        ):
            yield
