"""A Discord on a port of this machine, spoken to over the wire by the real discord.py.

It serves the REST API v10, the gateway, interactions with their webhooks and the CDN, and lets
tests do what people do (`discord_people`, `discord_clicks`). It refuses what Discord refuses
(`discord_limits`): lengths, rows, custom ids, callbacks after three seconds, tokens after fifteen
minutes, what the bot's permissions in a channel do not allow (`discord_permissions`). Content is
empty where the message content intent is missing and the app is not mentioned. Faults are chosen
by route and channel (`DiscordServer.fail`, `limit`); sockets are closed, cut, asked to reconnect,
invalidated or made deaf one by one (`DiscordServer.gateway`), and every call, callback and download
is kept with its time.

    async with DiscordServer() as discord:
        ana = discord.add_person("Ana")
        team = discord.add_channel("team")
        # start the app with discord.api_url, discord.gateway_url, discord.token
        await discord.gateway.connected()
        asked = discord.say(ana, team, f"{discord.mention} how many days off?")
        answer = await discord.answer_to(asked)

What it does not imitate:

- Markdown is kept as text; unfurling is only told by `Message.unfurls`.
- Rate limits: calls are limited only where a test says so, and IDENTIFY never.
- Compression, the ETF encoding, shards, voice, presences, member chunks, stages, events, polls,
  stickers, emojis of guilds, soundboards, auto moderation, audit logs, invites, pins, reactions
  (they are accepted and forgotten), forwarding, crossposts, webhooks that are not an interaction's.
- Forum and media posts, thread lists of the archive, auto-archiving, slow mode, verification.
- Who may see a command (default_member_permissions, contexts): every command can be used anywhere.
- Users' and guilds' file size limits, virus scans, expiry of signed CDN addresses by time.
- Sessions are kept until they are closed with 1000/1001 or forgotten, however long the absence;
  a client that sends no heartbeats is not thrown out.
- TLS, the real host names, Cloudflare (but for its 429 without `Via`).
- Ephemeral messages stay for ever, where Discord forgets them when the client closes.
"""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.multipart import BodyPartReader

import tests.fakes.discord_commands
import tests.fakes.discord_interactions
import tests.fakes.discord_messages  # noqa: F401  # they register their routes
from tests.fakes.discord_calls import (
    ROUTES,
    VIA,
    Answer,
    Bucket,
    Call,
    Fault,
    Registered,
    Upload,
    answered,
    faulty,
    limited,
)
from tests.fakes.discord_clicks import Clicks
from tests.fakes.discord_files import Cdn
from tests.fakes.discord_gateway import Gateway, Intent, Session
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_limits import DiscordError
from tests.fakes.discord_world import Channel, Guild, Message, Person, World
from tests.fakes.wire import Json, Platform

T = TypeVar("T")
RATED = "parley:up:"
"""How the custom id of a finished answer's first button begins."""


class DiscordServer(Clicks, Platform):
    """A Discord; see the module's text.

    Attributes:
        calls: Every REST call, in order.
    """

    def __init__(self) -> None:
        self.world = World()
        Platform.__init__(self, self.world.changes)
        self.bot = self.world.add_person("Parley", bot=True)
        self.app_id = self.bot.id
        self.token = "fake-token.of-a.discord-bot"
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.buckets: list[Bucket] = []
        self.commands = {}
        self.interactions = {}
        self.gateway = Gateway(self)
        self.cdn = Cdn(self)
        self.add_guild("Marlow")

    # ------------------------------------------------------------ the server

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/gateway", self.gateway.handle)
        router.add_get("/gateway/", self.gateway.handle)
        router.add_get("/attachments/{channel}/{file}/{name}", self.cdn.handle)
        router.add_get("/api/v10/gateway", self._say_gateway)
        router.add_get("/api/v10/gateway/bot", self._say_gateway)
        for name, found in ROUTES.items():
            router.add_route(found.method, f"/api/v10{found.path}", self._handler(name, found))
        router.add_route("*", "/api/{path:.*}", self._no_route)

    async def hang_up(self) -> None:
        await self.gateway.close()

    @property
    def api_url(self) -> str:
        """Root of the REST API."""
        return f"{self.root}/api/v10"

    @property
    def gateway_url(self) -> str:
        """Address of the gateway."""
        return f"{self.root.replace('http', 'ws', 1)}/gateway"

    @property
    def mention(self) -> str:
        """What calls the app."""
        return self.bot.mention

    # ------------------------------------------------------------ the application

    def allow(self, intents: Intent) -> None:
        """Switch privileged intents on in the developer portal."""
        self.privileged |= intents

    def application(self) -> Json:
        """The application object."""
        flags = (1 << 18 | 1 << 19) if self.privileged & Intent.MESSAGE_CONTENT else 0
        owner = next(person for person in self.world.people.values() if not person.is_bot)
        return {
            "id": self.app_id,
            "name": "Parley",
            "icon": None,
            "description": "",
            "summary": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "flags": flags,
            "owner": owner.wire(),
            "bot": self.bot.wire(),
            "team": None,
            "integration_types_config": {"0": {}, "1": {}},
        }

    def ready(self, session: Session) -> Json:
        """READY."""
        return {
            "v": 10,
            "user": {**self.bot.wire(), "verified": True, "mfa_enabled": False, "email": None},
            "guilds": [{"id": guild.id, "unavailable": True} for guild in self.app_guilds],
            "session_id": session.id,
            "resume_gateway_url": self.gateway_url,
            "application": {"id": self.app_id, "flags": self.application()["flags"]},
            "session_type": "normal",
            "private_channels": [],
            "_trace": [],
        }

    @property
    def app_guilds(self) -> list[Guild]:
        """The guilds that the app's bot is in."""
        return [guild for guild in self.world.guilds.values() if guild.has_app]

    def app_guild(self, guild_id: str) -> Guild:
        """One of them.

        Raises:
            DiscordError: Missing Access, Unknown Guild.
        """
        found = self.world.guilds.get(guild_id)
        if found is None:
            raise DiscordError(404, 10004, "Unknown Guild")
        if not found.has_app:
            raise DiscordError(403, 50001, "Missing Access")
        return found

    # ------------------------------------------------------------ what tests look at

    def replies(self, asked: Message | Interaction) -> list[Message]:
        """What the app wrote in answer, oldest first, without ephemeral messages of others.

        In answer are: messages by the interaction's token, and what the app writes into the channel
        once that is dead; replies to the question; what the app wrote after the question in the
        same thread or direct conversation; and everything in the threads opened on all those.
        """
        channel = asked.channel
        follows = channel.is_thread or channel.guild is None
        found: list[Message] = []
        if isinstance(asked, Interaction):
            found += asked.messages
            follows = (follows and not found) or time.monotonic() >= asked.expires_at
        for message in self._written(channel):
            reference = message.body.get("message_reference") or {}
            after = int(message.id) > int(asked.id)
            if (follows and after) or reference.get("message_id") == asked.id:
                found += [message] if message not in found else []
        starts = found if isinstance(asked, Interaction) else [asked, *found]
        threads = [start.thread for start in starts if start.ephemeral_to is None]
        found += [m for thread in threads if thread is not None for m in self._written(thread)]
        return sorted(found, key=lambda message: int(message.id))

    def _written(self, channel: Channel) -> list[Message]:
        return [m for m in channel.living() if m.author is self.bot and m.body["type"] != 21]

    async def answer_to(self, asked: Message | Interaction, *, within_s: float = 60.0) -> Message:
        """The app's finished answer: a reply that can be rated."""

        def check() -> Message | None:
            rated = [reply for reply in self.replies(asked) if is_rated(reply)]
            return rated[0] if rated else None

        found = await self.until(check, "an answer that can be rated", within_s=within_s)
        assert found is not None
        return found

    def ephemerals(self, person: Person) -> list[Message]:
        """What only this person sees, anywhere."""
        return [
            message
            for channel in self.world.channels.values()
            for message in channel.ephemerals
            if message.ephemeral_to == person.id and not message.deleted
        ]

    def calls_of(self, route: str) -> list[Call]:
        """The calls whose route contains this, in order."""
        return [call for call in self.calls if route in call.route]

    def fail(self, route: str | None = None, **settings: Any) -> Fault:
        """Let matching calls fail; see `Fault`."""
        fault = Fault(route=route, **settings)
        self.faults.append(fault)
        return fault

    def limit(self, route: str, uses: int, *, per_s: float) -> Bucket:
        """Limit the calls whose route contains this, per channel, as Discord's buckets do."""
        bucket = Bucket(route=route, uses=uses, per_s=per_s)
        self.buckets.append(bucket)
        return bucket

    # ------------------------------------------------------------ the REST API

    async def _say_gateway(self, request: web.Request) -> web.Response:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        answer = {"url": self.gateway_url, "shards": 1, "session_start_limit": limit}
        return answered(answer, headers=VIA)

    async def _no_route(self, request: web.Request) -> web.Response:
        call = Call(route=f"{request.method} {request.path}", path={}, query={}, body={})
        call.status = 404
        self.calls.append(call)
        return answered({"message": "404: Not Found", "code": 0}, status=404, headers=VIA)

    def _handler(self, name: str, found: Registered) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            call = await self._read(name, request)
            self.calls.append(call)
            response = await self._answer(found, call)
            self.world.changes.note()
            return response

        return handle

    async def _read(self, name: str, request: web.Request) -> Call:
        path = dict(request.match_info)
        call = Call(
            route=name,
            path=path,
            query=dict(request.query),
            body={},
            token=request.headers.get("Authorization", "").removeprefix("Bot "),
            channel=path.get("channel"),
        )
        used = self.interactions.get(path.get("token", ""))
        if used is not None:
            call.channel = used.channel.id
        if request.content_type.startswith("multipart/"):
            await _read_parts(request, call)
        elif request.can_read_body and (text := await request.text()):
            said = json.loads(text)
            if isinstance(said, list):
                call.commands = said
            else:
                call.body = said
        return call

    async def _answer(self, found: Registered, call: Call) -> web.Response:
        fault = next((fault for fault in self.faults if fault.matches(call)), None)
        if fault is not None:
            await fault.strike(lambda: self._run(found, call))
            if fault.status is not None:
                return faulty(call, fault)
        headers = dict(VIA)
        bucket = next((bucket for bucket in self.buckets if bucket.route in call.route), None)
        if bucket is not None:
            more, wait_s = bucket.take(call)
            headers |= more
            if wait_s is not None:
                return limited(call, wait_s, headers=more)
        try:
            call.answer = await self._run(found, call)
        except DiscordError as refused:
            call.status, call.answer = refused.status, refused.body
            return answered(refused.body, status=refused.status, headers=headers)
        call.status = 204 if call.answer is None else 200
        if call.answer is None:
            return web.Response(status=204, headers=headers)
        return answered(call.answer, headers=headers)

    async def _run(self, found: Registered, call: Call) -> Answer:
        if found.bot and call.token != self.token:
            raise DiscordError(401, 0, "401: Unauthorized")
        return await found.run(self, call)


def is_rated(message: Message) -> bool:
    """Whether a message is a finished answer, with buttons to rate it."""
    return any(custom_id.startswith(RATED) for custom_id in message.elements)


async def _read_parts(request: web.Request, call: Call) -> None:
    """A multipart body: `payload_json` and `files[n]`."""
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        content = bytes(await part.read())
        if part.name == "payload_json":
            call.body = json.loads(content)
        else:
            mimetype = part.headers.get("Content-Type", "application/octet-stream")
            call.files.append(Upload(name=part.filename or "", content=content, mimetype=mimetype))
