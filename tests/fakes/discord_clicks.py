"""What people do with what the app shows in the fake Discord: commands, buttons, menus, modals."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_limits import elements_of
from tests.fakes.discord_people import People
from tests.fakes.discord_permissions import Permission, in_channel
from tests.fakes.discord_world import Channel, ChannelType, Message, Person, Role, SentFile
from tests.fakes.wire import Json

T = TypeVar("T")
Value = str | int | float | bool | SentFile | Person | Role | Channel
COMMAND, COMPONENT, AUTOCOMPLETE, MODAL = 2, 3, 4, 5
ATTACHMENT_LIMIT = 10 << 20


class Clicks(People):
    """Interactions; each one is told to the app once (or again by RESUME).

    Attributes:
        commands: Registered commands by guild id (None = global).
        interactions: By token.
        callback_within_s: Discord's 3 s.
        token_lives_s: Discord's 15 minutes.
        callback_lag_s: How long ago an interaction already is when the app hears of it.
    """

    app_id: str
    commands: dict[str | None, list[Json]]
    interactions: dict[str, Interaction]
    callback_within_s: float = 3.0
    token_lives_s: float = 900.0
    callback_lag_s: float = 0.0

    # ------------------------------------------------------------ commands

    def slash(
        self, person: Person, channel: Channel, command: str, **options: Value
    ) -> Interaction:
        """Use a slash command.

        Args:
            person: Who.
            channel: Where; the app need not be there (a user-installed app).
            command: Its name, with those of its groups (`documents remove`).
            options: Values; a file, person, role or channel is one as it is.
        """
        data = self._command_data(command, options)
        return self._begin(COMMAND, person, channel, data)

    async def complete(
        self,
        person: Person,
        channel: Channel,
        command: str,
        option: str,
        text: str,
        **others: Value,
    ) -> list[Json]:
        """Type into an option and return the app's choices.

        Raises:
            AssertionError: It offered none in time.
        """
        data = self._command_data(command, {**others, option: text})
        for found in _deepest(data):
            found["focused"] = found["name"] == option
        begun = self._begin(AUTOCOMPLETE, person, channel, data)
        await self.acknowledged(begun)
        return begun.choices or []

    def use_on(
        self,
        person: Person,
        target: Message | Person,
        command: str,
        *,
        channel: Channel | None = None,
    ) -> Interaction:
        """Use a command of the context menu of a message or a person."""
        of_message = isinstance(target, Message)
        place = target.channel if isinstance(target, Message) else channel
        assert place is not None
        resolved: Json = {}
        if isinstance(target, Message):
            resolved["messages"] = {target.id: target.wire()}
        else:
            resolved["users"] = {target.id: target.wire()}
        data: Json = {
            **self._known(command, 3 if of_message else 2),
            "target_id": target.id,
            "resolved": resolved,
        }
        return self._begin(COMMAND, person, place, data)

    def _known(self, name: str, kind: int) -> Json:
        """A command as it is registered; any name will do while none is."""
        every = [command for found in self.commands.values() for command in found]
        same = [found for found in every if (found["name"], found["type"]) == (name, kind)]
        assert same or not every, f"/{name} is not registered"
        return {"id": same[0]["id"] if same else "1", "name": name, "type": kind}

    def _command_data(self, command: str, options: Mapping[str, Value]) -> Json:
        name, *inner = command.split(" ")
        resolved: Json = {}
        values = [_option(key, value, resolved, self) for key, value in options.items()]
        for depth, group in enumerate(reversed(inner)):
            values = [{"name": group, "type": 2 if depth else 1, "options": values}]
        data = {**self._known(name, 1), "options": values}
        return {**data, "resolved": resolved} if resolved else data

    # ------------------------------------------------------------ components and modals

    def click(self, person: Person, message: Message, button: str) -> Interaction:
        """Click a button: its label, its custom id, or the beginning of that."""
        found = self.element(message, button)
        assert found["type"] == 2, f"{button} is no button"
        assert not found.get("disabled"), f"{button} is disabled"
        data = {"custom_id": found["custom_id"], "component_type": 2, "id": 1}
        return self._begin(COMPONENT, person, message.channel, data, source=message)

    def click_id(self, person: Person, message: Message, custom_id: str) -> Interaction:
        """Send a click with any custom id, as a forged client may."""
        data = {"custom_id": custom_id, "component_type": 2, "id": 1}
        return self._begin(COMPONENT, person, message.channel, data, source=message)

    def choose(
        self, person: Person, message: Message, menu: str, *values: str | Person | Role | Channel
    ) -> Interaction:
        """Choose values (or people, roles, channels) in a menu of a message."""
        found = self.element(message, menu)
        assert found["type"] in (3, 5, 6, 7, 8), f"{menu} is no menu"
        resolved: Json = {}
        data = {
            "custom_id": found["custom_id"],
            "component_type": found["type"],
            "id": 1,
            "values": [_chosen(value, resolved, self) for value in values],
            **({"resolved": resolved} if resolved else {}),
        }
        return self._begin(COMPONENT, person, message.channel, data, source=message)

    @staticmethod
    def element(message: Message, name: str) -> Json:
        """A component by its label, custom id, or the beginning of that."""
        for custom_id, found in message.elements.items():
            if name in (custom_id, found.get("label"), found.get("placeholder")):
                return found
        begun = [f for custom_id, f in message.elements.items() if custom_id.startswith(name)]
        assert len(begun) == 1, f"{name!r} is not one of {list(message.elements)}"
        return begun[0]

    def submit(
        self, opened: Interaction, values: Mapping[str, object] | None = None
    ) -> Interaction:
        """Fill in and send the modal that an interaction opened.

        Args:
            opened: The interaction that was answered with a modal.
            values: By custom id or label: a text, or a list of values; the rest keeps what the
                modal said.
        """
        assert opened.modal is not None, "there is no modal"
        left = dict(values or {})
        resolved: Json = {}
        components = [
            _filled(component, left, resolved, self)
            for component in opened.modal["components"]
            if component["type"] != 10
        ]
        assert not left, f"not in the modal: {list(left)}"
        data = {
            "custom_id": opened.modal["custom_id"],
            "components": components,
            **({"resolved": resolved} if resolved else {}),
        }
        return self._begin(MODAL, opened.person, opened.channel, data, source=opened.source)

    # ------------------------------------------------------------ telling the app

    def repeat(self, what: Message | Interaction) -> None:
        """Tell the app of a message or an interaction once more, as replays do."""
        if isinstance(what, Message):
            self.tell_message(what)
        else:
            self.gateway.emit("INTERACTION_CREATE", lambda intents: what.payload)

    def _begin(
        self,
        kind: int,
        person: Person,
        channel: Channel,
        data: Json,
        *,
        source: Message | None = None,
    ) -> Interaction:
        interaction_id, token = self.world.new_id(), f"fake-{uuid.uuid4().hex}"
        payload = {
            "id": interaction_id,
            "application_id": self.app_id,
            "type": kind,
            "token": token,
            "version": 1,
            "data": data,
            "channel_id": channel.id,
            "locale": person.locale,
            "entitlements": [],
            "attachment_size_limit": ATTACHMENT_LIMIT,
            **self._where(person, channel),
            **({"message": source.wire()} if source is not None else {}),
        }
        begun = Interaction(
            id=interaction_id,
            token=token,
            kind=kind,
            person=person,
            channel=channel,
            payload=payload,
            source=source,
            expires_at=time.monotonic() + self.token_lives_s,
        )
        begun.sent_at -= self.callback_lag_s
        self.interactions[token] = begun
        self.gateway.emit("INTERACTION_CREATE", lambda intents: payload)
        return begun

    def _where(self, person: Person, channel: Channel) -> Json:
        """Place, person and permissions of an interaction."""
        guild = channel.guild
        if guild is None:
            own = channel.recipients == [person] and channel.type == ChannelType.DM
            owners = {"0": "0"} if own else {"1": person.id}
            return {
                "channel": channel.wire(),
                "user": person.wire(),
                "context": 1 if own else 2,
                "authorizing_integration_owners": owners,
                "app_permissions": str(int(in_channel(channel, self.bot.id))),
            }
        allowed = in_channel(channel, person.id)
        member = guild.members[person.id].wire() | {"permissions": str(int(allowed))}
        mine = in_channel(channel, self.bot.id) if guild.has_app else Permission.EMBED_LINKS
        return {
            "guild_id": guild.id,
            "guild": {"id": guild.id, "locale": guild.locale, "features": []},
            "guild_locale": guild.locale,
            "channel": channel.wire() | {"permissions": str(int(allowed))},
            "member": member,
            "context": 0,
            "authorizing_integration_owners": (
                {"0": guild.id} if guild.has_app else {"1": person.id}
            ),
            "app_permissions": str(int(mine)),
        }

    async def acknowledged(
        self, interaction: Interaction, *, within_s: float | None = None
    ) -> Interaction:
        """Wait for the first callback.

        Raises:
            AssertionError: There was none in time (Discord's 3 s).
        """
        await self.world.changes.until(
            lambda: interaction.acked_at is not None,
            f"a callback: {interaction.payload['data']}",
            within_s=within_s or self.callback_within_s,
        )
        return interaction

    async def told(self, interaction: Interaction, *, within_s: float = 30.0) -> str:
        """Wait until the person reads something in answer, and return it."""
        return await self.world.changes.until(
            lambda: interaction.text, "an answer to an interaction", within_s=within_s
        )

    async def opened(self, interaction: Interaction) -> Json:
        """Wait for the modal that an interaction opens."""
        await self.acknowledged(interaction)
        assert interaction.modal is not None, f"no modal, but {interaction.text!r}"
        return interaction.modal


# ---------------------------------------------------------------- values on the wire


def _deepest(data: Json) -> list[Json]:
    found: list[Json] = data["options"]
    while found and found[0].get("type") in (1, 2):
        found = found[0]["options"]
    return found


def _option(name: str, value: Value, resolved: Json, people: People) -> Json:
    for kind, number in ((bool, 5), (str, 3), (int, 4), (float, 10)):
        if isinstance(value, kind):
            return {"name": name, "type": number, "value": value}
    assert not isinstance(value, str | int | float)
    numbers: dict[type[object], int] = {SentFile: 11, Person: 6, Role: 8, Channel: 7}
    chosen = _chosen(value, resolved, people)
    return {"name": name, "type": numbers[type(value)], "value": chosen}


def _chosen(value: str | Person | Role | Channel | SentFile, resolved: Json, people: People) -> str:
    """The id of a thing, which `resolved` then describes."""
    if isinstance(value, str):
        return value
    if isinstance(value, SentFile):
        resolved.setdefault("attachments", {})[value.id] = value.wire() | {"ephemeral": True}
    elif isinstance(value, Role):
        resolved.setdefault("roles", {})[value.id] = value.wire()
    elif isinstance(value, Channel):
        seen = str(int(in_channel(value, people.bot.id)))
        resolved.setdefault("channels", {})[value.id] = value.wire() | {"permissions": seen}
    else:
        resolved.setdefault("users", {})[value.id] = value.wire()
    return value.id


def _filled(component: Json, left: dict[str, object], resolved: Json, people: People) -> Json:
    """One component of a modal with what the person put in."""
    [element] = elements_of([component])
    names = (element["custom_id"], component.get("label"), element.get("label"))
    key = next((name for name in names if name in left), None)
    given = left.pop(key) if key is not None else None
    filled: Json = {"type": element["type"], "custom_id": element["custom_id"], "id": 1}
    if element["type"] == 4:
        text = element.get("value") or "" if given is None else str(given)
        least, most = element.get("min_length") or 0, element.get("max_length") or 4_000
        required = element.get("required", True)
        assert not (required and not text), f"{names} is required"
        assert len(text) <= most, f"{names} takes {most} characters"
        assert not text or len(text) >= least, f"{names} needs {least} characters"
        filled["value"] = text
    elif element["type"] in (21, 23):
        filled["value"] = given
    else:
        filled["values"] = _values(element, given, resolved, people)
    if component["type"] == 1:
        return {"type": 1, "id": 1, "components": [filled]}
    return {"type": component["type"], "id": 1, "component": filled}


def _values(element: Json, given: object, resolved: Json, people: People) -> list[str]:
    if given is None:
        return [o["value"] for o in element.get("options") or () if o.get("default")]
    things: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    return [_chosen(thing, resolved, people) for thing in things]
