"""A call of the fake Slack's Web API, and the register of its methods with their scopes."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.slack_blocks import Json, SlackError
from tests.fakes.slack_world import Channel, Token, Workspace

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer

_ENCODED = {
    "attachments",
    "blocks",
    "chunks",
    "files",
    "loading_messages",
    "metadata",
    "prompts",
    "view",
}


@dataclass(kw_only=True)
class Call:
    """One request to the Web API. `at` is `time.monotonic()`; `answer` is None before it left."""

    method: str
    token: Token | None
    args: Json
    at: float = field(default_factory=time.monotonic)
    status: int = 0
    answer: Json | None = None

    @property
    def workspace(self) -> Workspace:
        """The workspace that the token speaks for."""
        if self.token is None or self.token.workspace is None:
            raise SlackError("not_allowed_token_type")
        return self.token.workspace

    def need(self, *names: str) -> list[Any]:
        """Arguments that must be there.

        Raises:
            SlackError: `invalid_arguments`.
        """
        for name in names:
            if self.args.get(name) in (None, ""):
                raise SlackError("invalid_arguments", f"missing required field: {name}")
        return [self.args[name] for name in names]


Method = Callable[["SlackServer", Call], Awaitable[Json]]


@dataclass(frozen=True)
class Registered:
    """A method and the scopes of which the token needs one; None = needs no bot token."""

    run: Method
    scopes: tuple[str, ...] | None


METHODS: dict[str, Registered] = {}


def method(name: str, *scopes: str, bot_token: bool = True) -> Callable[[Method], Method]:
    """Register a method."""

    def register(run: Method) -> Method:
        METHODS[name] = Registered(run, scopes if bot_token else None)
        return run

    return register


def decode(args: Json) -> Json:
    """Arguments as they were meant: JSON inside a form field is read."""
    found: Json = {}
    for name, value in args.items():
        if name in _ENCODED and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise SlackError(f"invalid_{name}_format") from None
        found[name] = value
    return found


def truth(value: object) -> bool:
    """Whether a flag is set, in any of the forms that Slack takes."""
    return value in (True, 1, "1", "true", "True")


def writable(slack: "SlackServer", call: Call) -> Channel:
    """The channel of a call, in which the app may write."""
    named = str(call.need("channel")[0])
    if named.startswith(("U", "W")):
        return slack.world.direct(named, call.workspace)
    by_name = [c for c in slack.world.channels.values() if f"#{c.name}" == named]
    channel = by_name[0] if by_name else slack.world.channel(named)
    if channel.team_id != call.workspace.id:
        raise SlackError("channel_not_found")
    if call.workspace.bot_user_id not in channel.members:
        raise SlackError("not_in_channel" if channel.kind == "channel" else "channel_not_found")
    if channel.archived:
        raise SlackError("is_archived")
    return channel


def app_body(slack: "SlackServer", call: Call, channel: Channel) -> Json:
    """The fields of every message by the app."""
    body: Json = {
        "type": "message",
        "ts": slack.world.new_ts(),
        "user": call.workspace.bot_user_id,
        "bot_id": call.workspace.bot_id,
        "app_id": slack.app_id,
        "team": call.workspace.id,
    }
    thread_ts = call.args.get("thread_ts")
    if thread_ts:
        parent = channel.messages.get(str(thread_ts))
        if parent is None:
            raise SlackError("thread_not_found")
        body |= {"thread_ts": parent.thread_ts or parent.ts, "parent_user_id": parent.user}
    return body
