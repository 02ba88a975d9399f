"""The audit: who did what to a team's data and settings. Never holds text or tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.identity import MemberId, WorkspaceId
from storage.pool import Connection, Pool


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Something that was done; `member_id` is None where nobody, or a forgotten person, did it."""

    at: datetime
    member_id: MemberId | None
    action: str
    subject_id: UUID
    details: Mapping[str, Any]


async def record(
    pool: Pool,
    *,
    workspace_id: WorkspaceId,
    member_id: MemberId | None,
    action: str,
    subject_id: UUID,
    details: Mapping[str, Any],
) -> None:
    """Record an action.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        await add_entry(
            connection,
            workspace_id=workspace_id,
            member_id=member_id,
            action=action,
            subject_id=subject_id,
            details=details,
        )


async def add_entry(
    connection: Connection,
    *,
    workspace_id: WorkspaceId,
    member_id: MemberId | None,
    action: str,
    subject_id: UUID,
    details: Mapping[str, Any],
) -> None:
    """Record an action in the transaction that does it."""
    await connection.execute(
        "INSERT INTO audit (workspace_id, member_id, action, subject_id, details)"
        " VALUES (%s, (SELECT id FROM members WHERE id = %s), %s, %s, %s)",
        [workspace_id, member_id, action, subject_id, Jsonb(dict(details))],
    )


async def entries(pool: Pool, *, workspace_id: WorkspaceId, limit: int) -> list[AuditEntry]:
    """What was done last in a workspace, newest first."""
    async with pool.connection() as connection:
        cursor = connection.cursor(row_factory=class_row(AuditEntry))
        await cursor.execute(
            "SELECT at, member_id, action, subject_id, details FROM audit"
            " WHERE workspace_id = %s ORDER BY id DESC LIMIT %s",
            [workspace_id, limit],
        )
        return await cursor.fetchall()
