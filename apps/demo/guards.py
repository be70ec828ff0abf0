"""What keeps clients in bounds: bodies of bounded size, headers by which the page asks nobody else, no downloads."""

from typing import Any

import httpx
from gradio import processing_utils
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UPLOAD_PATH = "/gradio_api/upload"
_OTHER_BYTES = 64 * 1024  # what a question has beside its text, and gradio's own calls
_CHARACTER_BYTES = 12  # at most, as JSON: two escapes for a character beyond the first 65,536
_FORM_BYTES = 64 * 1024  # what multipart/form-data adds around an uploaded file
_DRAINED_BYTES = 64 * 1024 * 1024
_HEADERS = {
    # gradio builds its components with inline scripts and `new Function`; nothing comes from another host.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none';"
        " base-uri 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class _TooLarge(Exception):
    pass


def refuse_downloads() -> None:
    """Keep gradio from fetching what a client names by a URL in place of an uploaded file."""
    nobody = httpx.MockTransport(lambda request: httpx.Response(403))
    processing_utils.async_transport = nobody
    processing_utils.sync_client = httpx.Client(transport=nobody)


class BodyLimit:
    """Answers 413 to a body larger than an upload (or, elsewhere, a question) may be, before it is read whole."""

    def __init__(self, app: ASGIApp, upload_bytes: int, characters: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes + _FORM_BYTES
        self._question_bytes = characters * _CHARACTER_BYTES + _OTHER_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_upload = scope["path"].rstrip("/") == _UPLOAD_PATH
        most = self._upload_bytes if is_upload else self._question_bytes
        length = dict(scope["headers"]).get(b"content-length", b"0")
        taken, started, refused = 0, False, length.isdigit() and int(length) > most

        async def counted_receive() -> Message:
            nonlocal taken, refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                refused = True
                raise _TooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            if not refused or started:  # what the application makes of a body cut short is of no interest
                started = True
                await send(message)

        if not refused:
            try:
                await self._app(scope, counted_receive, watched_send)
            except _TooLarge:
                pass
        if refused and not started:
            await _drain(receive)
            await _refuse(most)(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Read on for a while: a client whose connection is cut while it sends never sees why."""
    drained = 0
    while drained < _DRAINED_BYTES:
        message = await receive()
        drained += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _refuse(most: int) -> JSONResponse:
    message = f"the request is larger than {most // 1024:,} KiB"
    return JSONResponse({"error": message, "detail": message}, 413, {"connection": "close"})


class SecurityHeaders:
    """Adds headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message.get("headers", [])}
                added = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
