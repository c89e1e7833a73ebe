"""Which of the two label words comes next: one question, answered fast on a few cores.

`LiveLlama` computes what transformers computes, with less: the weights' file holds the prompt's prefix as
keys and values, products that share an input are one, of the head only the two label words' rows exist, and
a batch is padded on the right, which causal attention does not see. Other families: `live.transformers`.

PyTorch spreads each single operation over the cores and waits for all of them at its end, some hundred times
an answer; where another process takes a core away for a moment, each of those waits can last milliseconds.
So PyTorch's own threads are off, and each core computes a part of its own: some of a batch's reviews, or one
stretch of a review, which needs the keys and values of the stretches before it, layer by layer.

Tried instead: transformers' own forward for every family, with prefix and stretches as its `Cache`, `attend`
through `AttentionInterface`, and seven 8-bit linear modules a layer. It took 1.32 times the CPU time for 150
words and 1.27 times for 500 (int8, AVX2, two cores of an AMD EPYC that others used too; median ratio of 15
answers in turns; least CPU time 0.57 against 0.44 s, and 2.43 against 1.93 s). Other number formats and
AVX-512 were not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from sentiment_core.engines.packed.attention import rotate
from sentiment_core.engines.packed.layer import rms_norm
from sentiment_core.labels import Label
from sentiment_core.live.trace import Hook, Saliency, nothing
from sentiment_core.live.weights import GROUPS, Tensors, linear

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
        config: transformers' configuration of the base model.
        tensors: as `live.weights` names them, all on one device.
        workers: cores to share the work between; PyTorch's own threads are to be off when there are several.
        fast_int8: whether the processor multiplies 8-bit numbers without overflow (VNNI).
    """

    def __init__(self, config: Any, tensors: Tensors, workers: int, fast_int8: bool) -> None:
        self.workers = workers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps = float(config.rms_norm_eps)
        self._embedding, self._norm, self._head = (tensors[n] for n in ("embedding", "norm", "head"))
        self._inv_freq, self._rope_scale = tensors["inv_freq"], float(tensors["rope_scale"])
        self.device, self.dtype = self._embedding.device, self._embedding.dtype
        numbers = range(config.num_hidden_layers)
        products = [[linear(tensors, f"{n}.{group}", fast_int8) for group in GROUPS] for n in numbers]
        self._layers = [(tensors[f"{n}.norm1"], tensors[f"{n}.norm2"], products[n]) for n in numbers]
        self.prefix: Cache = [(tensors[f"{n}.k"][None], tensors[f"{n}.v"][None]) for n in numbers]
        self.prefix_length, self.head_dim = self.prefix[0][0].shape[2:]

    # ---- answers

    def log_odds(self, rows: Sequence[np.ndarray], before_layer: Hook = nothing) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative.

        Args:
            rows: token ids of each prompt after the prefix; best of like length.
            before_layer: called before every layer.
        """
        if len(rows) == 1:
            return np.array([self._stretches(rows[0], self.prefix, before_layer)])
        parts = [p for p in np.array_split(np.arange(len(rows)), min(self.workers, len(rows))) if len(p)]
        tasks = [partial(self._batch, [rows[i] for i in part], before_layer) for part in parts]
        return np.concatenate(together(tasks))

    def log_odds_progressive(self, row: np.ndarray, tail: int) -> Iterator[tuple[int, float]]:
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
            beginning = np.concatenate((row[:done], row[-tail:]))
            yield done, self._stretches(beginning, past, nothing, kept)
            cut = self.prefix_length + done
            past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in kept]
        yield len(row), self._stretches(row[done:], past, nothing)

    def log_odds_of_variants(
        self, variants: Sequence[np.ndarray], row: np.ndarray, cache: Cache, before_layer: Hook
    ) -> np.ndarray:
        """(n,) log-odds of prompts that begin as `row` does; the beginning is in `saliency`'s cache."""
        return np.array(together([partial(self._variant, v, row, cache, before_layer) for v in variants]))

    @torch.inference_mode()
    def _batch(self, rows: Sequence[np.ndarray], before_layer: Hook) -> np.ndarray:
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        last = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        x = self._run(self._embed(ids), last, self.prefix, self.prefix_length, before_layer)
        return self._margin(x).double().cpu().numpy()

    def saliency(self, row: np.ndarray, before_layer: Hook) -> Saliency:
        """Log-odds, how much they hang on each token, and keys and values for variants of the prompt.

        The gradient is taken a quarter of the way up, where it picks more of the words that matter than at
        the embeddings, and its length times the hidden state's picks more than their product does.
        """
        kept: Cache = []
        states: list[torch.Tensor] = []

        def tap(layer: int, x: torch.Tensor) -> None:
            before_layer()
            if layer == len(self._layers) // 4:
                states.append(x.requires_grad_(True))
            elif x.requires_grad:
                x.register_hook(lambda gradient: before_layer())  # on the way back

        margin = self._margin_of(row, self.prefix, self.prefix_length, tap, kept)
        (gradient,) = torch.autograd.grad(margin.sum(), states)
        salience = gradient.float().norm(dim=-1) * states[0].detach().float().norm(dim=-1)
        cache = [(k.detach(), v.detach()) for k, v in kept]
        return Saliency(float(margin.detach()), salience.double().cpu().numpy(), cache)

    def _stretches(
        self, row: np.ndarray, past: Cache, before_layer: Hook, kept: Cache | None = None
    ) -> float:
        """The log-odds of a prompt that goes on behind `past`, its stretches computed at once.

        `kept` receives the keys and values of all of it.
        """
        count = max(1, min(self.workers, len(row) // SHORTEST_PART))
        behind = past[0][0].shape[2]
        cuts = _equal_work(len(row), count, behind)
        handovers = [Handover() for _ in range(count - 1)]

        @torch.inference_mode()
        def stretch(number: int) -> float:
            part = row[cuts[number] : cuts[number + 1]]
            known = handovers[number - 1] if number else past
            keep = handovers[number] if number < count - 1 else kept
            try:
                return float(self._margin_of(part, known, behind + cuts[number], before_layer, keep))
            except BaseException as error:
                if isinstance(keep, Handover):
                    keep.append(error)
                raise

        return together([partial(stretch, number) for number in range(count)])[-1]

    @torch.inference_mode()
    def _variant(self, variant: np.ndarray, row: np.ndarray, cache: Cache, before_layer: Hook) -> float:
        most = min(len(row), len(variant)) - 1
        differs = np.flatnonzero(row[:most] != variant[:most])
        same = int(differs[0]) if len(differs) else most
        cut = self.prefix_length + same
        past = [(k[:, :, :cut], v[:, :, :cut]) for k, v in cache]
        return float(self._margin_of(variant[same:], past, cut, before_layer))

    # ---- the pass

    def _embed(self, ids: np.ndarray) -> torch.Tensor:
        """(batch, tokens) ids -> (batch, tokens, hidden)."""
        return F.embedding(torch.from_numpy(ids.astype(np.int64)).to(self.device), self._embedding)

    def _margin_of(
        self,
        row: np.ndarray,
        past: Iterable[Pair],
        before: int,
        tap: Hook,
        keep: Cache | Handover | None = None,
    ) -> torch.Tensor:
        """(1,) log-odds of one prompt that goes on behind `past`'s `before` tokens."""
        end = torch.tensor([len(row) - 1], device=self.device)
        return self._margin(self._run(self._embed(row[None]), end, past, before, tap, keep))

    def _run(
        self, x: torch.Tensor, last: torch.Tensor, past: Iterable[Pair], before: int, tap: Hook,
        keep: Cache | Handover | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """x (B, L, hidden) behind `past`'s `before` tokens -> hidden state (B, hidden) at each row's `last`.

        Of the last layer only those positions are computed. `keep` receives each layer's keys and values,
        those of `past` among them, as soon as they are there; `tap` gets each layer's number and input.
        """
        batch, length, hidden = x.shape
        cos, sin = self._angles(before, length)
        x = x.reshape(batch * length, hidden)
        every = torch.arange(batch, device=self.device)
        for number, ((norm1, norm2, (qkv, o, gate_up, down)), past_of_layer) in enumerate(
            zip(self._layers, past, strict=False)  # a Handover does not end
        ):
            tap(number, x)
            projected = _lean(lambda x, norm=norm1, qkv=qkv: qkv(rms_norm(x, norm, self.eps)), x)
            projected = projected.view(batch, length, -1, self.head_dim)
            qk, v = projected.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
            q, k = rotate(qk, cos, sin).split([self.heads, self.kv_heads], dim=2)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            k = torch.cat((past_of_layer[0].expand(batch, -1, -1, -1), k), dim=2)
            v = torch.cat((past_of_layer[1].expand(batch, -1, -1, -1), v), dim=2)
            if keep is not None:
                keep.append((k, v))
            if number == len(self._layers) - 1:
                x, attended = x[every * length + last], attend_once(q[every, :, last], k, v, before + last)
            else:
                attended = attend(q, k, v)
            x = x + o(attended.reshape(len(x), -1))

            def feed_forward(x: torch.Tensor, norm=norm2, gate_up=gate_up, down=down) -> torch.Tensor:
                gate, up = gate_up(rms_norm(x, norm, self.eps)).chunk(2, dim=-1)
                return down(F.silu(gate) * up)

            x = x + _lean(feed_forward, x)
        return x

    def _margin(self, x: torch.Tensor) -> torch.Tensor:
        """Last hidden states (B, hidden) -> (B,) float32 log-odds of Positive."""
        logits = F.linear(rms_norm(x, self._norm, self.eps).float(), self._head)
        return logits[:, Label.POSITIVE] - logits[:, Label.NEGATIVE]

    def _angles(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of the rotary embedding, (length, 1, head_dim) each."""
        places = torch.arange(start, start + length, device=self.device, dtype=torch.float32)
        angles = places[:, None] * self._inv_freq[None]
        both = torch.cat((angles, angles), dim=-1)[:, None]
        return (both.cos() * self._rope_scale).to(self.dtype), (both.sin() * self._rope_scale).to(self.dtype)


def _lean(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """function(x); where a gradient is wanted, what it keeps for that is computed again instead of stored."""
    if not x.requires_grad:
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)


def _equal_work(length: int, parts: int, behind: int = 0) -> list[int]:
    """Where to cut so that all parts take as long: later tokens attend to more, so later parts are shorter.

    >>> _equal_work(1000, 2), _equal_work(100, 2), _equal_work(700, 2, behind=300)
    ([0, 567, 1000], [0, 51, 100], [0, 381, 700])
    """
    tokens = np.arange(length + 1)
    work = tokens + ((behind + tokens) ** 2 - behind**2) / PAIRS_PER_TOKEN
    return np.searchsorted(work, work[-1] * np.arange(parts + 1) / parts).tolist()


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
    """Run the tasks at once, a thread each; raises the first one's error when all have ended."""
    if len(tasks) == 1:
        return [tasks[0]()]
    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(lambda task: task(), tasks))


class Handover(SimpleQueue):
    """Pairs (or an error) that one thread appends and another iterates over, waiting for them."""

    append = SimpleQueue.put

    def __iter__(self) -> Iterator[Pair]:
        while True:
            item = self.get()
            if isinstance(item, BaseException):
                raise item
            yield item
