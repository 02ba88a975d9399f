"""Turns that survive: accepted with the question, queued, and delivered to where it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Literal

from bots.messages import PendingEvent, Question, TurnEvent
from bots.workplace import Workplace
from storage.identity import Audience, MessageId
from storage.jobs import TurnJob, TurnKind


class PendingTurn:
    """A question that waits for its answer, handed to the surface that has to show it.

    Attributes:
        kind: "answer", "compare" (two answers) or "regenerate" (another answer).
        place: what the surface gave to `Turns.accept`.
    """

    def __init__(self, *, job: TurnJob, audience: Audience) -> None:
        self.message_id: MessageId = job.message_id
        self.audience = audience
        self.place: Mapping[str, str] = job.place
        self.kind: TurnKind = job.kind
        self._stopped = asyncio.Event()

    def events(self) -> AsyncGenerator[PendingEvent | tuple[int, TurnEvent], None]:
        """What happens.

        `Queued` and `Delayed` may come at any time before the first text. A comparison's other
        events come as (0, event) and (1, event), each of the two in the usual order; where nothing
        is found there is nothing to compare, and a comparison ends as (0, Answered) alone. After a
        `Delayed` either more events follow, or the iterator ends without `Answered`: return then,
        the turn is delivered again later.

        Raises:
            TurnFailed: there will be no answer; show `reply` in its place.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End the turn with what was said so far, which is stored; `Answered` still comes."""
        self._stopped.set()


Deliver = Callable[[PendingTurn], Awaitable[None]]
"""Shows a turn; given by the surface. It may run again for the same turn after a crash."""


class Turns:
    """The turns of one surface."""

    def __init__(self, *, workplace: Workplace, surface: str, max_concurrent: int) -> None:
        self._workplace = workplace
        self._surface = surface
        self._max_concurrent = max_concurrent

    async def accept(
        self,
        question: Question,
        *,
        place: Mapping[str, str],
        kind: Literal["answer", "compare"] = "answer",
    ) -> bool:
        """Store a question and queue its answer, in one transaction.

        Args:
            place: what the surface needs to show the answer where it was asked.

        Returns:
            Whether it is new; False for a redelivery.

        Raises:
            StorageUnavailable: nothing was stored.
        """
        raise NotImplementedError

    async def again(
        self, message_id: MessageId, *, audience: Audience, place: Mapping[str, str]
    ) -> bool:
        """Queue another answer to an answered question, which replaces the present one.

        Returns:
            False where that is queued or under way already.

        Raises:
            MessageNotFound: no such question for this audience.
            StorageUnavailable: nothing was queued.
        """
        raise NotImplementedError

    async def run(self, deliver: Deliver) -> None:
        """Deliver the turns of this surface until cancelled; outlives outages of the database."""
        raise NotImplementedError

    def stop(self, message_id: MessageId) -> bool:
        """Stop a turn that runs or waits in this process; False if none does."""
        raise NotImplementedError
