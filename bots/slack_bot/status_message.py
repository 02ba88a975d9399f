"""The message in Slack that shows a file's status; see `bots.file_status`."""

from collections.abc import Mapping
from typing import Any

from bots.file_status import FileNote
from bots.slack_bot.blocks import Post
from bots.slack_bot.document_blocks import status_post
from bots.slack_bot.lanes import Priority
from bots.slack_bot.web_api import SlackAway, SlackCalls, SlackRefused
from storage.shared_files import SharedFile, SharedFiles

EVENT_TYPE = "parley_file"
"""Of the message's metadata, by which a process that died right after posting it finds it again."""
_DELETED = "message_not_found"


class SlackStatusMessage:
    """Posts and edits it.

    Args of the constructor:
        place: `reply_to` and `thread`, by Slack's ids.
        again: whether an earlier attempt may have posted what nobody remembers.
    """

    def __init__(
        self,
        *,
        calls: SlackCalls,
        shared_files: SharedFiles,
        file: SharedFile,
        place: Mapping[str, str],
        again: bool,
    ) -> None:
        self._calls = calls
        self._shared_files = shared_files
        self._file_id = file.id
        self._channel = place["reply_to"]
        self._thread = place["thread"]
        self._ts = (file.status_ref or "").rpartition(":")[2]
        self._unsure = again and not self._ts

    async def put(self, note: FileNote, *, final: bool) -> None:
        """Post it, or change it.

        Raises:
            SlackClientError: Slack refuses it, or is away.
        """
        post = status_post(note)
        priority = Priority.FINAL if final else Priority.PREVIEW
        if self._unsure and self._thread:
            await self._find()
        if self._ts:
            try:
                await self._calls.update_message(
                    channel=self._channel, ts=self._ts, priority=priority, **post.arguments()
                )
                return
            except SlackRefused as error:
                if error.code != _DELETED:
                    raise
        await self._post(post, priority)

    async def _post(self, post: Post, priority: Priority) -> None:
        more: dict[str, Any] = {"thread_ts": self._thread} if self._thread else {}
        if post.blocks:
            more["blocks"] = list(post.blocks)
        metadata = {"event_type": EVENT_TYPE, "event_payload": {"file_id": str(self._file_id)}}
        try:
            self._ts = await self._calls.post_message(
                channel=self._channel, text=post.text, priority=priority, metadata=metadata, **more
            )
        except SlackAway:
            self._unsure = True
            raise
        await self._remember()

    async def _find(self) -> None:
        """Look for the message that may have been posted without our knowing."""
        for message in await self._calls.thread(channel=self._channel, ts=self._thread):
            metadata = message.get("metadata") or {}
            payload = metadata.get("event_payload") or {}
            if (metadata.get("event_type"), payload.get("file_id")) == (
                EVENT_TYPE,
                str(self._file_id),
            ):
                self._ts = str(message["ts"])
                await self._remember()
        self._unsure = False

    async def _remember(self) -> None:
        await self._shared_files.shown(self._file_id, f"{self._channel}:{self._ts}")
