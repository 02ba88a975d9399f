"""Notices: what a chat's app still has to tell in the place where a run was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NewType
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.pool import Pool
from storage.runs import StoredRun

NoticeId = NewType("NoticeId", UUID)

MAX_ATTEMPTS = 5
"""A place that is gone for good is not asked for ever."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message.

    Attributes:
        place: as the surface wants to be told.
        text: plain; the surface marks it up.
        picture: PNG; None for none.
    """

    id: NoticeId
    place: Mapping[str, str]
    text: str
    picture: bytes | None


class Notices:
    """The store of notices. All of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, run: StoredRun, text: str, *, picture: bytes | None = None) -> None:
        """Leave a notice for a run's place; a run without one was asked for by no chat."""
        if "platform" not in run.place:
            return
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO notices (run_id, platform, place, text, picture)"
                " VALUES (%s, %s, %s, %s, %s)",
                [run.id, run.place["platform"], Jsonb(dict(run.place)), text, picture],
            )

    async def due(self, platform: str, *, limit: int = 10) -> Sequence[Notice]:
        """The oldest notices of a platform; each is handed out `MAX_ATTEMPTS` times at most."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Notice))
            await cursor.execute(
                "UPDATE notices SET attempts = attempts + 1 WHERE id IN (SELECT id FROM notices"
                " WHERE platform = %s AND attempts < %s ORDER BY created_at LIMIT %s"
                " FOR UPDATE SKIP LOCKED) RETURNING id, place, text, picture",
                [platform, MAX_ATTEMPTS, limit],
            )
            return await cursor.fetchall()

    async def told(self, notice_id: NoticeId) -> None:
        """Forget a notice that was posted."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM notices WHERE id = %s", [notice_id])
