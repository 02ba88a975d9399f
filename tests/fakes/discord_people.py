"""Who there is in the fake Discord and what people do there: write, attach, edit, come and go."""

from collections.abc import Sequence
from typing import Any

from tests.fakes.discord_files import Cdn
from tests.fakes.discord_gateway import Gateway, Intent, with_intent
from tests.fakes.discord_messages import mentions
from tests.fakes.discord_permissions import Overwrite, Permission, in_channel
from tests.fakes.discord_world import (
    Channel,
    ChannelType,
    Guild,
    Member,
    Message,
    Person,
    Role,
    SentFile,
    World,
    iso,
)
from tests.fakes.wire import Json

P = Permission


class People:
    """Actions of people; the app hears of them over its gateway, as far as it may.

    Attributes:
        privileged: Privileged intents that the application may use.
    """

    world: World
    gateway: Gateway
    cdn: Cdn
    bot: Person
    privileged: Intent = Intent(0)

    # ------------------------------------------------------------ who and where

    @property
    def home(self) -> Guild:
        """The first guild."""
        return next(iter(self.world.guilds.values()))

    def add_guild(self, name: str, *, has_app: bool = True) -> Guild:
        """A guild with an owner of its own."""
        guild = self.world.add_guild(name, self.world.add_person(f"{name} owner"))
        guild.has_app = False
        if has_app:
            self.add_app(guild)
        return guild

    def add_app(self, guild: Guild) -> None:
        """Add the app's bot to a guild, with the role of its own that Discord makes."""
        guild.has_app, guild.available = True, True
        role = Role(
            id=self.world.new_id(),
            name=self.bot.name,
            permissions=P.NONE,
            position=len(guild.roles),
            bot_id=self.bot.id,
        )
        guild.roles[role.id] = role
        guild.members[self.bot.id] = Member(person=self.bot, roles={role.id})
        self.gateway.emit("GUILD_CREATE", lambda intents: self.guild_create(guild, intents))

    def remove_app(self, guild: Guild) -> None:
        """Kick the app's bot out of a guild."""
        guild.has_app = False
        del guild.members[self.bot.id]
        self._tell("GUILD_DELETE", {"id": guild.id})

    def lose(self, guild: Guild) -> None:
        """An outage: the guild is unavailable, and the app still in it."""
        guild.available = False
        self._tell("GUILD_DELETE", {"id": guild.id, "unavailable": True})

    def find(self, guild: Guild) -> None:
        """The outage is over."""
        guild.available = True
        self.gateway.emit("GUILD_CREATE", lambda intents: self.guild_create(guild, intents))

    def guild_create(self, guild: Guild, intents: Intent) -> Json:
        """GUILD_CREATE: everything of a guild that a session with these intents is told."""
        if not guild.available:
            return {"id": guild.id, "unavailable": True}
        everybody = bool(intents & Intent.GUILD_MEMBERS)
        members = [m for m in guild.members.values() if everybody or m.person is self.bot]
        return {
            **guild.wire(),
            "joined_at": iso(1_700_000_000),
            "large": False,
            "unavailable": False,
            "member_count": len(guild.members),
            "members": [member.wire() for member in members],
            "channels": [channel.wire() for channel in self.channels_of(guild.id)],
            "threads": [thread.wire() for thread in self.visible_threads(guild)],
            "voice_states": [],
            "presences": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }

    def channels_of(self, guild_id: str) -> list[Channel]:
        """The channels of a guild, without threads."""
        return [
            channel
            for channel in self.world.channels.values()
            if channel.guild is not None
            and channel.guild.id == guild_id
            and not channel.is_thread
            and not channel.deleted
        ]

    def visible_threads(self, guild: Guild) -> list[Channel]:
        """The active threads that the app sees."""
        return [
            thread
            for thread in self.world.threads(guild)
            if in_channel(thread, self.bot.id) & P.VIEW_CHANNEL
        ]

    def add_person(
        self,
        name: str,
        *roles: Role,
        guild: Guild | None = None,
        outsider: bool = False,
        bot: bool = False,
        locale: str = "en-US",
    ) -> Person:
        """A member of a guild (the first one), or an outsider of all of them."""
        person = self.world.add_person(name, bot=bot, locale=locale)
        if not outsider:
            self.join(person, guild or self.home, *roles)
        return person

    def join(self, person: Person, guild: Guild, *roles: Role) -> None:
        """A person becomes a member."""
        member = Member(person=person, roles={role.id for role in roles})
        guild.members[person.id] = member
        self._tell(
            "GUILD_MEMBER_ADD", {**member.wire(), "guild_id": guild.id}, Intent.GUILD_MEMBERS
        )

    def leave(self, person: Person, guild: Guild | None = None) -> None:
        """A member leaves or is kicked."""
        place = guild or self.home
        del place.members[person.id]
        gone: Json = {"guild_id": place.id, "user": person.wire()}
        self._tell("GUILD_MEMBER_REMOVE", gone, Intent.GUILD_MEMBERS)

    def add_role(
        self, name: str, permissions: Permission = P.NONE, *, guild: Guild | None = None
    ) -> Role:
        """A role."""
        place = guild or self.home
        role = Role(
            id=self.world.new_id(), name=name, permissions=permissions, position=len(place.roles)
        )
        place.roles[role.id] = role
        self._tell("GUILD_ROLE_CREATE", {"guild_id": place.id, "role": role.wire()})
        return role

    def change_role(self, role: Role, permissions: Permission) -> None:
        """Give a role other permissions."""
        role.permissions = permissions
        [guild] = [found for found in self.world.guilds.values() if role.id in found.roles]
        self._tell("GUILD_ROLE_UPDATE", {"guild_id": guild.id, "role": role.wire()})

    def give(self, person: Person, role: Role) -> None:
        """A member gets a role."""
        self._change_member(person, role, add=True)

    def take(self, person: Person, role: Role) -> None:
        """A member loses a role."""
        self._change_member(person, role, add=False)

    def _change_member(self, person: Person, role: Role, *, add: bool) -> None:
        [guild] = [found for found in self.world.guilds.values() if role.id in found.roles]
        member = guild.members[person.id]
        member.roles = member.roles | {role.id} if add else member.roles - {role.id}
        intent = Intent(0) if person is self.bot else Intent.GUILD_MEMBERS
        self._tell("GUILD_MEMBER_UPDATE", {**member.wire(), "guild_id": guild.id}, intent)

    def add_channel(
        self,
        name: str,
        *,
        guild: Guild | None = None,
        only: Sequence[Role | Person] | None = None,
        kind: ChannelType = ChannelType.TEXT,
    ) -> Channel:
        """A channel.

        Args:
            name: Its name.
            guild: Its guild (the first one).
            only: The roles and people that see it, beside the app; None = everybody.
            kind: Its type.
        """
        channel = self.world.add_channel(type=kind, name=name, guild=guild or self.home)
        if only is not None:
            assert channel.guild is not None
            hidden = Overwrite(id=channel.guild.id, for_role=True, deny=P.VIEW_CHANNEL)
            channel.overwrites[hidden.id] = hidden
            for found in (*only, self.bot):
                self._set(channel, found, allow=P.VIEW_CHANNEL, deny=P.NONE)
        self.tell_channel("CHANNEL_CREATE", channel)
        return channel

    def overwrite(
        self,
        channel: Channel,
        whom: Role | Person,
        *,
        allow: Permission = P.NONE,
        deny: Permission = P.NONE,
    ) -> None:
        """Set a channel's overwrite for a role (`guild.everyone` too) or a member."""
        self._set(channel, whom, allow=allow, deny=deny)
        self.tell_channel("CHANNEL_UPDATE", channel)

    def _set(
        self, channel: Channel, whom: Role | Person, *, allow: Permission, deny: Permission
    ) -> None:
        for_role = isinstance(whom, Role)
        channel.overwrites[whom.id] = Overwrite(
            id=whom.id, for_role=for_role, allow=allow, deny=deny
        )

    def remove_channel(self, channel: Channel) -> None:
        """Delete a channel or thread."""
        channel.deleted = True
        self.tell_channel("THREAD_DELETE" if channel.is_thread else "CHANNEL_DELETE", channel)

    def direct(self, person: Person) -> Channel:
        """The person's direct conversation with the app."""
        return self.world.direct(person)

    def open_thread(
        self,
        channel: Channel,
        name: str,
        *,
        owner: Person,
        on: Message | None = None,
        private: bool = False,
        members: Sequence[Person] = (),
    ) -> Channel:
        """A thread, on a message or alone."""
        settings: dict[str, Any] = {"id": on.id} if on is not None else {}
        thread = self.world.add_channel(
            type=ChannelType.PRIVATE_THREAD if private else ChannelType.PUBLIC_THREAD,
            name=name,
            guild=channel.guild,
            parent=channel,
            owner_id=owner.id,
            members={owner.id, *(person.id for person in members)},
            **settings,
        )
        if on is not None:
            on.body["thread"] = thread.wire()
            self._start_thread(thread, on)
        self.tell_channel("THREAD_CREATE", thread, newly_created=True)
        return thread

    def _start_thread(self, thread: Channel, on: Message) -> None:
        """The first line of a thread's history: an empty message that refers to its start."""
        fields: Json = {
            "type": 21,
            "message_reference": {"channel_id": on.channel.id, "message_id": on.id, "type": 0},
            "referenced_message": on.wire(),
        }
        self.add_message(on.author, thread, fields, tell=False)

    def let_in(self, thread: Channel, person: Person) -> None:
        """Add a person to a thread; the app hears of itself only."""
        thread.members.add(person.id)
        if person is self.bot:
            self.tell_channel("THREAD_CREATE", thread)

    # ------------------------------------------------------------ messages

    def attach(self, name: str, content: bytes, *, mimetype: str = "text/plain") -> SentFile:
        """A file to be sent with a message or a command's option."""
        return self.cdn.add(name, content, mimetype=mimetype)

    def say(
        self,
        person: Person,
        channel: Channel,
        text: str,
        *,
        reply_to: Message | None = None,
        ping: bool = True,
        files: Sequence[SentFile] = (),
        deliver: bool = True,
    ) -> Message:
        """Write a message.

        Args:
            person: Author.
            channel: Channel, thread or direct conversation.
            text: As Discord stores it: mentions are `<@id>`.
            reply_to: Message that it replies to.
            ping: Whether the reply mentions the author of that message.
            files: Attachments.
            deliver: False = nothing tells the app (a gap in what it knows).
        """
        fields: Json = {"content": text, "attachments": [file.wire() for file in files]}
        message = self.add_message(
            person, channel, fields, replied=reply_to, ping=ping, tell=deliver
        )
        if channel.is_thread:
            channel.members.add(person.id)
        return message

    def add_message(
        self,
        author: Person,
        channel: Channel,
        fields: Json,
        *,
        posted: Json | None = None,
        replied: Message | None = None,
        ping: bool = True,
        ephemeral_to: Person | None = None,
        tell: bool = True,
    ) -> Message:
        """Put a message by anybody into a channel."""
        body: Json = {
            "id": self.world.new_id(),
            "channel_id": channel.id,
            "author": author.wire(),
            "content": "",
            "timestamp": iso(self.world.clock()),
            "edited_timestamp": None,
            "tts": False,
            "attachments": [],
            "embeds": [],
            "components": [],
            "pinned": False,
            "flags": 0,
            "type": 19 if replied is not None else 0,
            **mentions(self.world, channel, author, fields.get("content", ""), posted or {}),
            **fields,
        }
        if replied is not None:
            body |= self._reply_fields(replied, posted, ping=ping, mentioned=body["mentions"])
        message = Message(
            channel=channel,
            author=author,
            body=body,
            posted=posted or {},
            ephemeral_to=ephemeral_to.id if ephemeral_to is not None else None,
        )
        message.remember()
        if ephemeral_to is not None:
            channel.ephemerals.append(message)
        else:
            channel.messages[message.id] = message
            if tell:
                self.tell_message(message)
        self.world.changes.note()
        return message

    def _reply_fields(
        self, replied: Message, posted: Json | None, *, ping: bool, mentioned: list[Json]
    ) -> Json:
        allowed = (posted or {}).get("allowed_mentions")
        pings = ping if allowed is None else bool(allowed.get("replied_user"))
        known = [user["id"] for user in mentioned]
        more = [replied.author.wire()] if pings and replied.author.id not in known else []
        reference: Json = {"type": 0, "message_id": replied.id, "channel_id": replied.channel.id}
        if replied.channel.guild is not None:
            reference["guild_id"] = replied.channel.guild.id
        return {
            "message_reference": reference,
            "referenced_message": {k: v for k, v in replied.body.items() if k != "thread"},
            "mentions": mentioned + more,
        }

    def edit(self, message: Message, text: str) -> None:
        """The author changes a message."""
        author = message.author
        message.body |= {"content": text, "edited_timestamp": iso(self.world.clock())}
        message.body |= mentions(self.world, message.channel, author, text, {})
        message.remember()
        self.tell_edit(message)

    def remove(self, message: Message) -> None:
        """Somebody deletes a message."""
        message.deleted = True
        if message.ephemeral_to is None:
            gone: Json = {"id": message.id, "channel_id": message.channel.id}
            self._tell_in(message.channel, "MESSAGE_DELETE", lambda intents: gone)

    # ------------------------------------------------------------ events

    def readable(self, message: Message) -> bool:
        """Whether content is shown without the message content intent."""
        named = any(user["id"] == self.bot.id for user in message.body["mentions"])
        return named or message.author is self.bot or message.channel.guild is None

    def as_read(self, message: Message) -> Json:
        """A message as REST gives it to the app."""
        allowed = bool(self.privileged & Intent.MESSAGE_CONTENT)
        return message.wire(content=allowed or self.readable(message))

    def tell_message(self, message: Message) -> None:
        """MESSAGE_CREATE."""
        self._tell_in(
            message.channel, "MESSAGE_CREATE", lambda intents: self._event(message, intents)
        )

    def tell_edit(self, message: Message) -> None:
        """MESSAGE_UPDATE; the app hears nothing of ephemeral ones."""
        self.world.changes.note()
        if message.ephemeral_to is None:
            self._tell_in(
                message.channel, "MESSAGE_UPDATE", lambda intents: self._event(message, intents)
            )

    def _event(self, message: Message, intents: Intent) -> Json:
        shown = bool(intents & Intent.MESSAGE_CONTENT) or self.readable(message)
        event = message.wire(content=shown)
        guild = message.channel.guild
        if guild is not None and message.author.id in guild.members:
            event["member"] = guild.members[message.author.id].wire(user=False)
        return event

    def _tell_in(self, channel: Channel, event: str, payload: Any) -> None:
        if not in_channel(channel, self.bot.id) & P.VIEW_CHANNEL:
            return
        guild = channel.guild
        needed = Intent.DIRECT_MESSAGES if guild is None else Intent.GUILD_MESSAGES
        where: Json = {"channel_type": int(channel.type)}
        if guild is not None:
            where["guild_id"] = guild.id
        self.gateway.emit(
            event, lambda intents: payload(intents) | where if intents & needed else None
        )

    def tell_channel(self, event: str, channel: Channel, **more: object) -> None:
        """An event about a channel or thread."""
        if channel.guild is None or not channel.guild.has_app:
            return
        if channel.is_thread and not in_channel(channel, self.bot.id) & P.VIEW_CHANNEL:
            return
        self._tell(event, {**channel.wire(), **more})

    def _tell(self, event: str, payload: Json, needed: Intent = Intent.GUILDS) -> None:
        self.gateway.emit(event, with_intent(needed, payload))
