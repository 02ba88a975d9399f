"""What curators say of rated answers and comparisons, kept beside the raw ratings.

One row per record and curator with their latest word; what they took back stays with the time when
that was found, and counts no more. The members' ratings are never touched.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.sql import SQL, Identifier

from storage.identity import WorkspaceId
from storage.outbox import Kind
from storage.pool import Pool, one_row
from storage.ratings import ComparisonId, Winner

Status = Literal["submitted", "discarded"]


@dataclass(frozen=True, kw_only=True)
class Curation:
    """One curator's word on one record.

    Attributes:
        curator_id: of the user of the curation tool; no member.
        curator: that user's name.
        status: `discarded`: nothing is to be learnt from the record.
        value: of the answer; None where it was not rated.
        correction: the better answer.
        winner: of the comparison.
        at: when, by the clock of the curation tool.
    """

    curator_id: UUID
    curator: str
    status: Status
    value: Literal[-1, 1] | None = None
    reasons: tuple[str, ...] = ()
    comment: str | None = None
    correction: str | None = None
    winner: Winner | None = None
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Curated:
    """All that curators say of one record now.

    Attributes:
        made_at: when the curation tool got the record. What was said before is not withdrawn by
            its absence: the tool was wiped and the record was told anew.
    """

    kind: Kind
    record_id: UUID
    made_at: datetime
    said: tuple[Curation, ...]


@dataclass(frozen=True, kw_only=True)
class CurationState:
    """How much is curated, and where people differ; nothing of it is overwritten.

    Attributes:
        records: that some curator's word stands for.
        curators: who said it.
        disagreements: records of which two curators say different things.
        changed_votes: members' ratings that contradict a curator and are younger.
        last_pulled_at: when something new was last found; None for never.
    """

    records: int
    curators: int
    disagreements: int
    changed_votes: int
    last_pulled_at: datetime | None


class Curations:
    """Stores what curators say. All of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keep(self, found: Sequence[Curated]) -> int:
        """Store what curators say of these records now; records that are gone are passed over.

        Returns:
            How many words are new, changed or withdrawn.
        """
        changed = 0
        async with self._pool.connection() as connection:
            for record in found:
                for said in record.said:
                    kept = await connection.execute(_KEEP[record.kind], _values(record, said))
                    changed += kept.rowcount
            withdrawn = await connection.execute(
                "UPDATE curations c SET withdrawn_at = now()"
                " FROM unnest(%s::uuid[], %s::timestamptz[]) AS seen (record_id, made_at)"
                " WHERE c.record_id = seen.record_id AND c.withdrawn_at IS NULL"
                " AND c.curated_at >= seen.made_at AND NOT EXISTS"
                " (SELECT FROM unnest(%s::uuid[], %s::uuid[]) AS said (record_id, curator_id)"
                " WHERE said.record_id = c.record_id AND said.curator_id = c.curator_id)",
                [
                    [record.record_id for record in found],
                    [record.made_at for record in found],
                    [record.record_id for record in found for _ in record.said],
                    [said.curator_id for record in found for said in record.said],
                ],
            )
            return changed + withdrawn.rowcount

    async def call(self) -> None:
        """Say that a curator was at work, to whoever is `listening` on this database."""
        async with self._pool.connection() as connection:
            await connection.execute("NOTIFY curated")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Hear every `call` from now on; holds a connection.

        Yields:
            A function that returns at the first call since it last returned, or after so many
            seconds.
        """
        async with self._pool.single_statement() as connection:
            await connection.execute("LISTEN curated")

            async def called(within_s: float) -> None:
                calls = connection.notifies(timeout=within_s, stop_after=1)
                async with aclosing(calls):
                    async for _ in calls:
                        pass

            try:
                yield called
            finally:
                if not connection.closed:
                    await connection.execute("UNLISTEN curated")

    async def of_comparisons(
        self, workspace_id: WorkspaceId
    ) -> dict[ComparisonId, tuple[Curation, ...]]:
        """What curators say of a workspace's comparisons and have not taken back."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                SQL(
                    "SELECT * FROM (SELECT k.id, {} AS said FROM comparisons k"
                    " JOIN messages m ON m.id = k.message_id JOIN threads t ON t.id = m.thread_id"
                    " WHERE t.workspace_id = %s) curated WHERE said IS NOT NULL"
                ).format(WORDS.format(Identifier("k", "id"))),
                [workspace_id],
            )
            rows = await found.fetchall()
        return {ComparisonId(row[0]): tuple(curation(each) for each in row[1]) for row in rows}

    async def state(self, workspace_id: WorkspaceId | None = None) -> CurationState:
        """How much is curated, in one workspace or in all."""
        async with self._pool.connection() as connection:
            found = await connection.execute(_STATE, {"workspace": workspace_id})
            records, curators, disagreements, changed, last = await one_row(found)
        return CurationState(
            records=records,
            curators=curators,
            disagreements=disagreements,
            changed_votes=changed,
            last_pulled_at=last,
        )


WORDS = SQL("""
(SELECT jsonb_agg(jsonb_build_object('curator_id', curator_id, 'curator', curator, 'status', status,
        'value', value, 'reasons', reasons, 'comment', comment, 'correction', correction,
        'winner', winner, 'at', curated_at) ORDER BY curated_at, curator_id)
 FROM curations WHERE withdrawn_at IS NULL AND record_id = {})
""")
"""What curators say of a record now, for `curation`; null where nobody says anything."""


def _values(record: Curated, said: Curation) -> dict[str, Any]:
    return {**vars(said), "reasons": list(said.reasons), "record_id": record.record_id}


def curation(values: Mapping[str, Any]) -> Curation:
    """A curator's word as it is read as JSON."""
    return Curation(
        **{
            **values,
            "curator_id": UUID(values["curator_id"]),
            "reasons": tuple(values["reasons"]),
            "at": datetime.fromisoformat(values["at"]),
        }
    )


# The record is locked against deletion: what refers to it may not come too late.
_KEEP_ONE = SQL("""
INSERT INTO curations ({column}, curator_id, curator, status, value, reasons, comment, correction,
    winner, curated_at)
SELECT r.id, %(curator_id)s, %(curator)s, %(status)s, %(value)s, %(reasons)s, %(comment)s,
    %(correction)s, %(winner)s, %(at)s
FROM {records} r WHERE r.id = %(record_id)s FOR KEY SHARE
ON CONFLICT (record_id, curator_id) DO UPDATE SET curator = excluded.curator,
    status = excluded.status, value = excluded.value, reasons = excluded.reasons,
    comment = excluded.comment, correction = excluded.correction, winner = excluded.winner,
    curated_at = excluded.curated_at, pulled_at = now(), withdrawn_at = NULL
WHERE (curations.curated_at, curations.withdrawn_at IS NULL, curations.curator)
    IS DISTINCT FROM (excluded.curated_at, true, excluded.curator)
""")
_KEEP = {
    "answer": _KEEP_ONE.format(column=Identifier("answer_id"), records=Identifier("answers")),
    "comparison": _KEEP_ONE.format(
        column=Identifier("comparison_id"), records=Identifier("comparisons")
    ),
}
_STATE = """
WITH standing AS (
    SELECT c.* FROM curations c
    LEFT JOIN comparisons k ON k.id = c.comparison_id LEFT JOIN answers a ON a.id = c.answer_id
    JOIN messages m ON m.id = coalesce(a.message_id, k.message_id)
    JOIN threads t ON t.id = m.thread_id
    WHERE c.withdrawn_at IS NULL
        AND (%(workspace)s::uuid IS NULL OR t.workspace_id = %(workspace)s)
), disputed AS (
    SELECT record_id FROM standing GROUP BY record_id
    HAVING count(DISTINCT status) > 1 OR count(DISTINCT value) > 1 OR count(DISTINCT winner) > 1
)
SELECT count(DISTINCT record_id), count(DISTINCT curator_id), (SELECT count(*) FROM disputed),
    (SELECT count(DISTINCT (v.answer_id, v.member_id)) FROM standing s
     JOIN votes v ON v.answer_id = s.answer_id AND v.updated_at > s.curated_at
     WHERE v.value <> s.value)
    + (SELECT count(DISTINCT (v.comparison_id, v.member_id)) FROM standing s
     JOIN comparison_votes v
         ON v.comparison_id = s.comparison_id AND v.updated_at > s.curated_at
     WHERE v.winner <> s.winner),
    max(pulled_at)
FROM standing
"""
