"""What people do in the fake Slack: write, click, type commands, fill in forms."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tests.fakes.slack_blocks import Json, elements_of
from tests.fakes.slack_files import FileHost
from tests.fakes.slack_sockets import Delivery, Sockets
from tests.fakes.slack_world import (
    Channel,
    ChannelKind,
    Message,
    Person,
    SlackFile,
    Trigger,
    Workspace,
    World,
)

TRIGGER_LIVES_S = 3.0


class People:
    """Actions of people; each one ends in a payload for the app.

    Attributes:
        echoes: Whether the app gets events of its own posts and edits, as it does in Slack.
        subscriptions: Events that the app has asked for, as its manifest names them
            (`message.channels`, `app_mention`); None = all.
    """

    world: World
    sockets: Sockets
    file_host: FileHost
    app_id: str
    root: str
    echoes: bool = True
    subscriptions: frozenset[str] | None = None

    # ------------------------------------------------------------ who and where

    def add_person(
        self,
        name: str,
        *,
        workspace: Workspace | None = None,
        admin: bool = False,
        guest: bool = False,
        bot: bool = False,
        team_id: str | None = None,
    ) -> Person:
        """A person; `team_id` of another company makes a Slack Connect stranger."""
        person = Person(
            id=self.world.new_id("U"),
            name=name,
            team_id=team_id or (workspace or self.home).id,
            is_admin=admin,
            is_guest=guest,
            is_bot=bot,
        )
        self.world.people[person.id] = person
        return person

    @property
    def home(self) -> Workspace:
        """The first workspace."""
        return next(iter(self.world.workspaces.values()))

    def add_channel(
        self,
        name: str,
        *members: Person,
        workspace: Workspace | None = None,
        private: bool = False,
        shared: bool = False,
        app_is_in: bool = True,
    ) -> Channel:
        """A channel; the app is a member unless said otherwise."""
        home = workspace or self.home
        kind: ChannelKind = "group" if private else "channel"
        inside = {person.id for person in members} | ({home.bot_user_id} if app_is_in else set())
        channel = Channel(
            id=self.world.new_id("C"),
            name=name,
            team_id=home.id,
            kind=kind,
            members=inside,
            shared=shared,
        )
        self.world.channels[channel.id] = channel
        return channel

    def direct(self, person: Person, workspace: Workspace | None = None) -> Channel:
        """The person's direct conversation with the app."""
        return self.world.direct(person.id, workspace or self.home)

    # ------------------------------------------------------------ messages

    def say(
        self,
        person: Person,
        channel: Channel,
        text: str,
        *,
        thread: Message | None = None,
        files: Sequence[SlackFile] = (),
        deliver: bool = True,
        only: Literal["app_mention", "message"] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Message:
        """Write a message; the app gets the `message` event, and `app_mention` where it is named.

        Args:
            person: Author.
            channel: Where.
            text: As Slack stores it: mentions are `<@U…>`, `& < >` are escaped.
            thread: Message to reply to.
            files: Files shared with it.
            deliver: False = nothing tells the app (a gap in what it knows).
            only: Send only one of the pair.
            extra: More fields of the event.
        """
        channel.members.add(person.id)
        body: Json = {
            "type": "message",
            "user": person.id,
            "ts": self.world.new_ts(),
            "client_msg_id": f"fake-{self.world.number()}",
            "text": text,
            "team": person.team_id,
            **({"bot_id": f"B{person.id}"} if person.is_bot else {}),
            **(extra or {}),
        }
        if files:
            body |= {"subtype": "file_share", "files": [file.wire() for file in files]}
        if thread is not None:
            body |= {"thread_ts": thread.thread_ts or thread.ts, "parent_user_id": thread.user}
        message = self.world.add_message(channel, body)
        if deliver:
            self._tell_said(message, only)
        return message

    def _tell_said(self, message: Message, only: str | None) -> None:
        mentioned = self.workspace_of(message.channel).mention in message.body["text"]
        if mentioned and message.channel.kind != "im" and only != "message":
            fields = {k: v for k, v in message.wire().items() if k != "subtype"}
            place = {"channel": message.channel.id, "event_ts": message.ts}
            self.emit({**fields, **place, "type": "app_mention"}, channel=message.channel)
        if only != "app_mention":
            self.tell_message(message)

    def workspace_of(self, channel: Channel) -> Workspace:
        """The workspace of a channel."""
        return self.world.workspaces[channel.team_id]

    def share_file(
        self,
        person: Person,
        channel: Channel,
        name: str,
        content: bytes,
        *,
        text: str = "",
        mimetype: str = "text/plain",
        thread: Message | None = None,
        **settings: Any,
    ) -> tuple[SlackFile, Message]:
        """Share a file; `settings` change the `SlackFile` before the app hears of it."""
        file = self.file_host.add(
            name, content, mimetype=mimetype, user=person.id, team_id=person.team_id
        )
        for key, value in settings.items():
            setattr(file, key, value)
        file.channels.append(channel.id)
        event = {
            "type": "file_shared",
            "file_id": file.id,
            "file": {"id": file.id},
            "user_id": person.id,
            "channel_id": channel.id,
        }
        self.emit(event, channel=channel)
        return file, self.say(person, channel, text, files=[file], thread=thread)

    def edit(self, message: Message, text: str) -> None:
        """The author changes a message."""
        before = message.wire()
        message.body |= {"text": text, "edited": {"user": message.user, "ts": self.world.new_ts()}}
        message.remember()
        self.tell_change(message, before)

    def delete(self, message: Message) -> None:
        """The author deletes a message."""
        message.deleted = True
        self.tell_deletion(message)

    # ------------------------------------------------------------ events

    def emit(
        self, event: Json, *, channel: Channel | None = None, workspace: Workspace | None = None
    ) -> Delivery | None:
        """Give the app any event; None when it has not asked for it or cannot see it.

        Args:
            event: The inner event; `event_ts` is added.
            channel: Where it happens, if in a channel.
            workspace: Whose event it is, when there is no channel.
        """
        home = self.workspace_of(channel) if channel is not None else workspace or self.home
        if channel is not None and home.bot_user_id not in channel.members:
            return None
        names = {f"{event['type']}.{event.get('channel_type')}s", event["type"]}
        names |= {name.replace(".ims", ".im").replace(".mpims", ".mpim") for name in set(names)}
        if self.subscriptions is not None and not names & self.subscriptions:
            return None
        return self.sockets.deliver("events_api", self._event_payload(event, channel, home))

    def _event_payload(self, event: Json, channel: Channel | None, home: Workspace) -> Json:
        authorization = {
            "enterprise_id": None,
            "team_id": home.id,
            "user_id": home.bot_user_id,
            "is_bot": True,
            "is_enterprise_install": False,
        }
        return {
            "token": "verification-token",
            "team_id": home.id,
            "context_team_id": home.id,
            "context_enterprise_id": None,
            "api_app_id": self.app_id,
            "event": {"event_ts": self.world.new_ts(), **event},
            "type": "event_callback",
            "event_id": self.world.new_id("Ev"),
            "event_time": int(time.time()),
            "authorizations": [authorization],
            "is_ext_shared_channel": bool(channel and channel.shared),
            "event_context": f"4-{self.world.number()}",
        }

    def redeliver(self, delivery: Delivery) -> Delivery:
        """The same payload once more, in an envelope with another id."""
        return self.sockets.deliver(delivery.kind, delivery.payload, attempt=1)

    def tell_message(self, message: Message) -> None:
        """The `message` event of a new message."""
        if "app_id" in message.body and not self.echoes:
            return
        channel = message.channel
        event = message.wire() | {"channel": channel.id, "channel_type": channel.kind}
        self.emit(event | {"event_ts": message.ts}, channel=channel)

    def tell_change(self, message: Message, before: Json) -> None:
        """The `message_changed` event."""
        self._tell_changed(message, "message_changed", before, {"message": message.wire()})

    def tell_deletion(self, message: Message) -> None:
        """The `message_deleted` event."""
        self._tell_changed(message, "message_deleted", message.wire(), {"deleted_ts": message.ts})

    def _tell_changed(self, message: Message, subtype: str, before: Json, fields: Json) -> None:
        self.world.changes.note()
        if "app_id" in message.body and not self.echoes:
            return
        event: Json = {
            "type": "message",
            "subtype": subtype,
            "hidden": True,
            "channel": message.channel.id,
            "channel_type": message.channel.kind,
            "ts": self.world.new_ts(),
            "previous_message": before,
            **fields,
        }
        self.emit(event, channel=message.channel)

    def open_home(self, person: Person, *, tab: Literal["home", "messages"] = "home") -> None:
        """Open the app's page or its messages."""
        channel = self.direct(person)
        event: Json = {
            "type": "app_home_opened",
            "user": person.id,
            "channel": channel.id,
            "tab": tab,
        }
        if tab == "home" and person.id in self.world.homes:
            event["view"] = self.world.homes[person.id]
        self.emit(event, workspace=self.workspace_of(channel))

    # ------------------------------------------------------------ interaction

    def _interaction(self, kind: str, person: Person, workspace: Workspace) -> Json:
        return {
            "type": kind,
            "user": {
                "id": person.id,
                "username": person.name.lower(),
                "name": person.name.lower(),
                "team_id": person.team_id,
            },
            "api_app_id": self.app_id,
            "token": "verification-token",
            "team": {"id": workspace.id, "domain": workspace.name.lower()},
            "enterprise": None,
            "is_enterprise_install": False,
            "trigger_id": self.new_trigger(person, workspace),
        }

    def new_trigger(self, person: Person, workspace: Workspace) -> str:
        """A trigger id, good for one modal within 3 s."""
        trigger_id = f"trigger.{self.world.number()}"
        self.world.triggers[trigger_id] = Trigger(
            person=person, workspace=workspace, expires_at=time.monotonic() + TRIGGER_LIVES_S
        )
        return trigger_id

    def response_url(self, channel: Channel, person: Person, message: Message | None) -> str:
        """An address for answers to one interaction."""
        raise NotImplementedError

    def click(
        self,
        person: Person,
        message: Message,
        action_id: str,
        *,
        value: str | None = None,
        side: Literal["positive", "negative"] | None = None,
        chosen: object = None,
        channel: Channel | None = None,
    ) -> Delivery:
        """Use an element of a message.

        Args:
            person: Who clicks.
            message: The message; the element must be in it.
            action_id: The element.
            value: A forged value instead of the element's own.
            side: Which of two `feedback_buttons`.
            chosen: What is chosen in a select: an option's value, or a user or channel id.
            channel: A forged channel.
        """
        element = message.elements.get(action_id)
        assert element is not None, f"no {action_id} in {sorted(message.elements)}"
        where = channel or message.channel
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": where.id,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        payload = self._interaction("block_actions", person, self.workspace_of(where))
        payload |= {
            "container": container,
            "channel": {"id": where.id, "name": where.name or "directmessage"},
            "state": {"values": {}},
            "response_url": self.response_url(where, person, message),
            "actions": [_action(element, value, side, chosen) | {"action_ts": message.ts}],
        }
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        if message.ephemeral_to is None:
            payload["message"] = message.wire()
        return self.sockets.deliver("interactive", payload)

    def click_in_view(
        self, person: Person, view: Json, action_id: str, *, chosen: object = None
    ) -> Delivery:
        """Use an element of a modal or of the app's home."""
        element = next(
            {**element, "block_id": block["block_id"]}
            for block in view["blocks"]
            for element in elements_of(block)
            if element.get("action_id") == action_id
        )
        workspace = self.world.workspaces[view["team_id"]]
        payload = self._interaction("block_actions", person, workspace) | {
            "container": {"type": "view", "view_id": view["id"]},
            "view": view,
            "actions": [_action(element, None, None, chosen) | {"action_ts": self.world.new_ts()}],
        }
        return self.sockets.deliver("interactive", payload)

    def command(self, person: Person, channel: Channel, command: str, text: str = "") -> Delivery:
        """Type a slash command."""
        workspace = self.workspace_of(channel)
        payload = {
            "token": "verification-token",
            "team_id": workspace.id,
            "team_domain": workspace.name.lower(),
            "channel_id": channel.id,
            "channel_name": channel.name or "directmessage",
            "user_id": person.id,
            "user_name": person.name.lower(),
            "command": command,
            "text": text,
            "api_app_id": self.app_id,
            "is_enterprise_install": "false",
            "response_url": self.response_url(channel, person, None),
            "trigger_id": self.new_trigger(person, workspace),
        }
        return self.sockets.deliver("slash_commands", payload)

    def shortcut(self, person: Person, message: Message, callback_id: str) -> Delivery:
        """Use a message shortcut."""
        channel = message.channel
        payload = self._interaction("message_action", person, self.workspace_of(channel)) | {
            "callback_id": callback_id,
            "channel": {"id": channel.id, "name": channel.name or "directmessage"},
            "message": message.wire(),
            "message_ts": message.ts,
            "action_ts": self.world.new_ts(),
            "response_url": self.response_url(channel, person, message),
        }
        return self.sockets.deliver("interactive", payload)

    def submit(self, person: Person, view: Json, values: Mapping[str, object]) -> Delivery:
        """Send a modal's form.

        Args:
            person: Who.
            view: As `views` holds it.
            values: What is filled in, by action id: a text, an option's value, ids, a list.
                What is not named keeps its initial value.
        """
        state: Json = {}
        for block in view["blocks"]:
            if block["type"] == "input":
                element = block["element"]
                filled = _filled(element, values.get(element["action_id"]))
                state.setdefault(block["block_id"], {})[element["action_id"]] = filled
        workspace = self.world.workspaces[view["team_id"]]
        payload = self._interaction("view_submission", person, workspace) | {
            "view": view | {"state": {"values": state}},
            "response_urls": [],
        }
        return self.sockets.deliver("interactive", payload)


def _option(element: Json, value: object) -> Json:
    found = [option for option in element["options"] if option["value"] == value]
    assert found, f"no option {value!r} in {element['action_id']}"
    return dict(found[0])


def _filled(element: Json, value: object) -> Json:
    """State of one element, as `view.state` holds it."""
    kind = element["type"]
    filled: Json = {"type": kind}
    match kind:
        case "plain_text_input" | "number_input" | "email_text_input" | "url_text_input":
            filled["value"] = value if value is not None else element.get("initial_value")
        case "checkboxes" | "multi_static_select":
            chosen = element.get("initial_options", [])
            if isinstance(value, Sequence):
                chosen = [_option(element, entry) for entry in value]
            filled["selected_options"] = chosen
        case "static_select" | "radio_buttons":
            chosen = _option(element, value) if value else element.get("initial_option")
            filled["selected_option"] = chosen
        case _:
            many = kind.startswith("multi_")
            thing = kind.removeprefix("multi_").removesuffix("_select")
            thing = thing if many else thing.removesuffix("s")
            initial = element.get(f"initial_{thing}")
            filled[f"selected_{thing}"] = value if value is not None else initial
    return filled


def _action(element: Json, value: str | None, side: str | None, chosen: object) -> Json:
    """One entry of `actions`."""
    action: Json = {key: element[key] for key in ("action_id", "block_id", "type")}
    if element["type"] == "feedback_buttons":
        assert side is not None, "feedback_buttons need a side"
        button = element[f"{side}_button"]
        return action | {"text": button["text"], "value": value or button.get("value")}
    if element["type"] in ("button", "icon_button", "workflow_button"):
        return action | {"text": element.get("text"), "value": value or element.get("value")}
    return action | _filled(element, chosen)
