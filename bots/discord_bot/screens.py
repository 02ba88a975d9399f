"""How turns are shown in Discord: messages that are edited until they are the answer."""

import asyncio
import logging

from bots.discord_bot.board import Board
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.messages import (
    answer_posts,
    compared_posts,
    notice_post,
    progress_post,
    vote_post,
    written,
)
from bots.discord_bot.rest import DiscordTrouble
from bots.messages import Answer
from bots.screens import Links
from bots.sides import VOTE_PART, part_for
from bots.wording import SIDES
from feedback import ComparisonId

logger = logging.getLogger(__name__)


class DiscordScreen:
    """One answer; see `bots.screens.Screen`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._typing: asyncio.Task[None] | None = None

    @property
    def free_notes(self) -> bool:
        """A new message is no edit."""
        return self._board.begins

    async def working(self, note: str) -> None:
        """Show a note with a stop button, and that the app is typing."""
        post = progress_post(MARKDOWN.italic(note), self._board.message_id)
        await self._board.show(0, post, final=False)
        if self._typing is None:  # a message ends the typing, so it comes after it
            self._typing = asyncio.create_task(self.refresh(), name="typing")

    async def writing(self, text: str) -> None:
        """Show the text, its last part where it is long, with a stop button."""
        await self._board.show(0, progress_post(written(text), self._board.message_id), final=False)

    async def notice(self, text: str, *, under: str = "") -> None:
        """Show a sentence."""
        self._stop_typing()
        await self._board.say(notice_post(text, under=under))

    async def finish(self, answer: Answer, links: Links) -> None:
        """Show the answer in as many messages as it needs."""
        self._stop_typing()
        posts = answer_posts(answer, links=links, reach=self._board.place.reach)
        for part, post in enumerate(posts):
            await self._board.show(part, post, final=True)
        await self._board.keep(len(posts))

    async def refresh(self) -> None:
        """Type again: Discord shows it for 10 s. A comfort that may fail."""
        place = self._board.place
        if place.by_token:
            return  # the response says that the app is thinking
        try:
            await self._board.rest.typing(place.channel)
        except DiscordTrouble as error:
            logger.info("no typing: %s", error, extra={"action": "typing_not_shown"})

    def _stop_typing(self) -> None:
        if self._typing is not None:
            self._typing.cancel()


class DiscordPair:
    """The two messages of a comparison, and a third one with the vote."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def knows(self, side: int) -> bool:
        """Whether the side was posted."""
        return self._board.knows(side)

    async def working(self, side: int, note: str) -> None:
        """Show a note with a stop button."""
        await self._show(side, MARKDOWN.italic(note))

    async def writing(self, side: int, text: str) -> None:
        """Show the text with a stop button."""
        await self._show(side, written(text))

    async def finish(self, side: int, answer: Answer, links: Links) -> None:
        """Show the answer; what one message does not hold stands below both."""
        for index, post in enumerate(compared_posts(answer, side=side, links=links)):
            await self._board.show(part_for(side, index), post, final=True)

    async def vote(self, comparison_id: ComparisonId) -> None:
        """Post the four buttons."""
        await self._board.show(VOTE_PART, vote_post(comparison_id), final=True)

    async def _show(self, side: int, text: str) -> None:
        title = MARKDOWN.bold(SIDES[side])
        post = progress_post(text, self._board.message_id, part=side, title=title)
        await self._board.show(side, post, final=False)
