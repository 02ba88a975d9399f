"""Channels, messages and threads of the fake Discord's REST API."""

import re
import time
from typing import TYPE_CHECKING

from tests.fakes.discord_calls import Answer, Call, Upload, need, route
from tests.fakes.discord_limits import DiscordError, check_length, check_message, invalid
from tests.fakes.discord_permissions import Permission, in_channel
from tests.fakes.discord_world import (
    EPHEMERAL,
    LOADING,
    SUPPRESS_EMBEDS,
    Channel,
    ChannelType,
    Message,
    Person,
    World,
    iso,
)
from tests.fakes.wire import Json

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer

P = Permission
NONCE_LIVES_S = 180.0
_MAY_SEND = SUPPRESS_EMBEDS | 1 << 12 | 1 << 15
_USER, _ROLE = re.compile(r"<@!?(\d+)>"), re.compile(r"<@&(\d+)>")
_EVERYONE = re.compile(r"@(?:everyone|here)\b")


# ---------------------------------------------------------------- users, guilds, channels


@route("GET /users/@me")
async def me(discord: "DiscordServer", call: Call) -> Answer:
    """The bot."""
    return {**discord.bot.wire(), "verified": True, "mfa_enabled": False, "locale": "en-US"}


@route("GET /users/{user}")
async def user(discord: "DiscordServer", call: Call) -> Answer:
    """Anybody."""
    found = discord.world.people.get(call.path["user"])
    if found is None:
        raise DiscordError(404, 10013, "Unknown User")
    return found.wire()


@route("GET /users/@me/guilds")
async def my_guilds(discord: "DiscordServer", call: Call) -> Answer:
    """The guilds that the bot is in."""
    keys = ("id", "name", "icon", "features")
    return [
        {key: guild.wire()[key] for key in keys} | {"owner": False, "permissions": "0"}
        for guild in discord.app_guilds
    ]


@route("POST /users/@me/channels")
async def open_direct(discord: "DiscordServer", call: Call) -> Answer:
    """A direct conversation."""
    person = discord.world.people.get(str(call.body.get("recipient_id")))
    if person is None:
        raise DiscordError(404, 10013, "Unknown User")
    return discord.world.direct(person).wire()


@route("GET /guilds/{guild}")
async def guild(discord: "DiscordServer", call: Call) -> Answer:
    """A guild."""
    return discord.app_guild(call.path["guild"]).wire()


@route("GET /guilds/{guild}/channels")
async def guild_channels(discord: "DiscordServer", call: Call) -> Answer:
    """Its channels."""
    return [channel.wire() for channel in discord.channels_of(call.path["guild"])]


@route("GET /guilds/{guild}/roles")
async def guild_roles(discord: "DiscordServer", call: Call) -> Answer:
    """Its roles."""
    return [role.wire() for role in discord.app_guild(call.path["guild"]).roles.values()]


@route("GET /guilds/{guild}/threads/active")
async def active_threads(discord: "DiscordServer", call: Call) -> Answer:
    """The active threads that the bot sees."""
    found = discord.visible_threads(discord.app_guild(call.path["guild"]))
    return {"threads": [thread.wire() for thread in found], "members": []}


@route("GET /guilds/{guild}/members/{user}")
async def guild_member(discord: "DiscordServer", call: Call) -> Answer:
    """A member of a guild."""
    found = discord.app_guild(call.path["guild"]).members.get(call.path["user"])
    if found is None:
        raise DiscordError(404, 10007, "Unknown Member")
    return found.wire()


@route("GET /channels/{channel}")
async def channel(discord: "DiscordServer", call: Call) -> Answer:
    """A channel or thread."""
    found = discord.world.channel(call.path["channel"])
    need(discord, found)
    return found.wire()


@route("PATCH /channels/{channel}")
async def change_channel(discord: "DiscordServer", call: Call) -> Answer:
    """Name or archive a thread."""
    found = discord.world.channel(call.path["channel"])
    mine = found.is_thread and found.owner_id == discord.bot.id
    need(discord, found, *(() if mine else (P.MANAGE_THREADS,)))
    if "name" in call.body:
        check_length("name", call.body["name"], 1, 100)
        found.name = call.body["name"]
    found.archived = bool(call.body.get("archived", found.archived))
    found.locked = bool(call.body.get("locked", found.locked))
    discord.tell_channel("THREAD_UPDATE" if found.is_thread else "CHANNEL_UPDATE", found)
    return found.wire()


@route("POST /channels/{channel}/typing")
async def typing(discord: "DiscordServer", call: Call) -> Answer:
    """Say that the app is typing."""
    found = discord.world.channel(call.path["channel"])
    need(discord, found, P.SEND_MESSAGES_IN_THREADS if found.is_thread else P.SEND_MESSAGES)
    found.typing.append(time.monotonic())
    return None


# ---------------------------------------------------------------- messages


@route("GET /channels/{channel}/messages")
async def messages(discord: "DiscordServer", call: Call) -> Answer:
    """Messages, newest first; `after` gives the oldest ones after it, newest first."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place)
    limit = int(call.query.get("limit", "50"))
    if not 1 <= limit <= 100:
        raise invalid("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    if not in_channel(place, discord.bot.id) & P.READ_MESSAGE_HISTORY:
        return []
    found = place.living()
    if "after" in call.query:
        found = [m for m in found if int(m.id) > int(call.query["after"])][:limit]
    elif "before" in call.query:
        found = [m for m in found if int(m.id) < int(call.query["before"])]
    return [discord.as_read(message) for message in reversed(found[-limit:])]


@route("GET /channels/{channel}/messages/{message}")
async def message(discord: "DiscordServer", call: Call) -> Answer:
    """One message."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place, P.READ_MESSAGE_HISTORY)
    return discord.as_read(discord.world.message(place, call.path["message"]))


@route("POST /channels/{channel}/messages")
async def send(discord: "DiscordServer", call: Call) -> Answer:
    """Post a message; a nonce that is enforced gives the message that has it already."""
    place = discord.world.channel(call.path["channel"])
    _may_send(discord, place, call)
    check_message({**call.body, "attachments": call.files})
    nonce = call.body.get("nonce")
    if nonce is not None and call.body.get("enforce_nonce"):
        for known in place.living():
            young = time.monotonic() - known.times[0] < NONCE_LIVES_S
            if young and known.posted.get("nonce") == nonce and known.author is discord.bot:
                return discord.as_read(known)
    replied = _referenced(discord, place, call.body)
    if place.archived:
        place.archived = False
        discord.tell_channel("THREAD_UPDATE", place)
    posted = post(discord, place, call.body, files=call.files, replied=replied)
    return discord.as_read(posted)


def _may_send(discord: "DiscordServer", place: Channel, call: Call) -> None:
    need(discord, place, P.SEND_MESSAGES_IN_THREADS if place.is_thread else P.SEND_MESSAGES)
    if place.type == ChannelType.FORUM:
        raise DiscordError(400, 50008, "Cannot send messages in a non-text channel")
    if call.files:
        need(discord, place, P.ATTACH_FILES)
    if place.archived and place.locked:
        raise DiscordError(400, 50083, "Thread is archived")
    if place.guild is None and not all(person.takes_direct for person in place.recipients):
        raise DiscordError(403, 50007, "Cannot send messages to this user")


def _referenced(discord: "DiscordServer", place: Channel, body: Json) -> Message | None:
    reference = body.get("message_reference")
    if reference is None:
        return None
    need(discord, place, P.READ_MESSAGE_HISTORY)
    found = place.messages.get(str(reference.get("message_id")))
    if found is not None and not found.deleted:
        return found
    if reference.get("fail_if_not_exists", True):
        raise invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
    return None


def post(
    discord: "DiscordServer",
    place: Channel,
    body: Json,
    *,
    files: list[Upload],
    replied: Message | None = None,
    reader: Person | None = None,
    extra: Json | None = None,
) -> Message:
    """Put a message by the app into a channel.

    Args:
        discord: The server.
        place: Where.
        body: Fields of the call.
        files: Its files.
        replied: What it replies to.
        reader: Who alone sees it.
        extra: Further fields of the message (flags, interaction_metadata).
    """
    flags = int(body.get("flags") or 0) & _MAY_SEND
    more = dict(extra or {})
    more["flags"] = flags | int(more.get("flags", 0)) | (EPHEMERAL if reader is not None else 0)
    fields = {
        "content": str(body.get("content") or ""),
        "embeds": body.get("embeds") or [],
        "components": body.get("components") or [],
        "attachments": [discord.cdn.keep(place, upload).wire() for upload in files],
        "application_id": discord.app_id,
        "nonce": body.get("nonce"),
        **more,
    }
    return discord.add_message(
        discord.bot, place, fields, posted=body, replied=replied, ephemeral_to=reader
    )


@route("PATCH /channels/{channel}/messages/{message}")
async def edit(discord: "DiscordServer", call: Call) -> Answer:
    """Edit a message of the app."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place)
    found = discord.world.message(place, call.path["message"])
    if found.author is not discord.bot:
        raise DiscordError(403, 50005, "Cannot edit a message authored by another user")
    if place.archived:
        raise DiscordError(400, 50083, "Thread is archived")
    change(discord, found, call)
    return discord.as_read(found)


def change(discord: "DiscordServer", found: Message, call: Call) -> None:
    """Change a message of the app as a call says.

    Raises:
        DiscordError: The call breaks a limit.
    """
    after = {key: found.body[key] for key in ("content", "embeds", "components", "attachments")}
    after |= {key: value for key, value in call.body.items() if key in after}
    flags = int(call.body.get("flags") or found.flags)
    check_message({**after, "flags": flags, "attachments": after["attachments"] or call.files})
    kept = {str(one["id"]) for one in after["attachments"] or ()}
    attachments = [one for one in found.body["attachments"] if str(one["id"]) in kept]
    attachments += [discord.cdn.keep(found.channel, upload).wire() for upload in call.files]
    found.body |= {
        "content": str(after["content"] or ""),
        "embeds": after["embeds"] or [],
        "components": after["components"] or [],
        "attachments": attachments,
        "flags": found.flags & ~(LOADING | SUPPRESS_EMBEDS)
        | (flags & SUPPRESS_EMBEDS if "flags" in call.body else found.flags & SUPPRESS_EMBEDS),
        "edited_timestamp": iso(time.time()),
    }
    found.body |= mentions(
        discord.world, found.channel, found.author, found.body["content"], call.body
    )
    found.remember()
    discord.tell_edit(found)


@route("DELETE /channels/{channel}/messages/{message}")
async def delete(discord: "DiscordServer", call: Call) -> Answer:
    """Delete a message."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place)
    found = discord.world.message(place, call.path["message"])
    if found.author is not discord.bot:
        need(discord, place, P.MANAGE_MESSAGES)
    discord.remove(found)
    return None


@route("PUT /channels/{channel}/messages/{message}/reactions/{emoji}/@me")
async def react(discord: "DiscordServer", call: Call) -> Answer:
    """Add a reaction."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place, P.READ_MESSAGE_HISTORY, P.ADD_REACTIONS)
    discord.world.message(place, call.path["message"])
    return None


def mentions(world: World, place: Channel, author: Person, content: str, body: Json) -> Json:
    """Whom a text notifies, as far as `allowed_mentions` and permissions let it."""
    allowed = body.get("allowed_mentions")
    parse = {"users", "roles", "everyone"} if allowed is None else set(allowed.get("parse") or ())
    users, roles = _USER.findall(content), _ROLE.findall(content)
    named = {kind: set(map(str, (allowed or {}).get(kind, ()))) for kind in ("users", "roles")}
    if "users" not in parse:
        users = [found for found in users if found in named["users"]]
    if "roles" not in parse:
        roles = [found for found in roles if found in named["roles"]]
    loud = bool(in_channel(place, author.id) & P.MENTION_EVERYONE)
    everyone = "everyone" in parse and loud and bool(_EVERYONE.search(content))
    people = world.people
    return {
        "mentions": [people[found].wire() for found in dict.fromkeys(users) if found in people],
        "mention_roles": list(dict.fromkeys(roles)) if loud else [],
        "mention_everyone": everyone,
    }


# ---------------------------------------------------------------- threads


@route("POST /channels/{channel}/messages/{message}/threads")
async def open_on_message(discord: "DiscordServer", call: Call) -> Answer:
    """Open a thread on a message; it gets the message's id."""
    place = discord.world.channel(call.path["channel"])
    need(discord, place, P.CREATE_PUBLIC_THREADS)
    if place.type not in (ChannelType.TEXT, ChannelType.ANNOUNCEMENT):
        raise DiscordError(400, 50024, "Cannot execute action on this channel type")
    found = discord.world.message(place, call.path["message"])
    if found.id in discord.world.channels:
        raise DiscordError(400, 160004, "A thread has already been created for this message")
    check_length("name", call.body.get("name"), 1, 100)
    return discord.open_thread(place, call.body["name"], on=found, owner=discord.bot).wire()


@route("POST /channels/{channel}/threads")
async def open_alone(discord: "DiscordServer", call: Call) -> Answer:
    """Open a thread without a message: private unless said otherwise."""
    place = discord.world.channel(call.path["channel"])
    kind = ChannelType(call.body.get("type", ChannelType.PRIVATE_THREAD))
    private = kind == ChannelType.PRIVATE_THREAD
    need(discord, place, P.CREATE_PRIVATE_THREADS if private else P.CREATE_PUBLIC_THREADS)
    check_length("name", call.body.get("name"), 1, 100)
    name = call.body["name"]
    return discord.open_thread(place, name, owner=discord.bot, private=private).wire()


@route("PUT /channels/{channel}/thread-members/@me")
async def join(discord: "DiscordServer", call: Call) -> Answer:
    """Join a thread."""
    thread = discord.world.channel(call.path["channel"])
    need(discord, thread)
    thread.members.add(discord.bot.id)
    return None


@route("PUT /channels/{channel}/thread-members/{user}")
async def let_in(discord: "DiscordServer", call: Call) -> Answer:
    """Add somebody to a thread."""
    thread = discord.world.channel(call.path["channel"])
    need(discord, thread)
    thread.members.add(call.path["user"])
    return None


@route("GET /channels/{channel}/thread-members/{user}")
async def thread_member(discord: "DiscordServer", call: Call) -> Answer:
    """A member of a thread."""
    thread = discord.world.channel(call.path["channel"])
    need(discord, thread)
    if call.path["user"] not in thread.members:
        raise DiscordError(404, 10007, "Unknown Member")
    return member_wire(thread, call.path["user"])


@route("GET /channels/{channel}/thread-members")
async def thread_members(discord: "DiscordServer", call: Call) -> Answer:
    """The members of a thread."""
    thread = discord.world.channel(call.path["channel"])
    need(discord, thread)
    return [member_wire(thread, found) for found in sorted(thread.members)]


def member_wire(thread: Channel, person_id: str) -> Json:
    """A thread member object."""
    joined = {"join_timestamp": iso(time.time()), "flags": 0}
    return {"id": thread.id, "user_id": person_id, **joined}
