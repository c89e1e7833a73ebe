"""Responses bind the browser to this origin; requests have a largest size; the log holds no texts."""

import logging
import traceback
from pathlib import Path
from typing import Any, Self

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentiment_core.dashboard.inputs import MAX_UPLOAD_BYTES
from sentiment_core.dashboard.serving import BROKE, TOO_MANY

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 24_000_000  # 1,000 reviews of the longest kind that is read, as JSON

REFUSALS = {
    400: "This request cannot be read; the page's own link “Use via API” shows how one looks.",
    413: f"Requests may hold up to {MAX_BODY_BYTES:,} bytes, files up to {MAX_UPLOAD_BYTES:,}.",
    503: TOO_MANY,
}

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' "
    "data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}
"""Inline scripts are Gradio's own configuration and events. Framing stays allowed: a Space is a frame. The
last two allow the model in a visitor's browser its threads."""


class Guard:
    """ASGI middleware: adds HEADERS, refuses larger bodies as their bytes arrive, and answers politely where
    Gradio's queue is full or its routes break on a request (what the page computes runs in its queue, so
    an error here is the request's)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = RequestBodyLimitMiddleware(app, MAX_BODY_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused, started = 0, False

        async def guarded(message: Message) -> None:
            nonlocal refused, started
            if message["type"] == "http.response.start" and not refused:
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                refused = message["status"] if message["status"] in (413, 503) else 0
            if not refused:
                started = True
                await send(message)

        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            # logged by its place in the program: what was asked for is the visitor's
            called = getattr(scope.get("endpoint"), "__name__", "?")
            log.warning("%s: %s (%s)", called, "broke off" if started else "malformed", type(error).__name__)
            refused = refused or 400
        if refused and not started:
            answer = JSONResponse({"detail": REFUSALS[refused]}, refused, headers=HEADERS)
            await answer(scope, receive, send)


class KeptPage:
    """ASGI middleware: makes the page, a fifth of a crowd's load, once for each address (links name it)."""

    NAMED_BY = "host", "x-forwarded-host", "x-forwarded-proto", "x-gradio-server"
    MOST = 8  # addresses, which requests name as they like

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.kept = app, dict[Any, list[Message]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope) if scope["type"] == "http" else {}
        asked = scope.get("method"), scope.get("path"), b"deep_link" in scope.get("query_string", b"")
        if asked != ("GET", f"{scope.get('root_path', '')}/", False):
            return await self.app(scope, receive, send)
        key = scope["scheme"], *map(given.get, self.NAMED_BY)
        page = self.kept.get(key) or list[Message]()

        async def keep(message: Message) -> None:
            page.append(message)

        if not page:
            await self.app(scope, receive, keep)
            if page[0]["status"] == 200:
                self.kept[key] = page
            if len(self.kept) > self.MOST:
                del self.kept[next(iter(self.kept))]
        for message in page:
            await send(dict(message))


class QuietBlocks(gr.Blocks):
    """Blocks whose log never holds what visitors send: an error in a call is one line without a message,
    and one sentence for who called. Gradio's own prints the values of a call that lacks some."""

    def queue(self, *arguments: Any, **named: Any) -> Self:
        super().queue(*arguments, **named)
        push: Any = self._queue.push

        def pushed(body: Any, **more: Any) -> Any:
            body.session_hash = body.session_hash or None  # Gradio loses events of a session without a name
            return push(body, **more)

        self._queue.push = pushed  # pyrefly: ignore[bad-assignment]
        return self

    async def process_api(self, block_fn: Any, inputs: list[Any], *rest: Any, **more: Any) -> dict[str, Any]:
        if any(map(names_address, inputs)):
            raise gr.Error("Files are taken from uploads only, not from addresses.", print_exception=False)
        try:
            return await super().process_api(block_fn, inputs, *rest, **more)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            told_in_log(block_fn.name, error)
            raise gr.Error(BROKE, print_exception=False) from None


def told_in_log(what: str, error: Exception) -> None:
    """In one line, without the error's message: a visitor's text may stand there."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s: %s at %s:%s", what, type(error).__name__, Path(place.filename).name, place.lineno)


def names_address(value: Any) -> bool:
    """Whether a file anywhere in a call's input is an address, which Gradio would fetch."""
    if isinstance(value, dict):
        here = isinstance(path := value.get("path"), str) and "://" in path
        return here or any(map(names_address, value.values()))
    return isinstance(value, list) and any(map(names_address, value))
