"""The outbox: which rated answers and comparisons changed since they were last carried further.

A row names a record and holds nothing of it, so what is deleted leaves nothing behind here, and the
deletion itself is carried by the same row as any other change.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, LiteralString
from uuid import UUID

from psycopg.sql import SQL

from storage.identity import WorkspaceId
from storage.pool import Connection

_AGAIN = (
    " ON CONFLICT (kind, record_id)"
    " DO UPDATE SET revision = excluded.revision, changed_at = excluded.changed_at"
)


async def mark(
    connection: Connection,
    kind: Literal["answer", "comparison"],
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
