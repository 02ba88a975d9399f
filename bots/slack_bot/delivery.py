"""Delivers turns to Slack: from the first sign of life to the answer, again after every crash.

A turn may be delivered several times: a process died, the engine was away. What was posted before
is found and becomes the answer, so a question has one answer whatever happened in between.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from time import perf_counter

from slack_sdk.errors import SlackClientError

from bots.errors import TurnFailed
from bots.messages import (
    Answer,
    Answered,
    Delayed,
    PendingEvent,
    Queued,
    Searching,
    SourcesFound,
    TextDelta,
    TurnEvent,
)
from bots.slack_bot.blocks import SEARCHING, queued, reading
from bots.slack_bot.board import GONE, Board, Place, PrivateBoard
from bots.slack_bot.context import SlackContext
from bots.slack_bot.screens import (
    EditedScreen,
    Links,
    PrivateScreen,
    Screen,
    StreamedScreen,
)
from bots.slack_bot.sides import Sides
from bots.slack_bot.web_api import RateLimited, SlackRefused
from bots.throttle import Edits, RetryAfter
from bots.turns import PendingTurn
from storage.errors import DocumentNotFound
from storage.identity import Audience, MessageId
from storage.queue import RetryLater

logger = logging.getLogger(__name__)

STATUS_REFRESH_S = 90.0
"""Slack forgets a status after 2 minutes."""

Show = Callable[[], Awaitable[None]]


class SlackDelivery:
    """Shows pending turns where they were asked.

    Args of the constructor:
        status_refresh_s: how often a status is set again while nothing else is shown.
    """

    def __init__(
        self, context: SlackContext, *, status_refresh_s: float = STATUS_REFRESH_S
    ) -> None:
        self._context = context
        self._status_refresh_s = status_refresh_s
        self._told: set[MessageId] = set()

    async def deliver(self, turn: PendingTurn) -> None:
        """Show a turn, until its answer stands there or is known to come later.

        Raises:
            RetryLater: Slack does not answer, or the token ran out; to be delivered again.
        """
        begun = perf_counter()
        try:
            board = await self._board(turn)
            if board.finished and turn.kind != "regenerate":
                return
            shown = await self._show(turn, board)
        except SlackRefused as error:
            if error.code == "token_expired":  # the next attempt has a new one
                raise RetryLater from error
            if error.code not in GONE:
                raise
            logger.warning("an answer has no place: %s", error, extra={"action": "place_gone"})
            return
        except (SlackClientError, TimeoutError) as error:
            self._told.discard(turn.message_id)  # perhaps nobody read it
            logger.warning("Slack is away: %s", error, extra={"action": "slack_away"})
            raise RetryLater from error
        if shown:
            self._told.discard(turn.message_id)
            await board.finish()
            ms = round(1000 * (perf_counter() - begun))
            logger.info("answer delivered", extra={"action": "delivered", "duration_ms": ms})

    async def _board(self, turn: PendingTurn) -> Board:
        place = Place.of(turn.place)
        make: Callable[..., Board] = Board
        if place.private:
            make = partial(PrivateBoard, anew=turn.kind == "regenerate")
        board = make(
            calls=self._context.calls(await self._context.client_for(place.workspace)),
            deliveries=self._context.deliveries,
            place=place,
            message_id=turn.message_id,
        )
        await board.load(again=turn.attempt > 0)
        return board

    def _first_delay(self, turn: PendingTurn) -> bool:
        """Whether it was not said yet that this answer comes later."""
        first = turn.message_id not in self._told
        self._told.add(turn.message_id)
        return first

    async def _show(self, turn: PendingTurn, board: Board) -> bool:
        """Show the turn; False where it is to be delivered again."""
        links = partial(links_of, self._context, turn.audience)
        async with (
            Edits[int, Show](
                _send, interval_s=self._context.settings.edit_interval_s, concurrency=2
            ) as edits,
            contextlib.aclosing(turn.events()) as events,
        ):
            if turn.kind == "compare":
                first_delay = partial(self._first_delay, turn)
                sides = Sides(self._context, turn, board, edits, links, first_delay)
                return await sides.show(events)
            return await self._single(turn, board, edits, events, links)

    async def _single(
        self,
        turn: PendingTurn,
        board: Board,
        edits: Edits[int, Show],
        events: AsyncGenerator[PendingEvent | tuple[int, TurnEvent], None],
        links: Callable[[Answer], Awaitable[Links]],
    ) -> bool:
        screen = _screen(board)
        refresher = asyncio.create_task(self._refresh(screen))

        def working(note: str) -> None:
            if turn.message_id not in self._told:  # what was said then is still true
                edits.put(0, partial(screen.working, note))

        working(SEARCHING)
        text = ""
        try:
            async for event in events:
                match event:
                    case Queued(position=position):
                        working(queued(position))
                    case Searching():
                        working(SEARCHING)
                    case SourcesFound(sources=sources):
                        # In a channel the edit would hold up the first words, which come next.
                        if board.place.one_reader:
                            working(reading(len(sources)))
                    case TextDelta(text=new):
                        text += new
                        edits.put(0, partial(screen.writing, text))
                    case Delayed(reply=reply):
                        if self._first_delay(turn):
                            notice = partial(screen.notice, reply.text, under=text)
                            await edits.finish(0, notice)
                    case Answered(answer=answer):
                        finish = partial(screen.finish, answer, await links(answer))
                        await edits.finish(0, finish)
                        return True
        except TurnFailed as error:
            kept = await self._kept(turn)
            if kept is None:
                await edits.finish(0, partial(screen.notice, error.reply.text))
            else:
                await edits.finish(0, partial(screen.finish, kept, await links(kept)))
                await board.tell(error.reply.text)
            return True
        finally:
            refresher.cancel()
        return False

    async def _kept(self, turn: PendingTurn) -> Answer | None:
        """The answer that stays because there is no other one."""
        if turn.kind != "regenerate":
            return None
        events = self._context.workplace.assistant.retry(turn.message_id, audience=turn.audience)
        with contextlib.suppress(TurnFailed):
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Answered):
                        return event.answer
        return None

    async def _refresh(self, screen: Screen) -> None:
        while True:
            await asyncio.sleep(self._status_refresh_s)
            await screen.refresh()


async def _send(_: int, show: Show) -> None:
    """What `Edits` sends is what to do."""
    try:
        await show()
    except RateLimited as error:
        raise RetryAfter(error.after_s) from error


def _screen(board: Board) -> Screen:
    place = board.place
    if isinstance(board, PrivateBoard):
        return PrivateScreen(board)
    if place.one_reader and place.thread_ts and board.empty:
        return StreamedScreen(board)
    return EditedScreen(board)


async def links_of(context: SlackContext, audience: Audience, answer: Answer) -> Links:
    """Where the cited documents can be opened, as far as that is known."""
    found = {}
    for document_id in {citation.document_id for citation in answer.citations}:
        with contextlib.suppress(DocumentNotFound):
            document = await context.workplace.documents.get(document_id, audience=audience)
            if url := document.origin.get("permalink"):
                found[document_id] = url
    return found
