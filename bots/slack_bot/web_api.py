"""Calls to Slack's Web API as every listener makes them: with deadlines, patience and priorities.

A call that Slack refuses for being one too many (429 with `Retry-After`, or `ratelimited` in an
answer with status 200) waits and is repeated; the channel's further calls wait with it
(`bots.slack_bot.lanes`). Errors carry Slack's code and nothing else: the SDK's own hold the whole
answer, and with it what people wrote.

Links and media of a message are never unfurled: a preview would fetch an address that a document
chose.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot.lanes import PACE_S, PREVIEW_TIERS, Budget, Lane, Priority
from bots.throttle import RetryAfter

logger = logging.getLogger(__name__)

Json = dict[str, Any]

PATIENCE_S = 600.0
"""How long a call that Slack refuses for now is repeated; then its job is."""
TRIGGER_S = 2.5
"""For opening a modal: its `trigger_id` lives 3 s."""
BRIEFLY_S = 20.0
"""For what somebody waits for before anything else happens, or what is only an ornament."""
DEFAULT_RETRY_S = 1.0
"""Where Slack refuses without saying for how long."""
MAX_RETRY_AFTER_S = 120.0
LATEST = 100
"""Messages of a channel in which one of ours is looked for after a crash, which was lately."""
MAX_LANES = 1000
"""Channels whose pace is remembered; quiet ones are forgotten beyond it."""
AWAY_PAUSES_S = (0.25, 1.0, 3.0)
"""Before a call that may be repeated is repeated because Slack did not answer it."""


class SlackRefused(SlackClientError):
    """Slack answered that it will not do it.

    Attributes:
        method: of the Web API.
        code: Slack's error, such as `invalid_blocks`.
    """

    def __init__(self, method: str, code: str) -> None:
        self.method = method
        self.code = code
        super().__init__(f"Slack refused {method}: {code}")


class SlackAway(SlackClientError):
    """Slack did not answer, or not sensibly; whether it did what was asked is not known."""

    def __init__(self, method: str, why: str) -> None:
        self.method = method
        super().__init__(f"Slack did not answer {method}: {why}")


class RateLimited(SlackClientError, RetryAfter):
    """Slack wants to be left alone for `after_s` seconds, and the call would not wait."""

    def __init__(self, method: str, after_s: float) -> None:
        self.method = method
        RetryAfter.__init__(self, after_s)
        self.args = (f"Slack wants a pause of {after_s:.1f} s before {method}",)


class SlackCalls:
    """The Web API with one token.

    All methods raise `SlackRefused`, `SlackAway` or `RateLimited`.

    Args of the constructor:
        client: with its token and base URL, and without retry handlers of its own: a repeated
            `chat.postMessage` is a second message.
        timeout_s: deadline of one attempt.
        preview_pace_s: least seconds between two edits of previews in a channel.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        timeout_s: float = 15.0,
        preview_pace_s: float = PACE_S,
    ) -> None:
        self.client = client
        self._timeout_s = timeout_s
        self._preview_pace_s = preview_pace_s
        self._lanes: dict[str, Lane] = {}
        self._budgets = {method: Budget(tier) for method, tier in PREVIEW_TIERS.items()}

    # -- Messages ---------------------------------------------------------------------------------

    async def post_message(
        self, *, channel: str, text: str, priority: Priority = Priority.NORMAL, **more: Any
    ) -> str:
        """chat.postMessage; returns the message's ts.

        Not repeated where Slack did not answer (`SlackAway`): it may have been posted.

        Args:
            text: mrkdwn, escaped; what notifications show where there are blocks.
            more: `blocks`, `thread_ts`, `metadata`.
        """
        posted = await self._call(
            channel,
            "chat.postMessage",
            lambda: self.client.chat_postMessage(
                channel=channel, text=text, unfurl_links=False, unfurl_media=False, **more
            ),
            priority=priority,
            repeat=False,
        )
        return str(posted["ts"])

    async def post_picture(
        self, *, channel: str, thread_ts: str | None, text: str, picture: bytes, name: str
    ) -> None:
        """Upload a picture and share it in a message; not repeated, as `post_message`.

        Args:
            text: mrkdwn, escaped; what stands above the picture.
            picture: a PNG.
            name: of the file.
        """
        await self._call(
            channel,
            "files.completeUploadExternal",
            lambda: self.client.files_upload_v2(
                content=picture,
                filename=name,
                alt_txt=name,
                channel=channel,
                thread_ts=thread_ts,
                initial_comment=text,
            ),
            repeat=False,
        )

    async def update_message(
        self,
        *,
        channel: str,
        ts: str,
        text: str,
        priority: Priority = Priority.NORMAL,
        **more: Any,
    ) -> None:
        """chat.update; a preview raises `RateLimited` instead of waiting.

        Args:
            text: at most 4,000 characters.
            more: `blocks` (an empty list removes them), `metadata`.
        """
        await self._call(
            channel,
            "chat.update",
            lambda: self.client.chat_update(channel=channel, ts=ts, text=text, **more),
            priority=priority,
        )

    async def delete_message(self, *, channel: str, ts: str) -> None:
        """chat.delete."""
        await self._call(
            channel, "chat.delete", lambda: self.client.chat_delete(channel=channel, ts=ts)
        )

    async def post_ephemeral(self, *, channel: str, user: str, text: str, **more: Any) -> str:
        """chat.postEphemeral: only `user` sees it; returns its ts, which cannot be updated.

        Args:
            more: `blocks`, `thread_ts`.
        """
        posted = await self._call(
            channel,
            "chat.postEphemeral",
            lambda: self.client.chat_postEphemeral(channel=channel, user=user, text=text, **more),
            priority=Priority.FINAL,
            repeat=False,
        )
        return str(posted.get("message_ts") or "")

    async def start_stream(
        self,
        *,
        channel: str,
        thread_ts: str,
        team: str,
        user: str,
        chunks: Sequence[Json],
    ) -> str:
        """chat.startStream: a message that `user` sees growing; returns its ts.

        Why not the SDK's `chat_stream` object: it keeps text in a buffer of its own, which is lost
        or sent twice where a call fails.
        """
        started = await self._call(
            channel,
            "chat.startStream",
            lambda: self.client.chat_startStream(
                channel=channel,
                thread_ts=thread_ts,
                recipient_team_id=team,
                recipient_user_id=user,
                chunks=list(chunks),
            ),
            repeat=False,
        )
        return str(started["ts"])

    async def append_stream(self, *, channel: str, ts: str, text: str) -> None:
        """chat.appendStream; raises `RateLimited` instead of waiting, and is never repeated."""
        await self._call(
            channel,
            "chat.appendStream",
            lambda: self.client.chat_appendStream(
                channel=channel, ts=ts, chunks=[markdown_chunk(text)]
            ),
            priority=Priority.PREVIEW,
        )

    async def stop_stream(
        self, *, channel: str, ts: str, text: str = "", blocks: Sequence[Json] = ()
    ) -> None:
        """chat.stopStream, adding the last text and what stands under it."""
        await self._call(
            channel,
            "chat.stopStream",
            lambda: self.client.chat_stopStream(
                channel=channel,
                ts=ts,
                chunks=[markdown_chunk(text)] if text else None,
                blocks=list(blocks) or None,
            ),
            priority=Priority.FINAL,
            repeat=False,
        )

    async def thread(self, *, channel: str, ts: str, oldest: str = "0") -> list[Json]:
        """The messages of a thread since `oldest`, at most 200, with their metadata."""
        found = await self._call(
            "conversations.replies",
            "conversations.replies",
            lambda: self.client.conversations_replies(
                channel=channel, ts=ts, oldest=oldest, limit=200, include_all_metadata=True
            ),
        )
        return list(found.get("messages") or [])

    async def latest(self, *, channel: str) -> list[Json]:
        """The newest messages of a channel outside of threads, with their metadata."""
        found = await self._call(
            "conversations.history",
            "conversations.history",
            lambda: self.client.conversations_history(
                channel=channel, limit=LATEST, include_all_metadata=True
            ),
        )
        return list(found.get("messages") or [])

    async def permalink(self, *, channel: str, ts: str) -> str:
        """chat.getPermalink: the address of a message."""
        found = await self._call(
            "chat.getPermalink",
            "chat.getPermalink",
            lambda: self.client.chat_getPermalink(channel=channel, message_ts=ts),
            patience_s=BRIEFLY_S,
        )
        return str(found["permalink"])

    async def file(self, file: str) -> Json:
        """files.info: what Slack says of a file."""
        found = await self._call(
            "files.info",
            "files.info",
            lambda: self.client.files_info(file=file),
            patience_s=BRIEFLY_S,
        )
        return dict(found["file"])

    # -- Status and views -------------------------------------------------------------------------

    async def set_status(
        self, *, channel: str, thread_ts: str, status: str, loading_messages: Sequence[str] = ()
    ) -> None:
        """assistant.threads.setStatus; it lasts 2 minutes or until a message is posted."""
        await self._call(
            f"{channel} status",
            "assistant.threads.setStatus",
            lambda: self.client.assistant_threads_setStatus(
                channel_id=channel,
                thread_ts=thread_ts,
                status=status,
                loading_messages=list(loading_messages) or None,
            ),
            priority=Priority.PREVIEW,
        )

    async def set_title(self, *, channel: str, thread_ts: str, title: str) -> None:
        """assistant.threads.setTitle: what the thread is called in the app's history."""
        await self._call(
            channel,
            "assistant.threads.setTitle",
            lambda: self.client.assistant_threads_setTitle(
                channel_id=channel, thread_ts=thread_ts, title=title
            ),
            patience_s=BRIEFLY_S,
        )

    async def suggest_prompts(
        self,
        *,
        channel: str,
        thread_ts: str | None,
        title: str,
        prompts: Sequence[Mapping[str, str]],
    ) -> None:
        """assistant.threads.setSuggestedPrompts: at most four, each with `title` and `message`."""
        await self._call(
            channel,
            "assistant.threads.setSuggestedPrompts",
            lambda: self.client.assistant_threads_setSuggestedPrompts(
                channel_id=channel,
                thread_ts=thread_ts,
                title=title,
                prompts=[dict(prompt) for prompt in prompts],
            ),
            patience_s=BRIEFLY_S,
        )

    async def user(self, user: str) -> Json:
        """users.info: what Slack says of a person."""
        found = await self._call(
            "users.info",
            "users.info",
            lambda: self.client.users_info(user=user),
            patience_s=BRIEFLY_S,
        )
        return dict(found["user"])

    async def open_view(self, *, trigger_id: str, view: Mapping[str, Any]) -> None:
        """views.open, while the trigger lives."""
        await self._call(
            "views.open",
            "views.open",
            lambda: self.client.views_open(trigger_id=trigger_id, view=dict(view)),
            repeat=False,
            patience_s=TRIGGER_S,
        )

    async def publish_view(self, *, user_id: str, view: Mapping[str, Any]) -> None:
        """views.publish: the App Home of a person."""
        await self._call(
            "views.publish",
            "views.publish",
            lambda: self.client.views_publish(user_id=user_id, view=dict(view)),
        )

    # -- How --------------------------------------------------------------------------------------

    async def _call(
        self,
        lane_name: str,
        method: str,
        make: Callable[[], Awaitable[Any]],
        *,
        priority: Priority = Priority.NORMAL,
        repeat: bool = True,
        patience_s: float = PATIENCE_S,
    ) -> Any:
        """Make a call, again and again where Slack asks for patience.

        Args:
            lane_name: what shares a rate: a channel, else the method.
            repeat: whether it may be repeated where it is not known if Slack did it.
        """
        lane = self._lane(lane_name)
        until = monotonic() + (0 if priority is Priority.PREVIEW else patience_s)
        pauses = iter(AWAY_PAUSES_S if repeat and priority is not Priority.PREVIEW else ())
        while True:
            if monotonic() + lane.wait_s > until and lane.wait_s:
                raise RateLimited(method, lane.wait_s)
            if priority is Priority.PREVIEW:
                self._pace(method, lane)
            await lane.enter(priority)
            if method in self._budgets:
                self._budgets[method].spend()
                if priority is Priority.PREVIEW:
                    lane.previewed_at = monotonic()
            try:
                async with asyncio.timeout(min(self._timeout_s, patience_s)):
                    return await make()
            except SlackApiError as error:
                after_s = _retry_after(error)
                if after_s is None:
                    failure = _failure(method, error)
                    if isinstance(failure, SlackRefused):
                        raise failure from None
                else:
                    logger.info(
                        "Slack wants %s to wait %.1f s",
                        method,
                        after_s,
                        extra={"action": "slack_rate_limited"},
                    )
                    lane.refused(after_s)
                    continue
            except (aiohttp.ClientError, OSError, TimeoutError, SlackRequestError) as error:
                failure = SlackAway(method, type(error).__name__)
            pause = next(pauses, None)
            if pause is None:
                raise failure from None
            await asyncio.sleep(pause)

    def _pace(self, method: str, lane: Lane) -> None:
        """Let a preview pass, if Slack would like another one now.

        Raises:
            RateLimited: it would not.
        """
        if method not in self._budgets:
            return
        paced_s = lane.previewed_at + self._preview_pace_s - monotonic()
        wait_s = max(paced_s, self._budgets[method].wait_s)
        if wait_s > 0:
            raise RateLimited(method, wait_s)

    def _lane(self, name: str) -> Lane:
        if name not in self._lanes:
            if len(self._lanes) >= MAX_LANES:
                quiet = [each for each, lane in self._lanes.items() if lane.idle_s > PACE_S]
                for each in quiet:
                    del self._lanes[each]
            self._lanes[name] = Lane()
        return self._lanes[name]


def markdown_chunk(text: str) -> Json:
    """A piece of a stream; at most 12,000 characters."""
    return {"type": "markdown_text", "text": text}


def _retry_after(error: SlackApiError) -> float | None:
    """Seconds to wait where Slack refused for now, else None."""
    status, data, headers = _parts(error)
    if status != 429 and data.get("error") not in ("ratelimited", "rate_limited"):
        return None
    try:
        named = float(headers.get("Retry-After") or headers.get("retry-after") or DEFAULT_RETRY_S)
    except ValueError:
        named = DEFAULT_RETRY_S
    return min(max(named, 0.0), MAX_RETRY_AFTER_S)


def _failure(method: str, error: SlackApiError) -> SlackRefused | SlackAway:
    status, data, _ = _parts(error)
    code = data.get("error")
    if isinstance(code, str) and status < 500 and code not in _AWAY:
        return SlackRefused(method, code)
    return SlackAway(method, str(code or status))


_AWAY = {
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
}
"""Slack's own troubles, which pass."""


def code_of(error: SlackApiError) -> str | None:
    """Slack's error; None where it did not answer sensibly."""
    code = _parts(error)[1].get("error")
    return code if isinstance(code, str) else None


def _parts(error: SlackApiError) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
    """Status, body and headers; the SDK gives a bare HTTP response where the body is no JSON."""
    response = error.response
    status: int = getattr(response, "status_code", None) or getattr(response, "status", None) or 0
    data = getattr(response, "data", None)
    return status, data if isinstance(data, Mapping) else {}, response.headers
