"""Which of the two label words comes next: one question, answered fast on a few cores.

`LiveLlama` computes what transformers computes, with less: the weights' file holds the prompt's prefix as
keys and values, products that share an input are one, of the head only the two label words' rows exist, and
a batch is padded on the right, which causal attention does not see. Other families: `live.transformers`.

PyTorch spreads each single operation over the cores and waits for all of them at its end, some hundred times
an answer; where another process takes a core away for a moment, each of those waits can last milliseconds.
So PyTorch's own threads are off, and each core computes a part of its own: some of a batch's reviews, or one
stretch of a review, which needs the keys and values of the stretches before it, layer by layer.
Transformers' own forward with prefix and stretches as its `Cache` took 1.3 times the CPU time (int8, AVX2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from sentiment_core.engines.packed.attention import rotate
from sentiment_core.engines.packed.layer import rms_norm
from sentiment_core.labels import Label
from sentiment_core.live.trace import tree
from sentiment_core.live.weights import GROUPS, Tensors, adapted, linear

Pair = tuple[torch.Tensor, torch.Tensor]
"""One layer's keys and values, each (batch or 1, kv_heads, tokens, head_dim). Never written to."""
Cache = list[Pair]

SHORTEST_PART = 48  # tokens; a shorter prompt is not worth being shared between cores

LONG, FIRST_RESULT = 576, 320
"""Tokens: a prompt longer than the one gets a first answer, on a CPU, once the other have been read."""

STEP = 16
"""Tokens, on a CPU in 16 bits: stretches are as long as a multiple of it, since oneDNN makes code for each
length that a product meets, and keeps it. In 8 bits no length's first answer is slower (seen on a Xeon)."""

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
        self._inv_freq, self._rope_scale = tensors["inv_freq"].tile(2), float(tensors["rope_scale"])
        self.device, self.dtype = self._embedding.device, self._embedding.dtype
        numbers = range(config.num_hidden_layers)
        products = [[linear(tensors, f"{n}.{group}", fast_int8) for group in GROUPS] for n in numbers]
        self._layers = [(tensors[f"{n}.norm1"], tensors[f"{n}.norm2"], products[n]) for n in numbers]
        self.prefix: Cache = [(tensors[f"{n}.k"][None], tensors[f"{n}.v"][None]) for n in numbers]
        self.prefix_length, self.head_dim = self.prefix[0][0].shape[2:]
        self.step = STEP if self.device.type == "cpu" and self.dtype == torch.bfloat16 else 1

    def between(self, tensors: Tensors, alpha: float) -> LiveLlama:
        """This base model with α times the adapter on it, for an α of `DIAL`; the weights stay shared."""
        other = copy.copy(self)
        other.prefix, other._layers = [], []
        for n, (norm1, norm2, products) in enumerate(self._layers):
            other.prefix.append((tensors[f"{n}.k@{alpha}"][None], tensors[f"{n}.v@{alpha}"][None]))
            parts = zip(products, GROUPS, strict=True)
            more = [adapted(product, tensors, f"{n}.{group}", alpha) for product, group in parts]
            other._layers.append((norm1, norm2, more))
        return other

    # ---- answers

    def log_odds(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative.
        rows: token ids of each prompt after the prefix; best of like length."""
        if len(rows) == 1:
            return self._stretches(rows[0], self.prefix)
        return self._shared(len(rows), lambda part: self._batch(rows[part]))

    def read(self, row: np.ndarray, tail: int, cuts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(tokens read, log-odds): of a long prompt's beginning, of all, and had the review ended earlier.

        The beginning gets the prompt's end, which is left out again before reading on, so that nothing is
        computed twice.

        Args:
            row: token ids after the prefix.
            tail: how many of them are the prompt's end, after the review.
            cuts: (n,) tokens of the review after which it might have ended; the last result is (n,) of them.
        """
        done, past, kept = 0, self.prefix, []
        if len(row) > LONG and self.device.type == "cpu":
            done = FIRST_RESULT
            beginning = np.concatenate((row[:done], row[-tail:]))
            yield done, self._stretches(beginning, past, kept)
            cut = self.prefix_length + done
            past, kept = [(k[:, :, :cut], v[:, :, :cut]) for k, v in kept], []
        yield len(row), self._stretches(row[done:], past, kept if len(cuts) else None)
        if len(cuts):
            yield len(row), self._shared(len(cuts), lambda part: self._ends(row[-tail:], cuts[part], kept))

    def meet_lengths(self) -> Iterator[int]:
        """Compute once with each length that there is, so that no visitor's review is the first of it."""
        for length in range(self.step, LONG, self.step) if self.step > 1 else ():
            self.log_odds([np.zeros(length, dtype=np.int64)])
            yield length

    def _shared(self, count: int, work: Callable[[slice], np.ndarray]) -> np.ndarray:
        """The results of `count` items, some of them on each core."""
        with share_of(self.workers) as workers:
            bounds = np.linspace(0, count, min(workers, count) + 1).astype(int).tolist()
            return np.concatenate(together([partial(work, slice(*pair)) for pair in pairwise(bounds)]))

    def _ends(self, end: np.ndarray, cuts: np.ndarray, kept: Cache) -> np.ndarray:
        """(n,) log-odds of the prompt's end behind each of n beginnings, whose keys and values are kept."""
        seen = self.prefix_length + torch.from_numpy(cuts).to(self.device)
        most = int(seen.max())
        positions, mask, last = tree(seen, len(end), most)
        past = [(k[:, :, :most], v[:, :, :most]) for k, v in kept]
        return self._run(np.tile(end, len(cuts))[None], last, past, positions, mask=mask)

    def _batch(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        ids = pad_sequence(list(map(torch.from_numpy, rows)), batch_first=True).numpy()
        positions = torch.arange(ids.shape[1], device=self.device) + self.prefix_length
        last = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        return self._run(ids, last, self.prefix, positions)

    def _stretches(self, row: np.ndarray, past: Cache, kept: Cache | None = None) -> np.ndarray:
        """(1,) log-odds of a prompt that goes on behind `past`, its stretches computed at once.
        `kept` receives the keys and values of all of it."""
        behind, end_of_row = past[0][0].shape[2], len(row)
        padded = np.pad(row, (0, -len(row) % self.step))  # what stands behind its end is not seen

        def stretch(start: int, end: int, known: Any, keep: Cache | Handover | None) -> np.ndarray:
            last = torch.tensor([min(end, end_of_row) - start - 1], device=self.device)
            positions = torch.arange(behind + start, behind + end, device=self.device)
            try:
                return self._run(padded[None, start:end], last, known, positions, keep)
            except BaseException as error:
                if isinstance(keep, Handover):
                    keep.append(error)
                raise

        with share_of(self.workers) as workers:
            count = max(1, min(workers, len(row) // SHORTEST_PART))
            cuts = [self.step * round(cut / self.step) for cut in _equal_work(len(padded), count, behind)]
            caches = pairwise([past, *(Handover() for _ in range(count - 1)), kept])
            stretches = zip(pairwise(cuts), caches, strict=True)
            return together([partial(stretch, *ends, *pair) for ends, pair in stretches])[-1]

    # ---- the pass

    @torch.inference_mode()
    def _run(
        self, ids: np.ndarray, last: torch.Tensor, past: Iterable[Pair], positions: torch.Tensor,
        keep: Cache | Handover | None = None, mask: torch.Tensor | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(n,) float64 log-odds at the tokens `last` (n,): one of each row, or several of a single row.

        Of the last layer only those are computed.

        Args:
            ids: (batch, length) tokens.
            past: each layer's keys and values of what stands before.
            positions: (length,) of the tokens in their texts.
            keep: receives each layer's keys and values, those of `past` among them, as they come.
            mask: (length, before + length) bool, what each token may see; by default all up to itself.
        """
        batch, length = ids.shape
        angles = positions.float()[:, None, None] * self._inv_freq  # (length, 1, head_dim)
        cos, sin = ((turn(angles) * self._rope_scale).to(self.dtype) for turn in (torch.cos, torch.sin))
        x = F.embedding(torch.from_numpy(ids.astype(np.int64).ravel()).to(self.device), self._embedding)
        row = torch.arange(batch, device=self.device) if batch > 1 else torch.zeros_like(last)
        parts = causal(length, int(positions[-1]) + 1, x) if mask is None else [(slice(None), None, mask)]
        for number, ((norm1, norm2, (qkv, o, gate_up, down)), past_of_layer) in enumerate(
            zip(self._layers, past, strict=False)  # a Handover does not end
        ):
            projected = qkv(rms_norm(x, norm1, self.eps)).view(batch, length, -1, self.head_dim)
            qk, v = projected.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
            q, k = rotate(qk, cos, sin).split([self.heads, self.kv_heads], dim=2)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            k = torch.cat((past_of_layer[0].expand(batch, -1, -1, -1), k), dim=2)
            v = torch.cat((past_of_layer[1].expand(batch, -1, -1, -1), v), dim=2)
            if keep is not None:
                keep.append((k, v))
            if number == len(self._layers) - 1:
                until = torch.arange(k.shape[2], device=self.device) <= k.shape[2] - length + last[:, None]
                seen = until if mask is None else mask[last]
                x, q = x[row * length + last], q[row, :, last, None]
                parts = [(slice(None), None, seen[:, None, None])]
            x += o(attend(q, k, v, parts).reshape(len(x), -1))
            gate, up = gate_up(rms_norm(x, norm2, self.eps)).chunk(2, dim=-1)
            x += down(F.silu(gate).mul_(up))
        logits = F.linear(rms_norm(x, self._norm, self.eps).float(), self._head)
        return (logits[:, Label.POSITIVE] - logits[:, Label.NEGATIVE]).double().cpu().numpy()


def _equal_work(length: int, parts: int, behind: int = 0) -> list[int]:
    """Where to cut so that all parts take as long: later tokens attend to more, so later parts are shorter.

    >>> _equal_work(1000, 2), _equal_work(100, 2), _equal_work(700, 2, behind=300)
    ([0, 567, 1000], [0, 51, 100], [0, 381, 700])
    """
    tokens = np.arange(length + 1)
    work = tokens + ((behind + tokens) ** 2 - behind**2) / PAIRS_PER_TOKEN
    # work[-1] · parts / parts may be more than work[-1], which would cut behind the end
    return np.searchsorted(work, work[-1] * (np.arange(parts + 1) / parts)).tolist()


# ---- attention

BLOCK = 64  # tokens computed at once on a CPU: each block leaves out the later half of the scores

Part = tuple[slice, int | None, torch.Tensor]
"""Some rows of the queries, how many tokens from the first on they see, and a mask (…, rows, tokens)."""


def causal(length: int, tokens: int, like: torch.Tensor) -> list[Part]:
    """The parts of the last `length` of `tokens`, each of which sees all up to itself."""
    mask = like.new_full((length, tokens), -torch.inf).triu(tokens - length + 1)
    block = BLOCK if like.device.type == "cpu" else length
    ends = [min(start + block, length) for start in range(0, length, block)]
    parts = zip([0, *ends], ends, strict=False)
    return [(slice(*part), tokens - length + part[1], mask[slice(*part), : tokens - length + part[1]])
            for part in parts]  # fmt: skip


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: Iterable[Part]) -> torch.Tensor:
    """Attention of the last tokens.

    Args:
        q: (batch, heads, length, head_dim), of the last `length` tokens.
        k, v: (batch or 1, kv_heads, tokens, head_dim), of all tokens up to the last; tokens >= length.
    Returns (batch, length, heads, head_dim).
    """
    k, v = (t.expand(len(q), -1, -1, -1) for t in (k, v))
    kernel = partial(F.scaled_dot_product_attention, enable_gqa=True)
    out = [kernel(q[:, :, rows], k[:, :, :seen], v[:, :, :seen], attn_mask=m) for rows, seen, m in parts]
    return torch.cat(out, dim=2).transpose(1, 2)


# ---- threads

_under_way, _counting = 0, Lock()


@contextmanager
def share_of(cores: int) -> Iterator[int]:
    """Threads for a pass: as many as the passes under way leave it, each text on a core of its own when many
    are read (two at once are answered a tenth sooner than one after the other on both)."""
    global _under_way
    with _counting:
        _under_way += 1
        mine = max(1, cores // _under_way)
    try:
        yield mine
    finally:
        with _counting:
            _under_way -= 1


def together(tasks: Sequence[Callable[[], np.ndarray]]) -> list[np.ndarray]:
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
