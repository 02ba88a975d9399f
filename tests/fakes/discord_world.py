"""What exists in the fake Discord: guilds, roles, people, channels, threads, messages."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Literal

from tests.fakes.discord_limits import DiscordError, elements_of, texts_of
from tests.fakes.discord_permissions import EVERYONE_BY_DEFAULT, Overwrite, Permission
from tests.fakes.wire import Changes, Json

DISCORD_EPOCH_MS = 1_420_070_400_000
EPHEMERAL, LOADING, SUPPRESS_EMBEDS = 1 << 6, 1 << 7, 1 << 2

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"(?<!<)https?://[^\s<>)\]]+")


class ChannelType(IntEnum):
    """Discord's numbers."""

    TEXT = 0
    DM = 1
    VOICE = 2
    GROUP_DM = 3
    ANNOUNCEMENT = 5
    ANNOUNCEMENT_THREAD = 10
    PUBLIC_THREAD = 11
    PRIVATE_THREAD = 12
    FORUM = 15


THREADS = (
    ChannelType.ANNOUNCEMENT_THREAD,
    ChannelType.PUBLIC_THREAD,
    ChannelType.PRIVATE_THREAD,
)


def iso(seconds: float) -> str:
    """A time as Discord writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass(kw_only=True)
class Person:
    """A user or bot.

    Attributes:
        locale: Language of the person's client.
        takes_direct: Whether direct messages by the app reach them.
    """

    id: str
    name: str
    is_bot: bool = False
    locale: str = "en-US"
    takes_direct: bool = True

    @property
    def mention(self) -> str:
        """What names them in a message."""
        return f"<@{self.id}>"

    def wire(self) -> Json:
        """A user object."""
        return {
            "id": self.id,
            "username": self.name.lower().replace(" ", "_"),
            "discriminator": "0",
            "global_name": self.name,
            "avatar": None,
            "bot": self.is_bot,
            "system": False,
            "public_flags": 0,
            "flags": 0,
        }


@dataclass(kw_only=True)
class Role:
    """A role of a guild; `bot_id`: whose own role it is, if an app's."""

    id: str
    name: str
    permissions: Permission
    position: int
    bot_id: str | None = None

    @property
    def mention(self) -> str:
        """What names it in a message."""
        return f"<@&{self.id}>"

    def wire(self) -> Json:
        """A role object."""
        return {
            "id": self.id,
            "name": self.name,
            "color": 0,
            "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
            "hoist": False,
            "icon": None,
            "unicode_emoji": None,
            "position": self.position,
            "permissions": str(int(self.permissions)),
            "managed": self.bot_id is not None,
            "mentionable": False,
            "flags": 0,
            **({"tags": {"bot_id": self.bot_id}} if self.bot_id is not None else {}),
        }


@dataclass(kw_only=True)
class Member:
    """A person in a guild."""

    person: Person
    roles: set[str] = field(default_factory=set)
    silenced: bool = False

    def wire(self, *, user: bool = True) -> Json:
        """A member object; without the user where the message already names it."""
        until = iso(time.time() + 3600) if self.silenced else None
        body: Json = {
            "roles": sorted(self.roles),
            "nick": None,
            "avatar": None,
            "joined_at": iso(DISCORD_EPOCH_MS / 1000),
            "premium_since": None,
            "deaf": False,
            "mute": False,
            "pending": False,
            "flags": 0,
            "communication_disabled_until": until,
        }
        return {**body, "user": self.person.wire()} if user else body


@dataclass(kw_only=True)
class Guild:
    """A server. `has_app`: whether the app's bot is a member."""

    id: str
    name: str
    owner_id: str
    locale: str = "en-US"
    has_app: bool = True
    available: bool = True
    roles: dict[str, Role] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def everyone(self) -> Role:
        """The role that everybody has; its id is the guild's."""
        return self.roles[self.id]

    def wire(self) -> Json:
        """The guild's own fields."""
        return {
            "id": self.id,
            "name": self.name,
            "icon": None,
            "splash": None,
            "discovery_splash": None,
            "owner_id": self.owner_id,
            "afk_channel_id": None,
            "afk_timeout": 300,
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "roles": [role.wire() for role in self.roles.values()],
            "emojis": [],
            "stickers": [],
            "features": [],
            "mfa_level": 0,
            "application_id": None,
            "system_channel_id": None,
            "system_channel_flags": 0,
            "rules_channel_id": None,
            "public_updates_channel_id": None,
            "vanity_url_code": None,
            "description": None,
            "banner": None,
            "premium_tier": 0,
            "premium_progress_bar_enabled": False,
            "preferred_locale": self.locale,
            "nsfw": False,
            "nsfw_level": 0,
            "safety_alerts_channel_id": None,
        }


@dataclass(kw_only=True)
class SentFile:
    """An attachment. `served` says what the CDN does; `size` may lie."""

    id: str
    name: str
    content: bytes
    mimetype: str
    url: str
    size: int
    served: Literal["content", "html", "redirect", "endless", "away", "gone"] = "content"
    redirect_to: str = ""

    def wire(self) -> Json:
        """An attachment object."""
        return {
            "id": self.id,
            "filename": self.name,
            "size": self.size,
            "url": self.url,
            "proxy_url": self.url,
            "content_type": self.mimetype,
        }


@dataclass(kw_only=True)
class Message:
    """A message and everything it has been.

    Attributes:
        body: As the API gives it to a reader who may see its content.
        posted: What the app sent to post it (flags, nonce, allowed_mentions, …).
        versions: What a reader saw, once per post or edit.
        times: `time.monotonic()` of each version.
        ephemeral_to: The only reader's id, or None.
    """

    channel: "Channel" = field(repr=False)
    author: Person
    body: Json
    posted: Json = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ephemeral_to: str | None = None
    deleted: bool = False

    @property
    def id(self) -> str:
        """Its snowflake."""
        return str(self.body["id"])

    @property
    def content(self) -> str:
        """Its text, as Markdown."""
        return str(self.body["content"])

    @property
    def components(self) -> list[Json]:
        """Its rows of components."""
        return list(self.body["components"])

    @property
    def flags(self) -> int:
        """Its flags."""
        return int(self.body["flags"])

    @property
    def loading(self) -> bool:
        """Whether it still says that the app is thinking."""
        return bool(self.flags & LOADING)

    @property
    def seen(self) -> str:
        """What a reader sees: content, embeds' and components' texts."""
        texts = [self.content]
        for embed in self.body["embeds"]:
            texts += [str(embed[key]) for key in ("title", "description") if embed.get(key)]
            texts += [f"{f['name']} {f['value']}" for f in embed.get("fields", ())]
        texts += texts_of(self.components)
        return "\n".join(text for text in texts if text)

    @property
    def elements(self) -> dict[str, Json]:
        """Its interactive components by custom id."""
        return {found["custom_id"]: found for found in elements_of(self.components)}

    @property
    def buttons(self) -> dict[str, str]:
        """Labels of its enabled buttons, with their custom ids."""
        return {
            str(found.get("label") or (found.get("emoji") or {}).get("name")): custom_id
            for custom_id, found in self.elements.items()
            if found["type"] == 2 and not found.get("disabled")
        }

    @property
    def pings(self) -> list[str]:
        """Whom it notifies."""
        everyone = ["@everyone"] if self.body["mention_everyone"] else []
        users = [f"<@{user['id']}>" for user in self.body["mentions"]]
        return everyone + users + [f"<@&{role}>" for role in self.body["mention_roles"]]

    @property
    def unfurls(self) -> list[str]:
        """Addresses in it that Discord would fetch and preview."""
        if self.flags & SUPPRESS_EMBEDS:
            return []
        return _LINK.findall(_CODE.sub("", self.content))

    @property
    def thread(self) -> "Channel | None":
        """The thread that was opened on it."""
        found = self.channel.world.channels.get(self.id)
        return found if found is not self.channel else None

    def wire(self, *, content: bool = True) -> Json:
        """As the API gives it; without content where the app may not read it."""
        if content:
            return dict(self.body)
        empty: Json = {"content": "", "embeds": [], "attachments": [], "components": []}
        return self.body | empty

    def remember(self) -> None:
        """Keep what a reader sees now."""
        self.versions.append("" if self.loading else self.seen)
        self.times.append(time.monotonic())


@dataclass(kw_only=True)
class Channel:
    """A channel, thread or direct conversation.

    Attributes:
        overwrites: By role or person id.
        recipients: The people of a direct conversation.
        members: Ids of the people in a thread.
        messages: By id, oldest first, without ephemeral ones.
    """

    world: "World" = field(repr=False)
    id: str
    type: ChannelType
    name: str = ""
    guild: Guild | None = field(default=None, repr=False)
    parent: "Channel | None" = field(default=None, repr=False)
    owner_id: str = ""
    overwrites: dict[str, Overwrite] = field(default_factory=dict)
    recipients: list[Person] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    archived: bool = False
    locked: bool = False
    deleted: bool = False
    messages: dict[str, Message] = field(default_factory=dict, repr=False)
    ephemerals: list[Message] = field(default_factory=list, repr=False)
    typing: list[float] = field(default_factory=list)

    @property
    def is_thread(self) -> bool:
        """Whether it is a thread."""
        return self.type in THREADS

    @property
    def mention(self) -> str:
        """What names it in a message."""
        return f"<#{self.id}>"

    def wire(self) -> Json:
        """A channel object."""
        last = next(reversed(self.messages), None)
        body: Json = {"id": self.id, "type": int(self.type), "last_message_id": last, "flags": 0}
        if self.guild is None:
            people = [person.wire() for person in self.recipients]
            return {**body, "recipients": people}
        body |= {"guild_id": self.guild.id, "name": self.name, "rate_limit_per_user": 0}
        body["parent_id"] = self.parent.id if self.parent is not None else None
        if self.is_thread:
            return {**body, **self._thread_wire()}
        return {
            **body,
            "position": 0,
            "nsfw": False,
            "topic": None,
            "default_auto_archive_duration": 1440,
            "permission_overwrites": [found.wire() for found in self.overwrites.values()],
        }

    def _thread_wire(self) -> Json:
        return {
            "owner_id": self.owner_id,
            "message_count": len(self.messages),
            "total_message_sent": len(self.messages),
            "member_count": len(self.members),
            "thread_metadata": {
                "archived": self.archived,
                "locked": self.locked,
                "auto_archive_duration": 1440,
                "archive_timestamp": iso(time.time()),
                "create_timestamp": iso(time.time()),
                "invitable": True,
            },
        }

    def living(self) -> list[Message]:
        """Its messages that are not deleted, oldest first."""
        return [message for message in self.messages.values() if not message.deleted]


@dataclass(kw_only=True)
class World:
    """Everything there is, and what may be noticed about it."""

    changes: Changes = field(default_factory=Changes)
    guilds: dict[str, Guild] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    files: dict[str, SentFile] = field(default_factory=dict)
    _last_id: int = 0

    def new_id(self) -> str:
        """A snowflake of now, later than all before."""
        now = (int(time.time() * 1000) - DISCORD_EPOCH_MS) << 22
        self._last_id = max(now, self._last_id + 1)
        return str(self._last_id)

    @staticmethod
    def clock() -> float:
        """Unix seconds."""
        return time.time()

    def add_person(self, name: str, *, bot: bool = False, locale: str = "en-US") -> Person:
        """A person who is in no guild yet."""
        person = Person(id=self.new_id(), name=name, is_bot=bot, locale=locale)
        self.people[person.id] = person
        return person

    def add_guild(self, name: str, owner: Person) -> Guild:
        """A guild with nobody but its owner."""
        guild = Guild(id=self.new_id(), name=name, owner_id=owner.id)
        guild.roles[guild.id] = Role(
            id=guild.id, name="@everyone", permissions=EVERYONE_BY_DEFAULT, position=0
        )
        guild.members[owner.id] = Member(person=owner)
        self.guilds[guild.id] = guild
        return guild

    def add_channel(self, **settings: object) -> Channel:
        """A channel; `settings` are its attributes."""
        values: Mapping[str, object] = {"id": self.new_id(), **settings}
        channel = Channel(world=self, **values)  # type: ignore[arg-type]
        self.channels[channel.id] = channel
        return channel

    def channel(self, channel_id: str) -> Channel:
        """A channel by its id.

        Raises:
            DiscordError: Unknown Channel.
        """
        found = self.channels.get(channel_id)
        if found is None or found.deleted:
            raise DiscordError(404, 10003, "Unknown Channel")
        return found

    def message(self, channel: Channel, message_id: str) -> Message:
        """A message by its id.

        Raises:
            DiscordError: Unknown Message.
        """
        found = channel.messages.get(message_id)
        if found is None or found.deleted:
            raise DiscordError(404, 10008, "Unknown Message")
        return found

    def direct(self, person: Person) -> Channel:
        """The direct conversation of a person with the app, made on first use."""
        for channel in self.channels.values():
            if channel.type == ChannelType.DM and channel.recipients == [person]:
                return channel
        return self.add_channel(type=ChannelType.DM, recipients=[person])

    def threads(self, guild: Guild) -> list[Channel]:
        """The active threads of a guild."""
        return [
            channel
            for channel in self.channels.values()
            if channel.guild is guild
            and channel.is_thread
            and not (channel.archived or channel.deleted)
        ]
