"""Turns whose events a test writes, and answers that are stored without a model."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from bots.messages import Answer
from bots.turns import AnyEvent, PendingTurn
from storage.conversations import Conversations
from storage.identity import AnswerId, Audience, MessageId
from storage.jobs import TurnJob

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


async def store_answer(
    conversations: Conversations,
    message_id: MessageId,
    audience: Audience,
    *,
    text: str = "Twenty-five days.",
    model: str = "small",
    current: bool = True,
) -> AnswerId:
    """An answer as the assistant stores it."""
    return await conversations.save_answer(
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


async def stored_again(
    conversations: Conversations, message_id: MessageId, audience: Audience
) -> Answer:
    """The stored answer, as a later attempt finds it."""
    asked = await conversations.question(message_id, audience=audience)
    assert asked.answer is not None
    return Answer(
        id=asked.answer.id,
        message_id=message_id,
        text=asked.answer.text,
        found=True,
        finish_reason="stop",
    )
