"""The outbox: which rated answers and comparisons changed since they were last carried further.

A row names a record and holds nothing of it, so what is deleted leaves nothing behind here, and the
deletion itself is carried by the same row as any other change. Beside it stands what the curation
tool was told (`relayed_records`), so that a rating that is gone can be taken back there.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.sql import SQL

from storage.identity import MemberId, WorkspaceId
from storage.pool import Connection, Pool, one_row

Kind = Literal["answer", "comparison"]

_AGAIN = (
    " ON CONFLICT (kind, record_id) DO UPDATE SET revision = excluded.revision,"
    " changed_at = excluded.changed_at, attempts = 0, not_before = '-infinity',"
    " parked_at = NULL, error = NULL"
)
_ONE_RELAY = 0x7061726C65  # of advisory locks; any number that nothing else here uses


@dataclass(frozen=True, kw_only=True)
class Change:
    """A record that changed.

    Attributes:
        revision: of the change that was read.
        attempts: how often carrying it failed.
    """

    kind: Kind
    record_id: UUID
    workspace_id: WorkspaceId
    revision: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Relayed:
    """Of a record, whose ratings the curation tool holds, or may hold."""

    kind: Kind
    record_id: UUID
    workspace_id: WorkspaceId
    voters: frozenset[MemberId]


@dataclass(frozen=True, kw_only=True)
class Parked:
    """A record that the curation tool refuses, and why."""

    kind: Kind
    record_id: UUID
    workspace_id: WorkspaceId
    parked_at: datetime
    error: str


@dataclass(frozen=True, kw_only=True)
class OutboxState:
    """How far the relay is.

    Attributes:
        waiting: records that changed and are not parked.
        oldest_s: since when the oldest of them waits, in seconds; None for none.
        relayed: records that the curation tool holds.
        last_relayed_at: when it was last told something; None for never.
        parked: the first hundred, the newest first.
    """

    waiting: int
    oldest_s: float | None
    relayed: int
    last_relayed_at: datetime | None
    parked: Sequence[Parked]


class Outbox:
    """The outbox as the relay reads it. Any of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[bool]:
        """Whether this process alone carries the outbox until the block ends.

        Two at once could tell an older state last.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [_ONE_RELAY])
            yield bool((await one_row(found))[0])

    async def due(self, limit: int) -> list[Change]:
        """The oldest changes that may be carried now."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Change))
            await cursor.execute(
                "SELECT kind, record_id, workspace_id, revision, attempts FROM outbox"
                " WHERE parked_at IS NULL AND not_before <= now() ORDER BY revision LIMIT %s",
                [limit],
            )
            return await cursor.fetchall()

    async def relayed(self, changes: Collection[Change]) -> dict[UUID, Relayed]:
        """What the curation tool may hold of the records that changed."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                "SELECT kind, record_id, workspace_id, voters FROM relayed_records"
                " WHERE record_id = ANY(%s)",
                [[change.record_id for change in changes]],
            )
            return {
                row[1]: Relayed(
                    kind=row[0],
                    record_id=row[1],
                    workspace_id=row[2],
                    voters=frozenset(map(MemberId, row[3])),
                )
                for row in await rows.fetchall()
            }

    async def announce(self, told: Collection[Relayed]) -> None:
        """Note what the curation tool is about to be told, beside what it was told before."""
        async with self._pool.connection() as connection:
            await _tell(
                connection,
                told,
                "ARRAY(SELECT unnest(relayed_records.voters) UNION SELECT unnest(excluded.voters))",
            )

    async def settle(
        self, carried: Collection[Change], *, held: Collection[Relayed], removed: Collection[UUID]
    ) -> None:
        """Note what was carried; a record that changed again since stays due.

        Args:
            held: what the curation tool holds now.
            removed: records that it holds no longer.
        """
        async with self._pool.connection() as connection:
            await _tell(connection, held, "excluded.voters")
            await connection.execute(
                "DELETE FROM relayed_records WHERE record_id = ANY(%s)", [list(removed)]
            )
            async with connection.cursor() as cursor:
                # At last, and in one order: whoever rates meanwhile waits for no more than this.
                await cursor.executemany(
                    "DELETE FROM outbox WHERE kind = %s AND record_id = %s AND revision = %s",
                    sorted((each.kind, each.record_id, each.revision) for each in carried),
                )

    async def forgotten(self, voters: Collection[MemberId]) -> set[MemberId]:
        """Who of them is no member any more."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT id FROM members WHERE id = ANY(%s)", [list(voters)]
            )
            return set(voters) - {MemberId(row[0]) for row in await found.fetchall()}

    async def postpone(self, changes: Collection[Change], *, delay_s: float, error: str) -> None:
        """Let changes wait, with the reason."""
        await self._failed(
            changes, "not_before = now() + %(delay_s)s * interval '1 second'", delay_s, error
        )

    async def park(self, change: Change, *, error: str) -> None:
        """Carry a change no more, until its record changes again or `mark_all`."""
        await self._failed([change], "parked_at = now()", 0.0, error)

    async def _failed(
        self, changes: Collection[Change], what: LiteralString, delay_s: float, error: str
    ) -> None:
        async with self._pool.connection() as connection, connection.cursor() as cursor:
            await cursor.executemany(
                SQL(
                    "UPDATE outbox SET attempts = attempts + 1, error = %(error)s, {what}"
                    " WHERE kind = %(kind)s AND record_id = %(id)s AND revision = %(revision)s"
                ).format(what=SQL(what)),
                [
                    {
                        "error": error,
                        "delay_s": delay_s,
                        "kind": change.kind,
                        "id": change.record_id,
                        "revision": change.revision,
                    }
                    for change in changes
                ],
            )

    async def mark_all(self, workspace_id: WorkspaceId | None = None) -> int:
        """Have everything carried once more: what is rated, and what the tool was told.

        Args:
            workspace_id: None for all of them.

        Returns:
            How many records are to be carried.
        """
        async with self._pool.connection() as connection:
            await connection.execute("SET LOCAL statement_timeout = '10min'")
            marked = await connection.execute(
                SQL(
                    "WITH rated (kind, record_id, workspace_id) AS ("
                    " SELECT 'answer', a.id, t.workspace_id FROM answers a"
                    " JOIN messages m ON m.id = a.message_id JOIN threads t ON t.id = m.thread_id"
                    " WHERE a.id IN (SELECT answer_id FROM votes UNION SELECT answer_id"
                    " FROM corrections UNION SELECT answer_id FROM help_requests)"
                    " UNION SELECT 'comparison', c.id, t.workspace_id FROM comparisons c"
                    " JOIN messages m ON m.id = c.message_id JOIN threads t ON t.id = m.thread_id"
                    " WHERE c.id IN (SELECT comparison_id FROM comparison_votes)"
                    " UNION SELECT kind, record_id, workspace_id FROM relayed_records)"
                    " INSERT INTO outbox (kind, record_id, workspace_id)"
                    " SELECT kind, record_id, workspace_id FROM rated"
                    " WHERE %(workspace)s::uuid IS NULL OR workspace_id = %(workspace)s"
                    " ORDER BY kind, record_id{again}"
                ).format(again=SQL(_AGAIN)),
                {"workspace": workspace_id},
            )
            return marked.rowcount

    async def holds(self, workspace_id: WorkspaceId) -> bool:
        """Whether the curation tool was told anything of a workspace."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT EXISTS (SELECT FROM relayed_records WHERE workspace_id = %s)",
                [workspace_id],
            )
            return bool((await one_row(found))[0])

    async def workspaces(self) -> list[WorkspaceId]:
        """Workspaces of which the curation tool was told something, or is about to be."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT workspace_id FROM relayed_records UNION SELECT workspace_id FROM outbox"
            )
            return [WorkspaceId(row[0]) for row in await found.fetchall()]

    async def known(self, ids: Collection[UUID]) -> set[UUID]:
        """Which of these records were told, or are about to be."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT record_id FROM relayed_records WHERE record_id = ANY(%(ids)s)"
                " UNION SELECT record_id FROM outbox WHERE record_id = ANY(%(ids)s)",
                {"ids": list(ids)},
            )
            return {row[0] for row in await found.fetchall()}

    async def state(self) -> OutboxState:
        """How far the relay is."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT count(*), extract(epoch FROM now() - min(changed_at))::float"
                " FROM outbox WHERE parked_at IS NULL"
            )
            waiting, oldest_s = await one_row(found)
            found = await connection.execute(
                "SELECT count(*), max(relayed_at) FROM relayed_records"
            )
            relayed, last = await one_row(found)
            cursor = connection.cursor(row_factory=class_row(Parked))
            await cursor.execute(
                "SELECT kind, record_id, workspace_id, parked_at, error FROM outbox"
                " WHERE parked_at IS NOT NULL ORDER BY parked_at DESC, record_id LIMIT 100"
            )
            return OutboxState(
                waiting=waiting,
                oldest_s=oldest_s,
                relayed=relayed,
                last_relayed_at=last,
                parked=await cursor.fetchall(),
            )


async def _tell(connection: Connection, told: Collection[Relayed], voters: LiteralString) -> None:
    """Store what the curation tool is told; `voters` says what becomes of those known before."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            SQL(
                "INSERT INTO relayed_records (kind, record_id, workspace_id, voters)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (kind, record_id) DO UPDATE"
                " SET voters = {voters}, relayed_at = now()"
            ).format(voters=SQL(voters)),
            [(each.kind, each.record_id, each.workspace_id, list(each.voters)) for each in told],
        )


async def mark(
    connection: Connection,
    kind: Kind,
    record_id: UUID,
    *,
    workspace_id: WorkspaceId,
) -> None:
    """Note that a record changed, in the transaction that changes it."""
    await connection.execute(
        "INSERT INTO outbox (kind, record_id, workspace_id) VALUES (%s, %s, %s)" + _AGAIN,  # noqa: S608
        [kind, record_id, workspace_id],
    )


async def mark_rated(
    connection: Connection,
    condition: LiteralString,
    values: Sequence[object] | Mapping[str, object],
) -> None:
    """Note a change of all rated answers `a` that `condition` selects, and of their comparisons.

    `condition` may speak of the answer `a`, its message `m` and its thread `t`.
    """
    await connection.execute(
        SQL(
            "WITH touched AS (SELECT a.id, t.workspace_id FROM answers a"
            " JOIN messages m ON m.id = a.message_id JOIN threads t ON t.id = m.thread_id"
            " WHERE {condition}),"
            " rated (kind, record_id, workspace_id) AS ("
            " SELECT 'answer', id, workspace_id FROM touched"
            " WHERE EXISTS (SELECT FROM votes WHERE answer_id = touched.id)"
            " OR EXISTS (SELECT FROM corrections WHERE answer_id = touched.id)"
            " OR EXISTS (SELECT FROM help_requests WHERE answer_id = touched.id)"
            " UNION SELECT 'comparison', c.id, workspace_id FROM touched JOIN comparisons c"
            " ON touched.id = c.left_answer OR touched.id = c.right_answer)"
            " INSERT INTO outbox (kind, record_id, workspace_id)"
            " SELECT kind, record_id, workspace_id FROM rated ORDER BY kind, record_id{again}"
        ).format(condition=SQL(condition), again=SQL(_AGAIN)),
        values,
    )
