"""Middleware before the page: no request larger than allowed, and a browser that contacts nobody else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable
from typing import Any, Callable

_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# Of gradio, not used here: files by their paths on this machine, and other people's servers.
_CLOSED = ("/upload", "/file=", "/file/", "/proxy=", "/stream/", "/process_recording", "/component_server")

Message = dict[str, Any]


class TooLarge(Exception):
    """More bytes came than are allowed."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Any, megabytes: int) -> None:
        self.app, self.megabytes = app, megabytes

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass a request on, unless it is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most, come, begun = self.megabytes * 10**6, 0, False

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > most:
                raise TooLarge
            return message

        async def guarded(message: Message) -> None:
            nonlocal begun
            if come > most and not begun:  # what the app makes of it
                return
            if message["type"] == "http.response.start":
                begun = True
                headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        if any(scope["path"].startswith(f"{place}{closed}") for place in ("", "/gradio_api") for closed in _CLOSED):
            await _answer(guarded, 404, "not offered here")
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not (stated.isdigit() and int(stated) > most):
            with contextlib.suppress(TooLarge):
                await self.app(scope, counted, guarded)
            if come <= most or begun:
                return
            come = 0
        await _answer(guarded, 413, f"larger than {self.megabytes} MB, the most that is taken here")


async def _answer(send: Callable[[Message], Awaitable[None]], status: int, words: str) -> None:
    kind = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": json.dumps({"detail": words}).encode()})
