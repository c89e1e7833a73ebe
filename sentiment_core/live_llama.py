"""A Llama that answers one question fast on a few cores: which of the two label words comes next.

It computes what transformers computes, without what a single answer does not need: the prompt's prefix is
in the weights' file as keys and values, products that share an input are one product, only the two label
words' rows of the head exist, and reviews of one batch are padded on the right, where causal attention
makes padding invisible, so that no mask is needed beyond the causal one. Each core computes a part of its
own: some of a batch's reviews, or one stretch of a review, which needs the keys and values of the stretches
before it, layer by layer, and nothing else of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from sentiment_core.explain import Look, Pause, go_on
from sentiment_core.labels import Label
from sentiment_core.live_attention import attend, attend_once
from sentiment_core.live_threads import Handover, together
from sentiment_core.live_weights import GROUPS, LlamaWeights, dtype_of
from sentiment_core.packed_attention import rotate
from sentiment_core.packed_layer import rms_norm

Linear = Callable[[torch.Tensor], torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
"""One layer's keys and values, each (batch or 1, kv_heads, tokens, head_dim). Never written to."""
Cache = list[Pair]

SHORTEST_PART = 48
"""Tokens; a shorter prompt is not worth being shared between cores."""

LONG, FIRST_LOOK = 576, 320
"""Tokens: a prompt longer than the one gets a first answer, on a CPU, once the other have been read."""

PAIRS_PER_TOKEN = 2_700
"""A token's products take as long as its attention to about half as many others (bf16, 135M parameters)."""


class LiveLlama:
    """One system's forward pass.

    Args:
        weights: in `form`.
        workers: cores to share the work between; PyTorch's own threads are to be off when there are several.
        fast_int8: whether the processor multiplies 8-bit numbers without overflow (VNNI).
    """

    def __init__(self, weights: LlamaWeights, form: str, *, workers: int = 1, fast_int8: bool = True) -> None:
        self.workers = workers
        self.shape = weights.shape
        self.dtype = dtype_of(form)
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

    def log_odds(self, rows: Sequence[np.ndarray], pause: Pause = go_on) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative.

        Args:
            rows: token ids of each prompt after the prefix; best of like length.
            pause: called before every layer.
        """
        if len(rows) == 1:
            return np.array([self._stretches(rows[0], self.prefix, pause)])
        parts = [p for p in np.array_split(np.arange(len(rows)), min(self.workers, len(rows))) if len(p)]
        tasks = [lambda part=part: self._batch([rows[i] for i in part], pause) for part in parts]
        return np.concatenate(together(tasks))

    def read(self, row: np.ndarray, tail: int, pause: Pause = go_on) -> Iterator[tuple[int, float]]:
        """(tokens read, log-odds): of a long prompt's beginning, and then of all of it.

        The beginning gets the prompt's end, which is left out again before reading on, so that nothing is
        computed twice.

        Args:
            row: token ids after the prefix.
            tail: how many of them are the prompt's end, after the review.
        """
        done, past = 0, self.prefix
        if len(row) > LONG and self.device.type == "cpu":
            done, kept = FIRST_LOOK, []
            yield done, self._stretches(np.concatenate((row[:done], row[-tail:])), past, pause, kept)
            cut = self.prefix_length + done
            past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in kept]
        yield len(row), self._stretches(row[done:], past, pause)

    def log_odds_of_variants(
        self, variants: Sequence[np.ndarray], row: np.ndarray, cache: Cache, pause: Pause = go_on
    ) -> np.ndarray:
        """(n,) log-odds of prompts that begin as `row` does; the beginning is taken from `look`'s cache."""
        tasks = [lambda variant=variant: self._variant(variant, row, cache, pause) for variant in variants]
        return np.array(together(tasks))

    @torch.inference_mode()
    def _batch(self, rows: Sequence[np.ndarray], pause: Pause) -> np.ndarray:
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        last = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        tap = _before_layers(pause)
        x = self._run(self.embed(ids), last, self.prefix, self.prefix_length, tap=tap)
        return self._margin(x).double().cpu().numpy()

    def look(self, row: np.ndarray, pause: Pause = go_on) -> Look:
        """Log-odds, how much they hang on each token, and keys and values for variants of the prompt.

        The gradient is taken a quarter of the way up, where it picks more of the words that matter than at
        the embeddings, and its length times the hidden state's picks more than their product does.
        """
        kept: Cache = []
        states: list[torch.Tensor] = []

        def tap(layer: int, x: torch.Tensor) -> None:
            pause()
            if layer == self.shape.layers // 4:
                states.append(x.requires_grad_(True))
            elif x.requires_grad:
                x.register_hook(lambda gradient: pause())  # on the way back

        end = self._end(row)
        final = self._run(self.embed(row[None]), end, self.prefix, self.prefix_length, kept, tap)
        margin = self._margin(final)
        (gradient,) = torch.autograd.grad(margin.sum(), states)
        salience = gradient.float().norm(dim=-1) * states[0].detach().float().norm(dim=-1)
        cache = [(k.detach(), v.detach()) for k, v in kept]
        return Look(float(margin.detach()), salience.double().cpu().numpy(), cache)

    def _stretches(self, row: np.ndarray, past: Cache, pause: Pause, kept: Cache | None = None) -> float:
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
            before, tap = behind + cuts[number], _before_layers(pause)
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
    def _variant(self, variant: np.ndarray, row: np.ndarray, cache: Cache, pause: Pause) -> float:
        most = min(len(row), len(variant)) - 1
        differs = np.flatnonzero(row[:most] != variant[:most])
        same = int(differs[0]) if len(differs) else most
        cut = self.prefix_length + same
        past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in cache]
        rest = variant[same:]
        tap = _before_layers(pause)
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


def _before_layers(pause: Pause) -> Callable[[int, torch.Tensor], None]:
    return lambda layer, x: pause()


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
