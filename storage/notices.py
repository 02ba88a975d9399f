"""Notices: what a chat's app still has to tell of a run, in the place where it was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NewType
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.pool import Connection, Pool

if TYPE_CHECKING:  # a run's end brings its notice along
    from storage.runs import RunId, StoredRun

NoticeId = NewType("NoticeId", UUID)
About = Literal["ended", "better", "promoted", "rolled back", "no room"]

PERSON: Final = "{person}"
"""Stands in a text for whoever asked for the run; the chat's app names them."""
MAX_ATTEMPTS: Final = 12
"""About six hours: a place that is gone for good is not asked for ever."""
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 3600.0
"""Between two attempts; the pauses double up to it."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message.

    Attributes:
        place: as the surface wants to be told: workspace, channel and, mostly, thread.
        text: plain, with `PERSON`; the surface marks it up.
        person: the platform's id of who asked for the run; None where nobody did, or they are
            forgotten.
        picture: PNG; None for none.
    """

    id: NoticeId
    place: Mapping[str, str]
    text: str
    person: str | None
    picture: bytes | None


@dataclass(frozen=True, kw_only=True)
class NewNotice:
    """What is to be told of a run, in the place where it was asked for.

    Attributes:
        about: what of the run is told, which is told once.
        picture: PNG; None for none.
        learnt: for a run that no chat asked for: the training whose raters are told, in the channel
            where most of what it learnt from was asked. None = nobody is.
    """

    run: "StoredRun"
    text: str
    about: About
    picture: bytes | None = None
    learnt: "RunId | None" = None


async def add_notice(connection: Connection, notice: NewNotice) -> bool:
    """Leave a notice in the caller's transaction; the same again is left out.

    Returns:
        Whether there is a place for it and it was not left before.
    """
    run = notice.run
    place: Mapping[str, str] | None = run.place
    if "platform" not in run.place:
        learnt = notice.learnt
        place = await _busiest_place(connection, learnt) if learnt is not None else None
    if place is None:
        return False
    kept = {key: place[key] for key in ("workspace", "channel", "thread") if key in place}
    added = await connection.execute(
        "INSERT INTO notices (run_id, about, platform, place, text, picture)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [run.id, notice.about, place["platform"], Jsonb(kept), notice.text, notice.picture],
    )
    return added.rowcount > 0


class Notices:
    """The store of notices. All of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, notice: NewNotice) -> bool:
        """Leave a notice by itself; see `add_notice`."""
        async with self._pool.connection() as connection:
            return await add_notice(connection, notice)

    async def due(self, platform: str, *, limit: int = 10) -> Sequence[Notice]:
        """The oldest notices of a platform that are due.

        Each is handed out again after a pause, which doubles, `MAX_ATTEMPTS` times at most, until
        it was `told`.
        """
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Notice))
            await cursor.execute(
                "WITH handed AS (UPDATE notices n SET attempts = n.attempts + 1, not_before = now()"
                " + make_interval(secs => least(%s, %s * 2.0 ^ n.attempts)) FROM runs r"
                " WHERE n.id IN (SELECT id FROM notices WHERE platform = %s AND told_at IS NULL"
                " AND attempts < %s AND not_before <= now() ORDER BY created_at LIMIT %s"
                " FOR UPDATE SKIP LOCKED) AND r.id = n.run_id"
                " RETURNING n.id, n.place, n.text, r.place->>'member' AS person, n.picture,"
                " n.created_at)"
                " SELECT id, place, text, person, picture FROM handed ORDER BY created_at",
                [LONGEST_PAUSE_S, FIRST_PAUSE_S, platform, MAX_ATTEMPTS, limit],
            )
            return await cursor.fetchall()

    async def was_left(self, run_id: "RunId", about: About) -> bool:
        """Whether there was ever this to tell of a run, told or not: a page is told of nothing."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT FROM notices WHERE run_id = %s AND about = %s", [run_id, about]
            )
            return await found.fetchone() is not None

    async def told(self, notice_id: NoticeId) -> None:
        """Note that a notice was posted, and forget what it said."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE notices SET told_at = now(), text = '', picture = NULL WHERE id = %s",
                [notice_id],
            )


async def _busiest_place(connection: Connection, learnt: "RunId") -> Mapping[str, str] | None:
    """The channel where most of the answers were given that a run learnt from."""
    found = await connection.execute(
        "SELECT w.platform, w.platform_id, c.platform_id FROM run_rows r"
        " CROSS JOIN unnest(r.answer_ids) AS learnt (id) JOIN answers a ON a.id = learnt.id"
        " JOIN messages m ON m.id = a.message_id JOIN threads t ON t.id = m.thread_id"
        " JOIN channels c ON c.id = t.scope_id JOIN workspaces w ON w.id = c.workspace_id"
        " WHERE r.run_id = %s AND w.removed_at IS NULL"
        " GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 3 LIMIT 1",
        [learnt],
    )
    row = await found.fetchone()
    if row is None:
        return None
    return {"platform": row[0], "workspace": row[1], "channel": row[2]}
