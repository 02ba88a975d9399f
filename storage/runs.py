"""Runs: trainings, judgements, promotions and rollbacks that somebody asked for.

Who asks only queues a run; training's own worker takes it from the queue, and tells here how far it
is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NewType
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.audit import add_entry
from storage.identity import AnswerId, MemberId, WorkspaceId
from storage.notices import NewNotice, add_notice
from storage.pool import Connection, Pool, one_row
from storage.queue import defer

RUN = "run"
"""The task, with the run's id as `run_id`."""
TRAINING_QUEUE = "training"
SERVING_QUEUE = "serving"
"""Of promotions and rollbacks: a model is taken back at once, whatever is being trained."""

RunId = NewType("RunId", UUID)
RunKind = Literal["train", "judge", "promote", "rollback"]
"""`judge` asks the gate again about a version on which it could not decide."""
RunStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Ending = Literal["succeeded", "failed", "cancelled"]


def queue_of(kind: RunKind) -> str:
    """The queue whose worker carries out runs of a kind."""
    return TRAINING_QUEUE if kind in ("train", "judge") else SERVING_QUEUE


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is to be done; the parameters are training's to understand."""

    kind: RunKind
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run and how far it is.

    Attributes:
        place: where to report, as the surface wants to be told.
        stage: what it does at the moment; None before and after.
        note: what the stage says of it in words; likewise.
        failure, advice: why it failed and what to do about it.
        result: what came out, in training's words.
        snapshot_sha256: of the rows it learns from, once they are written down.
    """

    id: RunId
    workspace_id: WorkspaceId
    member_id: MemberId | None
    kind: RunKind
    parameters: Mapping[str, Any]
    status: RunStatus
    place: Mapping[str, str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    stage: str | None
    note: str | None
    failure: str | None
    advice: str | None
    result: Mapping[str, Any]
    snapshot_sha256: str | None
    cancel_requested: bool


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a stage told at one of its steps, such as loss, learning_rate and tokens_per_s."""

    stage: str
    step: int
    at: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A row that a run learnt from, or held out."""

    row_id: str
    kind: str
    split: str
    basis: str
    answer_ids: Sequence[AnswerId]


_COLUMNS = (
    "id, workspace_id, member_id, kind, parameters, status, place, created_at, started_at,"
    " ended_at, stage, note, failure, advice, result, snapshot_sha256, cancel_requested"
)
_ONE = f"SELECT {_COLUMNS} FROM runs WHERE id = %s"  # noqa: S608 - nothing from outside
_NEWEST = (
    f"SELECT {_COLUMNS} FROM runs"  # noqa: S608 - nothing from outside
    " WHERE workspace_id = %s ORDER BY created_at DESC, id LIMIT %s"
)
_OF_ROW = (
    f"SELECT {_COLUMNS} FROM runs"  # noqa: S608 - nothing from outside
    " WHERE id IN (SELECT run_id FROM run_rows WHERE row_id = %s) ORDER BY created_at"
)


TRIAL_DAYS: Final = 14
"""How long the schedule leaves a version to be tried: the next candidate would end its trial before
its votes tell anything."""

_DUE = """
SELECT w.id, coalesce((SELECT r.place - 'member' FROM runs r
                       WHERE r.workspace_id = w.id AND r.place <> '{}'
                       ORDER BY r.created_at DESC LIMIT 1), '{}')
FROM workspaces w
CROSS JOIN LATERAL (
    SELECT coalesce(max(r.created_at), '-infinity') AS at,
           coalesce(bool_or(r.status IN ('queued', 'running')), false) AS busy
    FROM runs r WHERE r.workspace_id = w.id AND r.kind = 'train'
) last
CROSS JOIN LATERAL (
    SELECT count(*) AS ratings FROM (
        SELECT a.message_id FROM votes v JOIN answers a ON a.id = v.answer_id
        WHERE v.consent AND v.updated_at > last.at
        UNION ALL
        SELECT a.message_id FROM corrections c JOIN answers a ON a.id = c.answer_id
        WHERE c.consent AND c.updated_at > last.at
        UNION ALL
        SELECT p.message_id FROM comparison_votes j JOIN comparisons p ON p.id = j.comparison_id
        WHERE j.consent AND j.updated_at > last.at
    ) rated
    JOIN messages m ON m.id = rated.message_id JOIN threads t ON t.id = m.thread_id
    WHERE t.workspace_id = w.id
) new
WHERE w.removed_at IS NULL AND NOT last.busy AND new.ratings > 0
  AND NOT EXISTS (SELECT FROM model_versions t
                  WHERE t.workspace_id = w.id AND t.status = 'canary'
                    AND t.status_at > now() - make_interval(days => %(trial_days)s))
  AND w.id = coalesce(%(workspace)s, w.id)
  AND (new.ratings >= %(ratings)s OR last.at < now() - make_interval(secs => %(hours)s * 3600))
"""


class Runs:
    """The store of runs. All of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def queue(
        self,
        recipe: Recipe,
        *,
        workspace_id: WorkspaceId,
        by: MemberId | None,
        place: Mapping[str, str],
    ) -> RunId:
        """Store a run, its job and its row in the audit, all or nothing.

        Trainings and judgements of one workspace are done one after another, in the order in which
        they were queued, and so are promotions and rollbacks, which wait for no training.

        Args:
            by: who asked; None for a schedule.
        """
        async with self._pool.connection() as connection:
            return await _queue(connection, recipe, workspace_id=workspace_id, by=by, place=place)

    async def queue_due(
        self, recipe: Recipe, *, every_new_ratings: int | None, every_hours: float | None
    ) -> int:
        """Queue a training of every workspace where one is `due`; returns how many.

        Two who do so at once queue it once: the second waits for the first, and looks again.
        """
        queued = 0
        for workspace_id, _ in await self.due(
            every_new_ratings=every_new_ratings, every_hours=every_hours
        ):
            async with self._pool.connection() as connection:
                await connection.execute(
                    "SELECT 1 FROM workspaces WHERE id = %s FOR NO KEY UPDATE", [workspace_id]
                )
                for _, place in await _due(
                    connection, every_new_ratings, every_hours, workspace_id=workspace_id
                ):
                    await _queue(
                        connection, recipe, workspace_id=workspace_id, by=None, place=place
                    )
                    queued += 1
        return queued

    async def list(self, workspace_id: WorkspaceId, limit: int) -> Sequence[StoredRun]:
        """The newest runs of a workspace, newest first."""
        return await self._runs(_NEWEST, [workspace_id, limit])

    async def get(self, run_id: RunId) -> StoredRun | None:
        """A run; None where there is none, or its workspace is gone."""
        found = await self._runs(_ONE, [run_id])
        return found[0] if found else None

    async def start(self, run_id: RunId) -> bool:
        """Mark a run as begun, or begun again; False where it has ended, or is to be cancelled."""
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE runs SET status = 'running', started_at = coalesce(started_at, now())"
                " WHERE id = %s AND status IN ('queued', 'running') AND NOT cancel_requested",
                [run_id],
            )
            return changed.rowcount > 0

    async def decide(self, run_id: RunId, decided: Mapping[str, Any]) -> None:
        """Add what a run is about to do to its parameters: begun again, it does the same."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE runs SET parameters = parameters || %s WHERE id = %s",
                [Jsonb(dict(decided)), run_id],
            )

    async def learn_from(
        self, run_id: RunId, *, snapshot_sha256: str, rows: Iterable[RunRow]
    ) -> None:
        """Note which rows a run learns from; what was noted before is forgotten."""
        values = [
            [run_id, row.row_id, row.kind, row.split, row.basis, list(row.answer_ids)]
            for row in rows
        ]
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE runs SET snapshot_sha256 = %s WHERE id = %s", [snapshot_sha256, run_id]
            )
            await connection.execute("DELETE FROM run_rows WHERE run_id = %s", [run_id])
            await connection.cursor().executemany(
                "INSERT INTO run_rows (run_id, row_id, kind, split, basis, answer_ids)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                values,
            )

    async def tell(
        self,
        run_id: RunId,
        *,
        stage: str | None,
        note: str | None = None,
        metrics: Iterable[tuple[str, int, Mapping[str, float]]] = (),
    ) -> bool:
        """Store how far a run is.

        Args:
            stage: None = the same as before.
            note: what the stage says in words; it stays until the stage says another, or ends.
            metrics: stage, step and values; of a step that is told again, its first time stays.

        Returns:
            Whether somebody asked for the end of the run.
        """
        async with self._pool.connection() as connection:
            await connection.cursor().executemany(
                "INSERT INTO run_metrics (run_id, stage, step, values) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (run_id, stage, step)"
                " DO UPDATE SET values = run_metrics.values || excluded.values",
                [[run_id, name, step, Jsonb(dict(values))] for name, step, values in metrics],
            )
            told = await connection.execute(
                "UPDATE runs SET stage = coalesce(%(stage)s, stage), note = CASE"
                " WHEN coalesce(%(stage)s, stage) IS DISTINCT FROM stage THEN %(note)s"
                " ELSE coalesce(%(note)s, note) END WHERE id = %(run)s"
                " RETURNING cancel_requested",
                {"stage": stage, "note": note, "run": run_id},
            )
            row = await told.fetchone()
            return bool(row and row[0])

    async def due(
        self, *, every_new_ratings: int | None, every_hours: float | None
    ) -> Sequence[tuple[WorkspaceId, Mapping[str, str]]]:
        """Workspaces whose next training is due, with the place where the last run was told.

        Only ratings that may train models count. Nothing is due without a new one, nor while a
        training waits or runs.

        Args:
            every_new_ratings: since the last training was queued; None = their number is no reason.
            every_hours: since then; None = time is no reason.
        """
        if every_new_ratings is None and every_hours is None:
            return []
        async with self._pool.connection() as connection:
            return await _due(connection, every_new_ratings, every_hours)

    async def metrics(self, run_id: RunId) -> Sequence[Metric]:
        """What a run told of its steps, in the order of time."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Metric))
            await cursor.execute(
                "SELECT stage, step, at, values FROM run_metrics WHERE run_id = %s"
                " ORDER BY at, stage, step",
                [run_id],
            )
            return await cursor.fetchall()

    async def end(
        self,
        run_id: RunId,
        status: Ending,
        *,
        result: Mapping[str, Any] | None = None,
        failure: str | None = None,
        advice: str | None = None,
        notice: NewNotice | None = None,
    ) -> bool:
        """Note how a run ended and leave its notice, both or neither; the first word counts.

        Returns:
            Whether this was the first word; the notice of a later one is not left.
        """
        async with self._pool.connection() as connection:
            ended = await connection.execute(
                "UPDATE runs SET status = %s, ended_at = now(), stage = NULL, note = NULL,"
                " result = %s, failure = %s, advice = %s"
                " WHERE id = %s AND status IN ('queued', 'running')"
                " RETURNING workspace_id, member_id, kind",
                [status, Jsonb(dict(result or {})), failure, advice, run_id],
            )
            row = await ended.fetchone()
            if row is not None:
                await add_entry(
                    connection,
                    workspace_id=row[0],
                    member_id=row[1],
                    action=f"{row[2]}_{status}",
                    subject_id=run_id,
                    details={},
                )
                if notice is not None:
                    await add_notice(connection, notice)
            return row is not None

    async def cancel(self, run_id: RunId, *, by: MemberId | None) -> bool:
        """Ask for the end of a run; one that waits ends at once. False where it has ended."""
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                "UPDATE runs SET cancel_requested = true,"
                " status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END,"
                " ended_at = CASE status WHEN 'queued' THEN now() END"
                " WHERE id = %s AND status IN ('queued', 'running') RETURNING workspace_id",
                [run_id],
            )
            row = await asked.fetchone()
            if row is None:
                return False
            await add_entry(
                connection,
                workspace_id=row[0],
                member_id=by,
                action="run_cancelled",
                subject_id=run_id,
                details={},
            )
            return True

    async def rows_of_answer(self, answer_id: AnswerId) -> Sequence[tuple[RunId, RunRow]]:
        """The rows that an answer's ratings became, with the runs that learnt from them."""
        return await self._rows(
            "SELECT run_id, row_id, kind, split, basis, answer_ids FROM run_rows"
            " WHERE answer_ids @> ARRAY[%s]::uuid[] ORDER BY run_id, row_id",
            answer_id,
        )

    async def rows_of_run(self, run_id: RunId) -> Sequence[tuple[RunId, RunRow]]:
        """The rows that a run learnt from or held out."""
        return await self._rows(
            "SELECT run_id, row_id, kind, split, basis, answer_ids FROM run_rows"
            " WHERE run_id = %s ORDER BY row_id",
            run_id,
        )

    async def ratings_behind(self, run_id: RunId) -> int:
        """Votes, choices and corrections that a run learnt from and that are still there."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "WITH run AS (SELECT coalesce(started_at, created_at) AS began FROM runs"
                " WHERE id = %(run)s), learnt AS (SELECT DISTINCT unnest(answer_ids) AS id"
                " FROM run_rows WHERE run_id = %(run)s AND split = 'train'), rated AS ("
                " SELECT v.created_at FROM votes v JOIN learnt l ON l.id = v.answer_id"
                " WHERE v.consent UNION ALL"
                " SELECT c.created_at FROM corrections c JOIN learnt l ON l.id = c.answer_id"
                " WHERE c.consent UNION ALL"
                " SELECT cv.created_at FROM comparison_votes cv"
                " JOIN comparisons c ON c.id = cv.comparison_id"
                " WHERE cv.consent AND (c.left_answer IN (SELECT id FROM learnt)"
                " OR c.right_answer IN (SELECT id FROM learnt)))"
                " SELECT count(*) FROM rated, run WHERE rated.created_at <= run.began",
                {"run": run_id},
            )
            return int((await one_row(found))[0])

    async def of_row(self, row_id: str) -> Sequence[StoredRun]:
        """The runs that met a row, oldest first."""
        return await self._runs(_OF_ROW, [row_id])

    async def _rows(self, query: str, argument: UUID) -> Sequence[tuple[RunId, RunRow]]:
        async with self._pool.connection() as connection:
            found = await connection.execute(query, [argument])
            return [
                (
                    RunId(row[0]),
                    RunRow(
                        row_id=row[1], kind=row[2], split=row[3], basis=row[4], answer_ids=row[5]
                    ),
                )
                for row in await found.fetchall()
            ]

    async def _runs(self, query: str, arguments: Sequence[object]) -> Sequence[StoredRun]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(StoredRun))
            await cursor.execute(query, arguments)
            return await cursor.fetchall()


async def _queue(
    connection: Connection,
    recipe: Recipe,
    *,
    workspace_id: WorkspaceId,
    by: MemberId | None,
    place: Mapping[str, str],
) -> RunId:
    made = await connection.execute(
        "INSERT INTO runs (workspace_id, member_id, kind, parameters, place)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING id",
        [*(workspace_id, by, recipe.kind), *(Jsonb(dict(recipe.parameters)), Jsonb(dict(place)))],
    )
    run_id = RunId((await one_row(made))[0])
    queue = queue_of(recipe.kind)
    await defer(
        connection,
        RUN,
        queue=queue,
        lock=f"{queue} {workspace_id}",
        arguments={"run_id": str(run_id)},
    )
    await add_entry(
        connection,
        workspace_id=workspace_id,
        member_id=by,
        action=f"{recipe.kind}_queued",
        subject_id=run_id,
        details=recipe.parameters,
    )
    return run_id


async def _due(
    connection: Connection,
    every_new_ratings: int | None,
    every_hours: float | None,
    *,
    workspace_id: WorkspaceId | None = None,
) -> list[tuple[WorkspaceId, Mapping[str, str]]]:
    found = await connection.execute(
        _DUE,
        {
            "ratings": every_new_ratings,
            "hours": every_hours,
            "workspace": workspace_id,
            "trial_days": TRIAL_DAYS,
        },
    )
    return [(WorkspaceId(row[0]), row[1]) for row in await found.fetchall()]
