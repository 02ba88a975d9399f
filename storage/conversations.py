"""Conversations: threads, questions, and answers with the evidence they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.errors import MessageNotFound
from storage.identity import (
    AnswerId,
    Audience,
    ChunkId,
    DocumentId,
    Keys,
    MemberId,
    MessageId,
    ThreadId,
)
from storage.pool import Connection, Pool, one_row


@dataclass(frozen=True, kw_only=True)
class AnswerSource:
    """A chunk that was retrieved for an answer.

    Attributes:
        number: its number in the prompt.
        score: calibrated, as search gave it.
        quote: the passage that supports the answer where the answer cites the source, else None.
    """

    number: int
    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    page: int | None
    heading: str | None
    score: float
    quote: str | None


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """An answer as it was given."""

    id: AnswerId
    message_id: MessageId
    text: str
    found: bool
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    timings_ms: Mapping[str, float]
    sources: tuple[AnswerSource, ...]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredTurn:
    """A question of a thread, and its answer where it has one.

    Attributes:
        author: the asker's display name; None where it is not known.
        message_ref: the platform's name of the message; None where it was not kept.
    """

    message_id: MessageId
    thread_id: ThreadId
    message_ref: str | None
    author: str | None
    text: str
    asked_at: datetime
    answer: StoredAnswer | None


@dataclass(frozen=True, kw_only=True)
class ThreadSummary:
    """A thread in a list of threads; `title` is its first question."""

    thread_id: ThreadId
    ref: str
    title: str
    questions: int
    updated_at: datetime


class Conversations:
    """The store of conversations; whatever it returns, the audience may read."""

    def __init__(self, *, pool: Pool, keys: Keys) -> None:
        self._pool = pool
        self._keys = keys

    async def ensure_thread(self, ref: str, *, audience: Audience) -> ThreadId:
        """Find or make the thread that the platform calls `ref` in the audience's place."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "INSERT INTO threads (workspace_id, scope_id, platform_ref) VALUES (%s, %s, %s)"
                " ON CONFLICT ON CONSTRAINT threads_ref"
                " DO UPDATE SET platform_ref = excluded.platform_ref RETURNING id",
                [audience.workspace_id, audience.place_id, ref],
            )
            return ThreadId((await one_row(found))[0])

    async def add_question(
        self,
        thread_id: ThreadId,
        *,
        audience: Audience,
        text: str,
        message_ref: str,
        author_id: MemberId | None = None,
    ) -> MessageId:
        """Store a question once, however often the platform delivers it.

        `message_ref` is the platform's name of the message, unique within the workspace.

        Raises:
            MessageNotFound: no such thread for this audience.
        """
        async with self._pool.connection() as connection:
            thread = await connection.execute(
                "SELECT 1 FROM threads WHERE id = %s AND scope_id = %s FOR KEY SHARE",
                [thread_id, audience.place_id],
            )
            if await thread.fetchone() is None:
                raise MessageNotFound(thread_id)
            message = await connection.execute(
                "INSERT INTO messages (thread_id, member_id, text) VALUES (%s, %s, %s)"
                " RETURNING id",
                [thread_id, author_id, text.replace("\0", " ")],
            )
            message_id = MessageId((await one_row(message))[0])
            handled_by = await claim(
                connection, audience=audience, ref=message_ref, message_id=message_id
            )
            if handled_by != message_id:
                await connection.execute("DELETE FROM messages WHERE id = %s", [message_id])
            return handled_by

    async def question(self, message_id: MessageId, *, audience: Audience) -> StoredTurn:
        """A question and its answer.

        Raises:
            MessageNotFound: none of this id for this audience.
        """
        turns = await self._turns("m.id = %s", [message_id], audience=audience, limit=1)
        if not turns:
            raise MessageNotFound(message_id)
        return turns[0]

    async def history(
        self,
        thread_id: ThreadId,
        *,
        audience: Audience,
        limit: int,
        before: MessageId | None = None,
    ) -> list[StoredTurn]:
        """The last `limit` answered questions of a thread asked before `before`, oldest first."""
        return await self._turns(
            "m.thread_id = %s AND a.id IS NOT NULL AND (%s::uuid IS NULL OR"
            " m.position < (SELECT position FROM messages WHERE id = %s))",
            [thread_id, before, before],
            audience=audience,
            limit=limit,
        )

    async def view(self, ref: str, *, audience: Audience, limit: int) -> list[StoredTurn]:
        """The last questions of the thread that the platform calls `ref`, oldest first."""
        return await self._turns("t.platform_ref = %s", [ref], audience=audience, limit=limit)

    async def threads(self, *, audience: Audience, limit: int) -> list[ThreadSummary]:
        """The threads of the audience's place, the one with the newest question first."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                "SELECT t.id, t.platform_ref, (array_agg(m.text ORDER BY m.position))[1],"
                " count(*), max(m.created_at)"
                " FROM threads t JOIN messages m ON m.thread_id = t.id"
                " WHERE t.scope_id = %s GROUP BY t.id ORDER BY max(m.position) DESC LIMIT %s",
                [audience.place_id, limit],
            )
            return [
                ThreadSummary(
                    thread_id=row[0], ref=row[1], title=row[2], questions=row[3], updated_at=row[4]
                )
                for row in await rows.fetchall()
            ]

    async def save_answer(
        self,
        message_id: MessageId,
        *,
        audience: Audience,
        text: str,
        found: bool,
        finish_reason: str,
        model: str,
        prompt_sha256: str,
        prompt_tokens: int,
        completion_tokens: int,
        timings_ms: Mapping[str, float],
        sources: Sequence[AnswerSource],
    ) -> AnswerId:
        """Store the answer to a question; the first one counts, a second one is dropped.

        `model` (the version that answered) and `prompt_sha256` are empty without a model call.
        `sources` is everything that the prompt held, cited or not; those whose document was deleted
        meanwhile are left out.

        Returns:
            The id of the question's answer, whichever was first.

        Raises:
            MessageNotFound: no such question for this audience.
        """
        await self.question(message_id, audience=audience)
        async with self._pool.connection() as connection:
            made = await connection.execute(
                "INSERT INTO answers (message_id, text, found, finish_reason, model, prompt_sha256,"
                " prompt_tokens, completion_tokens, timings_ms)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT ON CONSTRAINT answers_message DO NOTHING RETURNING id",
                [
                    *(message_id, text.replace("\0", " "), found, finish_reason, model),
                    *(prompt_sha256, prompt_tokens, completion_tokens, Jsonb(dict(timings_ms))),
                ],
            )
            row = await made.fetchone()
            if row is None:
                first = await connection.execute(
                    "SELECT id FROM answers WHERE message_id = %s", [message_id]
                )
                return AnswerId((await one_row(first))[0])
            for source in sources:
                await _save_source(connection, AnswerId(row[0]), source)
            return AnswerId(row[0])

    async def _turns(
        self, condition: str, values: Sequence[object], *, audience: Audience, limit: int
    ) -> list[StoredTurn]:
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                f"{_TURNS} WHERE t.scope_id = %s AND {condition}"
                " ORDER BY m.position DESC LIMIT %s".encode(),
                [audience.place_id, *values, limit],
            )
            turns = [self._turn(row) for row in await rows.fetchall()]
        return turns[::-1]

    def _turn(self, row: tuple[Any, ...]) -> StoredTurn:
        message_id, thread_id, ref, name, text, asked_at, *answer = row
        stored = None
        if answer[0] is not None:
            *values, sources = answer
            stored = StoredAnswer(
                message_id=message_id,
                sources=tuple(AnswerSource(**source) for source in _typed(sources)),
                **dict(zip(_ANSWER_FIELDS, values, strict=True)),
            )
        return StoredTurn(
            message_id=message_id,
            thread_id=thread_id,
            message_ref=ref,
            author=self._keys.decrypt(name) if name is not None else None,
            text=text,
            asked_at=asked_at,
            answer=stored,
        )


async def claim(
    connection: Connection, *, audience: Audience, ref: str, message_id: MessageId
) -> MessageId:
    """Mark the platform's message `ref` as handled by a stored one, within the transaction.

    Returns:
        `message_id`, or the one that handled it before. Two deliveries at once wait for each other.
    """
    await connection.execute(
        "INSERT INTO handled_events (workspace_id, platform_ref, message_id) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        [audience.workspace_id, ref, message_id],
    )
    found = await connection.execute(
        "SELECT message_id FROM handled_events WHERE workspace_id = %s AND platform_ref = %s",
        [audience.workspace_id, ref],
    )
    return MessageId((await one_row(found))[0])


_ANSWER_FIELDS = (
    *("id", "text", "found", "finish_reason", "model", "prompt_tokens", "completion_tokens"),
    *("timings_ms", "created_at"),
)

_TURNS = """
SELECT m.id, t.id, e.platform_ref, u.display_name_encrypted, m.text, m.created_at,
       a.id, a.text, a.found, a.finish_reason, a.model, a.prompt_tokens, a.completion_tokens,
       a.timings_ms, a.created_at, s.sources
FROM messages m
JOIN threads t ON t.id = m.thread_id
LEFT JOIN handled_events e ON e.message_id = m.id
LEFT JOIN members u ON u.id = m.member_id
LEFT JOIN answers a ON a.message_id = m.id
LEFT JOIN LATERAL (
    SELECT jsonb_agg(to_jsonb(answer_sources) - 'answer_id' ORDER BY number) AS sources
    FROM answer_sources WHERE answer_id = a.id
) s ON true
"""


def _typed(sources: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """JSON has no ids: make them ones again."""
    return [
        {
            **source,
            "chunk_id": ChunkId(UUID(source["chunk_id"])),
            "document_id": DocumentId(UUID(source["document_id"])),
        }
        for source in sources or ()
    ]


async def _save_source(connection: Connection, answer_id: AnswerId, source: AnswerSource) -> None:
    await connection.execute(
        "INSERT INTO answer_sources"
        " (answer_id, number, chunk_id, document_id, document, page, heading, score, quote)"
        " SELECT %s, %s, %s, d.id, %s, %s, %s, %s, %s FROM documents d WHERE d.id = %s",
        [
            *(answer_id, source.number, source.chunk_id, source.document, source.page),
            *(source.heading, source.score, source.quote, source.document_id),
        ],
    )
