"""Every response binds the browser to this origin; requests have a largest size; refusals are polite."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentiment_core.dashboard.serving import TOO_MANY

MAX_BODY_BYTES = 24_000_000
"""1,000 reviews of the longest kind that is read, as JSON."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' "
    "blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Inline scripts are Gradio's own configuration and events. Framing stays allowed: a Space is a frame."""

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware: adds HEADERS, refuses bodies that say they are larger than MAX_BODY_BYTES, and has
    one sentence for visitors where Gradio's queue is full (its own gives sizes)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            refusal = JSONResponse({"detail": f"Requests may hold up to {MAX_BODY_BYTES:,} bytes."}, 413)
            await refusal(scope, receive, send)
            return
        full = False

        async def answer(message: Message) -> None:
            nonlocal full
            if message["type"] == "http.response.start" and message["status"] == 503:
                full = True
                await JSONResponse({"detail": TOO_MANY}, 503)(scope, receive, _with_headers(send))
            elif not full:
                await _with_headers(send)(message)

        await self.app(scope, receive, answer)


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = [pair for pair in HEADERS if pair[0] not in there]
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return with_headers


def app_kwargs() -> dict[str, object]:
    """For `Blocks.launch(app_kwargs=…)`."""
    return {"middleware": [Middleware(Guard)]}
