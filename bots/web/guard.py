"""Who may speak to the page: only itself.

A browser lets any website send requests to 127.0.0.1. Gradio answers them without CORS headers, so
the website cannot read the answers, but a question or an upload would still arrive. And a name that
its owner points at 127.0.0.1 ("DNS rebinding") makes a foreign website the same origin. So: the
`Origin` of everything but plain reading must be the address the page itself was loaded from, and a
page bound to the loopback interface answers to loopback names only.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bots.settings import WebSettings
from engine.errors import SettingsInvalid

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
    """ASGI middleware: refuses foreign origins and hosts, and sets the security headers.

    Args:
        app: the application behind it.
        loopback_only: the page is bound to the loopback interface.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

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


def _host_name(host: str) -> str:
    """`127.0.0.1:8800` -> `127.0.0.1`; empty when malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
