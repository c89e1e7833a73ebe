"""Whose turn it is on few cores: a visitor's answer first, batches and explanations in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Answers come one at a time; longer work asks `give_way` between its steps and waits for them there."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._changed = threading.Condition()
        self._wanted = 0

    @contextmanager
    def answer(self) -> Iterator[None]:
        with self._changed:
            self._wanted += 1
        try:
            with self._one:
                yield
        finally:
            with self._changed:
                self._wanted -= 1
                self._changed.notify_all()

    def give_way(self) -> None:
        """Return once no answer is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted == 0)
