"""The team of the storage tests, and answers to rate."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from feedback import Feedback
from storage.conversations import AnswerSource, Conversations
from storage.identity import AnswerId, Audience, Keys, MessageId
from storage.pool import Pool
from storage.ratings import ComparisonId, Winner
from tests.storage.conftest import documents as documents
from tests.storage.conftest import files_dir as files_dir
from tests.storage.conftest import keys as keys
from tests.storage.conftest import put as put
from tests.storage.conftest import team as team


@dataclass(frozen=True, kw_only=True)
class Answered:
    message_id: MessageId
    answers: tuple[AnswerId, ...]


Answers = Callable[..., Awaitable[Answered]]


@pytest.fixture
def conversations(pool: Pool, keys: Keys) -> Conversations:
    return Conversations(pool=pool, keys=keys)


@pytest.fixture
def feedback(pool: Pool) -> Feedback:
    return Feedback(pool)


@pytest.fixture
def answered(conversations: Conversations) -> Answers:
    """Ask a question, and answer it once per model; the first answer is current."""
    return answers_on(conversations)


def answers_on(conversations: Conversations) -> Answers:
    """The same for tests that open their own database."""
    numbers = count()

    async def answered(
        audience: Audience, *models: str, sources: Sequence[AnswerSource] = ()
    ) -> Answered:
        message_id, _ = await conversations.accept_question(
            audience=audience,
            thread_ref="thread",
            message_ref=f"message {next(numbers)}",
            text="When is the launch?",
            author_id=audience.member_id,
            surface="chat",
            place={},
        )
        answers = [
            await conversations.save_answer(
                message_id,
                audience=audience,
                text=f"In October, says {model}.",
                found=True,
                finish_reason="stop",
                model=model,
                prompt_sha256="ab",
                prompt_tokens=300,
                completion_tokens=12,
                timings_ms={},
                sources=sources,
                current=index == 0,
                prompt=[{"role": "user", "content": "The launch is in October. When?"}],
            )
            for index, model in enumerate(models or ("m@1",))
        ]
        return Answered(message_id=message_id, answers=tuple(answers))

    return answered


async def compared(
    feedback: Feedback,
    audience: Audience,
    asked: Answered,
    winner: Winner | None = None,
    *,
    shown_order: tuple[int, int] = (0, 1),
) -> ComparisonId:
    """Show a question's first two answers side by side, and judge them where a winner is named."""
    comparison_id = await feedback.open_comparison(
        message_id=asked.message_id,
        audience=audience,
        answers=(asked.answers[0], asked.answers[1]),
        shown_order=shown_order,
    )
    if winner is not None:
        await feedback.compare(comparison_id=comparison_id, audience=audience, winner=winner)
    return comparison_id


async def rows(pool: Pool, statement: str) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def outbox(pool: Pool) -> dict[object, int]:
    """Changed records with their revision."""
    return dict(await rows(pool, "SELECT record_id, revision FROM outbox"))
