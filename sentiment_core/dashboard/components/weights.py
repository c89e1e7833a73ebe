"""A run's weights as pictures: one matrix and its adapter to scale, its NF4 levels, and what takes memory."""

from contextlib import suppress

from markupsafe import Markup

from sentiment_core.artifacts.store import ArtifactError, Run, read_adapter_shapes
from sentiment_core.dashboard.components.html import fragment

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: its level, the 8-bit scale of 64, the 32-bit scale of 256 scales (Dettmers et al. 2023)."""


def pictures(run: Run) -> list[Markup]:
    """The matrix, the levels and the memory, each where the run's artifacts hold what it needs."""
    record, found, shapes = run.record, [], {}
    with suppress(ArtifactError):  # which the header tells
        shapes = read_adapter_shapes(run)
    if record and shapes:
        sample = record.weights.matrix if record.weights else ""
        name = sample if sample in shapes else list(shapes)[len(shapes) // 2]
        found.append(fragment("matrix", name=name, shape=shapes[name], lora=record.lora))
        adapted = sum(outputs * inputs for outputs, inputs, _ in shapes.values())
        rows = memory_bytes(record.base_model.parameters, adapted, record.trainable_parameters)
        found.append(fragment("memory", rows=rows, record=record))
    if record and record.weights:
        found.insert(1, fragment("levels", sample=record.weights))
    return found


def memory_bytes(parameters: int, matrices: int, trainable: int) -> dict[str, tuple[float, float]]:
    """What -> bytes when all weights are trained in 16 bits, and with QLoRA; activations are left out.

    Trained in 16 bits a weight takes 12 bytes; so Dettmers et al. 2023 arrive at 780 GB for 65 billion.

    Args:
        parameters: weights of the base.
        matrices: those of them that NF4 rounds; the others stay in 16 bits.
        trainable: weights of the adapter, kept in 32 bits.
    """
    return {
        "base weights": (2 * parameters, matrices * NF4_BITS / 8 + 2 * (parameters - matrices)),
        "adapter": (0, 4 * trainable),
        "gradients": (2 * parameters, 4 * trainable),
        "Adam’s two moments": (8 * parameters, 8 * trainable),
    }
