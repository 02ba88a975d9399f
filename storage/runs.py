"""Runs: trainings, promotions and rollbacks that somebody asked for.

Who asks only queues a run; training's own worker takes it from the queue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NewType
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.audit import add_entry
from storage.identity import MemberId, WorkspaceId
from storage.pool import Pool, one_row
from storage.queue import defer

RUN = "run"
"""The task, with the run's id as `run_id`."""
TRAINING_QUEUE = "training"

RunId = NewType("RunId", UUID)
RunKind = Literal["train", "promote", "rollback"]


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
    """

    id: RunId
    kind: RunKind
    parameters: Mapping[str, Any]
    status: Literal["queued", "running", "succeeded", "failed"]
    place: Mapping[str, str]
    created_at: datetime


class Runs:
    """The store of runs."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def queue(
        self,
        recipe: Recipe,
        *,
        workspace_id: WorkspaceId,
        by: MemberId,
        place: Mapping[str, str],
    ) -> RunId:
        """Store a run, its job and its row in the audit, all or nothing.

        Runs of one workspace are done one after another, in the order in which they were queued.

        Raises:
            StorageUnavailable: nothing was stored; safe to retry.
        """
        async with self._pool.connection() as connection:
            made = await connection.execute(
                "INSERT INTO runs (workspace_id, member_id, kind, parameters, place)"
                " VALUES (%s, %s, %s, %s, %s) RETURNING id",
                [
                    *(workspace_id, by, recipe.kind),
                    *(Jsonb(dict(recipe.parameters)), Jsonb(dict(place))),
                ],
            )
            run_id = RunId((await one_row(made))[0])
            await defer(
                connection,
                RUN,
                queue=TRAINING_QUEUE,
                lock=str(workspace_id),
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

    async def list(self, workspace_id: WorkspaceId, limit: int) -> list[StoredRun]:
        """The newest runs of a workspace, newest first."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                "SELECT id, kind, parameters, status, place, created_at FROM runs"
                " WHERE workspace_id = %s ORDER BY created_at DESC, id LIMIT %s",
                [workspace_id, limit],
            )
            return [
                StoredRun(
                    id=RunId(row[0]),
                    kind=row[1],
                    parameters=row[2],
                    status=row[3],
                    place=row[4],
                    created_at=row[5],
                )
                for row in await rows.fetchall()
            ]
