"""How the fake Slack reaches an app: Socket Mode, or signed HTTP requests, with redelivery."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from tests.fakes.slack_blocks import Json

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer

MAX_SOCKETS = 10
Kind = Literal["events_api", "interactive", "slash_commands"]


@dataclass(kw_only=True)
class Attempt:
    """One sending of a payload. Times are `time.monotonic()`; `status` only over HTTP."""

    envelope_id: str
    number: int
    reason: str
    sent_at: float
    acked_at: float | None = None
    response: Json | None = None
    status: int | None = None

    @property
    def ack_s(self) -> float | None:
        """Seconds from the sending to the ack."""
        return None if self.acked_at is None else self.acked_at - self.sent_at


@dataclass(kw_only=True)
class Delivery:
    """A payload on its way to the app. `finished`: acked, or given up."""

    kind: Kind
    payload: Json
    attempts: list[Attempt] = field(default_factory=list)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acked(self) -> bool:
        """Whether any attempt was acknowledged."""
        return any(attempt.acked_at is not None for attempt in self.attempts)

    @property
    def response(self) -> Json | None:
        """The payload of the ack."""
        found = (attempt.response for attempt in self.attempts if attempt.acked_at is not None)
        return next(found, None)

    async def acknowledged(self, within_s: float = 10.0) -> "Delivery":
        """Wait for the ack.

        Raises:
            AssertionError: There was none.
        """
        try:
            async with asyncio.timeout(within_s):
                await self.finished.wait()
        except TimeoutError:
            pass
        assert self.acked, f"not acknowledged: {self.kind} {self.payload.get('type')}"
        return self


class Connection:
    """One open socket.

    Attributes:
        deaf: It takes everything and answers nothing, not even pings, yet stays open.
        pongs: How often the app answered a ping.
    """

    def __init__(self, socket: web.WebSocketResponse, number: int) -> None:
        self.number = number
        self.deaf = False
        self.pongs = 0
        self.sent = 0
        self.closed = asyncio.Event()
        self._socket = socket
        self._waiting: dict[str, asyncio.Future[Json]] = {}

    async def send(self, envelope: Json) -> None:
        """Send one frame; a broken socket is no error."""
        if self.deaf:
            return
        self.sent += 1
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(json.dumps(envelope))

    async def ask(self, envelope: Json, *, within_s: float) -> Json | None:
        """Send an envelope and wait for its ack; None when there is none."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[envelope["envelope_id"]] = waiting
        await self.send(envelope)
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait(
                {waiting, closing}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
            )
            return waiting.result() if waiting.done() else None
        finally:
            closing.cancel()
            self._waiting.pop(envelope["envelope_id"], None)

    async def ping(self) -> None:
        """Slack's own ping, with a text."""
        if not self.deaf and not self._socket.closed:
            with contextlib.suppress(ConnectionError):
                await self._socket.ping(b"Ping from fake-applink")

    async def warn(self, reason: str = "refresh_requested") -> None:
        """Say that this connection will go away (`warning`, `refresh_requested`, …)."""
        await self.send({"type": "disconnect", "reason": reason, "debug_info": {"host": "fake"}})

    def go_deaf(self) -> None:
        """Become a socket that still says connected."""
        self.deaf = True

    async def cut(self) -> None:
        """Break the TCP connection without a word."""
        request = self._socket._req
        transport = request.transport if request is not None else None
        if transport is not None:
            transport.abort()
        await self.closed.wait()

    async def serve(self) -> None:
        """Read acks and pings until the socket ends."""
        try:
            async for frame in self._socket:
                if self.deaf:
                    continue
                if frame.type == WSMsgType.PING:
                    await self._socket.pong(frame.data)
                elif frame.type == WSMsgType.PONG:
                    self.pongs += 1
                elif frame.type == WSMsgType.TEXT:
                    self._take(frame.data)
        except ConnectionError:
            pass
        finally:
            self.closed.set()

    def _take(self, text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            return  # some clients send the word "pong"
        waiting = self._waiting.get(said.get("envelope_id", ""))
        if waiting is not None and not waiting.done():
            waiting.set_result(said.get("payload") or {})


class Sockets:
    """Gives payloads to the app, again where it did not acknowledge.

    Attributes:
        ack_within_s: Slack's 3 s.
        retry_after_s: Pauses before the second and later attempts of an event. Slack waits 0,
            60 and 300 s; the default keeps the shape and shortens the pauses. Interactive
            payloads and commands are never sent again.
        ticket_lives_s: How long a `wss` address may be used, once.
        ping_every_s: Pause between Slack's pings.
        request_url: Where HTTP mode posts; None = Socket Mode.
        refuse: Refuse this many of the next sockets with HTTP 500.
    """

    def __init__(self, slack: "SlackServer") -> None:
        self.ack_within_s = 3.0
        self.retry_after_s: tuple[float, ...] = (0.0, 1.0, 5.0)
        self.ticket_lives_s = 30.0
        self.ping_every_s = 5.0
        self.request_url: str | None = None
        self.refuse = 0
        self.connections: list[Connection] = []
        self.opened = 0
        self.deliveries: list[Delivery] = []
        self._slack = slack
        self._tickets: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._pending: dict[int, Delivery] = {}

    # ------------------------------------------------------------ sockets

    def issue_ticket(self) -> str:
        """A `wss` address that opens one socket."""
        ticket = uuid.uuid4().hex
        self._tickets[ticket] = time.monotonic() + self.ticket_lives_s
        return f"{self._slack.root.replace('http', 'ws', 1)}/link?ticket={ticket}&app_id=fake"

    def expire_tickets(self) -> None:
        """Make the tickets given out so far useless."""
        self._tickets.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The `wss` address."""
        expires_at = self._tickets.pop(request.query.get("ticket", ""), 0.0)
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=500)
        if time.monotonic() > expires_at:
            return web.Response(status=408, text="expired ticket")
        if len(self.connections) >= MAX_SOCKETS:
            return web.Response(status=429, text="too_many_websockets")
        socket = web.WebSocketResponse(autoping=False, compress=False)
        await socket.prepare(request)
        self.opened += 1
        connection = Connection(socket, self.opened)
        await connection.send(
            {
                "type": "hello",
                "num_connections": len(self.connections) + 1,
                "debug_info": {"host": "fake", "approximate_connection_time": 18060},
                "connection_info": {"app_id": self._slack.app_id},
            }
        )
        self.connections.append(connection)
        self._slack.world.changes.note()
        pings = asyncio.create_task(self._ping(connection))
        try:
            await connection.serve()
        finally:
            pings.cancel()
            self.connections.remove(connection)
            self._slack.world.changes.note()
        return socket

    async def _ping(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(self.ping_every_s)
            await connection.ping()

    async def connected(self, count: int = 1, *, within_s: float = 30.0) -> list[Connection]:
        """Wait until the app has this many sockets that are not deaf."""

        def check() -> list[Connection]:
            live = [connection for connection in self.connections if not connection.deaf]
            return live if len(live) >= count else []

        return await self._slack.until(check, f"{count} open sockets", within_s=within_s)

    # ------------------------------------------------------------ deliveries

    def deliver(self, kind: Kind, payload: Json, *, attempt: int = 0) -> Delivery:
        """Send a payload; events again until acknowledged.

        Args:
            kind: Envelope type.
            payload: Its payload.
            attempt: First `retry_attempt`; 1 for a redelivery.
        """
        delivery = Delivery(kind=kind, payload=payload)
        self.deliveries.append(delivery)
        self._pending[id(delivery)] = delivery
        self._start(self._deliver(delivery, attempt))
        return delivery

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery, first: int) -> None:
        pauses = (0.0, *self.retry_after_s) if delivery.kind == "events_api" else (0.0,)
        reason = "timeout" if first else ""
        for number, pause in enumerate(pauses, start=first):
            await asyncio.sleep(pause)
            if self.request_url is not None:
                attempt = await self._post(delivery, number, reason)
            else:
                attempt = await self._send(delivery, number, reason)
            self._slack.world.changes.note()
            if attempt.acked_at is not None:
                break
            reason = "timeout" if attempt.status is None else "http_error"
        if delivery.response:
            self._slack.take_ack(delivery)
        delivery.finished.set()
        del self._pending[id(delivery)]
        self._slack.world.changes.note()

    async def _send(self, delivery: Delivery, number: int, reason: str) -> Attempt:
        attempt = _attempt(delivery, number, reason)
        connection = await self._next_connection()
        if connection is None:
            return attempt
        envelope: Json = {
            "envelope_id": attempt.envelope_id,
            "type": delivery.kind,
            "payload": delivery.payload,
            "accepts_response_payload": delivery.kind != "events_api",
        }
        if delivery.kind == "events_api":
            envelope |= {"retry_attempt": number, "retry_reason": reason}
        attempt.sent_at = time.monotonic()
        response = await connection.ask(envelope, within_s=self.ack_within_s)
        if response is not None:
            attempt.acked_at, attempt.response = time.monotonic(), response
        return attempt

    async def _next_connection(self) -> Connection | None:
        """The next socket in turn; waits for one as long as for an ack."""
        if not self.connections:
            with contextlib.suppress(AssertionError):
                await self._slack.until(
                    lambda: self.connections, "a socket", within_s=self.ack_within_s
                )
        if not self.connections:
            return None
        self._turn += 1
        return self.connections[self._turn % len(self.connections)]

    async def _post(self, delivery: Delivery, number: int, reason: str) -> Attempt:
        assert self.request_url is not None
        attempt = _attempt(delivery, number, reason)
        body, content_type = _http_body(delivery)
        headers = {"Content-Type": content_type} | self.sign(body)
        if number:
            headers |= {"X-Slack-Retry-Num": str(number), "X-Slack-Retry-Reason": reason}
        timeout = aiohttp.ClientTimeout(total=self.ack_within_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self.request_url, data=body, headers=headers) as answer,
            ):
                text = await answer.text()
                attempt.status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            return attempt
        if attempt.status == 200:
            attempt.acked_at = time.monotonic()
            attempt.response = json.loads(text) if text.startswith("{") else {"text": text}
        return attempt

    def sign(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> Json:
        """Headers that prove that a request comes from Slack."""
        stamp = str(int(time.time() if at is None else at))
        key = (self._slack.signing_secret if secret is None else secret).encode()
        digest = hmac.new(key, b"v0:" + stamp.encode() + b":" + body, hashlib.sha256)
        return {
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={digest.hexdigest()}",
        }

    @property
    def pending(self) -> list[Delivery]:
        """What is still on its way."""
        return list(self._pending.values())

    async def close(self) -> None:
        """Stop delivering and close every socket."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self.connections):
            await connection.cut()


def _attempt(delivery: Delivery, number: int, reason: str) -> Attempt:
    attempt = Attempt(
        envelope_id=str(uuid.uuid4()), number=number, reason=reason, sent_at=time.monotonic()
    )
    delivery.attempts.append(attempt)
    return attempt


def _http_body(delivery: Delivery) -> tuple[bytes, str]:
    if delivery.kind == "events_api":
        return json.dumps(delivery.payload).encode(), "application/json"
    form = delivery.payload
    if delivery.kind == "interactive":
        form = {"payload": json.dumps(delivery.payload)}
    return urlencode(form).encode(), "application/x-www-form-urlencoded"
