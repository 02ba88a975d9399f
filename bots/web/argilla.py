"""Where Argilla says that a curator was at work; open to whoever reaches the page, so signed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from feedback.errors import WebhookForged, WebhookUnknown
from feedback.webhook import Webhook
from storage.errors import StorageError

logger = logging.getLogger(__name__)

PATH = "/argilla/webhook"
MAX_BYTES = 2 * 2**20
"""Of one delivery, which describes a whole data set and one record of it."""
WITHIN_S = 10.0
"""Argilla itself waits for twice as long, and sends what was refused again."""


def receiver(webhook: Webhook) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `PATH`."""

    async def receive(request: Request) -> Response:
        try:
            async with asyncio.timeout(WITHIN_S):
                body = await _body(request)
                if body is None:
                    return Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                await webhook.receive(request.headers, body)
        except WebhookForged:
            logger.warning("a webhook was forged", extra={"action": "webhook_forged"})
            return Response(status_code=HTTPStatus.UNAUTHORIZED)
        except (WebhookUnknown, StorageError, TimeoutError, ClientDisconnect):
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return receive


async def _body(request: Request) -> bytes | None:
    """The request's body; None where it is too large, whatever its headers say."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)
