"""What exists in the fake Slack: workspaces, people, channels, messages, files, views."""

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.slack_blocks import Json, SlackError, elements_of, texts_of
from tests.fakes.wire import Changes

ChannelKind = Literal["channel", "group", "im", "mpim"]
FIRST_TS = 1_790_000_000
_PING = re.compile(r"<!(?:channel|here|everyone)(?:\|[^>]*)?>|<!subteam\^[^>]*>|<@[UW][^>]*>")


@dataclass(kw_only=True)
class Workspace:
    """A team; `bot_token` is None until the app is installed by OAuth."""

    id: str
    name: str
    bot_user_id: str
    bot_id: str
    bot_token: str | None = None

    @property
    def mention(self) -> str:
        """What a person types to call the app."""
        return f"<@{self.bot_user_id}>"


@dataclass(kw_only=True)
class Person:
    """A member, guest, stranger or bot."""

    id: str
    name: str
    team_id: str
    is_admin: bool = False
    is_owner: bool = False
    is_guest: bool = False
    is_bot: bool = False
    deleted: bool = False

    def wire(self, seen_from: str) -> Json:
        """`users.info`, as a member of team `seen_from` sees it."""
        return {
            "id": self.id,
            "team_id": self.team_id,
            "name": self.name.lower().replace(" ", "."),
            "real_name": self.name,
            "deleted": self.deleted,
            "is_admin": self.is_admin,
            "is_owner": self.is_owner,
            "is_primary_owner": False,
            "is_restricted": self.is_guest,
            "is_ultra_restricted": False,
            "is_bot": self.is_bot,
            "is_app_user": False,
            "is_stranger": self.team_id != seen_from,
            "tz": "Europe/Berlin",
            "profile": {
                "real_name": self.name,
                "display_name": self.name,
                "team": self.team_id,
            },
        }


@dataclass(kw_only=True)
class Stream:
    """The state of a message that is being streamed."""

    recipient: str | None
    first_chunk: str = ""
    state: Literal["streaming", "stopped", "expired"] = "streaming"
    last_at: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class Message:
    """A message and everything it has been.

    Attributes:
        body: As `conversations.replies` gives it.
        posted: The arguments of the call that posted it (unfurl flags and so on).
        versions: What a reader saw, once per post, edit or appended chunk.
        times: `time.monotonic()` of each version.
        ephemeral_to: The only reader, or None.
    """

    channel: "Channel"
    body: Json
    posted: Json = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ephemeral_to: str | None = None
    stream: Stream | None = None
    deleted: bool = False

    @property
    def ts(self) -> str:
        """Its identity in the channel."""
        return str(self.body["ts"])

    @property
    def thread_ts(self) -> str | None:
        """The thread it replies in."""
        return self.body.get("thread_ts")

    @property
    def user(self) -> str:
        """Who wrote it."""
        return str(self.body.get("user", ""))

    @property
    def blocks(self) -> list[Json]:
        """Its blocks."""
        return list(self.body.get("blocks", ()))

    @property
    def metadata(self) -> Json | None:
        """Its metadata."""
        return self.body.get("metadata")

    @property
    def seen(self) -> str:
        """What a reader sees: the blocks' texts, or the text where there are none."""
        texts = [text for _, text in texts_of(self.blocks)]
        if self.stream is not None:
            texts.insert(0, str(self.body["text"]))
        return "\n".join(texts) if texts else str(self.body.get("text", ""))

    def seen_by(self, person: Person) -> str:
        """The same for one person: a native stream shows live to its recipient only."""
        stream = self.stream
        if stream is None or stream.state != "streaming":
            return self.seen
        return self.seen if stream.recipient in (None, person.id) else stream.first_chunk

    @property
    def pings(self) -> list[str]:
        """Mentions in it that would notify people."""
        texts = [text for kind, text in texts_of(self.blocks) if kind != "plain_text"]
        texts.append(str(self.body.get("text", "")))
        found = [ping for text in texts for ping in _PING.findall(text)]
        return sorted(set(found))

    @property
    def elements(self) -> dict[str, Json]:
        """Its interactive elements by action id, each with its `block_id`."""
        return {
            element["action_id"]: {**element, "block_id": block.get("block_id", "")}
            for block in self.blocks
            for element in elements_of(block)
            if "action_id" in element
        }

    def wire(self, *, metadata: bool = True) -> Json:
        """As an API answer or event shows it."""
        return {k: v for k, v in self.body.items() if metadata or k != "metadata"}

    def remember(self) -> None:
        """Keep what a reader sees now."""
        self.versions.append(self.seen)
        self.times.append(time.monotonic())


@dataclass(kw_only=True)
class Channel:
    """A conversation. `partner` is the person of a direct conversation with the app."""

    id: str
    name: str
    team_id: str
    kind: ChannelKind = "channel"
    members: set[str] = field(default_factory=set)
    shared: bool = False
    archived: bool = False
    partner: str | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    threads: dict[str, list[Message]] = field(default_factory=dict)
    ephemerals: list[Message] = field(default_factory=list)

    def wire(self) -> Json:
        """`conversations.info`."""
        body: Json = {
            "id": self.id,
            "created": FIRST_TS,
            "is_archived": self.archived,
            "is_channel": self.kind == "channel",
            "is_group": self.kind == "group",
            "is_im": self.kind == "im",
            "is_mpim": self.kind == "mpim",
            "is_private": self.kind != "channel",
            "is_shared": self.shared,
            "is_ext_shared": self.shared,
            "context_team_id": self.team_id,
        }
        if self.kind == "im":
            return {**body, "user": self.partner}
        return {**body, "name": self.name, "name_normalized": self.name, "is_member": True}

    def add(self, message: Message) -> None:
        """Keep a message, which is the latest."""
        self.messages[message.ts] = message
        self.threads.setdefault(message.thread_ts or message.ts, []).append(message)

    def thread(self, ts: str) -> list[Message]:
        """The parent and its replies, oldest first."""
        return [message for message in self.threads.get(ts, ()) if not message.deleted]


@dataclass(kw_only=True)
class SlackFile:
    """A file. `served` says what the download host does with a good token."""

    id: str
    name: str
    content: bytes
    mimetype: str
    user: str
    team_id: str
    url: str
    permalink: str
    channels: list[str] = field(default_factory=list)
    external: bool = False
    deleted: bool = False
    size: int | None = None
    served: Literal["content", "html", "redirect", "endless", "away"] = "content"
    redirect_to: str = ""

    def wire(self) -> Json:
        """`files.info`."""
        body: Json = {
            "id": self.id,
            "created": FIRST_TS,
            "name": self.name,
            "title": self.name,
            "mimetype": self.mimetype,
            "filetype": self.name.rpartition(".")[2],
            "user": self.user,
            "user_team": self.team_id,
            "size": len(self.content) if self.size is None else self.size,
            "mode": "external" if self.external else "hosted",
            "is_external": self.external,
            "is_public": True,
            "url_private": self.url,
            "permalink": self.permalink,
            "channels": self.channels,
            "groups": [],
            "ims": [],
        }
        return body if self.external else {**body, "url_private_download": f"{self.url}?download"}


@dataclass(kw_only=True)
class Status:
    """One `assistant.threads.setStatus`."""

    channel: str
    thread_ts: str
    status: str
    loading_messages: list[str]
    at: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class Token:
    """A token that the fake has given out. `expires_at` is monotonic; None = never."""

    value: str
    workspace: Workspace | None
    scopes: frozenset[str]
    expires_at: float | None = None
    revoked: bool = False
    refreshes: bool = False


@dataclass(kw_only=True)
class Trigger:
    """A trigger id: for one modal, within 3 s."""

    person: Person
    workspace: Workspace
    expires_at: float
    used: bool = False


@dataclass(kw_only=True)
class World:
    """Everything there is, and what may be noticed about it."""

    changes: Changes = field(default_factory=Changes)
    workspaces: dict[str, Workspace] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    files: dict[str, SlackFile] = field(default_factory=dict)
    views: dict[str, Json] = field(default_factory=dict)
    homes: dict[str, Json] = field(default_factory=dict)
    usergroups: dict[str, list[str]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    statuses: list[Status] = field(default_factory=list)
    titles: dict[tuple[str, str], str] = field(default_factory=dict)
    prompts: dict[str, list[Json]] = field(default_factory=dict)
    reactions: list[tuple[str, str, str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def number(self) -> int:
        """A number never given before."""
        return next(self._numbers)

    def new_id(self, prefix: str) -> str:
        """An id in Slack's shape."""
        return f"{prefix}0FAKE{self.number():05d}"

    def new_ts(self) -> str:
        """A message identity later than all before."""
        number = self.number()
        return f"{FIRST_TS + number}.{number:06d}"

    def channel(self, channel_id: object) -> Channel:
        """A channel by its id.

        Raises:
            SlackError: `channel_not_found`.
        """
        found = self.channels.get(str(channel_id))
        if found is None:
            raise SlackError("channel_not_found")
        return found

    def direct(self, person_id: str, workspace: Workspace) -> Channel:
        """The direct conversation of a person with the app, made on first use."""
        if person_id not in self.people:
            raise SlackError("user_not_found")
        for channel in self.channels.values():
            if channel.partner == person_id and channel.team_id == workspace.id:
                return channel
        channel = Channel(
            id=self.new_id("D"),
            name="",
            team_id=workspace.id,
            kind="im",
            members={person_id, workspace.bot_user_id},
            partner=person_id,
        )
        self.channels[channel.id] = channel
        return channel

    def add_message(self, channel: Channel, body: Json, posted: Json | None = None) -> Message:
        """Put a message into a channel."""
        message = Message(channel=channel, body=body, posted=posted or {})
        channel.add(message)
        message.remember()
        self.changes.note()
        return message

    def current_status(self, channel_id: str, thread_ts: str) -> str:
        """What the thread shows now; the app's reply and two minutes clear it."""
        for status in reversed(self.statuses):
            if (status.channel, status.thread_ts) == (channel_id, thread_ts):
                return status.status if time.monotonic() - status.at < 120 else ""
        return ""

    def written_by_app(self, channels: Sequence[Channel] | None = None) -> list[Message]:
        """What apps have written, oldest first, without what is deleted."""
        return sorted(
            (
                message
                for channel in channels or self.channels.values()
                for message in channel.messages.values()
                if "bot_id" in message.body and not message.deleted
            ),
            key=lambda message: message.ts,
        )
