"""Versions of a workspace's model: which there are, which answers, and which did before.

A version belongs to the workspace whose ratings made it: what it may have learnt there must not
reach anybody else. At most one is live and at most one is tried on a share of the threads.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NewType
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.audit import add_entry
from storage.identity import MemberId, ThreadId, WorkspaceId
from storage.notices import NewNotice, add_notice
from storage.pool import Connection, Pool, one_row
from storage.runs import RunId

VersionId = NewType("VersionId", UUID)
GateStatus = Literal["candidate", "rejected", "undecided"]
"""What the gate makes of a version; one that it could not judge waits for another look."""
VersionStatus = GateStatus | Literal["canary", "live", "retired", "rolled_back"]


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version.

    Attributes:
        name: by which the engine knows it.
        parent_id: the version that was live when it was trained.
        directory: of the quantized model.
        sha256: of its weights.
        gate: what was measured and decided, in training's words.
        share: of the threads that it answers while it is tried, 0 to 1.
    """

    id: VersionId
    workspace_id: WorkspaceId
    number: int
    name: str
    run_id: RunId | None
    parent_id: VersionId | None
    directory: str
    sha256: str
    snapshot_sha256: str
    recipe: Mapping[str, Any]
    gate: Mapping[str, Any]
    status: VersionStatus
    share: float
    created_at: datetime
    status_at: datetime


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Which versions answer a workspace.

    Attributes:
        live: the version for everybody; None = the model that the settings name.
        canary: the version that is tried; None = none.
    """

    live: ModelVersion | None
    canary: ModelVersion | None


@dataclass(frozen=True, kw_only=True)
class LiveVote:
    """A vote on an answer of a version or of the model before it, while the version was tried.

    Attributes:
        model: name of the model that answered.
        thread_id: where it answered.
        member_id: who voted.
    """

    model: str
    value: int
    thread_id: ThreadId
    member_id: MemberId
    voted_at: datetime


_NAME = re.compile(r"(?:v\d+|live)-([0-9a-f]{8,12})")


def version_name(workspace_id: WorkspaceId, number: int) -> str:
    """The engine's name of a version."""
    return f"v{number}-{workspace_id.hex[:8]}"


def live_alias(workspace_id: WorkspaceId) -> str:
    """The engine's name for whatever answers a workspace."""
    return f"live-{workspace_id.hex[:12]}"


def is_version(model: str) -> bool:
    """Whether a name of the engine is a version's, or an alias of what answers a workspace."""
    return _NAME.fullmatch(model) is not None


def is_elsewhere(model: str, workspace_id: WorkspaceId) -> bool:
    """Whether a model of the engine belongs to another workspace, which alone may be answered."""
    named = _NAME.fullmatch(model)
    return named is not None and not workspace_id.hex.startswith(named[1])


_COLUMNS = (
    "id, workspace_id, number, name, run_id, parent_id, directory, sha256, snapshot_sha256, recipe,"
    " gate, status, share, created_at, status_at"
)
_ALL = (
    f"SELECT {_COLUMNS} FROM model_versions"  # noqa: S608 - nothing from outside
    " WHERE workspace_id = %s ORDER BY number DESC"
)
_ONE = f"SELECT {_COLUMNS} FROM model_versions WHERE id = %s"  # noqa: S608 - likewise
_OF_RUN = f"SELECT {_COLUMNS} FROM model_versions WHERE run_id = %s"  # noqa: S608 - likewise
_OF_NAME = (
    f"SELECT {_COLUMNS} FROM model_versions"  # noqa: S608 - likewise
    " WHERE name = %s OR 'v' || number = %s ORDER BY name"
)
_SERVING = (
    f"SELECT {_COLUMNS} FROM model_versions"  # noqa: S608 - likewise
    " WHERE workspace_id = %s AND status IN ('live', 'canary')"
)
_NAMED = (
    "(SELECT settings->>'model' FROM channels WHERE settings->>'model' IS NOT NULL"
    " UNION SELECT settings->>'model' FROM workspaces WHERE settings->>'model' IS NOT NULL)"
)
_EVERYWHERE = (
    f"SELECT {_COLUMNS} FROM model_versions"  # noqa: S608 - likewise
    f" WHERE status IN ('live', 'canary') OR name IN {_NAMED} ORDER BY workspace_id, number"
)
_UNUSED = (
    f"SELECT {_COLUMNS} FROM model_versions"  # noqa: S608 - likewise
    " WHERE name = ANY(%s) AND status NOT IN ('live', 'canary')"
    f" AND status_at < now() - make_interval(secs => %s) AND name NOT IN {_NAMED}"
)
# A channel's word comes before the workspace's, which does not reach conversations of one person;
# `live` is where everybody is answered whom nobody named a model for.
_VOTES = """
SELECT a.model, v.value, t.id AS thread_id, v.member_id, v.created_at AS voted_at
FROM votes v
JOIN answers a ON a.id = v.answer_id
JOIN messages m ON m.id = a.message_id
JOIN threads t ON t.id = m.thread_id
JOIN members p ON p.id = v.member_id
JOIN workspaces w ON w.id = t.workspace_id
LEFT JOIN channels c ON c.id = t.scope_id
WHERE t.workspace_id = %s AND a.created_at >= %s AND a.model <> '' AND p.quarantined_at IS NULL
    AND NOT EXISTS (SELECT FROM comparisons s WHERE a.id IN (s.left_answer, s.right_answer))
    AND coalesce(
        CASE
            WHEN c.settings ? 'model' THEN c.settings->>'model'
            WHEN c.id IS NOT NULL THEN w.settings->>'model'
        END,
        'live'
    ) = 'live'
ORDER BY v.created_at, v.answer_id, v.member_id
"""


class ModelVersions:
    """The store of versions. All of it may raise StorageUnavailable, safe to retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def next_number(self, workspace_id: WorkspaceId) -> int:
        """The number that the next version will have, 1 for the first."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT coalesce(max(number), 0) + 1 FROM model_versions WHERE workspace_id = %s",
                [workspace_id],
            )
            return int((await one_row(found))[0])

    async def add(
        self,
        *,
        workspace_id: WorkspaceId,
        number: int,
        name: str,
        run_id: RunId,
        parent_id: VersionId | None,
        directory: Path,
        sha256: str,
        snapshot_sha256: str,
        recipe: Mapping[str, Any],
        gate: Mapping[str, Any],
        status: GateStatus,
    ) -> ModelVersion:
        """Store what a run made; a run makes one version, however often it is told."""
        async with self._pool.connection() as connection:
            known = await _one(connection, _OF_RUN, run_id)
            if known is not None:
                return known
            added = await connection.execute(
                "INSERT INTO model_versions (workspace_id, number, name, run_id, parent_id,"
                " directory, sha256, snapshot_sha256, recipe, gate, status)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
                [
                    *(workspace_id, number, name, run_id, parent_id, str(directory), sha256),
                    *(snapshot_sha256, Jsonb(dict(recipe)), Jsonb(dict(gate)), status),
                ],
            )
            version_id = VersionId((await one_row(added))[0])
            await _note(connection, workspace_id, None, f"version_{status}", version_id, {})
            made = await _one(connection, _ONE, version_id)
            assert made is not None  # noqa: S101 - inserted two lines above
            return made

    async def judged(
        self, version_id: VersionId, *, status: GateStatus, gate: Mapping[str, Any]
    ) -> bool:
        """Give an undecided version the outcome of another look by the gate.

        Returns:
            False where it is not undecided any more; nothing changed.
        """
        async with self._pool.connection() as connection:
            version = await _locked(connection, version_id)
            changed = await connection.execute(
                "UPDATE model_versions SET status = %s, gate = %s, status_at = now()"
                " WHERE id = %s AND status = 'undecided'",
                [status, Jsonb(dict(gate)), version_id],
            )
            if not changed.rowcount:
                return False
            await _note(connection, version.workspace_id, None, f"version_{status}", version_id, {})
            return True

    async def list(self, workspace_id: WorkspaceId) -> list[ModelVersion]:
        """Every version of a workspace, newest first."""
        async with self._pool.connection() as connection:
            return await _many(connection, _ALL, [workspace_id])

    async def get(self, version_id: VersionId) -> ModelVersion | None:
        """A version; None where there is none."""
        async with self._pool.connection() as connection:
            return await _one(connection, _ONE, version_id)

    async def of_run(self, run_id: RunId) -> ModelVersion | None:
        """What a run made; None where it made nothing."""
        async with self._pool.connection() as connection:
            return await _one(connection, _OF_RUN, run_id)

    async def named(self, name: str) -> Sequence[ModelVersion]:
        """The versions of a name, such as `v1` or as the engine knows it, of all workspaces."""
        async with self._pool.connection() as connection:
            return await _many(connection, _OF_NAME, [name, name])

    async def serving(self, workspace_id: WorkspaceId) -> Serving:
        """Which versions answer a workspace now."""
        async with self._pool.connection() as connection:
            found = {
                each.status: each for each in await _many(connection, _SERVING, [workspace_id])
            }
            return Serving(live=found.get("live"), canary=found.get("canary"))

    async def serving_everywhere(self) -> Sequence[ModelVersion]:
        """The versions that answer anybody, of all workspaces; those too that a place names."""
        async with self._pool.connection() as connection:
            return await _many(connection, _EVERYWHERE, [])

    async def unused(self, names: Sequence[str], *, for_s: float) -> Sequence[ModelVersion]:
        """Those of these versions that have answered nobody for so long and are named for no place.

        Args:
            names: by which the engine knows them.
        """
        async with self._pool.connection() as connection:
            return await _many(connection, _UNUSED, [list(names), for_s])

    async def votes(self, workspace_id: WorkspaceId, *, since: datetime) -> Sequence[LiveVote]:
        """Present votes on what models answered since a moment, in the order of their casting.

        Only what a trial decides counts: not where somebody named a model for the place, nor the
        sides of a comparison, which shows both models in one thread. Votes of people who are
        quarantined do not count.
        """
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(LiveVote))
            await cursor.execute(_VOTES, [workspace_id, since])
            return await cursor.fetchall()

    async def start_canary(self, version_id: VersionId, *, share: float) -> bool:
        """Try a candidate on a share of the threads; one that was tried is a candidate again.

        Returns:
            False where it is no candidate any more; nothing changed.
        """
        async with self._pool.connection() as connection:
            version = await _locked(connection, version_id)
            if version.status not in ("candidate", "canary"):
                return False
            await connection.execute(
                "UPDATE model_versions SET status = 'candidate', share = 0, status_at = now()"
                " WHERE workspace_id = %s AND status = 'canary' AND id <> %s",
                [version.workspace_id, version_id],
            )
            await connection.execute(
                "UPDATE model_versions SET status = 'canary', share = %s, status_at = CASE status"
                " WHEN 'canary' THEN status_at ELSE now() END WHERE id = %s",
                [share, version_id],
            )
            await _note(
                connection,
                version.workspace_id,
                None,
                "canary_started",
                version_id,
                {"share": share},
            )
            return True

    async def promote(
        self,
        version_id: VersionId,
        *,
        by: MemberId | None,
        was: Literal["canary"] | None = None,
        notice: NewNotice | None = None,
    ) -> bool:
        """Let a version answer the whole workspace; the one that did is retired.

        Args:
            was: what it is believed to be; None = whatever it is.
            notice: left with it: either both are stored or none.

        Returns:
            False where it is something else meanwhile; nothing changed.
        """
        async with self._pool.connection() as connection:
            version = await _locked(connection, version_id)
            if was not in (None, version.status):
                return False
            await connection.execute(
                "UPDATE model_versions SET status = 'retired', share = 0, status_at = now()"
                " WHERE workspace_id = %s AND status = 'live' AND id <> %s",
                [version.workspace_id, version_id],
            )
            await connection.execute(
                "UPDATE model_versions SET status = 'live', share = 0, status_at = now()"
                " WHERE id = %s AND status <> 'live'",
                [version_id],
            )
            await _note(connection, version.workspace_id, by, "version_promoted", version_id, {})
            if notice is not None:
                await add_notice(connection, notice)
            return True

    async def roll_back(
        self,
        version_id: VersionId,
        *,
        was: Literal["canary", "live"],
        to: VersionId | None,
        by: MemberId | None,
        why: str,
        notice: NewNotice | None = None,
    ) -> bool:
        """Take a version out of service.

        Args:
            was: what it is believed to be.
            to: the version that answers instead, where it was live; None = the settings' model.
            why: in words, for the audit.
            notice: left with it: either both are stored or none.

        Returns:
            False where it is something else meanwhile; nothing changed.
        """
        async with self._pool.connection() as connection:
            version = await _locked(connection, version_id)
            changed = await connection.execute(
                "UPDATE model_versions SET status = 'rolled_back', share = 0, status_at = now()"
                " WHERE id = %s AND status = %s",
                [version_id, was],
            )
            if not changed.rowcount:
                return False
            if to is not None:
                await connection.execute(
                    "UPDATE model_versions SET status = 'live', share = 0, status_at = now()"
                    " WHERE id = %s",
                    [to],
                )
            await _note(
                connection,
                version.workspace_id,
                by,
                "version_rolled_back",
                version_id,
                {"why": why, "to": str(to) if to else None},
            )
            if notice is not None:
                await add_notice(connection, notice)
            return True


async def _locked(connection: Connection, version_id: VersionId) -> ModelVersion:
    """The version as it is, while nobody else changes what answers its workspace."""
    await connection.execute(
        "SELECT FROM workspaces w JOIN model_versions v ON v.workspace_id = w.id WHERE v.id = %s"
        " FOR NO KEY UPDATE OF w",
        [version_id],
    )
    version = await _one(connection, _ONE, version_id)
    if version is None:
        raise LookupError(f"there is no version {version_id}")
    return version


async def _note(
    connection: Connection,
    workspace_id: WorkspaceId,
    by: MemberId | None,
    action: str,
    version_id: VersionId,
    details: Mapping[str, Any],
) -> None:
    await add_entry(
        connection,
        workspace_id=workspace_id,
        member_id=by,
        action=action,
        subject_id=version_id,
        details=details,
    )


async def _one(connection: Connection, query: str, argument: UUID) -> ModelVersion | None:
    found = await _many(connection, query, [argument])
    return found[0] if found else None


async def _many(
    connection: Connection, query: str, arguments: Sequence[object]
) -> list[ModelVersion]:
    cursor = connection.cursor(row_factory=class_row(ModelVersion))
    await cursor.execute(query, arguments)
    return await cursor.fetchall()
