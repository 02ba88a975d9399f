"""Deliveries: what was posted for a question, so that a restart goes on with the same messages."""

from dataclasses import dataclass

from psycopg.rows import class_row

from storage.identity import Audience, MessageId
from storage.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A message of the platform that carries a part of an answer.

    Attributes:
        part: 0 for the first message.
        ref: the platform's name of it.
        finished: whether the answer stood in it completely.
    """

    part: int
    ref: str
    finished: bool


class Deliveries:
    """The store of what was posted."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, message_id: MessageId) -> list[Posted]:
        """What was posted for a question, in the order of its parts."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Posted))
            await cursor.execute(
                "SELECT part, platform_ref AS ref, finished FROM deliveries"
                " WHERE message_id = %s ORDER BY part",
                [message_id],
            )
            return await cursor.fetchall()

    async def put(self, message_id: MessageId, *, part: int, ref: str) -> None:
        """Remember where a part stands, unfinished; another place takes the former one's stead.

        A question that was forgotten meanwhile has nothing to remember.
        """
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO deliveries (message_id, part, platform_ref)"
                " SELECT id, %s, %s FROM messages WHERE id = %s FOR KEY SHARE"
                " ON CONFLICT (message_id, part)"
                " DO UPDATE SET platform_ref = excluded.platform_ref, finished = false",
                [part, ref, message_id],
            )

    async def remove(self, message_id: MessageId, *, part: int) -> None:
        """Forget a part whose message was deleted from the platform."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "DELETE FROM deliveries WHERE message_id = %s AND part = %s", [message_id, part]
            )

    async def finish(self, message_id: MessageId) -> None:
        """Note that the whole answer stands where it was posted."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE deliveries SET finished = true WHERE message_id = %s", [message_id]
            )

    async def find_by_ref(self, ref: str, *, audience: Audience) -> MessageId | None:
        """The question whose answer stands in the platform's message `ref`, in this place."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT m.id FROM deliveries d JOIN messages m ON m.id = d.message_id"
                " JOIN threads t ON t.id = m.thread_id"
                " WHERE d.platform_ref = %s AND t.scope_id = %s LIMIT 1",
                [ref, audience.place_id],
            )
            row = await found.fetchone()
            return MessageId(row[0]) if row is not None else None
