"""Turns that survive: stored and queued in one transaction, delivered to where they were asked.

A chat surface accepts questions and delivers turns, perhaps in another process or after a crash:
whatever was accepted is delivered, and answered once. Answering waits in line here, first come,
first served, so that everybody can be told how many are before them.

Why the place of a turn holds the platform's ids: whoever delivers it, maybe days later, needs them
to find the place again, and the ids in the database follow from them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from bots import channel_settings, replies
from bots.administration import answering_models
from bots.errors import Reply, TurnFailed
from bots.line import Line
from bots.messages import (
    Answered,
    Delayed,
    PendingEvent,
    Preparing,
    Question,
    Queued,
    Remark,
    TurnEvent,
)
from bots.streams import watch
from bots.workplace import Workplace
from engine.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    ModelNotFound,
    UpstreamFailed,
)
from storage.errors import DiskFull, StorageError, StorageUnavailable
from storage.identity import AnswerId, Audience, MessageId
from storage.jobs import (
    RetryLater,
    TurnJob,
    TurnKind,
    defer_again,
    request_stop,
    run_turns,
    stop_requests,
)
from storage.outages import outlive_outages
from storage.queue import end

MAX_PENDING = 256
"""Turns that wait or run in one process; further ones wait in the database, unseen."""
SLOW_AFTER_S = 15.0
"""A turn that shows nothing for so long says that it is slow."""
PATIENCE = timedelta(hours=24)
"""How long an answer is tried for while engine or database are away."""
MAX_SLOW_ATTEMPTS = 10
"""Of an answer that the engine begins and does not bring to an end."""
LONGEST_PAUSE_S = 10.0
"""Between two attempts, so that the answer comes soon after the engine is back."""
STOPS_SEEN_S = 0.5
"""Between two looks at what other processes were asked to stop; none without a turn."""

_AWAY = (EngineBusy, EngineUnavailable, StorageUnavailable, DiskFull)
_FAILING = (DeadlineExceeded, UpstreamFailed, ModelNotFound)
_REPLACES = "replaces"

AnyEvent = PendingEvent | tuple[int, TurnEvent]
Preparation = AsyncGenerator[Preparing | Remark, None]


class PendingTurn:
    """A question that waits for its answer, handed to the surface that has to show it.

    Attributes:
        kind: "answer", "compare" (two answers) or "regenerate" (another answer).
        place: what the surface gave to `Turns.accept`.
        attempt: how often it was delivered before, 0 for the first time.
        preparation: what the surface lets come before the answer; it keeps nobody else waiting.
    """

    def __init__(
        self,
        *,
        job: TurnJob,
        audience: Audience,
        workplace: Workplace,
        line: Line,
        stop: asyncio.Event,
        given_up: bool,
    ) -> None:
        self.message_id: MessageId = job.message_id
        self.audience = audience
        self.place: Mapping[str, str] = job.place
        self.kind: TurnKind = job.kind
        self.attempt = job.attempt
        self.delayed: RetryLater | None = None
        self.preparation: Preparation | None = None
        self._workplace = workplace
        self._line = line
        self._stop = stop
        self._given_up = given_up

    def stop(self) -> None:
        """End the turn with what was said so far, which is stored; `Answered` still comes."""
        self._stop.set()

    async def events(self) -> AsyncGenerator[AnyEvent, None]:
        """What happens.

        `Preparing` and `Remark` come first, if at all. `Queued` and `Delayed` may come at any time
        before the answer. A comparison's other events
        come as (0, event) and (1, event), each of the two in the usual order, but both `Answered`
        together at the end, in this order; where nothing is found there is nothing to compare, and
        a comparison ends as (0, Answered) alone. After a `Delayed` either more events follow, or
        the iterator ends without `Answered`: return then, the turn is delivered again later.

        Raises:
            TurnFailed: there will be no answer; show `reply` in its place.
        """
        if self._given_up:
            raise TurnFailed(replies.BROKEN, message_id=self.message_id)
        if self.preparation is not None:
            try:
                async with contextlib.aclosing(watch(self.preparation, stop=self._stop)) as notes:
                    async for note in notes:
                        if note is not None:
                            yield note
            except StorageError as error:
                yield Delayed(reply=await self._put_off(error))
                return
        with self._line.ticket() as ticket:
            positions = watch(ticket.positions(), stop=self._stop)
            async with contextlib.aclosing(positions):
                async for position in positions:
                    if position is not None:
                        yield Queued(position=position)
            ends: list[AnyEvent] = []
            try:
                async with contextlib.aclosing(self._answer()) as events:
                    async for event in events:
                        if _ends(event):
                            ends.append(event)
                        else:
                            yield event
            except (TurnFailed, EngineError, StorageError) as error:
                ends = [Delayed(reply=await self._put_off(error))]
        # A platform that takes the answer slowly keeps nobody else waiting for the engine.
        for event in sorted(ends, key=_index):
            yield event

    async def _answer(self) -> AsyncGenerator[AnyEvent, None]:
        """The assistant's events; says when nothing comes for long."""
        events = watch(await self._asked(), stop=None, quiet_s=SLOW_AFTER_S)
        slow = False
        async with contextlib.aclosing(events):
            async for event in events:
                if event is not None:
                    yield event
                elif not slow:
                    slow = True
                    yield Delayed(reply=replies.SLOW)

    async def _asked(self) -> AsyncGenerator[AnyEvent, None]:
        assistant = self._workplace.assistant
        if self.kind == "compare":
            return assistant.compare(
                self.message_id,
                audience=self.audience,
                models=await self._models(),
                stop=self._stop,
            )
        settings = await channel_settings.load(self._workplace.places, self.audience.channel_id)
        if self.kind == "answer":
            return assistant.retry(
                self.message_id, audience=self.audience, model=settings.model, stop=self._stop
            )
        replaces = self.place.get(_REPLACES)
        return assistant.regenerate(
            self.message_id,
            audience=self.audience,
            model=settings.model,
            replaces=AnswerId(UUID(replaces)) if replaces else None,
            stop=self._stop,
        )

    async def _models(self) -> tuple[str, str]:
        """The live model and another one, the same for each attempt while they stay loaded.

        The other one is the version that is tried, where there is one.
        """
        live = "live"
        if self._stop.is_set():
            return live, live  # nobody is asked
        workspace = self.audience.workspace_id
        serving = await self._workplace.versions.serving(workspace)
        models = await answering_models(self._workplace.engine, workspace)
        if serving.live is not None and any(each.name == serving.live.name for each in models):
            live = serving.live.name
        if serving.canary is not None and any(each.name == serving.canary.name for each in models):
            return live, serving.canary.name
        live_root = next((model.root for model in models if model.name == live), live)
        others = sorted({model.root for model in models} - {live_root})
        return (live, others[self.message_id.int % len(others)]) if others else (live, live)

    async def _put_off(self, error: TurnFailed | EngineError | StorageError) -> Reply:
        """Note that the turn is to be tried again, and return what to say until then.

        Raises:
            TurnFailed: trying again is of no use.
        """
        cause = error.__cause__ if isinstance(error, TurnFailed) else error
        tired = isinstance(cause, _FAILING) and self.attempt + 1 >= MAX_SLOW_ATTEMPTS
        if not isinstance(cause, (*_AWAY, *_FAILING)) or tired or await self._too_old():
            raise TurnFailed(replies.reply_to(error), message_id=self.message_id) from cause
        pause_s = 2.0 ** min(self.attempt, 10)
        if isinstance(cause, EngineBusy):
            pause_s = max(pause_s, cause.retry_after_s)
        self.delayed = RetryLater(min(pause_s, LONGEST_PAUSE_S))
        return replies.delayed(error)

    async def _too_old(self) -> bool:
        with contextlib.suppress(StorageUnavailable):
            stored = await self._workplace.conversations.question(
                self.message_id, audience=self.audience
            )
            return datetime.now(UTC) - stored.asked_at > PATIENCE
        return False


def _index(event: AnyEvent) -> int:
    return event[0] if isinstance(event, tuple) else 0


def _ends(event: AnyEvent) -> bool:
    return isinstance(event[1] if isinstance(event, tuple) else event, Answered)


Deliver = Callable[[PendingTurn], Awaitable[None]]
"""Shows a turn; given by the surface. It may run again for the same turn after a crash."""


class Turns:
    """The turns of one surface.

    Args of the constructor:
        surface: names the queue.
        max_concurrent: turns that are answered at once; the others are told their position.
    """

    def __init__(self, *, workplace: Workplace, surface: str, max_concurrent: int) -> None:
        self._workplace = workplace
        self._surface = surface
        self._line = Line(max_concurrent)
        self._stops: dict[MessageId, asyncio.Event] = {}

    async def accept(
        self,
        question: Question,
        *,
        place: Mapping[str, str],
        kind: Literal["answer", "compare"] = "answer",
    ) -> bool:
        """Store a question and queue its answer, in one transaction.

        Args:
            place: what the surface needs to show the answer where it was asked: ids, never text.
                "platform", "workspace", "channel" (empty in direct messages), "member" and, where
                it is there, "also" (separated by spaces) are the question's audience, as
                `Identities.resolve` takes it.

        Returns:
            Whether it is new; False for a redelivery.

        Raises:
            StorageUnavailable: nothing was stored.
        """
        _, new = await self._workplace.conversations.accept_question(
            audience=question.audience,
            thread_ref=question.thread_ref,
            message_ref=question.message_ref,
            text=question.text.strip(),
            author_id=question.author_id,
            surface=self._surface,
            place=place,
            kind=kind,
        )
        return new

    async def again(
        self, message_id: MessageId, *, audience: Audience, place: Mapping[str, str]
    ) -> bool:
        """Queue another answer to an answered question, which replaces the present one.

        Args:
            place: as for `accept`.

        Returns:
            False where that is queued or under way already.

        Raises:
            MessageNotFound: no such question for this audience.
            StorageUnavailable: nothing was queued.
        """
        stored = await self._workplace.conversations.question(message_id, audience=audience)
        replaces = {_REPLACES: str(stored.answer.id)} if stored.answer is not None else {}
        return await defer_again(
            self._workplace.pool, message_id, surface=self._surface, place={**place, **replaces}
        )

    async def stop(self, message_id: MessageId) -> bool:
        """Stop a turn that is under way, waits in line, or waits for an engine that is away.

        Another process that has it sees this within `STOPS_SEEN_S` and a round trip; a crash
        does not undo it.

        Returns:
            False where there is none: it is answered.

        Raises:
            StorageUnavailable: the turn is not in this process; safe to retry.
        """
        here = self._stops.get(message_id)
        if here is None:
            return await request_stop(self._workplace.pool, message_id)
        here.set()
        with contextlib.suppress(StorageUnavailable):
            await request_stop(self._workplace.pool, message_id)
        return True

    async def run(self, deliver: Deliver) -> None:
        """Deliver the turns of this surface until cancelled; outlives outages of the database."""

        async def run_job(job: TurnJob) -> None:
            await self._deliver(job, deliver)

        async def gave_up(job: TurnJob) -> None:
            await deliver(await self._pending(job, asyncio.Event(), given_up=True))

        async def work() -> None:
            await run_turns(
                self._workplace.pool,
                surface=self._surface,
                run=run_job,
                gave_up=gave_up,
                concurrency=MAX_PENDING,
            )

        watching = asyncio.create_task(self._watch_stops(), name="stops")
        try:
            await outlive_outages(work, action="turns_database_lost")
        finally:
            await end([watching], again_after_s=STOPS_SEEN_S)

    async def _watch_stops(self) -> None:
        """Stop the turns of this process that another one was asked to stop."""
        while True:
            await asyncio.sleep(STOPS_SEEN_S)
            going = [message_id for message_id, stop in self._stops.items() if not stop.is_set()]
            if not going:
                continue
            with contextlib.suppress(StorageUnavailable):
                for message_id in await stop_requests(self._workplace.pool, going):
                    if message_id in self._stops:
                        self._stops[message_id].set()

    async def _deliver(self, job: TurnJob, deliver: Deliver) -> None:
        stop = self._stops[job.message_id] = asyncio.Event()
        if job.stopped:
            stop.set()
        try:
            pending = await self._pending(job, stop, given_up=False)
            await deliver(pending)
            if pending.delayed is not None:
                raise pending.delayed
        finally:
            del self._stops[job.message_id]

    async def _pending(self, job: TurnJob, stop: asyncio.Event, *, given_up: bool) -> PendingTurn:
        audience = await self._workplace.identities.resolve(
            platform=job.place["platform"],
            workspace=job.place["workspace"],
            channel=job.place.get("channel") or None,
            member=job.place.get("member") or None,
            also=job.place.get("also", "").split(),
        )
        return PendingTurn(
            job=job,
            audience=audience,
            workplace=self._workplace,
            line=self._line,
            stop=stop,
            given_up=given_up,
        )
