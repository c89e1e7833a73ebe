"""The live model in a process of its own, so that it and the page never wait for one interpreter lock."""

from __future__ import annotations

import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pkgutil import resolve_name
from typing import Any

from sentiment_core.artifacts.store import Run
from sentiment_core.config import UserError
from sentiment_core.models.base_models import end_with_parent

SPAWN = get_context("spawn")


class RemoteClassifier:
    """A `LiveClassifier` elsewhere, of its methods those that give pieces; for one thread at a time.

    Made in a thread that stays: Linux ends a child with the thread that started it. Raises what is raised
    there, and a UserError where the process has ended.
    """

    on_gpu = False

    def __init__(
        self, run: Run | None, load: str = "sentiment_core.live.classifier:LiveClassifier.load"
    ) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs, load, run), daemon=True)
        self._process.start()
        theirs.close()  # so that none is open but the child's
        self.is_alive = self._process.is_alive
        self._numbers, self._left = count(), deque[int]()  # of iterators; those nobody goes on with
        self._answer()

    def __getattr__(self, method: str) -> Callable[..., Iterator[Any]]:
        return partial(self._pieces, method)

    def _pieces(self, *call: Any) -> Iterator[Any]:
        number = next(self._numbers)
        try:
            while (piece := self._answer(number, call)) is not None:
                yield piece
                call = ()
        finally:  # in any thread
            self._left.append(number)

    def _answer(self, *question: Any) -> Any:
        try:
            if question:
                self._pipe.send((*question, [self._left.popleft() for _ in range(len(self._left))]))
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.kill()
            self._process.join()
            ended = f"The live model's process ended unexpectedly (exit code {self._process.exitcode})"
            raise UserError(f"{ended}; ask again, and a new one starts.") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, load: str, run: Run | None) -> None:
    """What the process does until the pipe's other end is closed: load, and give the pieces asked for."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ctrl-C is for the page
    model, iterators = None, dict[int, Iterator[Any]]()

    def piece(number: int, call: Sequence[Any], left: list[int]) -> Any:
        for one in left:
            iterators.pop(one, None)
        if call:
            iterators[number] = getattr(model, call[0])(*call[1:])
        return next(iterators[number], None)

    def loaded() -> None:
        nonlocal model
        model = resolve_name(load)(run)

    work: Callable[[], Any] = loaded
    with suppress(EOFError, ConnectionError):
        while True:
            try:
                answer = work()
            except Exception as error:
                error.add_note(traceback.format_exc())  # for the page's log
                answer = error
            pipe.send(answer)
            work = partial(piece, *pipe.recv())
