"""Turns whose events a test writes, and answers that are stored without a model."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bots.errors import Reply, TurnFailed
from bots.messages import Answer, Answered, Searching
from bots.turns import AnyEvent, PendingTurn
from storage.conversations import Conversations
from storage.identity import Audience, MessageId
from storage.jobs import TurnJob, TurnKind

Step = AnyEvent | Callable[[], Any]
"""An event of a turn, or something that a test does or waits for in between."""


class ScriptedTurn(PendingTurn):
    """A turn whose events a test writes."""

    def __init__(self, steps: list[Step], *, job: TurnJob, audience: Audience) -> None:
        self.message_id, self.place = job.message_id, job.place
        self.kind, self.attempt = job.kind, job.attempt
        self.audience = audience
        self._steps = steps

    async def events(self) -> AsyncGenerator[AnyEvent, None]:
        for step in self._steps:
            if callable(step):
                done = step()
                if asyncio.iscoroutine(done):
                    await done
                continue
            yield step


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Questions and answers as listeners and the assistant store them."""

    conversations: Conversations

    async def question(
        self, audience: Audience, text: str, *, thread_ref: str, message_ref: str
    ) -> MessageId:
        """A question that nobody answers yet."""
        return await self.conversations.add_question(
            await self.conversations.ensure_thread(thread_ref, audience=audience),
            audience=audience,
            text=text,
            message_ref=message_ref,
            author_id=audience.member_id,
        )

    async def answer(
        self,
        message_id: MessageId,
        audience: Audience,
        *,
        text: str = "Twenty-five days.",
        model: str = "small",
        current: bool = True,
        **more: Any,
    ) -> Answer:
        """An answer.

        Args:
            more: fields of `Answer` that are not stored here.
        """
        answer_id = await self.conversations.save_answer(
            message_id,
            audience=audience,
            text=text,
            found=True,
            finish_reason="stop",
            model=model,
            prompt_sha256="0" * 64,
            prompt_tokens=10,
            completion_tokens=5,
            timings_ms={},
            sources=[],
            current=current,
        )
        known = {"found": True, "finish_reason": "stop", "model": model, **more}
        return Answer(id=answer_id, message_id=message_id, text=text, **known)

    async def two(self, message_id: MessageId, audience: Audience) -> list[Answer]:
        """Two answers to be compared."""
        one = await self.answer(message_id, audience, text="First.", model="small-model")
        two = await self.answer(
            message_id, audience, text="Second.", model="large-model", current=False
        )
        return [one, two]

    async def again(self, message_id: MessageId, audience: Audience) -> Answer:
        """The current answer, as a later attempt finds it."""
        asked = await self.conversations.question(message_id, audience=audience)
        assert asked.answer is not None
        return Answer(
            id=asked.answer.id,
            message_id=message_id,
            text=asked.answer.text,
            found=True,
            finish_reason="stop",
        )


class Talk:
    """One question in one place, whose turn a test delivers as often as it likes."""

    stored_turns: Stored
    message_id: MessageId
    audience: Audience

    async def answered(self, text: str, **more: Any) -> Answered:
        """The event that ends a turn."""
        answer = await self.stored_turns.answer(self.message_id, self.audience, text=text, **more)
        return Answered(answer=answer)

    async def again(self, text: str | None = None) -> Answered:
        """The stored answer, as a later attempt finds it, or another one in its place."""
        answer = await self.stored_turns.again(self.message_id, self.audience)
        return Answered(answer=answer if text is None else replace(answer, text=text))

    async def two(self) -> list[Answer]:
        """Two answers to be compared."""
        return await self.stored_turns.two(self.message_id, self.audience)

    def turn(
        self, steps: Sequence[Step], *, place: Mapping[str, str], attempt: int, kind: TurnKind
    ) -> ScriptedTurn:
        """The turn as a job brings it."""
        job = TurnJob(
            message_id=self.message_id, place=place, kind=kind, attempt=attempt, stopped=False
        )
        return ScriptedTurn(list(steps), job=job, audience=self.audience)

    @property
    def searching(self) -> Searching:
        """The event that begins a turn."""
        return Searching(message_id=self.message_id)

    def fail(self, text: str) -> Callable[[], None]:
        """A step that ends the turn without an answer."""

        def raise_it() -> None:
            raise TurnFailed(Reply(text=text, retryable=False), message_id=self.message_id)

        return raise_it
