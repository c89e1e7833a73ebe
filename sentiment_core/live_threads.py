"""Work on several cores without waiting at every step.

PyTorch spreads each single operation over the cores and waits for all of them at its end, some hundred
times an answer. Where another process takes a core away for a moment, each of those waits can last
milliseconds: on two busy cores that made an answer twenty times slower than on one. So every thread here
computes a part of its own, with PyTorch's own threads switched off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

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
