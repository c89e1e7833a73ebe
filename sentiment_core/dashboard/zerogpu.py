"""Hugging Face ZeroGPU: `spaces.GPU` where that package is there, the function itself elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    import spaces
except ImportError:
    spaces = None


def gpu(function: F) -> F:
    """Mark a function that may hold a GPU; changes nothing outside ZeroGPU."""
    return spaces.GPU(function) if spaces is not None else function


@gpu
def declared() -> bool:
    """ZeroGPU starts only Spaces that declare a GPU function, so here is one.

    Nobody calls it: the live model answers on the processor in a fraction of a second, which is less than a
    GPU takes to be handed over, and costs visitors none of their daily GPU time.
    """
    return True
