"""Places: settings of channels and workspaces, and the end of a workspace."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, LiteralString
from uuid import UUID

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from storage.audit import add_entry
from storage.documents import remove_files
from storage.errors import PlaceNotFound
from storage.identity import ChannelId, DocumentId, MemberId, WorkspaceId
from storage.outbox import mark_rated
from storage.pool import Pool
from storage.ratings import CONSENT_SETTING, withdraw_consent

_UNCONSENTED: LiteralString = """
(t.scope_id = %s OR t.workspace_id = %s) AND NOT coalesce(
    (SELECT (c.settings->>'consent_to_train')::boolean FROM channels c WHERE c.id = t.scope_id),
    (SELECT (w.settings->>'consent_to_train')::boolean FROM workspaces w
     WHERE w.id = t.workspace_id), false)
"""
"""Threads of a channel or workspace where, by the settings as they are now, nothing may train."""


class Places:
    """The store of settings. What they mean is decided and checked above storage.

    One key is read here, by the votes: `consent_to_train` (`storage.ratings`).
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def settings_around(self, channel_id: ChannelId) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a channel's workspace, and the channel's own; empty if none were saved.

        Raises:
            PlaceNotFound: no such channel.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT w.settings, c.settings FROM channels c"
                " JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = %s",
                [channel_id],
            )
            row = await found.fetchone()
        if row is None:
            raise PlaceNotFound(channel_id)
        return row[0], row[1]

    async def save_channel_settings(
        self, channel_id: ChannelId, settings: Mapping[str, Any], *, by: MemberId
    ) -> None:
        """Replace a channel's settings, with a row in the audit.

        Raises:
            PlaceNotFound: no such channel.
        """
        await self._save("channels", "workspace_id", channel_id, settings, by)

    async def workspace_settings(self, workspace_id: WorkspaceId) -> dict[str, Any]:
        """A workspace's settings; empty where none were saved.

        Raises:
            PlaceNotFound: no such workspace.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT settings FROM workspaces WHERE id = %s", [workspace_id]
            )
            row = await found.fetchone()
        if row is None:
            raise PlaceNotFound(workspace_id)
        settings: dict[str, Any] = row[0]
        return settings

    async def save_workspace_settings(
        self, workspace_id: WorkspaceId, settings: Mapping[str, Any], *, by: MemberId
    ) -> None:
        """Replace a workspace's settings, with a row in the audit.

        Raises:
            PlaceNotFound: no such workspace.
        """
        await self._save("workspaces", "id", workspace_id, settings, by)

    async def remove_workspace(self, platform: str, platform_id: str) -> None:
        """Note that a workspace removed the app; `purge_removed` deletes its data later."""
        await self._set_removed(platform, platform_id, removed=True)

    async def restore_workspace(self, platform: str, platform_id: str) -> None:
        """Note that a workspace has the app again: its data stays."""
        await self._set_removed(platform, platform_id, removed=False)

    async def workspaces(self, platform: str) -> list[str]:
        """The platform's ids of its workspaces that have the app."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT platform_id FROM workspaces WHERE platform = %s AND removed_at IS NULL",
                [platform],
            )
            return [row[0] for row in await found.fetchall()]

    async def purge_removed(self, platform: str, grace_s: float, *, files_dir: Path) -> int:
        """Delete all data of workspaces that removed the app more than `grace_s` seconds ago.

        Killed at any point, it leaves the workspace to the next call.

        Args:
            grace_s: seconds in which a workspace may come back.
            files_dir: where the bytes of documents lie.

        Returns:
            The number of workspaces that were deleted.
        """
        async with self._pool.connection() as connection:
            due = await connection.execute(
                "SELECT id FROM workspaces WHERE platform = %s"
                " AND removed_at < now() - make_interval(secs => %s)",
                [platform, grace_s],
            )
            workspace_ids = [WorkspaceId(row[0]) for row in await due.fetchall()]
        return sum([await self._purge(id_, grace_s, files_dir) for id_ in workspace_ids])

    async def _purge(self, workspace_id: WorkspaceId, grace_s: float, files_dir: Path) -> bool:
        async with self._pool.connection() as connection:
            await connection.execute("SET LOCAL statement_timeout = '10min'")
            still_due = await connection.execute(
                "SELECT 1 FROM workspaces WHERE id = %s"
                " AND removed_at < now() - make_interval(secs => %s) FOR UPDATE",
                [workspace_id, grace_s],
            )
            if await still_due.fetchone() is None:
                return False
            documents = await connection.execute(
                "SELECT id FROM documents WHERE workspace_id = %s", [workspace_id]
            )
            # Before the rows go: they are what would tell the next call of these files.
            remove_files(files_dir, [DocumentId(row[0]) for row in await documents.fetchall()])
            await mark_rated(connection, "t.workspace_id = %s", [workspace_id])
            await connection.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'todo' AND lock IN ("
                " SELECT m.id::text FROM messages m JOIN threads t ON t.id = m.thread_id"
                " WHERE t.workspace_id = %s)",
                [workspace_id],
            )
            await connection.execute("DELETE FROM workspaces WHERE id = %s", [workspace_id])
            return True

    async def _set_removed(self, platform: str, platform_id: str, *, removed: bool) -> None:
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE workspaces SET removed_at = CASE WHEN %s THEN now() END"
                " WHERE platform = %s AND platform_id = %s AND (removed_at IS NULL) = %s"
                " RETURNING id",
                [removed, platform, platform_id, removed],
            )
            row = await changed.fetchone()
            if row is not None:
                await add_entry(
                    connection,
                    workspace_id=WorkspaceId(row[0]),
                    member_id=None,
                    action="workspace_removed" if removed else "workspace_restored",
                    subject_id=row[0],
                    details={},
                )

    async def _save(
        self,
        table: Literal["channels", "workspaces"],
        workspace_column: LiteralString,
        id_: UUID,
        settings: Mapping[str, Any],
        by: MemberId,
    ) -> None:
        async with self._pool.connection() as connection:
            found = await connection.execute(
                SQL("SELECT {}, settings FROM {} WHERE id = %s FOR NO KEY UPDATE").format(
                    Identifier(workspace_column), Identifier(table)
                ),
                [id_],
            )
            row = await found.fetchone()
            if row is None:
                raise PlaceNotFound(id_)
            workspace_id, before = row
            await connection.execute(
                SQL("UPDATE {} SET settings = %s WHERE id = %s").format(Identifier(table)),
                [Jsonb(dict(settings)), id_],
            )
            if before.get(CONSENT_SETTING) != settings.get(CONSENT_SETTING):
                await withdraw_consent(connection, _UNCONSENTED, [id_, id_])
            await add_entry(
                connection,
                workspace_id=WorkspaceId(workspace_id),
                member_id=by,
                action="settings_changed",
                subject_id=id_,
                details=_changes(before, settings),
            )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What an audit may keep of changed settings: of lists, which may name people, only the key."""
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    return {
        key: value if isinstance(value := after.get(key), bool | int | float | None) else "…"
        for key in sorted(changed)
    }
