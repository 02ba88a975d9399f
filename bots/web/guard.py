"""Who may speak to the page: only itself.

A browser lets any website send requests to 127.0.0.1. Gradio answers them without CORS headers, so
the website cannot read the answers, but a question or an upload would still arrive. And a name that
its owner points at 127.0.0.1 ("DNS rebinding") makes a foreign website the same origin. So: the
`Origin` of everything but plain reading must be the address the page itself was loaded from, and a
page bound to the loopback interface answers to loopback names only.

And nobody may fill the memory: a body is read before anybody asks whether its sender has signed in.
"""

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bots.settings import WebSettings
from engine.errors import SettingsInvalid

MAX_BODY_BYTES: Final = 256 * 2**10
"""Of a request; no question that a model could read is as long."""

_READING = {"GET", "HEAD"}

_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio starts itself from inline scripts and compiles component templates.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_password(settings: WebSettings) -> None:
    """Refuse to listen for other machines without a password.

    Raises:
        SettingsInvalid: `host` is not a loopback address and `password` is unset or empty.
    """
    password = settings.password.get_secret_value() if settings.password else ""
    if not password and not is_loopback(settings.host):
        raise SettingsInvalid(
            f"Setting web.host is {settings.host!r}, which other machines reach: set "
            "PARLEY_WEB__PASSWORD, or leave web.host at 127.0.0.1."
        )


class Guard:
    """ASGI middleware: refuses foreign origins, hosts and long bodies; sets the security headers.

    Args:
        app: the application behind it.
        loopback_only: the page is bound to the loopback interface.
        own_limits: paths that limit the bodies they read themselves.
    """

    def __init__(
        self, app: ASGIApp, *, loopback_only: bool, own_limits: Collection[str] = ()
    ) -> None:
        self._app = app
        self._loopback_only = loopback_only
        self._own_limits = own_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            else:
                await PlainTextResponse(refusal, status_code=403)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        if scope["type"] == "http" and scope["path"] not in self._own_limits:
            receive = _limited(receive)
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback_only and not is_loopback(_host_name(host)):
            return "This page answers only on this machine."
        if scope["type"] == "http" and scope["method"] in _READING:
            return None
        origin = headers.get("origin")
        # `https` where a proxy in front of the page speaks it.
        own = {f"http://{host}".casefold(), f"https://{host}".casefold()}
        if origin is not None and origin.casefold() not in own:
            return "This request comes from another website."
        return None


def _limited(receive: Receive) -> Receive:
    """Receive no more than `MAX_BODY_BYTES`, whatever the headers say; then the answer is 413."""
    left = MAX_BODY_BYTES

    async def receive_part() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return receive_part


def _host_name(host: str) -> str:
    """`127.0.0.1:8800` -> `127.0.0.1`; empty when malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
