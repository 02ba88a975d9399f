"""Questions are kept once, answers with their evidence, and only their own place reads them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from storage.conversations import AnswerSource, Conversations
from storage.documents import Document, Documents
from storage.errors import MessageNotFound
from storage.identity import AnswerId, Audience, ChunkId, Keys, MessageId
from storage.messages import CLAIMS_KEPT, forget_claims
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


async def accept(
    conversations: Conversations, audience: Audience, text: str, *, ref: str | None = None
) -> tuple[MessageId, bool]:
    return await conversations.accept_question(
        audience=audience,
        thread_ref="thread",
        message_ref=ref or text,
        text=text,
        author_id=audience.member_id,
        surface="chat",
        place={"channel": "C1"},
    )


async def queued(pool: Pool) -> list[tuple[str, str, Any]]:
    async with pool.connection() as connection:
        rows = await connection.execute(
            "SELECT queue_name, task_name, args FROM procrastinate_jobs"
        )
        return await rows.fetchall()


async def test_a_question_is_accepted_and_queued_once_however_often_it_comes(
    conversations: Conversations, team: Team, pool: Pool
) -> None:
    accepted = await asyncio.gather(
        *(accept(conversations, team.general, "When?") for _ in range(6))
    )
    assert sorted(new for _, new in accepted) == [False] * 5 + [True]
    (message_id,) = {message_id for message_id, _ in accepted}
    assert await queued(pool) == [
        ("chat", "answer", {"message_id": str(message_id), "place": {"channel": "C1"}})
    ]
    turn = await conversations.question(message_id, audience=team.general)
    assert turn.author_id == team.general.member_id


async def test_a_regenerated_answer_counts_and_the_old_one_is_kept(
    conversations: Conversations, team: Team
) -> None:
    message = await ask(conversations, team.general, "When?")
    first = await answer(conversations, team.general, message)
    second = await answer(
        conversations, team.general, message, text="In May.", replace=True, params={"t": 0.7}
    )
    turn = await conversations.question(message, audience=team.general)
    assert turn.answer is not None
    assert (turn.answer.id, turn.answer.text, turn.answer.params) == (second, "In May.", {"t": 0.7})
    both = await conversations.answers(message, audience=team.general)
    assert [(a.id, a.current) for a in both] == [(first, False), (second, True)]
    await conversations.make_current(first, audience=team.general)
    assert (await conversations.answer(first, audience=team.general)).current
    assert not (await conversations.answer(second, audience=team.general)).current


async def test_an_answer_beside_the_current_one_does_not_count(
    conversations: Conversations, team: Team
) -> None:
    message = await ask(conversations, team.general, "When?")
    beside = await answer(conversations, team.general, message, text="Other.", current=False)
    first = await answer(conversations, team.general, message)
    assert first != beside
    turn = await conversations.question(message, audience=team.general)
    assert turn.answer is not None and turn.answer.id == first
    for foreign in (team.secret, team.ada):
        for answer_id in (first, beside):
            with pytest.raises(MessageNotFound):
                await conversations.answer(answer_id, audience=foreign)
            with pytest.raises(MessageNotFound):
                await conversations.make_current(answer_id, audience=foreign)
        assert await conversations.answers(message, audience=foreign) == []


async def prompts(pool: Pool) -> list[object]:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT prompt FROM answers ORDER BY created_at")
        return [row[0] for row in await rows.fetchall()]


async def test_the_served_prompt_is_kept_until_a_document_in_it_is_deleted(
    conversations: Conversations, documents: Documents, team: Team, put: Puts, pool: Pool
) -> None:
    document = await put("plan.md", "The launch is in October.", team.general)
    prompt = [{"role": "user", "content": "The launch is in October.\0 When?"}]
    for text in ("When?", "And?"):
        message = await ask(conversations, team.general, text)
        sources = [source(document, 1)] if text == "When?" else []
        await answer(conversations, team.general, message, sources=sources, prompt=prompt)
    kept = [{"role": "user", "content": "The launch is in October.  When?"}]
    assert await prompts(pool) == [kept, kept]
    await documents.delete(document.id, audience=team.general)
    assert await prompts(pool) == [None, kept]
    late = await ask(conversations, team.general, "Late?")
    await answer(conversations, team.general, late, sources=[source(document, 1)], prompt=prompt)
    assert await prompts(pool) == [None, kept, None]


async def bring(
    conversations: Conversations, audience: Audience, text: str, *, minutes_ago: int, **more: Any
) -> MessageId:
    return await conversations.import_turn(
        audience=audience,
        thread_ref="thread",
        message_ref=text,
        text=text,
        author_id=None,
        answer_text=more.get("answer_text"),
        asked_at=datetime.now(UTC) - timedelta(minutes=minutes_ago),
    )


async def test_gaps_of_a_history_are_filled_in_the_order_of_the_platform(
    conversations: Conversations, team: Team, pool: Pool
) -> None:
    assert not await conversations.thread_is_ours("thread", audience=team.general)
    first, _ = await accept(conversations, team.general, "first")
    await answer(conversations, team.general, first)
    asked, _ = await accept(conversations, team.general, "asked")
    await bring(conversations, team.general, "b", minutes_ago=9, answer_text="so")
    await bring(conversations, team.general, "a", minutes_ago=10)
    # A platform's clock that runs ahead of ours.
    await bring(conversations, team.general, "c", minutes_ago=-1)
    again = await bring(conversations, team.general, "b", minutes_ago=5)
    thread = (await conversations.question(asked, audience=team.general)).thread_id
    history = await conversations.history(thread, audience=team.general, limit=9, before=asked)
    assert [turn.text for turn in history] == ["a", "b", "first", "c"]
    assert [turn.answer.text if turn.answer else None for turn in history] == [
        *(None, "so", "In October [1].", None)
    ]
    assert history[1].message_id == again
    before_first = await conversations.history(thread, audience=team.general, limit=9, before=first)
    assert [turn.text for turn in before_first] == ["a", "b"]
    assert len(await queued(pool)) == 2
    assert await conversations.last_question("thread", audience=team.general) == asked
    assert await conversations.last_question("thread", audience=team.secret) is None


async def test_a_message_that_filled_a_gap_is_answered_when_it_turns_out_to_be_a_question(
    conversations: Conversations, team: Team, pool: Pool
) -> None:
    early = await bring(conversations, team.general, "early", minutes_ago=1)
    done = await bring(conversations, team.general, "done", minutes_ago=1, answer_text="so")
    assert not await conversations.thread_is_ours("thread", audience=team.general)
    assert await accept(conversations, team.general, "early") == (early, True)
    assert await accept(conversations, team.general, "early") == (early, False)
    assert await accept(conversations, team.general, "done") == (done, False)
    assert [args["message_id"] for _, _, args in await queued(pool)] == [str(early)]
    assert await conversations.thread_is_ours("thread", audience=team.general)


async def test_claims_are_forgotten_in_time_and_what_they_guarded_is_known_by_its_age(
    conversations: Conversations, team: Team, pool: Pool
) -> None:
    old = await bring(conversations, team.general, "old", minutes_ago=9)
    assert await conversations.filled_until("thread", audience=team.general) is None
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE handled_events SET handled_at = now() - %s::interval", [CLAIMS_KEPT]
        )
    new = await accept(conversations, team.general, "new")
    assert await forget_claims(pool) == 1
    assert await accept(conversations, team.general, "new") == (new[0], False)
    forgotten = await conversations.question(old, audience=team.general)
    assert forgotten.message_ref is None
    filled = await conversations.filled_until("thread", audience=team.general)
    assert filled == forgotten.asked_at
    assert await conversations.filled_until("thread", audience=team.secret) is None
