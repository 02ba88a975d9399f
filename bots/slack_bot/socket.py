"""Socket Mode with a watchdog: one living socket, whatever happens to it.

Each connection is an SDK client of its own, which tries once and never reconnects by itself. The
watchdog opens another one with a fresh address when no hello comes, when Slack says that it will
disconnect (the old one goes on until the new one is up), when the socket closes, and when it still
says connected but answers no ping. A client that is replaced is closed: Slack sends events to every
socket that it believes open, and a click that goes to a dead one is lost.

Why not the SDK's own reconnecting: it repeats an expired single-use address for ever, and keeps
`is_connected` true on a closed session.
"""

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from bots.settings import SlackSettings
from bots.slack_bot.web_api import code_of

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
"""A socket that lived this long is followed by the next one at the first backoff."""
RETIRE_S = 3.0
"""What a replaced socket gets to send the acks of events in progress; Slack waits no longer."""
CLOSE_S = 5.0
OVERLAPPING = ("warning", "refresh_requested")
"""Reasons of a disconnect that comes later: until then the old socket still gets events."""


class SocketLost(Exception):
    """A socket could not be opened; the text says why, without its address."""


class _Client(SocketModeClient):
    """One connection of the SDK: connects once, then only tells of what happens."""

    def __init__(
        self, *, app_token: str, web_client: AsyncWebClient, ping_interval_s: float
    ) -> None:
        super().__init__(
            app_token=app_token,
            web_client=web_client,
            auto_reconnect_enabled=False,
            ping_interval=ping_interval_s,
        )
        self.greeted = asyncio.Event()
        self.lost = asyncio.Event()
        self.farewell: str | None = None
        self.in_progress: set[str] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.message_listeners.append(self._heard)

    async def connect(self) -> None:
        """Open the socket at `wss_uri`, once."""
        # The SDK's own connect repeats an address that may be used only once.
        self.current_session = await self.aiohttp_client_session.ws_connect(
            str(self.wss_uri),
            autoping=False,
            heartbeat=self.ping_interval,
            proxy=self.proxy,
            ssl=self.web_client.ssl if self.web_client.ssl is not None else True,
        )
        self.last_ping_pong_time = time.time()
        self.current_session_monitor = asyncio.ensure_future(self.monitor_current_session())
        self.message_receiver = asyncio.ensure_future(self.receive_messages())

    async def connect_to_new_endpoint(self, force: bool = False) -> None:
        """What the SDK does when Slack says goodbye: here, only tell the watchdog."""
        self.lost.set()

    async def run_message_listeners(self, message: dict[str, Any], raw_message: str) -> None:
        """Note why Slack says goodbye before the SDK reacts to it."""
        if message.get("type") == "disconnect":
            self.farewell = str(message.get("reason") or "disconnect")
        await super().run_message_listeners(message, raw_message)

    async def _heard(
        self,
        client: AsyncBaseSocketModeClient,
        message: dict[str, Any],
        raw_message: str | None,
    ) -> None:
        if message.get("type") == "hello":
            self.greeted.set()


@dataclass(kw_only=True)
class Watchdog:
    """Keeps a socket open.

    Attributes:
        web_client: for `apps.connections.open`, without retry handlers.
        opened: sockets that said hello so far.
        connected: whether one is up now.
    """

    app: AsyncApp
    app_token: str
    web_client: AsyncWebClient
    settings: SlackSettings
    opened: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    _current: _Client | None = None
    _retiring: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, first_url: str | None = None) -> None:
        """Keep a socket open until cancelled.

        Args:
            first_url: an address that `apps.connections.open` gave just now, for the first socket.
        """
        backoff_s = FIRST_BACKOFF_S
        url = first_url
        try:
            while True:
                try:
                    client = await self._open(url)
                except SocketLost as error:
                    logger.warning(
                        "no socket: %s; next try in %.1f s",
                        error,
                        backoff_s,
                        extra={"action": "socket_failed"},
                    )
                    # A little chance keeps many processes from coming back at the same moment.
                    await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))  # noqa: S311
                    backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
                    continue
                finally:
                    url = None
                begun = time.monotonic()
                reason = await self._until_lost(client)
                logger.info("the socket ends: %s", reason, extra={"action": "socket_ended"})
                if reason not in OVERLAPPING:
                    self.connected.clear()
                    await self._retire(client)
                if time.monotonic() - begun >= STABLE_AFTER_S:
                    backoff_s = FIRST_BACKOFF_S
                elif reason not in OVERLAPPING:
                    await asyncio.sleep(min(backoff_s, FIRST_BACKOFF_S))
        finally:
            await self._close()

    async def _open(self, url: str | None) -> _Client:
        """A socket that said hello; the one before it is then closed.

        Raises:
            SocketLost: it did not come up in time.
        """
        client = _Client(
            app_token=self.app_token,
            web_client=self.web_client,
            ping_interval_s=self.settings.ping_interval_s,
        )
        client.socket_mode_request_listeners.append(self._handle)
        try:
            async with asyncio.timeout(self.settings.hello_timeout_s):
                client.wss_uri = url or await socket_url(self.web_client, self.app_token)
                await client.connect()
                await client.greeted.wait()
        except BaseException as error:
            await _shut(client)
            if isinstance(error, SlackApiError):
                raise SocketLost(f"Slack says {code_of(error) or 'nothing sensible'}") from None
            if isinstance(error, aiohttp.WSServerHandshakeError):
                raise SocketLost(f"the address was refused ({error.status})") from None
            if isinstance(error, aiohttp.ClientError | OSError | TimeoutError | ValueError):
                raise SocketLost(type(error).__name__) from None
            raise
        self.opened += 1
        old, self._current = self._current, client
        self.connected.set()
        logger.info("connected to Slack", extra={"action": "socket_connected"})
        if old is not None:
            await self._retire(old)
        return client

    async def _until_lost(self, client: _Client) -> str:
        """Wait until the socket is no longer any good; returns why."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await client.lost.wait()
            if client.farewell is not None:
                return client.farewell
            if client.current_session is None or client.current_session.closed:
                return "closed"
            if not await client.is_connected():
                return "no answer to pings"
            client.lost.clear()

    async def _handle(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        """Give an envelope to Bolt and send its ack over the socket that it came from."""
        assert isinstance(client, _Client)  # noqa: S101 (for the type checker)
        begun = time.time()
        client.in_progress.add(request.envelope_id)
        client.idle.clear()
        try:
            response = await run_async_bolt_app(self.app, request)
            await send_async_response(client, request, response, begun)
        except (ConnectionError, aiohttp.ClientError) as error:
            # Slack delivers it again over another socket; the claim knows it by then.
            logger.info("an ack was lost: %s", type(error).__name__, extra={"action": "ack_lost"})
        finally:
            client.in_progress.discard(request.envelope_id)
            if not client.in_progress:
                client.idle.set()

    async def _retire(self, client: _Client) -> None:
        """Close a socket in the background, after the acks that it still owes."""
        if self._current is client:
            self._current = None
        task = asyncio.create_task(_retire(client), name="retiring socket")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _close(self) -> None:
        self.connected.clear()
        clients = [self._current] if self._current is not None else []
        self._current = None
        await asyncio.gather(*(_shut(client) for client in clients), *self._retiring)


async def socket_url(client: AsyncWebClient, app_token: str) -> str:
    """A fresh address for one socket.

    Raises:
        SlackApiError: Slack refuses; other errors of the network pass unchanged.
    """
    answer = await client.apps_connections_open(app_token=app_token)
    return str(answer["url"])


async def _retire(client: _Client) -> None:
    if client.current_session is not None and not client.current_session.closed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_S):
                await client.idle.wait()
    await _shut(client)


async def _shut(client: _Client) -> None:
    """Close socket, tasks and session of a client, whatever state they are in."""
    tasks = [client.message_processor, client.current_session_monitor, client.message_receiver]
    try:
        async with asyncio.timeout(CLOSE_S):
            await client.close()  # type: ignore[no-untyped-call]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        logger.info(
            "a socket closed badly: %s",
            type(error).__name__,
            extra={"action": "socket_closed_badly"},
        )
    finally:
        for task in tasks:
            if task is not None:
                task.cancel()
        await client.aiohttp_client_session.close()
