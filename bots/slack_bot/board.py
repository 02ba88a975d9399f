"""The messages of one turn: posted once, found again after a crash, never lost to a refusal.

Where a message stands is remembered in `storage.deliveries` right after it was posted. A process
that dies in between leaves a message that nobody remembers; it carries the question's id as
metadata, and is found by that; a stream is found by its stop button.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from bots.screens import BESIDE, Reach
from bots.slack_bot.blocks import STOP_ACTION, Post
from bots.slack_bot.lanes import Priority
from bots.slack_bot.mrkdwn import escape
from bots.slack_bot.web_api import RateLimited, SlackAway, SlackCalls, SlackRefused
from storage.deliveries import Deliveries
from storage.identity import MessageId

logger = logging.getLogger(__name__)

EVENT_TYPE = "parley_answer"
"""Of the metadata of every message that belongs to a question."""
BEGUN = ""
"""In place of the ts of a message that is being posted and cannot be found again."""
INTERRUPTED = "I was interrupted while I sent this, so you may see it twice."
POST_ATTEMPTS = 4
"""To post a message while Slack does not answer; after each, Slack is asked whether it has it."""
AWAY_PAUSE_S = 1.0

GONE = frozenset(
    {
        *("channel_not_found", "is_archived", "not_in_channel", "user_not_in_channel"),
        *("token_revoked", "invalid_auth", "not_authed", "account_inactive"),
        *("restricted_action", "user_not_found", "missing_scope", "ekm_access_denied"),
    }
)
"""Refusals that no other wording changes: nothing can be shown there."""
_LOST = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
"""The message was deleted, or cannot be changed any more: a new one takes its place."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a turn is shown, by Slack's ids; what `bots.turns` calls its place.

    Attributes:
        channel: where it is posted, also in a conversation of one person.
        thread_ts: the thread; empty where a command asked.
        team: the asker's workspace.
        one_reader: a direct conversation: nobody but `user` reads it.
        private: only `user` may see it though others are there.
    """

    workspace: str
    channel: str
    thread_ts: str
    team: str
    user: str
    one_reader: bool
    private: bool

    @classmethod
    def of(cls, place: Mapping[str, str]) -> Self:
        """Read what the listener stored with the question."""
        return cls(
            workspace=place["workspace"],
            channel=place["reply_to"],
            thread_ts=place.get("thread", ""),
            team=place.get("team") or place["workspace"],
            user=place["member"],
            one_reader=not place["channel"],
            private=place.get("via") == "ephemeral",
        )

    @property
    def reach(self) -> Reach:
        """Who sees what is posted here."""
        return Reach.of(one_reader=self.one_reader, private=self.private)

    @property
    def threaded(self) -> dict[str, str]:
        """The argument that puts a message into the thread, where there is one."""
        return {"thread_ts": self.thread_ts} if self.thread_ts else {}


class Board:
    """Posts and changes the messages of one turn; `part` 0 is the first.

    All methods raise what `SlackCalls` raises once nothing else helps.
    """

    def __init__(
        self, *, calls: SlackCalls, deliveries: Deliveries, place: Place, message_id: MessageId
    ) -> None:
        self.calls = calls
        self.place = place
        self.message_id = message_id
        self.finished = False
        self._deliveries = deliveries
        self._ts: dict[int, str] = {}
        self._said: dict[int, Post] = {}

    async def load(self, *, again: bool) -> None:
        """Find what was posted before.

        Args:
            again: whether an earlier attempt may have posted what nobody remembers.
        """
        posted = await self._deliveries.get(self.message_id)
        self._ts = {each.part: each.ref.rpartition(":")[2] for each in posted}
        answer = [each.finished for each in posted if each.part < BESIDE]
        self.finished = bool(answer) and all(answer)
        if again and not self.finished:
            await self.recover()

    async def recover(self) -> None:
        """Find in Slack what was posted and not remembered."""
        for part, ts in (await self._found()).items():
            if part not in self._ts:
                await self.remember(part, ts)

    @property
    def empty(self) -> bool:
        """Whether nothing was posted yet."""
        return not self._ts

    def knows(self, part: int) -> bool:
        """Whether the message of `part` was posted."""
        return bool(self._ts.get(part))

    def metadata(self, part: int) -> dict[str, Any]:
        """What a message is found by."""
        payload = {"message_id": str(self.message_id), "part": part}
        return {"event_type": EVENT_TYPE, "event_payload": payload}

    async def remember(self, part: int, ts: str) -> None:
        """Note where a part stands."""
        self._ts[part] = ts
        ref = f"{self.place.channel}:{ts}"
        await self._deliveries.put(self.message_id, part=part, ref=ref)

    async def show(self, part: int, post: Post, priority: Priority) -> None:
        """Let the message of `part` say this; without blocks where Slack refuses them."""
        if self._said.get(part) == post and priority is Priority.PREVIEW:
            return
        self._said.pop(part, None)
        try:
            await self._show(part, post.arguments(), priority)
            self._said[part] = post
        except SlackRefused as error:
            if error.code in GONE or not post.blocks:
                raise
            logger.warning(
                "Slack refused the blocks of an answer: %s",
                error.code,
                extra={"action": "blocks_refused"},
            )
            await self._show(part, {"text": post.text, "blocks": []}, priority)

    async def say(self, post: Post) -> None:
        """Let one message say this, and no other one anything."""
        await self.show(0, post, Priority.FINAL)
        await self.keep(1)

    async def tell(self, text: str) -> None:
        """Tell the asker alone something that is no answer; a comfort that may fail."""
        place = self.place
        try:
            await self.calls.post_ephemeral(
                channel=place.channel, user=place.user, text=escape(text), **place.threaded
            )
        except (SlackRefused, SlackAway) as error:
            logger.warning("a notice was lost: %s", error, extra={"action": "notice_lost"})

    async def keep(self, count: int) -> None:
        """Delete the messages behind the first `count`: the text became shorter."""
        for part in sorted(part for part in self._ts if count <= part < BESIDE):
            try:
                await self.calls.delete_message(channel=self.place.channel, ts=self._ts[part])
            except SlackRefused as error:
                if error.code != "message_not_found":
                    logger.warning("a message stays: %s", error, extra={"action": "not_deleted"})
            await self._forget(part)

    async def finish(self) -> None:
        """Note that everything stands where it should."""
        await self._deliveries.finish(self.message_id)

    async def _forget(self, part: int) -> None:
        del self._ts[part]
        await self._deliveries.remove(self.message_id, part=part)

    async def _show(self, part: int, content: dict[str, Any], priority: Priority) -> None:
        ts = self._ts.get(part)
        if ts is None:
            await self._post(part, content, priority)
            return
        try:
            await self._update(ts, content, priority)
        except SlackRefused as error:
            if error.code == "streaming_state_conflict":
                with contextlib.suppress(SlackRefused):  # it ended meanwhile
                    await self.calls.stop_stream(channel=self.place.channel, ts=ts)
                await self._update(ts, content, priority)
            elif error.code in _LOST:
                await self._post(part, content, priority)
            else:
                raise

    async def _update(self, ts: str, content: dict[str, Any], priority: Priority) -> None:
        await self.calls.update_message(
            channel=self.place.channel, ts=ts, priority=priority, **content
        )

    async def _post(self, part: int, content: dict[str, Any], priority: Priority) -> None:
        """Post a message once, even if Slack does not answer that it did."""
        for left in reversed(range(POST_ATTEMPTS)):
            try:
                ts = await self.calls.post_message(
                    channel=self.place.channel,
                    # A preview that cannot be sent is replaced; one that is not there is missed.
                    priority=min(priority, Priority.NORMAL),
                    metadata=self.metadata(part),
                    **self.place.threaded,
                    **{name: value for name, value in content.items() if value},
                )
            except SlackAway:
                known = self._ts.get(part)
                found = (await self._found()).get(part)
                if found is not None and found != known:
                    await self.remember(part, found)
                    await self._update(found, content, priority)
                    return
                if not left:
                    raise
                await asyncio.sleep(AWAY_PAUSE_S)
            else:
                await self.remember(part, ts)
                return

    async def _found(self) -> dict[int, str]:
        """The messages in Slack that belong to this question, the newest of each part."""
        place = self.place
        try:
            if place.thread_ts:
                messages = await self.calls.thread(channel=place.channel, ts=place.thread_ts)
            else:
                messages = await self.calls.latest(channel=place.channel)
        except SlackRefused as error:  # no reason to be silent
            logger.warning("a place is unreadable: %s", error, extra={"action": "not_recovered"})
            return {}
        parts = ((_part_of(message, str(self.message_id)), message) for message in messages)
        return {part: str(message["ts"]) for part, message in parts if part is not None}


def _part_of(message: Mapping[str, Any], message_id: str) -> int | None:
    """Which part of the question's answer a message of Slack is; None for another message.

    A stream that has not ended has no metadata, but it has the button that stops it.
    """
    metadata = message.get("metadata") or {}
    payload = metadata.get("event_payload") or {}
    if metadata.get("event_type") == EVENT_TYPE and payload.get("message_id") == message_id:
        return int(payload.get("part", 0))
    elements = [
        element for block in message.get("blocks") or () for element in block.get("elements") or ()
    ]
    stops = any(
        element.get("action_id") == STOP_ACTION and element.get("value") == message_id
        for element in elements
    )
    return 0 if stops else None


class PrivateBoard(Board):
    """Messages that only the asker sees. They cannot be changed: previews are not shown.

    Nor can they be found again. So it is noted that one is about to be posted: after a crash nobody
    knows whether it was, and it comes (perhaps once more) and says why.

    Args of the constructor:
        anew: whether what was posted before was for another answer.
    """

    def __init__(
        self,
        *,
        calls: SlackCalls,
        deliveries: Deliveries,
        place: Place,
        message_id: MessageId,
        anew: bool,
    ) -> None:
        super().__init__(calls=calls, deliveries=deliveries, place=place, message_id=message_id)
        self._anew = anew

    async def show(self, part: int, post: Post, priority: Priority) -> None:
        """Post a message that is no preview, once."""
        if priority is Priority.PREVIEW or (self.knows(part) and not self._anew):
            return
        if self._ts.get(part) == BEGUN:
            post = post.below(INTERRUPTED)
        await self.remember(part, BEGUN)
        try:
            ts = await self._send(post)
        except (SlackRefused, RateLimited):  # certainly not posted
            await self._forget(part)
            raise
        await self.remember(part, ts)

    async def say(self, post: Post) -> None:
        """Post a sentence; the answer is still to come."""
        await self._send(post)

    async def keep(self, count: int) -> None:
        """Nothing that was posted can be taken back."""

    async def recover(self) -> None:
        """Slack shows nobody what one person alone sees."""

    async def _send(self, post: Post) -> str:
        place = self.place
        where = {"channel": place.channel, "user": place.user, **place.threaded}
        try:
            return await self.calls.post_ephemeral(**where, **post.arguments())
        except SlackRefused as error:
            if error.code in GONE or not post.blocks:
                raise
            return await self.calls.post_ephemeral(**where, text=post.text)
