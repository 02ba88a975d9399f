"""Questions are kept once, answers with their evidence, and only their own place reads them."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from storage.conversations import AnswerSource, Conversations
from storage.documents import Document, Documents
from storage.errors import MessageNotFound
from storage.identity import AnswerId, Audience, ChunkId, Keys, MessageId
from storage.pool import Pool
from tests.storage.conftest import Puts, Team


@pytest.fixture
def conversations(pool: Pool, keys: Keys) -> Conversations:
    return Conversations(pool=pool, keys=keys)


async def ask(
    conversations: Conversations, audience: Audience, text: str, *, ref: str = "thread"
) -> MessageId:
    thread = await conversations.ensure_thread(ref, audience=audience)
    return await conversations.add_question(
        thread, audience=audience, text=text, message_ref=text, author_id=audience.member_id
    )


async def answer(
    conversations: Conversations, audience: Audience, message_id: MessageId, **changed: Any
) -> AnswerId:
    values: dict[str, Any] = {
        "text": "In October [1].",
        "found": True,
        "finish_reason": "stop",
        "model": "m@1",
        "prompt_sha256": "ab",
        "prompt_tokens": 300,
        "completion_tokens": 12,
        "timings_ms": {"search_ms": 3.5},
        "sources": (),
    }
    return await conversations.save_answer(message_id, audience=audience, **(values | changed))


async def test_a_redelivered_question_is_stored_once(
    conversations: Conversations, team: Team
) -> None:
    ids = await asyncio.gather(*(ask(conversations, team.general, "When?") for _ in range(6)))
    assert len(set(ids)) == 1
    turns = await conversations.view("thread", audience=team.general, limit=10)
    assert [(turn.text, turn.author, turn.answer) for turn in turns] == [("When?", "Ada", None)]


async def test_an_answer_is_kept_with_its_sources_and_the_first_one_counts(
    conversations: Conversations, team: Team, put: Puts
) -> None:
    document = await put("plan.md", "The launch is in October.", team.general)
    message = await ask(conversations, team.general, "When?")
    sources = tuple(source(document, number) for number in (1, 2))
    first = await answer(conversations, team.general, message, sources=sources)
    assert await answer(conversations, team.general, message, text="Never.") == first
    (turn,) = await conversations.view("thread", audience=team.general, limit=10)
    assert turn.answer is not None
    assert (turn.answer.text, turn.answer.timings_ms) == ("In October [1].", {"search_ms": 3.5})
    assert turn.answer.sources == sources


def source(document: Document, number: int) -> AnswerSource:
    return AnswerSource(
        number=number,
        chunk_id=ChunkId(uuid4()),
        document_id=document.id,
        document=document.name,
        page=3,
        heading=None,
        score=0.5,
        quote="October" if number == 1 else None,
    )


async def test_quotes_go_with_their_document(
    conversations: Conversations, documents: Documents, team: Team, put: Puts
) -> None:
    document = await put("plan.md", "The launch is in October.", team.general)
    message = await ask(conversations, team.general, "When?")
    await answer(conversations, team.general, message, sources=[source(document, 1)])
    await documents.delete(document.id, audience=team.general)
    turn = await conversations.question(message, audience=team.general)
    assert turn.answer is not None and turn.answer.sources == ()
    late = await ask(conversations, team.general, "And now?")
    await answer(conversations, team.general, late, sources=[source(document, 1)])
    turn = await conversations.question(late, audience=team.general)
    assert turn.answer is not None and turn.answer.sources == ()


async def test_history_is_the_last_answered_questions_before_one(
    conversations: Conversations, team: Team
) -> None:
    messages = [await ask(conversations, team.general, text) for text in "abcde"]
    for message in messages[:2] + messages[3:]:
        await answer(conversations, team.general, message)
    thread = await conversations.ensure_thread("thread", audience=team.general)
    history = await conversations.history(
        thread, audience=team.general, limit=2, before=messages[4]
    )
    assert [turn.text for turn in history] == ["b", "d"]


async def test_another_place_sees_nothing(conversations: Conversations, team: Team) -> None:
    message = await ask(conversations, team.ada, "My salary?")
    thread = await conversations.ensure_thread("thread", audience=team.ada)
    for audience in (team.general, team.bob):
        assert await conversations.view("thread", audience=audience, limit=5) == []
        assert await conversations.threads(audience=audience, limit=5) == []
        assert await conversations.history(thread, audience=audience, limit=5) == []
        with pytest.raises(MessageNotFound):
            await conversations.question(message, audience=audience)
        with pytest.raises(MessageNotFound):
            await answer(conversations, audience, message)
        with pytest.raises(MessageNotFound):
            await conversations.add_question(
                thread, audience=audience, text="x", message_ref="x", author_id=None
            )


async def test_threads_are_listed_by_their_newest_question(
    conversations: Conversations, team: Team
) -> None:
    await ask(conversations, team.general, "first", ref="one")
    await ask(conversations, team.general, "second", ref="two")
    await ask(conversations, team.general, "third", ref="one")
    threads = await conversations.threads(audience=team.general, limit=5)
    assert [(t.ref, t.title, t.questions) for t in threads] == [
        ("one", "first", 2),
        ("two", "second", 1),
    ]
