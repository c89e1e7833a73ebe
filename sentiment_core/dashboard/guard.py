"""Every response binds the browser to this origin; no request may be larger than a full batch."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    """ASGI middleware: adds HEADERS, and refuses bodies that say they are larger than MAX_BODY_BYTES."""

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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in HEADERS if pair[0] not in there),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def app_kwargs() -> dict[str, object]:
    """For `Blocks.launch(app_kwargs=…)`."""
    return {"middleware": [Middleware(Guard)]}
