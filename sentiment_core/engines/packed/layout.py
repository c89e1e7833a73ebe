"""Reviews laid end to end in packs of one static shape: what layers, attention and kernels agree on."""

from dataclasses import dataclass

import numpy as np
import torch

from sentiment_core.models.tokens import Encoded

TILE = 64  # rows that the kernels handle together


@dataclass(frozen=True)
class LayerShape:
    """What a layer needs to know beside tensors."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float  # added to the mean square in a norm
    prefix: int  # tokens that all prompts of a pack share and that stand in it once


@dataclass(frozen=True)
class PackShape:
    """The static shape of a run's packs."""

    tokens: int
    reviews: int
    longest: int  # most tokens of one review's prompt, the prefix included
    prefix: int = 0  # tokens that all prompts begin with

    @property
    def tiles(self) -> int:
        """Most tiles: full ones, and one that is not full for each review, the prefix, and the rest."""
        return self.tokens // TILE + self.reviews + 2


@dataclass
class Pack:
    """Reviews laid end to end; every array has the same shape for every pack of a run."""

    input_ids: torch.Tensor  # (tokens,) int64
    positions: torch.Tensor  # (tokens,) int64, from 0 in the prefix, and going on behind it in each review
    tiles: torch.Tensor  # (tiles, 4) int32, as `sentiment_core.engines.packed.kernels` wants them
    last: torch.Tensor  # (reviews,) int64, the last token of each review; 0 in unused slots
    targets: torch.Tensor  # (reviews,) float32, P(positive) to learn; 0 in unused slots
    temperatures: torch.Tensor  # (reviews,) float32, of the targets; 1 in unused slots
    weights: torch.Tensor  # (reviews,) float32, each review's share of the loss; 0 in unused slots


def packed_tokens(lengths: np.ndarray, prefix: int) -> int:
    """Tokens of prompts laid end to end with their common prefix once."""
    return int(lengths.sum()) - prefix * (len(lengths) - 1)


def pack_sequences(
    encoded: Encoded, indices: np.ndarray, shape: PackShape, targets: np.ndarray | float = 0.0,
    weights: np.ndarray | float = 0.0, temperatures: np.ndarray | float = 1.0,
) -> Pack:  # fmt: skip
    """Lay the reviews `indices` end to end, behind the prefix that they share.

    Args:
        targets: (len(indices),) P(positive) to learn; not needed for scoring, as what follows.
        weights: (len(indices),) share of each in the loss.
        temperatures: (len(indices),) of the targets.
    Raises ValueError: they do not fit the shape.
    """
    n, lengths, prefix = len(indices), encoded.lengths[indices], shape.prefix
    total = packed_tokens(lengths, prefix)
    if total > shape.tokens or n > shape.reviews or lengths.max(initial=0) > shape.longest:
        raise ValueError(f"{n} reviews with {total} tokens do not fit {shape}")
    if prefix > encoded.shared:
        raise ValueError(f"the prompts share {encoded.shared} tokens, fewer than {shape} needs")
    rest = lengths - prefix
    ends = prefix + np.cumsum(rest)
    starts, places = ends - rest, np.arange(total)
    ids, positions = np.zeros((2, shape.tokens), dtype=np.int64)
    ids[:prefix], positions[:prefix] = encoded[indices[0]][:prefix], places[:prefix]
    behind = places[prefix:]  # (total - prefix,) where the reviews' own tokens stand
    positions[prefix:total] = behind - np.repeat(starts - prefix, rest)
    ids[prefix:total] = encoded.ids[behind + np.repeat(encoded.offsets[indices] + prefix - starts, rest)]
    segments = [(0, prefix, 0)] if prefix else []
    segments += [(start, end, prefix) for start, end in zip(starts, ends, strict=True)]
    segments.append((total, shape.tokens, -1))
    last, learn = np.zeros(shape.reviews, dtype=np.int64), np.zeros((3, shape.reviews), dtype=np.float32)
    learn[1] = 1
    last[:n], learn[0, :n], learn[1, :n], learn[2, :n] = ends - 1, targets, temperatures, weights
    arrays = (ids, positions, tiles_of(np.array(segments), shape.tiles), last, *learn)
    return Pack(*(torch.from_numpy(array) for array in arrays))


def tiles_of(segments: np.ndarray, count: int) -> np.ndarray:
    """Tiles of segments (s, 3), of start, end and offset, the longest one's first, unused ones at the end.
    Returns (count, 4) int32: start, the tile's first row, end, offset; the offset of an unused tile is -1.
    """
    segments = segments[np.argsort(segments[:, 0] - segments[:, 1], kind="stable")]
    each = -(-(segments[:, 1] - segments[:, 0]) // TILE)
    which = np.repeat(np.arange(len(segments)), each)
    number = np.arange(len(which)) - np.repeat(np.cumsum(each) - each, each)  # within its segment
    start, end, offset = segments[which].T
    out = np.zeros((count, 4), dtype=np.int32)
    out[:, 3] = -1
    out[: len(which)] = np.stack((start, start + TILE * number, end, offset), axis=1)
    return out
