"""Interactions of the fake Discord: their three seconds, their token, the messages they bring."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fakes.discord_calls import Answer, Call, route
from tests.fakes.discord_limits import (
    DiscordError,
    check_choices,
    check_message,
    check_modal,
)
from tests.fakes.discord_messages import change, post
from tests.fakes.discord_world import EPHEMERAL, LOADING, Channel, Message, Person
from tests.fakes.wire import Json

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer

MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9


@dataclass(kw_only=True)
class Interaction:
    """Something that a person did with the app, and what the app made of it.

    Attributes:
        kind: 2 command, 3 component, 4 autocomplete, 5 modal.
        sent_at: `time.monotonic()` when the app was told.
        acked_at: The same of the first accepted callback.
        callback: Type of that callback (4 message, 5 deferred, 6, 7, 8 choices, 9 modal).
        original: The message that the callback made or changes.
        followups: Messages posted with the token later.
        expires_at: When the token dies.
    """

    id: str
    token: str
    kind: int
    person: Person
    channel: Channel
    payload: Json
    expires_at: float
    source: Message | None = None
    sent_at: float = field(default_factory=time.monotonic)
    acked_at: float | None = None
    callback: int | None = None
    original: Message | None = None
    followups: list[Message] = field(default_factory=list)
    modal: Json | None = None
    choices: list[Json] | None = None

    @property
    def ack_s(self) -> float | None:
        """Seconds from the sending to the callback."""
        return None if self.acked_at is None else self.acked_at - self.sent_at

    @property
    def deferred(self) -> bool:
        """Whether the callback was a deferral."""
        return self.callback in (DEFERRED, DEFERRED_UPDATE)

    @property
    def messages(self) -> list[Message]:
        """The messages that answer it, without what they came from and what is deleted."""
        found = [] if self.original in (None, self.source) else [self.original]
        return [m for m in (*found, *self.followups) if m is not None and not m.deleted]

    @property
    def text(self) -> str:
        """What the person reads in answer; empty while the app is thinking."""
        return "\n".join(message.seen for message in self.messages if not message.loading)

    @property
    def ephemeral(self) -> bool:
        """Whether there is an answer, and nobody else sees it."""
        return bool(self.messages) and all(m.ephemeral_to for m in self.messages)

    def expire(self) -> None:
        """Let the fifteen minutes be over."""
        self.expires_at = time.monotonic()

    def wire(self) -> Json:
        """The metadata of the messages it brings."""
        return {
            "id": self.id,
            "type": self.kind,
            "user": self.person.wire(),
            "authorizing_integration_owners": self.payload["authorizing_integration_owners"],
        }


@route("POST /interactions/{interaction}/{token}/callback", bot=False)
async def callback(discord: "DiscordServer", call: Call) -> Answer:
    """The first answer, within three seconds."""
    found = discord.interactions.get(call.path["token"])
    if found is None or found.id != call.path["interaction"]:
        raise DiscordError(404, 10062, "Unknown interaction")
    if found.acked_at is not None:
        raise DiscordError(400, 40060, "Interaction has already been acknowledged.")
    if time.monotonic() - found.sent_at > discord.callback_within_s:
        raise DiscordError(404, 10062, "Unknown interaction")
    kind, data = int(call.body["type"]), call.body.get("data") or {}
    _take(discord, found, kind, data, call)
    found.acked_at, found.callback = time.monotonic(), kind
    if call.query.get("with_response") not in ("1", "true", "True"):
        return None
    return _callback_answer(discord, found, kind)


def _take(discord: "DiscordServer", found: Interaction, kind: int, data: Json, call: Call) -> None:
    if kind in (DEFERRED_UPDATE, UPDATE) and found.source is None:
        raise DiscordError(400, 50035, "Invalid Form Body")
    if (kind == CHOICES) != (found.kind == 4):
        raise DiscordError(400, 50035, "Invalid Form Body")
    if kind == MESSAGE:
        check_message({**data, "attachments": call.files})
        found.original = _bring(discord, found, data, call)
    elif kind == DEFERRED:
        found.original = _bring(discord, found, data, call, loading=True)
    elif kind in (DEFERRED_UPDATE, UPDATE):
        found.original = found.source
        if kind == UPDATE and found.source is not None:
            call.body = data
            change(discord, found.source, call)
    elif kind == CHOICES:
        check_choices(data.get("choices") or [], "data.choices")
        found.choices = data.get("choices") or []
    elif kind == MODAL and found.kind != 5:
        check_modal(data)
        found.modal = data
    else:
        raise DiscordError(400, 50035, "Invalid Form Body")


def _bring(
    discord: "DiscordServer", found: Interaction, data: Json, call: Call, *, loading: bool = False
) -> Message:
    """A message by an interaction's token."""
    ephemeral = bool(int(data.get("flags") or 0) & EPHEMERAL)
    extra: Json = {
        "interaction_metadata": found.wire(),
        "webhook_id": discord.app_id,
        "flags": LOADING if loading else 0,
        "type": 20 if found.kind == 2 else 0,
    }
    reader = found.person if ephemeral else None
    return post(discord, found.channel, data, files=call.files, reader=reader, extra=extra)


def _callback_answer(discord: "DiscordServer", found: Interaction, kind: int) -> Json:
    about: Json = {"id": found.id, "type": found.kind}
    resource: Json = {"type": kind}
    if found.original is not None:
        about |= {
            "response_message_id": found.original.id,
            "response_message_loading": found.original.loading,
            "response_message_ephemeral": found.original.ephemeral_to is not None,
        }
        resource["message"] = found.original.wire()
    return {"interaction": about, "resource": resource}


# ---------------------------------------------------------------- the fifteen minutes


def _by_token(discord: "DiscordServer", call: Call) -> Interaction:
    found = discord.interactions.get(call.path["token"])
    if found is None or call.path["application"] != discord.app_id:
        raise DiscordError(404, 10015, "Unknown Webhook")
    if time.monotonic() >= found.expires_at:
        raise DiscordError(401, 50027, "Invalid Webhook Token")
    if found.acked_at is None:
        raise DiscordError(404, 10015, "Unknown Webhook")
    return found


def _message(discord: "DiscordServer", call: Call) -> tuple[Interaction, Message]:
    found = _by_token(discord, call)
    wanted = call.path["message"]
    for message in (found.original, *found.followups):
        same = message is not None and wanted in (message.id, "@original")
        if message is not None and same and not message.deleted:
            return found, message
    raise DiscordError(404, 10008, "Unknown Message")


@route("POST /webhooks/{application}/{token}", bot=False)
async def follow_up(discord: "DiscordServer", call: Call) -> Answer:
    """A further message; the first one after a deferral takes its place."""
    found = _by_token(discord, call)
    check_message({**call.body, "attachments": call.files})
    if found.original is not None and found.original.loading:
        change(discord, found.original, call)
        return found.original.wire()
    message = _bring(discord, found, call.body, call)
    found.followups.append(message)
    return message.wire()


@route("GET /webhooks/{application}/{token}/messages/{message}", bot=False)
async def read(discord: "DiscordServer", call: Call) -> Answer:
    """A message of the interaction, or `@original`."""
    return _message(discord, call)[1].wire()


@route("PATCH /webhooks/{application}/{token}/messages/{message}", bot=False)
async def edit(discord: "DiscordServer", call: Call) -> Answer:
    """Edit a message of the interaction, or `@original`."""
    message = _message(discord, call)[1]
    change(discord, message, call)
    return message.wire()


@route("DELETE /webhooks/{application}/{token}/messages/{message}", bot=False)
async def delete(discord: "DiscordServer", call: Call) -> Answer:
    """Delete a message of the interaction, or `@original`."""
    discord.remove(_message(discord, call)[1])
    return None
