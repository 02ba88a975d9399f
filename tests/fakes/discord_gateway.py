"""The gateway of the fake Discord: sessions that outlive their sockets, and ways to break both.

https://discord.com/developers/docs/events/gateway
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from tests.fakes.wire import Json

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer


class Op(IntEnum):
    """Gateway opcodes."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE = 3
    RESUME = 6
    RECONNECT = 7
    REQUEST_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11


class Intent(IntFlag):
    """Gateway intents."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    DIRECT_MESSAGES = 1 << 12
    MESSAGE_CONTENT = 1 << 15


NO_INTENT = Intent(0)
PRIVILEGED = Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT
_REPEATED = ("MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE")
Payload = Callable[[Intent], Json | None]
"""Makes the payload for a session with these intents; None = the session does not get it."""


@dataclass(kw_only=True)
class Session:
    """What a client is told, in order; kept while its socket is away.

    Attributes:
        events: Every dispatched frame so far.
        resumable: Whether RESUME still works.
    """

    id: str
    intents: Intent
    events: list[Json] = field(default_factory=list)
    resumable: bool = True
    connection: "Connection | None" = None

    def tell(self, event: str, payload: Json) -> None:
        """Dispatch an event."""
        frame: Json = {"op": Op.DISPATCH, "t": event, "s": len(self.events) + 1, "d": payload}
        self.events.append(frame)
        if self.connection is not None:
            self.connection.send(frame)


class Connection:
    """One open socket.

    Attributes:
        number: How manieth socket it is.
        deaf: It sends nothing more, not even acks, yet stays open.
        heartbeats: `time.monotonic()` of each heartbeat.
    """

    def __init__(self, socket: web.WebSocketResponse, number: int) -> None:
        self.number = number
        self.deaf = False
        self.session: Session | None = None
        self.heartbeats: list[float] = []
        self.closed = asyncio.Event()
        self._said: int | None = None
        self._socket = socket
        self._frames: asyncio.Queue[Json] = asyncio.Queue()

    def send(self, frame: Json) -> None:
        """Send a frame, after those before it."""
        if not self.deaf:
            self._frames.put_nowait(frame)

    async def write(self) -> None:
        """Write what is to be sent until the socket ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._socket.send_str(json.dumps(await self._frames.get()))

    async def read(self) -> Json | None:
        """The next frame of the client; None when there is no more."""
        with contextlib.suppress(ConnectionError):
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    return dict(json.loads(message.data))
        return None

    def reconnect(self) -> None:
        """Op 7: ask the client to come back."""
        self.send({"op": Op.RECONNECT, "d": None})

    def invalidate(self, *, resumable: bool = False) -> None:
        """Op 9: the session is invalid; unless resumable it is forgotten."""
        if self.session is not None and not resumable:
            self.session.resumable = False
        self.send({"op": Op.INVALID_SESSION, "d": resumable})

    def ask_heartbeat(self) -> None:
        """Op 1: ask for a heartbeat at once."""
        self.send({"op": Op.HEARTBEAT, "d": None})

    async def close(self, code: int = 4000) -> None:
        """Close the socket with a code."""
        self._said = code
        with contextlib.suppress(ConnectionError):
            await self._socket.close(code=code)

    async def cut(self) -> None:
        """Break the TCP connection without a word."""
        request = self._socket._req
        transport = request.transport if request is not None else None
        if transport is not None:
            transport.abort()
        await self.closed.wait()

    @property
    def close_code(self) -> int | None:
        """With which code it was closed, by whoever closed it first."""
        return self._said if self._said is not None else self._socket.close_code


class Gateway:
    """Sockets and sessions.

    Attributes:
        heartbeat_interval_s: Said in HELLO; Discord's is about 41 s.
        refuse: Refuse this many of the next sockets with HTTP 503.
        refuse_resume: Answer this many of the next RESUMEs with op 9.
        replay_seen: A RESUME also replays this many of the last messages and interactions that
            the client has seen.
        connections: Open sockets, oldest first.
        opened: How many sockets there have been.
        identified: How many IDENTIFYs were accepted.
        resumed: How many RESUMEs were accepted.
    """

    def __init__(self, discord: "DiscordServer") -> None:
        self.heartbeat_interval_s = 41.25
        self.refuse = 0
        self.refuse_resume = 0
        self.replay_seen = 0
        self.connections: list[Connection] = []
        self.sessions: dict[str, Session] = {}
        self.opened = 0
        self.identified = 0
        self.resumed = 0
        self._discord = discord

    # ------------------------------------------------------------ sockets

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A `wss` address."""
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.opened += 1
        connection = Connection(socket, self.opened)
        interval_ms = int(1000 * self.heartbeat_interval_s)
        connection.send({"op": Op.HELLO, "d": {"heartbeat_interval": interval_ms}})
        writing = asyncio.create_task(connection.write())
        self.connections.append(connection)
        try:
            while (frame := await connection.read()) is not None:
                await self._take(connection, frame)
        finally:
            writing.cancel()
            self._forget(connection)
        return socket

    def _forget(self, connection: Connection) -> None:
        self.connections.remove(connection)
        session = connection.session
        if session is not None and session.connection is connection:
            session.connection = None
            if connection.close_code in (1000, 1001):
                session.resumable = False
        connection.closed.set()
        self._discord.world.changes.note()

    async def _take(self, connection: Connection, frame: Json) -> None:
        op = frame.get("op")
        if op == Op.HEARTBEAT:
            connection.heartbeats.append(time.monotonic())
            connection.send({"op": Op.HEARTBEAT_ACK, "d": None})
        elif op == Op.IDENTIFY:
            await self._identify(connection, frame["d"])
        elif op == Op.RESUME:
            await self._resume(connection, frame["d"])
        elif op == Op.REQUEST_MEMBERS:
            await connection.close(4001)  # needs an intent that the app should not ask for
        elif op != Op.PRESENCE:
            await connection.close(4001)
        self._discord.world.changes.note()

    async def _identify(self, connection: Connection, data: Json) -> None:
        intents = Intent(data["intents"])
        if data["token"] != self._discord.token:
            await connection.close(4004)
            return
        if intents & PRIVILEGED & ~self._discord.privileged:
            await connection.close(4014)
            return
        session = Session(id=uuid.uuid4().hex, intents=intents, connection=connection)
        self.sessions[session.id] = session
        connection.session = session
        self.identified += 1
        session.tell("READY", self._discord.ready(session))
        for guild in self._discord.app_guilds:
            if intents & Intent.GUILDS:
                session.tell("GUILD_CREATE", self._discord.guild_create(guild, intents))

    async def _resume(self, connection: Connection, data: Json) -> None:
        session = self.sessions.get(data["session_id"])
        if data["token"] != self._discord.token:
            await connection.close(4004)
            return
        if session is None or not session.resumable or self.refuse_resume > 0:
            self.refuse_resume = max(0, self.refuse_resume - 1)
            connection.send({"op": Op.INVALID_SESSION, "d": False})
            return
        if session.connection is not None:
            await session.connection.close(4000)
        told = [f for f in session.events[: data["seq"]] if f["t"] in _REPEATED]
        repeated = told[-self.replay_seen :] if self.replay_seen else []
        for frame in (*repeated, *session.events[data["seq"] :]):
            connection.send(frame)
        session.connection, connection.session = connection, session
        self.resumed += 1
        session.tell("RESUMED", {"_trace": []})

    async def connected(self, *, within_s: float = 30.0) -> Connection:
        """Wait until the app has a socket with a session, not deaf; the latest of them."""

        def check() -> Connection | None:
            live = [c for c in self.connections if c.session is not None and not c.deaf]
            return live[-1] if live else None

        found = await self._discord.until(check, "an identified socket", within_s=within_s)
        assert found is not None
        return found

    # ------------------------------------------------------------ events

    def emit(self, event: str, payload: Payload) -> None:
        """Give an event to every session that may have it, connected or not."""
        for session in self.sessions.values():
            if session.resumable:
                made = payload(session.intents)
                if made is not None:
                    session.tell(event, made)
        self._discord.world.changes.note()

    def forget_sessions(self) -> None:
        """Let no session be resumed any more, as after a long absence."""
        for session in self.sessions.values():
            session.resumable = False

    async def close(self) -> None:
        """Close every socket."""
        for connection in list(self.connections):
            await connection.cut()


def with_intent(needed: Intent, payload: Json) -> Payload:
    """The same payload for every session that has an intent."""
    return lambda intents: payload if intents & needed == needed else None
