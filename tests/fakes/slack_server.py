"""A Slack on a port of this machine, spoken to over the wire by the real SDK and Bolt.

It serves the Web API, Socket Mode, the file host, `response_url` and OAuth v2, and lets tests do
what people do (`slack_people`). It refuses what Slack refuses: limits of messages, blocks and
views (`slack_blocks`), wrong states of streams, missing scopes, spent triggers and tickets. Faults
are chosen by method, token or channel (`SlackServer.fail`), sockets are cut, warned or made deaf
one by one (`SlackServer.sockets`), and every call, ack and download is kept with its time.

    async with SlackServer() as slack:
        ana = slack.add_person("Ana")
        team = slack.add_channel("team", ana)
        # start the app with slack.base_url, slack.bot_token, slack.app_token
        await slack.sockets.connected()
        asked = slack.say(ana, team, f"{slack.mention} how many days off?")
        answer = await slack.answer_to(asked)

What it does not imitate:

- Markdown and mrkdwn are kept as text: nothing is rendered, `@name` is not turned into a mention.
- Tiers of rate limits: calls are limited only where a test says so.
- Pauses between attempts of an event (0, 60, 300 s) are shortened, the switch-off of an app that
  fails 95 % of its events is missing, and an event waits a moment for a socket to come back.
- Enterprise Grid, user tokens, search, canvases, lists, workflows, huddles, calls, reminders,
  pins, bookmarks, external selects (`block_suggestion`), `view_closed`, scheduled messages.
- Membership of workspaces, retention, message edits by others, notifications themselves.
- The insides of rich_text, file, video, task_card, plan, alert, card and carousel blocks.
- `chat.postMessage` to a user id opens the conversation with the app, as Slack does, without the
  checks of `messages_tab_disabled`.
- TLS, IP allow lists, mutual TLS, and the real host names.
- A chat stream's total length is limited to the 12,000 characters of one call; Slack's own total
  is not documented.
"""

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

import tests.fakes.slack_chat  # registers its methods
import tests.fakes.slack_methods  # noqa: F401  # the same
from tests.fakes.slack_blocks import Json, SlackError, check_blocks, check_view
from tests.fakes.slack_calls import METHODS, Call, decode
from tests.fakes.slack_clicks import Clicks
from tests.fakes.slack_faults import Fault, faulty
from tests.fakes.slack_files import FileHost
from tests.fakes.slack_oauth import OAuth
from tests.fakes.slack_sockets import Delivery, Sockets
from tests.fakes.slack_world import Channel, Message, Person, Token, Workspace, World
from tests.fakes.wire import Platform

T = TypeVar("T")

STREAM_LIVES_S = 300.0
RESPONSE_URL_USES = 5
ALL_SCOPES = frozenset(scope for found in METHODS.values() for scope in found.scopes or ()) | {
    "app_mentions:read",
    "commands",
}


@dataclass(kw_only=True)
class ResponseUrl:
    """An address for answers to one interaction: five uses."""

    channel: Channel
    person: Person
    message: Message | None
    uses: int = field(default=0)


class SlackServer(Clicks, Platform):
    """A Slack; see the module's text.

    Attributes:
        calls: Every Web API call, in order.
        response_calls: Every body posted to a `response_url`.
    """

    def __init__(self) -> None:
        self.world = World()
        Platform.__init__(self, self.world.changes)
        self.app_id = "A0FAKEAPP"
        self.client_id, self.client_secret = "1.2", "fake-client-secret"
        self.signing_secret = "fake-signing-secret-0123456789ab"
        self.app_token = "xapp-1-A0FAKEAPP-fake"
        self.calls: list[Call] = []
        self.response_calls: list[Json] = []
        self.faults: list[Fault] = []
        self.sockets = Sockets(self)
        self.oauth = OAuth(self)
        self.file_host = FileHost(self)
        self._response_urls: dict[str, ResponseUrl] = {}
        self.add_workspace("Marlow", installed=True)
        self.world.tokens[self.app_token] = Token(
            value=self.app_token, workspace=None, scopes=frozenset({"connections:write"})
        )

    # ------------------------------------------------------------ the server

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/api/{method}", self._api)
        router.add_get("/link", self.sockets.handle)
        router.add_get("/files-pri/{team}-{id}/{name}", self.file_host.download)
        router.add_post("/upload/v1/{id}", self.file_host.upload)
        router.add_post("/response/{id}", self._respond)
        router.add_get("/oauth/v2/authorize", self.oauth.authorize)

    async def hang_up(self) -> None:
        await self.sockets.close()

    @property
    def base_url(self) -> str:
        """Root of the Web API."""
        return f"{self.root}/api/"

    @property
    def bot_token(self) -> str:
        """Token of the first workspace."""
        assert self.home.bot_token is not None
        return self.home.bot_token

    @property
    def mention(self) -> str:
        """What calls the app in the first workspace."""
        return self.home.mention

    # ------------------------------------------------------------ workspaces

    def add_workspace(self, name: str, *, installed: bool = False) -> Workspace:
        """A workspace; one that is not installed has no token before OAuth."""
        workspace = Workspace(
            id=self.world.new_id("T"),
            name=name,
            bot_user_id=self.world.new_id("U"),
            bot_id=self.world.new_id("B"),
        )
        self.world.workspaces[workspace.id] = workspace
        bot = self.add_person("parley", workspace=workspace, bot=True)
        del self.world.people[bot.id]
        bot.id = workspace.bot_user_id
        self.world.people[bot.id] = bot
        if installed:
            value = f"xoxb-fake-{workspace.id}"
            workspace.bot_token = self.give_token(value, workspace, ALL_SCOPES).value
        return workspace

    def give_token(self, value: str, workspace: Workspace, scopes: frozenset[str]) -> Token:
        """Make a token valid."""
        token = Token(value=value, workspace=workspace, scopes=scopes)
        self.world.tokens[value] = token
        return token

    def limit_scopes(self, *scopes: str) -> None:
        """Give the first workspace's token only these scopes, as a manifest would."""
        self.world.tokens[self.bot_token].scopes = frozenset(scopes)

    def uninstall(self, workspace: Workspace) -> None:
        """Remove the app: its tokens die and it is told so."""
        for token in self.world.tokens.values():
            if token.workspace is workspace:
                token.revoked = True
        revoked = {"type": "tokens_revoked", "tokens": {"bot": [workspace.bot_user_id]}}
        self.emit(revoked, workspace=workspace)
        self.emit({"type": "app_uninstalled"}, workspace=workspace)

    # ------------------------------------------------------------ what tests look at

    def replies(self, asked: Message) -> list[Message]:
        """What the app wrote in the thread of a message, oldest first."""
        thread = asked.channel.thread(asked.thread_ts or asked.ts)
        return [m for m in thread if m.ts > asked.ts and "app_id" in m.body]

    async def answer_to(self, asked: Message, *, within_s: float = 60.0) -> Message:
        """The app's finished answer: a reply that can be rated."""

        def check() -> Message | None:
            for reply in self.replies(asked):
                kinds = {block["type"] for block in reply.blocks}
                streaming = reply.stream is not None and reply.stream.state == "streaming"
                if "context_actions" in kinds and not streaming:
                    return reply
            return None

        found = await self.until(check, f"answer to {asked.ts}", within_s=within_s)
        assert found is not None
        return found

    def ephemerals(self, channel: Channel, person: Person) -> list[Message]:
        """What only this person sees in a channel."""
        return [m for m in channel.ephemerals if m.ephemeral_to == person.id and not m.deleted]

    def calls_of(self, method: str) -> list[Call]:
        """The calls of one method, in order."""
        return [call for call in self.calls if call.method == method]

    def fail(self, method: str | None = None, **settings: Any) -> Fault:
        """Let matching calls fail; see `Fault`."""
        fault = Fault(method=method, **settings)
        self.faults.append(fault)
        return fault

    def permalink(self, channel_id: str, ts: str) -> str:
        """Address of a message."""
        return f"{self.root}/archives/{channel_id}/p{ts.replace('.', '')}"

    # ------------------------------------------------------------ streams and views

    def stream_state(self, message: Message) -> str:
        """State of a message's stream; five idle minutes expire it."""
        stream = message.stream
        if stream is None:
            return "stopped"
        if stream.state == "streaming" and time.monotonic() - stream.last_at > STREAM_LIVES_S:
            stream.state = "expired"
        return stream.state

    def expire_streams(self) -> None:
        """Let five minutes pass for every open stream."""
        for message in self.world.written_by_app():
            if message.stream is not None and message.stream.state == "streaming":
                message.stream.state = "expired"

    def adopt_view(self, view: Json, workspace: Workspace) -> Json:
        """A view as Slack gives it back."""
        view_id = self.world.new_id("V")
        blocks = [{"block_id": f"b{i}", **block} for i, block in enumerate(view["blocks"])]
        return {
            "private_metadata": "",
            "callback_id": "",
            "external_id": "",
            "clear_on_close": False,
            "notify_on_close": False,
            "previous_view_id": None,
            **view,
            "id": view_id,
            "team_id": workspace.id,
            "app_id": self.app_id,
            "bot_id": workspace.bot_id,
            "blocks": blocks,
            "state": {"values": {}},
            "hash": f"hash.{self.world.number()}",
            "root_view_id": view_id,
        }

    def show_view(self, view: Json, person: Person) -> None:
        """A modal opens before a person."""
        self.world.views[view["id"]] = view | {"shown_to": person.id}
        self.world.changes.note()

    def replace_view(self, old: Json, view: Json) -> Json:
        """views.update."""
        kept = {key: old[key] for key in ("id", "root_view_id", "previous_view_id")}
        fresh = view | kept | {"shown_to": old.get("shown_to")}
        self.world.views[old["id"]] = fresh
        self.world.changes.note()
        return fresh

    async def modal(self, person: Person, callback_id: str, *, within_s: float = 10.0) -> Json:
        """The latest modal with this callback id that the person sees."""

        def check() -> Json | None:
            found = [
                view
                for view in self.world.views.values()
                if (view["shown_to"], view["callback_id"]) == (person.id, callback_id)
            ]
            return found[-1] if found else None

        view = await self.until(check, f"modal {callback_id}", within_s=within_s)
        assert view is not None
        return view

    # ------------------------------------------------------------ the Web API

    async def _api(self, request: web.Request) -> web.Response:
        args: Json = dict(request.query)
        if request.content_type == "application/json":
            args |= await request.json()
        elif request.can_read_body:
            args |= dict(await request.post())
        bearer = request.headers.get("Authorization", "")
        if bearer.startswith("Basic ") and "client_id" not in args:
            pair = base64.b64decode(bearer.removeprefix("Basic ")).decode().partition(":")
            args |= {"client_id": pair[0], "client_secret": pair[2]}
        value = str(args.pop("token", "") or bearer.removeprefix("Bearer "))
        call = Call(
            method=request.match_info["method"], token=self.world.tokens.get(value), args=args
        )
        self.calls.append(call)
        response = await self._answer(call)
        self.world.changes.note()
        return response

    async def _answer(self, call: Call) -> web.Response:
        fault = next((fault for fault in self.faults if fault.matches(call)), None)
        if fault is not None:
            await fault.strike(lambda: self._body(call))
            if fault.status is not None or fault.error is not None:
                return faulty(call, fault)
        call.answer = await self._body(call)
        call.status = 200
        scopes = ",".join(sorted(call.token.scopes)) if call.token is not None else ""
        return web.json_response(call.answer, headers={"x-oauth-scopes": scopes})

    async def _body(self, call: Call) -> Json:
        try:
            known = METHODS.get(call.method)
            if known is None:
                raise SlackError("unknown_method")
            if known.scopes is not None:
                self._authorize(call, known.scopes)
            call.args = decode(call.args)
            return {"ok": True, **await known.run(self, call)}
        except SlackError as refused:
            return refused.body

    def _authorize(self, call: Call, scopes: tuple[str, ...]) -> None:
        token = call.token
        if token is None or token.refreshes:
            raise SlackError("invalid_auth")
        if token.revoked:
            raise SlackError("token_revoked")
        if token.expires_at is not None and time.monotonic() > token.expires_at:
            raise SlackError("token_expired")
        if scopes and not token.scopes & set(scopes):
            raise SlackError(
                "missing_scope", needed=",".join(scopes), provided=",".join(sorted(token.scopes))
            )

    # ------------------------------------------------------------ response_url

    def response_url(self, channel: Channel, person: Person, message: Message | None) -> str:
        """An address for answers to one interaction."""
        number = uuid.uuid4().hex
        self._response_urls[number] = ResponseUrl(channel=channel, person=person, message=message)
        return f"{self.root}/response/{number}"

    async def _respond(self, request: web.Request) -> web.Response:
        found = self._response_urls.get(request.match_info["id"])
        body = json.loads(await request.text())
        self.response_calls.append(body)
        if found is None or found.uses >= RESPONSE_URL_USES:
            refusal = {"ok": False, "error": "used_url" if found else "expired_url"}
            return web.json_response(refusal, status=404)
        found.uses += 1
        try:
            self._take_response(found, body)
        except SlackError as refused:
            return web.json_response(refused.body, status=500)
        finally:
            self.world.changes.note()
        return web.Response(text="ok")

    def take_ack(self, delivery: Delivery) -> None:
        """Do what the payload of an ack asks for: say something, change or push a modal."""
        said, payload = delivery.response or {}, delivery.payload
        if delivery.kind == "slash_commands" and (said.get("text") or said.get("blocks")):
            number = str(payload["response_url"]).rpartition("/")[2]
            self._take_response(self._response_urls[number], said)
        if said.get("response_action") in ("update", "push"):
            old = payload["view"]
            check_view(said["view"])
            view = self.adopt_view(said["view"], self.world.workspaces[old["team_id"]])
            if said["response_action"] == "update":
                self.replace_view(old, view)
            else:
                self.show_view(view, self.world.people[payload["user"]["id"]])

    def _take_response(self, found: ResponseUrl, body: Json) -> None:
        original = found.message
        if body.get("delete_original") and original is not None:
            original.deleted = True
            return
        if not body.get("text") and not body.get("blocks"):
            raise SlackError("no_text")
        check_blocks(body.get("blocks") or [])
        content: Json = {"text": body.get("text", ""), "blocks": body.get("blocks") or []}
        if body.get("replace_original") and original is not None:
            original.body |= content
            original.remember()
            return
        workspace = self.workspace_of(found.channel)
        fields: Json = {
            "type": "message",
            "ts": self.world.new_ts(),
            "user": workspace.bot_user_id,
            "bot_id": workspace.bot_id,
            "app_id": self.app_id,
            **content,
        }
        if body.get("thread_ts"):
            fields["thread_ts"] = body["thread_ts"]
        if body.get("response_type") == "in_channel":
            self.tell_message(self.world.add_message(found.channel, fields))
            return
        message = Message(channel=found.channel, body=fields, ephemeral_to=found.person.id)
        message.remember()
        found.channel.ephemerals.append(message)
