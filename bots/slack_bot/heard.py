"""A message event, as far as it concerns the app."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slack_bolt.request.internals import extract_team_id

from bots.slack_bot.gate import Asker
from bots.slack_bot.identity import is_direct
from bots.slack_bot.said import mentions, mentions_others, plain_text

_SUBTYPES = (None, "file_share", "thread_broadcast", "bot_message", "me_message")
"""What people and bots say; the others tell of edits, arrivals, topics."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Something that somebody said where the app can hear it.

    Attributes:
        channel_open: whether everybody in the workspace may read the channel; None where the event
            does not tell.
        text: plain, without the app's mention.
        mentioned: whether the app was called by name.
        for_others: whether somebody else was.
        files: whether files came with it.
    """

    app_id: str
    asker: Asker
    channel: str
    channel_open: bool | None
    ts: str
    thread_ts: str | None
    text: str
    mentioned: bool
    for_others: bool
    files: bool

    @property
    def thread(self) -> str:
        """The thread that an answer belongs to."""
        return self.thread_ts or self.ts

    @property
    def calling(self) -> bool:
        """Whether it calls us: by name, or where nobody else is."""
        return self.mentioned or self.asker.direct

    @property
    def ref(self) -> str:
        """What names the message, however often and as whatever event it is delivered."""
        return f"{self.app_id}:{self.channel}:{self.ts}"


def heard_in(body: Mapping[str, Any], *, bot_user_id: str) -> Heard | None:
    """What an `app_mention` or `message` event says; None for the app's own words and the like."""
    event = body["event"]
    app_id, user = str(body.get("api_app_id") or ""), event.get("user")
    if event.get("subtype") not in _SUBTYPES or event.get("hidden"):
        return None
    if user == bot_user_id or (event.get("app_id") and event["app_id"] == app_id):
        return None
    team = extract_team_id({**body, "team": None})
    speaker = user or event.get("bot_id")
    if team is None or speaker is None or not event.get("ts"):
        return None
    channel, text = str(event["channel"]), str(event.get("text") or "")
    direct = event.get("channel_type") == "im" or is_direct(channel)
    return Heard(
        app_id=app_id,
        asker=Asker(
            user=str(speaker),
            team=team,
            bot=bool(event.get("bot_id") or event.get("subtype") == "bot_message"),
            outside=_outside(event, team),
            direct=direct,
        ),
        channel=channel,
        channel_open=_open(body),
        ts=str(event["ts"]),
        thread_ts=event.get("thread_ts"),
        text=plain_text(text, without=bot_user_id),
        mentioned=event["type"] == "app_mention" or mentions(text, bot_user_id),
        for_others=mentions_others(text, bot_user_id),
        files=bool(event.get("files")),
    )


def _open(body: Mapping[str, Any]) -> bool | None:
    """Whether a channel is public, and of no other company, as `message` events tell.

    They come from every channel that the app is in, so that a channel which is made private is
    known to be with the next message there; and no scope is needed to ask.
    https://docs.slack.dev/reference/events/message
    """
    kind = body["event"].get("channel_type")
    return None if kind is None else kind == "channel" and not body.get("is_ext_shared_channel")


def _outside(event: Mapping[str, Any], team: str) -> bool:
    """Whether the event itself says that its author belongs to another workspace."""
    # `user_team` may name an organisation (E…), which says nothing of the workspace.
    homes = (event.get("user_team"), event.get("source_team"))
    return any(str(home).startswith("T") and home != team for home in homes if home)
