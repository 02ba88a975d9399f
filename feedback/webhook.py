"""Argilla's webhook: it says that a curator was at work, and nothing else of it is believed.

Why it only wakes the pull: a delivery may be lost, late, doubled or overtaken. So the state is read
as it is by then, in the process that reads it anyway; this one only passes on that it is worth it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from standardwebhooks import Webhook as Signature
from standardwebhooks import WebhookVerificationError

from feedback.argilla_client import ArgillaClient
from feedback.argilla_server import credentials
from feedback.errors import FeedbackError, WebhookForged, WebhookUnknown
from feedback.settings import ArgillaSettings
from storage.curations import Curations
from storage.pool import Pool

logger = logging.getLogger(__name__)

CHECK_S: Final = 60.0
"""Between two looks whether Argilla, perhaps a new one, still tells us."""
RETRY_S: Final = 10.0
"""Before the next one where Argilla is away."""


class Webhook:
    """Registers at Argilla and receives what it sends.

    Args of the constructor:
        url: at which Argilla reaches the receiver.
        retry_s: pause after Argilla was away, in seconds.
    """

    def __init__(
        self, pool: Pool, client: ArgillaClient, *, url: str, retry_s: float = RETRY_S
    ) -> None:
        self._curations = Curations(pool)
        self._client = client
        self._url = url
        self._retry_s = retry_s
        self._signature: Signature | None = None

    async def keep_registered(self) -> None:
        """See again and again that Argilla tells us, until cancelled."""
        while True:
            try:
                secret = await self._client.webhook(self._url)
            except FeedbackError as error:
                logger.warning("no webhook: %s", error, extra={"action": "webhook_waits"})
                await asyncio.sleep(self._retry_s)
                continue
            if self._signature is None:
                logger.info("Argilla tells what curators do", extra={"action": "webhook_ready"})
            self._signature = Signature(secret)
            await asyncio.sleep(CHECK_S)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> None:
        """Pass on that something happened.

        Args:
            headers: of the delivery, with those that sign the body.

        Raises:
            WebhookForged: the signature is not Argilla's, or older than five minutes.
            WebhookUnknown: Argilla has not given us its secret yet; it will send this again.
            StorageUnavailable: nobody was told.
        """
        if self._signature is None:
            raise WebhookUnknown("The webhook is not registered yet.")
        try:
            self._signature.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            raise WebhookForged("The signature is not Argilla's.") from error
        await self._curations.call()


@asynccontextmanager
async def registered(
    pool: Pool, settings: ArgillaSettings, *, home: Path
) -> AsyncIterator[Webhook]:
    """The webhook of these settings, kept registered until the block ends.

    Args:
        settings: with `webhook_url`.
    """
    key = credentials.api_key(settings, home)
    async with ArgillaClient(settings.effective_url, key) as client:
        webhook = Webhook(pool, client, url=str(settings.webhook_url))
        keeping = asyncio.create_task(webhook.keep_registered(), name="webhook")
        try:
            yield webhook
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
