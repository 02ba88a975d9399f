"""Installations: a platform's tokens for the workspaces that installed the app, encrypted."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from storage.identity import Keys
from storage.pool import Pool


class Installations:
    """The store of installations, and of OAuth flows that were begun here.

    What is called a workspace here is the platform's own id of it: an installation comes before
    anything else of its workspace is known.
    """

    def __init__(self, *, pool: Pool, keys: Keys) -> None:
        self._pool = pool
        self._keys = keys

    async def save(
        self, platform: str, installation_key: str, payload: Mapping[str, Any], *, workspace: str
    ) -> None:
        """Store an installation in place of the one before it; rotated tokens come here, too.

        Args:
            installation_key: what `find` will ask for, such as team and person.
            payload: anything that JSON holds; encrypted as a whole.
            workspace: whose deletion deletes it.
        """
        token = self._keys.encrypt(json.dumps(dict(payload)))
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO installations"
                " (platform, installation_key, workspace_ref, payload_encrypted)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (platform, installation_key) DO UPDATE"
                " SET workspace_ref = excluded.workspace_ref,"
                " payload_encrypted = excluded.payload_encrypted, updated_at = now()",
                [platform, installation_key, workspace, token],
            )

    async def find(self, platform: str, installation_key: str) -> dict[str, Any] | None:
        """An installation's payload.

        Raises:
            KeysInvalid: it was encrypted with a key that is no longer there.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT payload_encrypted FROM installations"
                " WHERE platform = %s AND installation_key = %s",
                [platform, installation_key],
            )
            row = await found.fetchone()
        if row is None:
            return None
        payload: dict[str, Any] = json.loads(self._keys.decrypt(row[0]))
        return payload

    async def delete(self, platform: str, workspace: str) -> int:
        """Delete all installations of a workspace; how many there were."""
        async with self._pool.connection() as connection:
            deleted = await connection.execute(
                "DELETE FROM installations WHERE platform = %s AND workspace_ref = %s",
                [platform, workspace],
            )
            return deleted.rowcount

    async def delete_one(self, platform: str, installation_key: str) -> bool:
        """Delete one installation, such as a person's own token; whether there was one."""
        async with self._pool.connection() as connection:
            deleted = await connection.execute(
                "DELETE FROM installations WHERE platform = %s AND installation_key = %s",
                [platform, installation_key],
            )
            return deleted.rowcount > 0

    async def issue_state(self, ttl_s: float) -> str:
        """A secret that an OAuth flow carries, to be brought back once within `ttl_s`."""
        state = secrets.token_urlsafe(32)
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM oauth_states WHERE expires_at < now()")
            await connection.execute(
                "INSERT INTO oauth_states VALUES (%s, now() + make_interval(secs => %s))",
                [_hash(state), ttl_s],
            )
        return state

    async def consume_state(self, state: str) -> bool:
        """Whether the state was issued here, is not too old, and comes back for the first time."""
        async with self._pool.connection() as connection:
            used = await connection.execute(
                "DELETE FROM oauth_states WHERE state_sha256 = %s RETURNING expires_at > now()",
                [_hash(state)],
            )
            row = await used.fetchone()
            return row is not None and bool(row[0])


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
