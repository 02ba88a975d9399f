"""Messages: threads and what is said in them, once however often a platform delivers it."""

from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from storage.answers import insert_answer
from storage.errors import MessageNotFound
from storage.identity import Audience, MemberId, MessageId, ThreadId
from storage.pool import Connection, Pool, one_row

CLAIMS_KEPT = timedelta(days=90)
"""Platforms deliver an event again for hours; a thread's gaps are filled from much further back."""


async def ensure_thread(connection: Connection, ref: str, audience: Audience) -> ThreadId:
    """Find or make the thread that the platform calls `ref` in the audience's place."""
    found = await connection.execute(
        "INSERT INTO threads (workspace_id, scope_id, platform_ref) VALUES (%s, %s, %s)"
        " ON CONFLICT ON CONSTRAINT threads_ref"
        " DO UPDATE SET platform_ref = excluded.platform_ref RETURNING id",
        [audience.workspace_id, audience.place_id, ref],
    )
    return ThreadId((await one_row(found))[0])


async def add_message(
    connection: Connection,
    thread_id: ThreadId,
    audience: Audience,
    text: str,
    ref: str,
    author_id: MemberId | None,
) -> tuple[MessageId, bool]:
    """Store a message unless the one that the platform calls `ref` is stored; whether it was new.

    Its author may have been forgotten a moment ago.
    """
    message = await connection.execute(
        "INSERT INTO messages (thread_id, member_id, text)"
        " VALUES (%s, (SELECT id FROM members WHERE id = %s), %s) RETURNING id",
        [thread_id, author_id, text.replace("\0", " ")],
    )
    message_id = MessageId((await one_row(message))[0])
    handled_by = await claim(connection, audience=audience, ref=ref, message_id=message_id)
    if handled_by != message_id:
        await connection.execute("DELETE FROM messages WHERE id = %s", [message_id])
    return handled_by, handled_by == message_id


async def make_question(
    connection: Connection, message_id: MessageId, author_id: MemberId | None
) -> bool:
    """Turn an imported message that nobody replied to into a question; whether it was one.

    The history of another question may be filled with a message before the platform delivers it.
    """
    changed = await connection.execute(
        "UPDATE messages SET imported = false, position = DEFAULT, created_at = now(),"
        " member_id = (SELECT id FROM members WHERE id = %s)"
        " WHERE id = %s AND imported"
        " AND NOT EXISTS (SELECT FROM answers WHERE message_id = messages.id)",
        [author_id, message_id],
    )
    return changed.rowcount == 1


async def import_message(
    connection: Connection, message_id: MessageId, *, answer_text: str | None, asked_at: datetime
) -> None:
    """Make a new message one of the past, with what was replied to it then."""
    await connection.execute(_IMPORT, {"message": message_id, "at": asked_at})
    if answer_text is None:
        return
    values = {
        "text": answer_text.replace("\0", " "),
        "found": True,
        "finish_reason": "imported",
        "model": "",
        "prompt_sha256": "",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "timings_ms": Jsonb({}),
        "params": Jsonb({}),
        "current": True,
    }
    await insert_answer(connection, message_id, values=values, sources=(), prompt=None)


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


async def forget_claims(pool: Pool) -> int:
    """Forget which messages were handled longer ago than `CLAIMS_KEPT`; returns how many.

    The messages stay. Whoever fills gaps asks `filled_until` first.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        forgotten = await connection.execute(
            "DELETE FROM handled_events WHERE handled_at < now() - %s::interval", [CLAIMS_KEPT]
        )
        return forgotten.rowcount


async def filled_until(
    connection: Connection, thread_ref: str, audience: Audience
) -> datetime | None:
    """When the newest message was written that is stored without its claim; None without any."""
    found = await connection.execute(
        "SELECT max(m.created_at) FROM messages m JOIN threads t ON t.id = m.thread_id"
        " WHERE t.scope_id = %s AND t.platform_ref = %s"
        " AND NOT EXISTS (SELECT FROM handled_events e WHERE e.message_id = m.id)",
        [audience.place_id, thread_ref],
    )
    newest: datetime | None = (await one_row(found))[0]
    return newest


async def hold_question(connection: Connection, message_id: MessageId, audience: Audience) -> None:
    """Keep others from changing which answer of a question counts, until the transaction ends.

    Raises:
        MessageNotFound: no such question for this audience.
    """
    found = await connection.execute(
        "SELECT 1 FROM messages m JOIN threads t ON t.id = m.thread_id"
        " WHERE m.id = %s AND t.scope_id = %s FOR NO KEY UPDATE OF m",
        [message_id, audience.place_id],
    )
    if await found.fetchone() is None:
        raise MessageNotFound(message_id)


_IMPORT = """
UPDATE messages SET imported = true, created_at = %(at)s, position = coalesce(
    (SELECT min(o.position) FROM messages o WHERE o.thread_id = messages.thread_id
        AND NOT o.imported AND o.id <> messages.id AND o.created_at > %(at)s),
    (SELECT max(o.position) FROM messages o WHERE o.thread_id = messages.thread_id
        AND NOT o.imported AND o.id <> messages.id),
    position)
WHERE id = %(message)s
"""
