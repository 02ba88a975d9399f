"""Shows a comparison: two answers side by side, blind, at the same pace, then the vote.

Neither side says which model wrote it, and neither runs ahead while both are written: who writes
faster would give it away.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from bots.comparisons import open_shown, order_of
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
    TurnEvent,
)
from bots.screens import Links, ShownTurn
from bots.throttle import Edits
from bots.turns import AnyEvent, PendingTurn
from bots.wording import SEARCHING, queued, reading
from feedback import Feedback

VOTE_PART = 2
"""The message under the two."""


def part_for(side: int, index: int) -> int:
    """The part of a side's `index`-th message: long answers go on below both beginnings."""
    return side if index == 0 else VOTE_PART - 1 + 2 * index + side


Show = Callable[[], Awaitable[None]]


class Sides:
    """The two messages of one comparison."""

    def __init__(
        self,
        feedback: Feedback,
        turn: PendingTurn,
        shown: ShownTurn,
        edits: Edits[int, Show],
        links: Callable[[Answer], Awaitable[Links]],
        first_delay: Callable[[], bool],
    ) -> None:
        self._feedback = feedback
        self._turn = turn
        self._pair = shown.pair
        self._tell = shown.tell
        self._single = shown.screen
        self._edits = edits
        self._links = links
        self._first_delay = first_delay
        self._order = order_of(turn.message_id)
        self._texts = ["", ""]
        self._answers: dict[int, Answer] = {}

    async def show(self, events: AsyncGenerator[AnyEvent, None]) -> bool:
        """Show both; False where the turn is to be delivered again."""
        for side in (0, 1):  # in this order: the left one stands first
            if not self._pair.knows(side):
                await self._pair.working(side, SEARCHING)
        try:
            async for event in events:
                match event:
                    case (which, one):
                        self._take(which, one)
                    case Preparing(note=note):
                        self._note(note)
                    case Remark(text=remark):
                        await self._tell(remark)
                    case Queued(position=position):
                        self._note(queued(position))
                    case Delayed(reply=reply):
                        if self._first_delay():
                            await self._alone(partial(self._single.notice, reply.text))
        except TurnFailed as error:
            await self._alone(partial(self._single.notice, error.reply.text))
            return True
        return await self._conclude()

    async def _alone(self, show: Show) -> None:
        """Show one message instead of two; what was to be shown in the other is dropped."""
        await self._edits.finish(1, _nothing)
        await self._edits.finish(0, show)

    def _take(self, which: int, event: TurnEvent) -> None:
        match event:
            case Searching():
                self._note(SEARCHING)
            case SourcesFound(sources=sources):
                self._note(reading(len(sources)))
            case TextDelta(text=new):
                self._texts[which] += new
                self._write()
            case Answered(answer=answer):
                self._texts[which] = answer.text
                self._answers[which] = answer
                self._write()

    def _note(self, note: str) -> None:
        for side in (0, 1):
            self._edits.put(side, partial(self._pair.working, side, note))

    def _write(self) -> None:
        """Show as much of both as both have, and all once one of them is complete."""
        length = min(len(text) for text in self._texts)
        for side, which in enumerate(self._order):
            text = self._texts[which]
            shown = text if self._answers else text[:length]
            if shown:
                self._edits.put(side, partial(self._pair.writing, side, shown))

    async def _conclude(self) -> bool:
        """Show the whole answers and open the vote, unless there is nothing to compare."""
        if not self._answers:
            return False
        if len(self._answers) == 1:
            [answer] = self._answers.values()
            links = await self._links(answer)
            await self._alone(partial(self._single.finish, answer, links))
            return True
        for side, which in enumerate(self._order):
            answer = self._answers[which]
            links = await self._links(answer)
            await self._edits.finish(side, partial(self._pair.finish, side, answer, links))
        if all(answer.finish_reason == "stopped" for answer in self._answers.values()):
            return True  # nobody can judge what was not written
        comparison_id = await open_shown(
            self._feedback,
            message_id=self._turn.message_id,
            audience=self._turn.audience,
            answers=(self._answers[0].id, self._answers[1].id),
        )
        await self._edits.finish(VOTE_PART, partial(self._pair.vote, comparison_id))
        return True


async def _nothing() -> None:
    """What a side shows that is not needed."""
