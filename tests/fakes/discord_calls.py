"""A call of the fake Discord's REST API, the register of its routes, and what goes wrong."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.discord_limits import DiscordError
from tests.fakes.discord_permissions import Permission, in_channel
from tests.fakes.discord_world import Channel
from tests.fakes.wire import Json, Mishap

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer

VIA = {"Via": "1.1 google"}


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file of a multipart call."""

    name: str
    content: bytes
    mimetype: str


@dataclass(kw_only=True)
class Call:
    """One request. `at` is `time.monotonic()`; `answer` is None before it left.

    Attributes:
        route: Method and path with names (`POST /channels/{channel}/messages`).
        channel: Id of the channel that it is about, also by an interaction's token.
    """

    route: str
    path: dict[str, str]
    query: dict[str, str]
    body: Json
    files: list[Upload] = field(default_factory=list)
    commands: list[Json] = field(default_factory=list)
    token: str = ""
    channel: str | None = None
    at: float = field(default_factory=time.monotonic)
    status: int = 0
    answer: object = None


Answer = Json | list[Json] | None
Handler = Callable[["DiscordServer", Call], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A route. `bot`: whether it needs the bot's token."""

    method: str
    path: str
    run: Handler
    bot: bool


ROUTES: dict[str, Registered] = {}


def route(name: str, *, bot: bool = True) -> Callable[[Handler], Handler]:
    """Register a route, as `METHOD /path/{name}`."""
    method, _, path = name.partition(" ")

    def register(run: Handler) -> Handler:
        ROUTES[name] = Registered(method=method, path=path, run=run, bot=bot)
        return run

    return register


def need(discord: "DiscordServer", channel: Channel, *permissions: Permission) -> None:
    """Refuse a call where the bot lacks a permission.

    Raises:
        DiscordError: Missing Access where it cannot see the channel, else Missing Permissions.
    """
    if channel.guild is None and discord.bot not in channel.recipients and not channel.recipients:
        raise DiscordError(403, 50001, "Missing Access")
    found = in_channel(channel, discord.bot.id)
    if not found & Permission.VIEW_CHANNEL:
        raise DiscordError(403, 50001, "Missing Access")
    if any(not found & permission for permission in permissions):
        raise DiscordError(403, 50013, "Missing Permissions")


@dataclass(kw_only=True)
class Fault(Mishap):
    """What goes wrong with matching calls. None matches everything.

    Attributes:
        route: Route, or a part of it (`PATCH`, `/messages`, `callback`).
        channel: Channel id.
        code: Discord's error code in the answer.
        retry_after_s: For 429: how long to wait.
        via: Whether a 429 carries `Via`; without it, it looks like Cloudflare's ban.
        everywhere: Whether a 429 is global.
    """

    route: str | None = None
    channel: str | None = None
    code: int = 0
    retry_after_s: float = 0.1
    via: bool = True
    everywhere: bool = False

    def matches(self, call: Call) -> bool:
        """Whether the call meets it."""
        return (
            self.lasts
            and (self.route is None or self.route in call.route)
            and self.channel in (None, call.channel)
        )


def answered(body: object, *, status: int = 200, headers: dict[str, str]) -> web.Response:
    """JSON with the content type that Discord sends, which names no charset."""
    text = json.dumps(body).encode()
    return web.Response(body=text, status=status, headers=headers, content_type="application/json")


def faulty(call: Call, fault: Fault) -> web.Response:
    """The answer that the fault gives instead."""
    assert fault.status is not None
    call.status = fault.status
    if call.status == 429:
        return limited(call, fault.retry_after_s, everywhere=fault.everywhere, via=fault.via)
    if call.status >= 500:
        return web.Response(status=call.status, text="upstream is away", headers=VIA)
    call.answer = {"message": "a fault", "code": fault.code}
    return answered(call.answer, status=call.status, headers=VIA)


def limited(
    call: Call,
    retry_after_s: float,
    *,
    everywhere: bool = False,
    via: bool = True,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """A 429; `headers` are those of a bucket."""
    call.status = 429
    headers = {**(headers or {}), "Retry-After": str(retry_after_s), **(VIA if via else {})}
    if not via:
        page = "<html><body>error code: 1015</body></html>"
        return web.Response(status=429, text=page, content_type="text/html", headers=headers)
    call.answer = {
        "message": "You are being rate limited.",
        "retry_after": retry_after_s,
        "global": everywhere,
    }
    scope = {"X-RateLimit-Scope": "global" if everywhere else "user"}
    return answered(call.answer, status=429, headers=headers | scope)


@dataclass(kw_only=True)
class Bucket:
    """A rate limit of a route, per channel: `uses` in `per_s` seconds."""

    route: str
    uses: int
    per_s: float
    used: dict[str | None, list[float]] = field(default_factory=dict)

    def take(self, call: Call) -> tuple[dict[str, str], float | None]:
        """Count a call.

        Returns:
            Headers of its answer, and how long it should have waited (None = it may pass).
        """
        now = time.monotonic()
        used = [at for at in self.used.get(call.channel, ()) if now - at < self.per_s]
        wait_s = None
        if len(used) >= self.uses:
            wait_s = self.per_s - (now - used[0])
        else:
            used.append(now)
        self.used[call.channel] = used
        reset_s = self.per_s - (now - used[0])
        headers = {
            "X-RateLimit-Limit": str(self.uses),
            "X-RateLimit-Remaining": str(self.uses - len(used)),
            "X-RateLimit-Reset": f"{time.time() + reset_s:.3f}",
            "X-RateLimit-Reset-After": f"{reset_s:.3f}",
            "X-RateLimit-Bucket": f"bucket-{abs(hash(self.route)):x}",
        }
        return headers, wait_s
