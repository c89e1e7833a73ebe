"""Every response binds the browser to this origin; requests have a largest size; refusals are polite."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentiment_core.dashboard.serving import TOO_MANY

MAX_BODY_BYTES = 24_000_000
"""1,000 reviews of the longest kind that is read, as JSON."""

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' "
    "data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Inline scripts are Gradio's own configuration and events. Framing stays allowed: a Space is a frame."""


class Guard:
    """ASGI middleware: adds HEADERS, refuses bodies that say they are larger than MAX_BODY_BYTES, and has
    one sentence for visitors where Gradio's queue is full (its own gives sizes)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            refusal = JSONResponse({"detail": f"Requests may hold up to {MAX_BODY_BYTES:,} bytes."}, 413)
            return await refusal(scope, receive, send)
        full = False

        async def guarded(message: Message) -> None:
            nonlocal full
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                full = message["status"] == 503
            if not full:
                await send(message)

        await self.app(scope, receive, guarded)
        if full:
            await JSONResponse({"detail": TOO_MANY}, 503, headers=HEADERS)(scope, receive, send)
