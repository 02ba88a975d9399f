"""Conversations: threads, questions, and answers with the evidence they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.answers import (
    ANSWER_COLUMNS,
    ANSWER_SOURCES,
    answer_of,
    insert_answer,
    make_current,
)
from storage.answers import AnswerSource as AnswerSource
from storage.answers import StoredAnswer as StoredAnswer
from storage.errors import MessageNotFound
from storage.identity import (
    AnswerId,
    Audience,
    Keys,
    MemberId,
    MessageId,
    ThreadId,
)
from storage.jobs import TurnKind, defer_turn
from storage.messages import (
    add_message,
    ensure_thread,
    filled_until,
    hold_question,
    import_message,
    make_question,
)
from storage.pool import Pool, one_row


@dataclass(frozen=True, kw_only=True)
class StoredTurn:
    """A question of a thread, and its answer where it has one.

    Attributes:
        author: the asker's display name; None where it is not known.
        author_id: None where it was not kept, or the person was forgotten.
        message_ref: the platform's name of the message; None where it was not kept.
    """

    message_id: MessageId
    thread_id: ThreadId
    message_ref: str | None
    author: str | None
    author_id: MemberId | None
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
            return await ensure_thread(connection, ref, audience)

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
            message_id, _ = await add_message(
                connection, thread_id, audience, text, message_ref, author_id
            )
            return message_id

    async def accept_question(
        self,
        *,
        audience: Audience,
        thread_ref: str,
        message_ref: str,
        text: str,
        author_id: MemberId | None,
        surface: str,
        place: Mapping[str, str],
        kind: TurnKind = "answer",
    ) -> tuple[MessageId, bool]:
        """Store a question and queue the work on it, both or neither, however often it comes.

        Args:
            surface: the queue, which `storage.jobs.run_turns` serves.
            place: what the surface needs to find the place of the answer; ids, never text.

        Returns:
            The question's id, and whether this call stored it.

        Raises:
            StorageUnavailable: nothing was stored; safe to retry.
        """
        async with self._pool.connection() as connection:
            thread_id = await ensure_thread(connection, thread_ref, audience)
            message_id, new = await add_message(
                connection, thread_id, audience, text, message_ref, author_id
            )
            new = new or await make_question(connection, message_id, author_id)
            if new:
                await defer_turn(connection, message_id, surface=surface, place=place, kind=kind)
            return message_id, new

    async def import_turn(
        self,
        *,
        audience: Audience,
        thread_ref: str,
        message_ref: str,
        text: str,
        author_id: MemberId | None,
        answer_text: str | None,
        asked_at: datetime,
    ) -> MessageId:
        """Store what was said in a thread before the assistant was asked there; nobody answers it.

        It takes its place before the first question that is younger than `asked_at`, and always
        before the newest one. A message that is stored already stays as it is.

        Args:
            answer_text: what was replied to it, where the platform shows that.
            asked_at: the platform's time of the message.
        """
        async with self._pool.connection() as connection:
            thread_id = await ensure_thread(connection, thread_ref, audience)
            message_id, new = await add_message(
                connection, thread_id, audience, text, message_ref, author_id
            )
            if new:
                await import_message(
                    connection, message_id, answer_text=answer_text, asked_at=asked_at
                )
            return message_id

    async def filled_until(self, thread_ref: str, *, audience: Audience) -> datetime | None:
        """Up to when nothing of a thread is to be imported, because it is stored already.

        Messages so old are not recognised any more; None where the thread holds none of them.
        """
        async with self._pool.connection() as connection:
            return await filled_until(connection, thread_ref, audience)

    async def thread_is_ours(self, thread_ref: str, *, audience: Audience) -> bool:
        """Whether the assistant was ever asked in the thread."""
        return await self.last_question(thread_ref, audience=audience) is not None

    async def thread_of(self, message_id: MessageId, *, audience: Audience) -> str | None:
        """The platform's name of a question's thread; None where it is not the audience's."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT t.platform_ref FROM threads t JOIN messages m ON m.thread_id = t.id"
                " WHERE m.id = %s AND t.scope_id = %s",
                [message_id, audience.place_id],
            )
            row = await found.fetchone()
            return str(row[0]) if row is not None else None

    async def latest_threads(self, platform: str, workspace: str, *, limit: int) -> list[str]:
        """The platform's names of the threads of a workspace that were asked in most lately."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT t.platform_ref FROM threads t"
                " JOIN workspaces w ON w.id = t.workspace_id"
                " JOIN messages m ON m.thread_id = t.id"
                " WHERE w.platform = %s AND w.platform_id = %s"
                " GROUP BY t.id ORDER BY max(m.created_at) DESC LIMIT %s",
                [platform, workspace, limit],
            )
            return [str(row[0]) for row in await found.fetchall()]

    async def name_thread(self, message_id: MessageId, ref: str, *, audience: Audience) -> None:
        """Call a question's thread `ref`: its place on the platform came after the question."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE threads t SET platform_ref = %s FROM messages m"
                " WHERE m.id = %s AND t.id = m.thread_id AND t.scope_id = %s"
                " AND NOT EXISTS (SELECT 1 FROM threads other"
                "  WHERE other.scope_id = t.scope_id AND other.platform_ref = %s)",
                [ref, message_id, audience.place_id, ref],
            )

    async def last_question(self, thread_ref: str, *, audience: Audience) -> MessageId | None:
        """The newest question of a thread that the assistant was asked."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT m.id FROM messages m JOIN threads t ON t.id = m.thread_id"
                " WHERE t.scope_id = %s AND t.platform_ref = %s AND NOT m.imported"
                " ORDER BY m.position DESC LIMIT 1",
                [audience.place_id, thread_ref],
            )
            row = await found.fetchone()
            return MessageId(row[0]) if row is not None else None

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
        """The last `limit` turns of a thread before the question `before`, oldest first.

        Answered questions, and imported messages whether somebody replied to them or not.
        """
        return await self._turns(
            "m.thread_id = %s AND (a.id IS NOT NULL OR m.imported) AND (%s::uuid IS NULL OR"
            " (m.position, NOT m.imported) <"
            " (SELECT position, NOT imported FROM messages WHERE id = %s))",
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
        current: bool = True,
        replace: bool = False,
        prompt: Sequence[Mapping[str, str]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> AnswerId:
        """Store an answer to a question.

        `model` (the version that answered) and `prompt_sha256` are empty without a model call.
        `sources` is everything that the prompt held, cited or not; those whose document was deleted
        meanwhile are left out.

        Args:
            current: whether it is to be the question's answer, which only the first one becomes;
                False stores it beside that one, for a comparison.
            replace: it becomes the question's answer even so; the one before it is kept, but is no
                longer current.
            prompt: exactly what the model was sent, as messages with role and content.
            params: how the model was asked, such as the temperature.

        Returns:
            Its id, or that of the question's current answer where it was dropped for that one.

        Raises:
            MessageNotFound: no such question for this audience.
        """
        values = {
            "text": text.replace("\0", " "),
            "found": found,
            "finish_reason": finish_reason,
            "model": model,
            "prompt_sha256": prompt_sha256,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "timings_ms": Jsonb(dict(timings_ms)),
            "params": Jsonb(dict(params or {})),
            "current": current or replace,
        }
        async with self._pool.connection() as connection:
            await hold_question(connection, message_id, audience)
            if replace:
                await connection.execute(
                    "UPDATE answers SET current = false WHERE message_id = %s AND current",
                    [message_id],
                )
            answer_id = await insert_answer(
                connection, message_id, values=values, sources=sources, prompt=prompt
            )
            if answer_id is not None:
                return answer_id
            first = await connection.execute(
                "SELECT id FROM answers WHERE message_id = %s AND current", [message_id]
            )
            return AnswerId((await one_row(first))[0])

    async def answer(self, answer_id: AnswerId, *, audience: Audience) -> StoredAnswer:
        """An answer, current or not; for ids that come back from outside, such as a button's.

        Raises:
            MessageNotFound: none of this id for this audience.
        """
        found = await self._answers("a.id = %s", answer_id, audience)
        if not found:
            raise MessageNotFound(answer_id)
        return found[0]

    async def answers(self, message_id: MessageId, *, audience: Audience) -> list[StoredAnswer]:
        """All answers that a question was ever given, oldest first."""
        return await self._answers("m.id = %s", message_id, audience)

    async def make_current(self, answer_id: AnswerId, *, audience: Audience) -> None:
        """Make one of a question's answers the one that counts.

        Raises:
            MessageNotFound: none of this id for this audience.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT message_id FROM answers WHERE id = %s", [answer_id]
            )
            row = await found.fetchone()
            if row is None:
                raise MessageNotFound(answer_id)
            await hold_question(connection, MessageId(row[0]), audience)
            await make_current(connection, answer_id)

    async def _answers(self, condition: str, value: UUID, audience: Audience) -> list[StoredAnswer]:
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                f"{_ANSWERS} WHERE t.scope_id = %s AND {condition}"
                " ORDER BY a.created_at, a.id".encode(),
                [audience.place_id, value],
            )
            return [answer_of(MessageId(row[0]), row[1:]) for row in await rows.fetchall()]

    async def _turns(
        self, condition: str, values: Sequence[object], *, audience: Audience, limit: int
    ) -> list[StoredTurn]:
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                f"{_TURNS} WHERE t.scope_id = %s AND {condition}"
                f" ORDER BY {_NEWEST_FIRST} LIMIT %s".encode(),
                [audience.place_id, *values, limit],
            )
            turns = [self._turn(row) for row in await rows.fetchall()]
        return turns[::-1]

    def _turn(self, row: tuple[Any, ...]) -> StoredTurn:
        message_id, thread_id, ref, member_id, name, text, asked_at, *answer = row
        return StoredTurn(
            message_id=message_id,
            thread_id=thread_id,
            message_ref=ref,
            author=self._keys.decrypt(name) if name is not None else None,
            author_id=member_id,
            text=text,
            asked_at=asked_at,
            answer=answer_of(message_id, answer) if answer[0] is not None else None,
        )


_TURNS = f"""
SELECT m.id, t.id, e.platform_ref, m.member_id, u.display_name_encrypted, m.text, m.created_at,
       {ANSWER_COLUMNS}
FROM messages m
JOIN threads t ON t.id = m.thread_id
LEFT JOIN handled_events e ON e.message_id = m.id
LEFT JOIN members u ON u.id = m.member_id
LEFT JOIN answers a ON a.message_id = m.id AND a.current
{ANSWER_SOURCES}
"""  # noqa: S608 (constants of this package)
_ANSWERS = f"""
SELECT m.id, {ANSWER_COLUMNS}
FROM answers a
JOIN messages m ON m.id = a.message_id
JOIN threads t ON t.id = m.thread_id
{ANSWER_SOURCES}
"""  # noqa: S608 (constants of this package)
_NEWEST_FIRST = "m.position DESC, m.imported, m.created_at DESC"
"""Imported messages share the position of the question that they stand before."""
