"""What people do in the fake Slack: write, share, edit, delete, open the app's page."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tests.fakes.slack_blocks import Json
from tests.fakes.slack_files import FileHost
from tests.fakes.slack_sockets import Delivery, Sockets
from tests.fakes.slack_world import (
    Channel,
    ChannelKind,
    Message,
    Person,
    SlackFile,
    Workspace,
    World,
)


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
