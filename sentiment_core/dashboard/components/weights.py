"""A run's weights as pictures: one matrix and its adapter to scale, its NF4 levels, and what takes memory."""

from __future__ import annotations

from itertools import accumulate

from markupsafe import Markup

from sentiment_core.artifacts.schema import RunRecord, WeightSample
from sentiment_core.artifacts.store import Run, read_adapter_shapes
from sentiment_core.dashboard.components.html import fragment

SIDE = 190
"""Of the matrix's longer side in the picture, whose own units are 480 wide."""
HEIGHT = 120
"""Of the histogram's highest bar."""
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: its level, the 8-bit scale of 64, the 32-bit scale of 256 scales (Dettmers et al. 2023)."""


def pictures(run: Run) -> dict[str, Markup]:
    """ "matrix", "levels" and "memory", each where the run's artifacts hold what it needs."""
    record, shapes = run.record, read_adapter_shapes(run.path)
    found = {}
    if record and shapes:
        sample = record.weights.matrix if record.weights else ""
        name = sample if sample in shapes else list(shapes)[len(shapes) // 2]
        found["matrix"] = _matrix(name, shapes[name], record)
        found["memory"] = _memory(record, sum(outputs * inputs for outputs, inputs in shapes.values()))
    if record and record.weights:
        found["levels"] = _levels(record.weights)
    return found


def _matrix(name: str, shape: tuple[int, int], record: RunRecord) -> Markup:
    scale = SIDE / max(shape)
    height, width, thin = (scale * side for side in (*shape, record.lora.rank))
    measures = {"height": height, "width": width, "thin": thin}
    return fragment("matrix", name=name, shape=shape, lora=record.lora, **measures)


def _levels(sample: WeightSample) -> Markup:
    heights = [HEIGHT * count / max(sample.counts) for count in sample.counts]
    return fragment("levels", sample=sample, heights=heights, top=HEIGHT)


def memory_bytes(parameters: int, matrices: int, trainable: int) -> dict[str, tuple[float, float]]:
    """What -> bytes when all weights are trained in 16 bits, and with QLoRA; activations are left out.

    Trained in 16 bits a weight takes 12 bytes; so Dettmers et al. 2023 arrive at 780 GB for 65 billion.

    Args:
        parameters: weights of the base.
        matrices: those of them that NF4 rounds; the others stay in 16 bits.
        trainable: weights of the adapter, kept in 32 bits.
    """
    rounded = matrices * NF4_BITS / 8 + 2 * (parameters - matrices)
    return {
        "base weights": (2 * parameters, rounded),
        "adapter": (0, 4 * trainable),
        "gradients": (2 * parameters, 4 * trainable),
        "Adam’s two moments": (8 * parameters, 8 * trainable),
    }


def _memory(record: RunRecord, matrices: int) -> Markup:
    sizes = memory_bytes(record.base_model.parameters, matrices, record.trainable_parameters)
    full, ours = (list(column) for column in zip(*sizes.values(), strict=True))
    starts = [[0, *accumulate(column)] for column in (full, ours)]
    return fragment(
        "memory", names=list(sizes), columns=(full, ours), starts=starts, total=sum(full), record=record
    )
