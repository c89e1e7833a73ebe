"""The live model in a process of its own, so that it and the page never wait for one interpreter lock."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing import get_context, parent_process
from multiprocessing.managers import SyncManager
from pkgutil import resolve_name
from typing import Any

from sentiment_core.config import UserError


class Held:
    """What the process has: the model, which is loaded before its first pieces."""

    def __init__(self, load: str, *given: Any) -> None:
        self._model = cache(lambda: resolve_name(load)(*given))

    def pieces(self, method: str | None = None, *given: Any) -> Iterator[Any]:
        try:
            model = self._model()
            yield from getattr(model, method)(*given) if method else ()
        except Exception as error:
            error.add_note(traceback.format_exc())  # for the page's log
            raise


class Process(SyncManager):
    """Computes each piece when that is asked for."""


Process.register("Held", Held, method_to_typeid={"pieces": "Iterator"})


def _follow_parent() -> None:
    """End with it, by a thread: Linux's own signal would come with the end of the thread that began this."""
    parent = parent_process()
    threading.Thread(target=lambda: (parent and parent.join(), os._exit(1)), daemon=True).start()


class RemoteClassifier:
    """A `LiveClassifier` elsewhere: its methods that give pieces. `given` goes to what `load` names.

    Raises what is raised there, and a UserError where the process has ended.
    """

    is_alive, on_gpu = True, False

    def __init__(self, *given: Any, load: str = "sentiment_core.live.classifier:LiveClassifier.load") -> None:
        unseen = f"\0{os.urandom(16).hex()}"  # an address without a file, which a kill would leave
        self._process = Process(unseen if sys.platform == "linux" else None, ctx=get_context("spawn"))
        self._process.start(_follow_parent)
        self._held = self._process.Held(load, *given)  # pyrefly: ignore[missing-attribute] registered above
        list(self._pieces())

    def __getattr__(self, method: str) -> Callable[..., Iterator[Any]]:
        return partial(self._pieces, method)

    def _pieces(self, *call: Any) -> Iterator[Any]:
        try:
            yield from iter(self._held.pieces(*call).__next__, None)
        except (EOFError, ConnectionError):
            self.is_alive = False
            raise UserError("The live model stopped unexpectedly; ask again, and a new one starts.") from None
