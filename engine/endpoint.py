"""What every route has in common: key, body limit, deadline, hang-up, errors, counting."""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from engine.api import error_body, error_of
from engine.errors import DeadlineExceeded, EngineError
from engine.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Largest request body: 2,048 passages of 8 KB, the most that one embeddings request may bring."""

Handler = Callable[[Request, bytes], Awaitable[Response]]


class _Refused(Exception):
    """The request ends here with this status."""

    def __init__(self, status: int, body: dict[str, object]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Endpoints:
    """Makes endpoints that share a key and a deadline.

    Args of the constructor:
        key: bearer token that requests must bring; None = none.
        deadline_s: most time of one request, body and waiting included; None = none.
    """

    def __init__(
        self, *, metrics: Metrics, key: SecretStr | None, deadline_s: float | None
    ) -> None:
        self._metrics = metrics
        self._key = key
        self._deadline_s = deadline_s

    def route(self, method: str, path: str, handler: Handler) -> Route:
        """Return the route that runs a handler."""
        endpoint = _Endpoint(
            handler,
            path=path,
            metrics=self._metrics,
            key=self._key,
            deadline_s=self._deadline_s,
        )
        return Route(path, endpoint, methods=[method])


class _Endpoint:
    def __init__(
        self,
        handler: Handler,
        *,
        path: str,
        metrics: Metrics,
        key: SecretStr | None,
        deadline_s: float | None,
    ) -> None:
        self._handler = handler
        self._path = path
        self._metrics = metrics
        self._key = key
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(send)
        try:
            async with asyncio.timeout(self._deadline_s):
                request = Request(scope, receive)
                self._check_key(request)
                body = await _read_body(request)
                await _until_hangup(receive, self._answer(request, body, exchange))
        except _Refused as refusal:
            await exchange.fail(refusal.status, refusal.body)
        except TimeoutError:
            await exchange.fail(*error_of(DeadlineExceeded(deadline_s=self._deadline_s or 0)))
        except EngineError as error:
            await exchange.fail(*error_of(error))
        except ClientDisconnect:
            pass  # nobody to tell
        except Exception:  # the boundary: a bug must not take the server down
            logger.exception("A request failed", extra={"action": "request_failed"})
            message = "The engine failed on this request; its log has the reason."
            await exchange.fail(
                500, error_body(message, kind="server_error", code="internal_error")
            )
        finally:
            # 499 as nginx has it: the client hung up before an answer.
            self._metrics.requests.labels(self._path, exchange.status or 499).inc()

    async def _answer(self, request: Request, body: bytes, exchange: "_Exchange") -> None:
        response = await self._handler(request, body)
        await response(request.scope, request.receive, exchange.send)

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.get_secret_value().encode()):
            raise _Refused(
                401,
                error_body(
                    "The bearer token is missing or wrong.",
                    kind="invalid_request_error",
                    code="invalid_api_key",
                ),
            )


class _Exchange:
    """One request's answer on the wire: knows how far it got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ended = False
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    async def fail(
        self, status: int, body: dict[str, object], headers: dict[str, str] | None = None
    ) -> None:
        """Tell the client: by status while that is possible, then by an event in the stream."""
        if self._ended:
            return
        if not self.status:
            response = JSONResponse(body, status_code=status, headers=headers)
            self.status = status
            await self._send(
                {"type": "http.response.start", "status": status, "headers": response.raw_headers}
            )
            await self._send({"type": "http.response.body", "body": response.body})
            return
        event = b"data: " + json.dumps(body).encode() + b"\n\n"
        await self._send({"type": "http.response.body", "body": event})


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(
                413,
                error_body(
                    f"The request body exceeds {MAX_BODY_BYTES} bytes.",
                    kind="invalid_request_error",
                    code="request_too_large",
                ),
            )
    return bytes(body)


async def _until_hangup(receive: Receive, work: Awaitable[None]) -> None:
    """Run `work`; cancel it, and wait until it has ended, when the client hangs up."""

    async def hangup() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(hangup())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
