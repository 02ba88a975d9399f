"""Delivers turns to a chat: from the first sign of life to the answer, again after every crash.

A turn may be delivered several times: a process died, the engine was away. What was posted before
is found and becomes the answer, so a question has one answer whatever happened in between.
"""

import asyncio
import contextlib
import enum
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from time import perf_counter

from bots.errors import TurnFailed
from bots.messages import (
    Answer,
    Answered,
    Delayed,
    Preparing,
    Queued,
    Remark,
    Searching,
    SourcesFound,
    TextDelta,
)
from bots.screens import Links, Screen, ShownTurn
from bots.sides import Show, Sides
from bots.throttle import Edits
from bots.turns import AnyEvent, PendingTurn
from bots.wording import SEARCHING, queued, reading
from bots.workplace import Workplace
from storage.errors import DocumentNotFound
from storage.identity import Audience, MessageId
from storage.jobs import RetryLater

logger = logging.getLogger(__name__)


class Trouble(enum.Enum):
    """What a platform's error means for the answer that was to be shown."""

    AWAY = enum.auto()
    """The platform does not answer, or not now: the turn is delivered again."""
    GONE = enum.auto()
    """There is no place for the answer any more, and nobody to tell."""
    OURS = enum.auto()
    """A mistake of ours."""


class Delivery:
    """Shows pending turns where they were asked.

    Args of the constructor:
        shown: finds what stands on the platform for a turn, or prepares it.
        trouble: what an error of the platform means.
        edit_interval_s: least seconds between two edits of one message. An edit that raises
            `bots.throttle.RetryAfter` holds back those of the whole turn.
        refresh_s: seconds after which the platform has forgotten what a screen shows.
    """

    def __init__(
        self,
        *,
        workplace: Workplace,
        shown: Callable[[PendingTurn], Awaitable[ShownTurn]],
        trouble: Callable[[Exception], Trouble],
        edit_interval_s: float,
        refresh_s: float,
    ) -> None:
        self._workplace = workplace
        self._shown = shown
        self._trouble = trouble
        self._edit_interval_s = edit_interval_s
        self._refresh_s = refresh_s
        self._told: set[MessageId] = set()

    async def deliver(self, turn: PendingTurn) -> None:
        """Show a turn, until its answer stands there or is known to come later.

        Raises:
            RetryLater: the platform does not answer; to be delivered again.
        """
        begun = perf_counter()
        try:
            shown = await self._shown(turn)
            if shown.finished and turn.kind != "regenerate":
                return
            complete = await self._show(turn, shown)
        except Exception as error:
            self._told.discard(turn.message_id)  # perhaps nobody read it
            match self._trouble(error):
                case Trouble.AWAY:
                    logger.warning(
                        "the platform is away: %s", error, extra={"action": "platform_away"}
                    )
                    raise RetryLater from error
                case Trouble.GONE:
                    logger.warning(
                        "an answer has no place: %s", error, extra={"action": "place_gone"}
                    )
                    return
            raise
        if complete:
            self._told.discard(turn.message_id)
            await shown.finish()
            ms = round(1000 * (perf_counter() - begun))
            logger.info("answer delivered", extra={"action": "delivered", "duration_ms": ms})

    def _first_delay(self, turn: PendingTurn) -> bool:
        """Whether it was not said yet that this answer comes later."""
        first = turn.message_id not in self._told
        self._told.add(turn.message_id)
        return first

    async def _show(self, turn: PendingTurn, shown: ShownTurn) -> bool:
        """Show the turn; False where it is to be delivered again."""
        links = partial(links_of, self._workplace, turn.audience)
        async with (
            Edits[int, Show](_send, interval_s=self._edit_interval_s, concurrency=2) as edits,
            contextlib.aclosing(turn.events()) as events,
        ):
            if turn.kind == "compare":
                first_delay = partial(self._first_delay, turn)
                sides = Sides(self._workplace.feedback, turn, shown, edits, links, first_delay)
                return await sides.show(events)
            refresher = asyncio.create_task(self._refresh(shown.screen))
            try:
                return await self._single(turn, shown, edits, events, links)
            finally:
                refresher.cancel()

    async def _single(
        self,
        turn: PendingTurn,
        shown: ShownTurn,
        edits: Edits[int, Show],
        events: AsyncGenerator[AnyEvent, None],
        links: Callable[[Answer], Awaitable[Links]],
    ) -> bool:
        screen = shown.screen
        noted = ""

        def working(note: str) -> None:
            nonlocal noted
            if note == noted or turn.message_id in self._told:  # what was said is still true
                return
            noted = note
            edits.put(0, partial(screen.working, note), paced=not screen.free_notes)

        working(SEARCHING)
        text = ""
        try:
            async for event in events:
                match event:
                    case Preparing(note=note):
                        working(note)
                    case Remark(text=remark):
                        await shown.tell(remark)
                    case Queued(position=position):
                        working(queued(position))
                    case Searching():
                        working(SEARCHING)
                    case SourcesFound(sources=sources):
                        if screen.free_notes:  # else it holds up the first words, which come next
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
                await shown.tell(error.reply.text)
            return True
        return False

    async def _kept(self, turn: PendingTurn) -> Answer | None:
        """The answer that stays because there is no other one."""
        if turn.kind != "regenerate":
            return None
        with contextlib.suppress(TurnFailed):
            return await current_answer(
                self._workplace, message_id=turn.message_id, audience=turn.audience
            )
        return None

    async def _refresh(self, screen: Screen) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await screen.refresh()


async def _send(_: int, show: Show) -> None:
    """What `Edits` sends is what to do."""
    await show()


async def current_answer(
    workplace: Workplace, *, message_id: MessageId, audience: Audience
) -> Answer | None:
    """The question's answer, as the assistant gives it to everybody who asks again.

    Raises:
        TurnFailed: there is none, and none can be had now.
    """
    events = workplace.assistant.retry(message_id, audience=audience)
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Answered):
                return event.answer
    return None


async def links_of(workplace: Workplace, audience: Audience, answer: Answer) -> Links:
    """Where the cited documents can be opened, as far as that is known."""
    found = {}
    for document_id in {citation.document_id for citation in answer.citations}:
        with contextlib.suppress(DocumentNotFound):
            document = await workplace.documents.get(document_id, audience=audience)
            if url := document.origin.get("permalink"):
                found[document_id] = url
    return found
