"""Three ways to show a turn in Slack: edits of a message, a native stream, a message for one.

A native stream is live only for the one person that it names, so it serves conversations of one
person; a channel gets a placeholder that is edited. A stream that Slack ends, after about five
minutes or while the model is silent, goes on as edits of the same message: everything that was
said is kept here and not in the stream.
"""

import asyncio
import contextlib
import logging

from slack_sdk.errors import SlackClientError

from bots.messages import Answer
from bots.screens import Links
from bots.sides import VOTE_PART, part_for
from bots.slack_bot.blocks import (
    STREAM_CHARACTERS,
    Block,
    answer_foot,
    answer_posts,
    compared_posts,
    markdown_block,
    notice_post,
    progress_post,
    shortened,
    stop_button,
    vote_post,
)
from bots.slack_bot.board import Board, PrivateBoard
from bots.slack_bot.lanes import Priority
from bots.slack_bot.mrkdwn import MRKDWN, escape
from bots.slack_bot.web_api import SlackAway, SlackRefused, markdown_chunk
from bots.wording import SEARCHING, SIDES
from feedback import ComparisonId

logger = logging.getLogger(__name__)

STATUS_S = 2.0
"""That a message waits for a status that is being set."""
LOADING_MESSAGES = (
    "Searching the documents…",
    "Reading what was found…",
    "Checking the sources…",
)


class EditedScreen:
    """A message that is edited until it is the answer."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @property
    def free_notes(self) -> bool:
        """A new message is no edit."""
        return self._board.empty

    async def working(self, note: str) -> None:
        """Show a note with a stop button."""
        post = progress_post(MRKDWN.italic(note), self._board.message_id)
        await self._board.show(0, post, Priority.PREVIEW)

    async def writing(self, text: str) -> None:
        """Show the text, its last part where it is long, with a stop button."""
        post = progress_post(text, self._board.message_id)
        await self._board.show(0, post, Priority.PREVIEW)

    async def notice(self, text: str, *, under: str = "") -> None:
        """Show a plain sentence."""
        await self._board.say(notice_post(text, under=under))

    async def finish(self, answer: Answer, links: Links) -> None:
        """Show the answer in as many messages as it needs."""
        posts = answer_posts(answer, links=links, reach=self._board.place.reach)
        for part, post in enumerate(posts):
            await self._board.show(part, post, Priority.FINAL)
        await self._board.keep(len(posts))

    async def refresh(self) -> None:
        """A message does not expire."""


class Status:
    """What the thread says about what is being done; a comfort that may fail."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._note = ""
        self._setting = asyncio.Lock()

    async def show(self, note: str) -> None:
        """Set the status."""
        self._note = note
        async with self._setting:
            if self._note == note and self._board.place.thread_ts:
                await self._set(note)

    async def _set(self, note: str) -> None:
        place = self._board.place
        try:
            await self._board.calls.set_status(
                channel=place.channel,
                thread_ts=place.thread_ts,
                status=note,
                loading_messages=LOADING_MESSAGES if note == SEARCHING else (note,),
            )
        except SlackClientError as error:
            logger.info("no status: %s", error, extra={"action": "status_not_shown"})

    async def refresh(self) -> None:
        """Set it again: Slack forgets it after 2 minutes."""
        if self._note:
            await self.show(self._note)

    async def over(self) -> None:
        """A message follows, which ends the status; one on its way must not come behind it."""
        self._note = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_S), self._setting:
                pass


class StreamedScreen:
    """A native stream; edits of its message where Slack has ended it."""

    free_notes = True

    def __init__(self, board: Board) -> None:
        self._board = board
        self._status = Status(board)
        self._edited: EditedScreen | None = None
        self._ts = ""
        self._sent = ""
        self._stoppable = False

    async def working(self, note: str) -> None:
        """Set the thread's status."""
        if self._edited is not None:
            await self._edited.working(note)
        else:
            await self._status.show(note)

    async def writing(self, text: str) -> None:
        """Append what is new."""
        if self._edited is None:
            try:
                await self._append(escape(text))
                return
            except (SlackRefused, SlackAway) as error:
                self._break(error)
                if not self._ts and isinstance(error, SlackAway):
                    await self._board.recover()  # it may have started
        if self._edited is not None:
            await self._edited.writing(text)

    async def notice(self, text: str, *, under: str = "") -> None:
        """Show a plain sentence; what follows is shown as edits of it."""
        await self._status.over()
        await self._end()
        self._edited = EditedScreen(self._board)
        await self._edited.notice(text, under=under)

    async def finish(self, answer: Answer, links: Links) -> None:
        """Complete the stream, then replace it where that is not the whole answer."""
        await self._status.over()
        edited = EditedScreen(self._board)
        if self._edited is None and self._ts:
            whole = escape(answer.text)
            if whole.startswith(self._sent) and len(whole) <= STREAM_CHARACTERS:
                await self._complete(answer, links, whole)
                return
            await self._end()
        await edited.finish(answer, links)

    async def refresh(self) -> None:
        """Keep the status."""
        await self._status.refresh()

    async def _append(self, whole: str) -> None:
        new = whole[len(self._sent) :]
        if not new or len(whole) > STREAM_CHARACTERS:  # the complete answer shows the rest
            return
        place = self._board.place
        if not self._ts:
            await self._start(new)
        else:
            await self._board.calls.append_stream(channel=place.channel, ts=self._ts, text=new)
        self._sent = whole

    async def _start(self, text: str) -> None:
        """Start with a stop button, or without where Slack takes none in a stream."""
        await self._status.over()
        place = self._board.place
        stop = {"type": "actions", "elements": [stop_button(self._board.message_id)]}
        with_stop = [{"type": "blocks", "blocks": [stop]}, markdown_chunk(text)]
        for chunks in (with_stop, with_stop[1:]):
            try:
                self._ts = await self._board.calls.start_stream(
                    channel=place.channel,
                    thread_ts=place.thread_ts,
                    team=place.team,
                    user=place.user,
                    chunks=chunks,
                )
            except SlackRefused as error:
                if chunks is not with_stop:
                    raise
                logger.info("no stop button: %s", error, extra={"action": "stream_without_stop"})
            else:
                self._stoppable = chunks is with_stop
                await self._board.remember(0, self._ts)
                return

    async def _complete(self, answer: Answer, links: Links, whole: str) -> None:
        foot = answer_foot(answer, links=links, reach=self._board.place.reach)
        try:
            await self._board.calls.stop_stream(
                channel=self._board.place.channel,
                ts=self._ts,
                text=whole[len(self._sent) :],
                blocks=foot,
            )
        except (SlackRefused, SlackAway) as error:
            self._break(error)
            await EditedScreen(self._board).finish(answer, links)
            return
        if self._stoppable:
            await self._take_stop_away(answer, links, foot)

    async def _take_stop_away(self, answer: Answer, links: Links, foot: list[Block]) -> None:
        """Replace the streamed message by the same one without its stop button."""
        posts = answer_posts(answer, links=links, reach=self._board.place.reach)
        try:
            await self._board.calls.update_message(
                channel=self._board.place.channel,
                ts=self._ts,
                text=shortened("\n".join(post.text for post in posts)),
                blocks=[markdown_block(answer.text), *foot],
                priority=Priority.FINAL,
            )
        except (SlackRefused, SlackAway) as error:
            logger.warning("a stop button stays: %s", error, extra={"action": "stop_button_stays"})

    def _break(self, error: Exception) -> None:
        logger.info("a stream goes on as edits: %s", error, extra={"action": "stream_ended"})
        self._edited = EditedScreen(self._board)

    async def _end(self) -> None:
        """Let the message be edited."""
        if self._ts and self._edited is None:
            with contextlib.suppress(SlackRefused, SlackAway):
                await self._board.calls.stop_stream(channel=self._board.place.channel, ts=self._ts)


class PrivateScreen:
    """Messages that only the asker sees: a status, then the whole answer at once."""

    free_notes = True

    def __init__(self, board: PrivateBoard) -> None:
        self._board = board
        self._status = Status(board)

    async def working(self, note: str) -> None:
        """Set the thread's status."""
        await self._status.show(note)

    async def writing(self, text: str) -> None:
        """Nothing: it would have to be posted again with every word."""

    async def notice(self, text: str, *, under: str = "") -> None:
        """Tell the asker."""
        await self._status.over()
        await self._board.say(notice_post(text, under=""))

    async def finish(self, answer: Answer, links: Links) -> None:
        """Post the answer, which the asker may share."""
        await self._status.over()
        posts = answer_posts(answer, links=links, reach=self._board.place.reach)
        for part, post in enumerate(posts):
            await self._board.show(part, post, Priority.FINAL)

    async def refresh(self) -> None:
        """Keep the status."""
        await self._status.refresh()


class SlackPair:
    """The two messages of a comparison, and a third one with the vote."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def knows(self, side: int) -> bool:
        """Whether the side was posted."""
        return self._board.knows(side)

    async def working(self, side: int, note: str) -> None:
        """Show a note with a stop button."""
        await self.writing(side, MRKDWN.italic(note))

    async def writing(self, side: int, text: str) -> None:
        """Show the text with a stop button."""
        title = MRKDWN.bold(SIDES[side])
        post = progress_post(text, self._board.message_id, title=title)
        await self._board.show(side, post, Priority.PREVIEW)

    async def finish(self, side: int, answer: Answer, links: Links) -> None:
        """Show the answer."""
        for index, post in enumerate(compared_posts(answer, side=side, links=links)):
            await self._board.show(part_for(side, index), post, Priority.FINAL)

    async def vote(self, comparison_id: ComparisonId) -> None:
        """Post the four buttons."""
        await self._board.show(VOTE_PART, vote_post(comparison_id), Priority.FINAL)
