"""Who waits for the live model: one line per kind of work, in order, and a polite refusal when it is long."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from sentiment_core.dashboard.host import ModelUnavailable

TOO_MANY = "Many visitors are asking at this moment. Please try again in a minute; the other tabs are open."


class TooMany(ModelUnavailable):
    """The line is full; the message is the sentence for the visitor."""


class Line:
    """First come, first served, one at a time.

    Args:
        longest: how many may stand in it, the one being served among them.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._places: deque[Place] = deque()
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._places)

    def place(self) -> Place:
        """Join the line, for a `with` block. Raises TooMany."""
        return Place(self)


class Place:
    """One visitor's place in a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> Place:
        with self._line._moved:
            if len(self._line) >= self._line.longest:
                raise TooMany(TOO_MANY)
            self._line._places.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._line._moved:
            self._line._places.remove(self)
            self._line._moved.notify_all()

    def ahead(self, wait: float | None = None) -> int:
        """How many come first, after at most `wait` seconds; 0 once it is this one's turn."""
        with self._line._moved:
            self._line._moved.wait_for(lambda: self._line._places[0] is self, wait)
            return self._line._places.index(self)
