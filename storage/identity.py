"""Who speaks, where, and therefore what may be read."""

import base64
import contextlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NewType
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from storage.errors import KeysInvalid
from storage.pool import Connection, Pool, one_row

WorkspaceId = NewType("WorkspaceId", UUID)
ChannelId = NewType("ChannelId", UUID)
MemberId = NewType("MemberId", UUID)
ThreadId = NewType("ThreadId", UUID)
MessageId = NewType("MessageId", UUID)
AnswerId = NewType("AnswerId", UUID)
DocumentId = NewType("DocumentId", UUID)
ChunkId = NewType("ChunkId", UUID)


@dataclass(frozen=True, kw_only=True)
class Audience:
    """Everybody who will see what is shown: a channel's people, or one person in direct messages.

    Attributes:
        channel_id: None in direct messages and for the workspace as a whole.
        member_id: who acts. Their own documents belong to the audience only where nobody else reads
            along, that is without a channel.
        also: further channels that everybody of the audience may read, such as the one that a
            private thread hangs on.
    """

    workspace_id: WorkspaceId
    channel_id: ChannelId | None = None
    member_id: MemberId | None = None
    also: tuple[ChannelId, ...] = ()

    @property
    def scope_ids(self) -> tuple[UUID, ...]:
        """Owners whose documents may be read: the workspace, and this channel or this person."""
        own = self.channel_id if self.channel_id is not None else self.member_id
        return (self.workspace_id, *self.also, *(() if own is None else (own,)))

    @property
    def place_id(self) -> UUID:
        """Where the conversation is held: the narrowest scope, which owns its threads."""
        own = self.channel_id if self.channel_id is not None else self.member_id
        return self.workspace_id if own is None else own


class Keys:
    """Encrypts what may identify a person, and derives pseudonyms that cannot be reversed.

    Args:
        fernet_keys: Fernet keys, newest first. The first one writes; all of them read, and a person
            is recognised under each, so that keys can be rotated.
    """

    def __init__(self, *, fernet_keys: tuple[str, ...]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in fernet_keys])
        self._secrets = tuple(base64.urlsafe_b64decode(key) for key in fernet_keys)

    @classmethod
    def load(cls, *, home: Path, secret: SecretStr | None) -> "Keys":
        """Read the keys from the setting, else from `<home>/keys`, which is made if missing.

        Raises:
            KeysInvalid: something there is not a Fernet key.
        """
        where = "database.encryption_keys" if secret is not None else str(home / "keys")
        try:
            text = secret.get_secret_value() if secret is not None else _read_or_make(home / "keys")
            keys = tuple(text.replace(",", " ").split())
            if not keys:
                raise ValueError("there is no key")
            return cls(fernet_keys=keys)
        except (OSError, ValueError) as error:
            raise KeysInvalid(f"No usable encryption keys in {where}: {error}.") from error

    def pseudonyms(self, platform: str, platform_id: str) -> list[bytes]:
        """A person's pseudonym under every key, newest first."""
        name = f"{platform}\0{platform_id}".encode()
        return [hmac.digest(secret, name, "sha256") for secret in self._secrets]

    def encrypt(self, text: str) -> bytes:
        """Encrypt with the newest key."""
        return self._fernet.encrypt(text.encode())

    def decrypt(self, token: bytes) -> str:
        """Decrypt what any of the keys wrote.

        Raises:
            KeysInvalid: none of them wrote it.
        """
        try:
            return self._fernet.decrypt(token).decode()
        except InvalidToken as error:
            raise KeysInvalid(
                "The encryption keys do not fit the database: restore the key that wrote it."
            ) from error


def _read_or_make(path: Path) -> str:
    """The key file's text; of several processes that find none, one makes it for all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"keys.{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(Fernet.generate_key().decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # fails where a rename would replace another process's key
        fresh.unlink()
    return path.read_text()


class Identities:
    """Turns a platform's ids into ours, making rows for those never seen before."""

    def __init__(self, *, pool: Pool, keys: Keys) -> None:
        self._pool = pool
        self._keys = keys

    async def resolve(
        self,
        *,
        platform: str,
        workspace: str,
        channel: str | None = None,
        channel_open: bool | None = None,
        member: str | None = None,
        display_name: str | None = None,
        also: Sequence[str] = (),
    ) -> Audience:
        """Find or make workspace, channel and member.

        Args:
            platform: "slack", "discord", "web", "terminal".
            workspace: the platform's id of the team, never its name.
            channel: the platform's id of the channel; None in direct messages.
            channel_open: whether everybody in the workspace may read the channel; None where that
                is not known, which leaves what was known before, and a new channel closed.
            member: the platform's id of the person.
            display_name: what the thread view calls the member; stored encrypted, updated if new.
            also: the platform's ids of further channels that the audience may read; those that are
                not stored hold nothing, and are not made.

        Raises:
            StorageUnavailable: no connection in time; safe to retry.
        """
        async with self._pool.connection() as connection:
            workspace_id = WorkspaceId(
                await _upsert(
                    connection,
                    "SELECT id FROM workspaces WHERE platform = %s AND platform_id = %s",
                    "INSERT INTO workspaces (platform, platform_id) VALUES (%s, %s)"
                    " ON CONFLICT ON CONSTRAINT workspaces_platform DO NOTHING RETURNING id",
                    [platform, workspace],
                )
            )
            channel_id = None
            if channel is not None:
                channel_id = ChannelId(
                    await _upsert(
                        connection,
                        "SELECT id FROM channels WHERE workspace_id = %s AND platform_id = %s",
                        "INSERT INTO channels (workspace_id, platform_id) VALUES (%s, %s)"
                        " ON CONFLICT ON CONSTRAINT channels_platform DO NOTHING RETURNING id",
                        [workspace_id, channel],
                    )
                )
                if channel_open is not None:
                    await connection.execute(
                        "UPDATE channels SET open = NOT open WHERE id = %s AND open <> %s",
                        [channel_id, channel_open],
                    )
            member_id = None
            if member is not None:
                member_id = await self._member(
                    connection, workspace_id, platform, member, display_name
                )
            further = await _channels(connection, workspace_id, also) if also else ()
        return Audience(
            workspace_id=workspace_id, channel_id=channel_id, member_id=member_id, also=further
        )

    async def everywhere(self, platform: str, member: str) -> list[MemberId]:
        """A person in every workspace of a platform, by the platform's id of them.

        Raises:
            StorageUnavailable: safe to retry.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT id FROM members WHERE pseudonym = ANY(%s) ORDER BY id",
                [self._keys.pseudonyms(platform, member)],
            )
            return [MemberId(row[0]) for row in await found.fetchall()]

    async def _member(
        self,
        connection: Connection,
        workspace_id: WorkspaceId,
        platform: str,
        member: str,
        display_name: str | None,
    ) -> MemberId:
        pseudonyms = self._keys.pseudonyms(platform, member)
        found = await connection.execute(
            "SELECT id, display_name_encrypted FROM members"
            # Not locked: fifty messages of one person would wait for each other's commits.
            " WHERE workspace_id = %s AND pseudonym = ANY(%s)",
            [workspace_id, pseudonyms],
        )
        row = await found.fetchone()
        if row is None:
            name = self._keys.encrypt(display_name) if display_name else None
            made = await connection.execute(
                "INSERT INTO members"
                " (workspace_id, pseudonym, platform_id_encrypted, display_name_encrypted)"
                " VALUES (%s, %s, %s, %s)"
                " ON CONFLICT ON CONSTRAINT members_pseudonym"
                " DO UPDATE SET pseudonym = excluded.pseudonym RETURNING id",
                [workspace_id, pseudonyms[0], self._keys.encrypt(member), name],
            )
            row = await one_row(made)
        elif display_name and (row[1] is None or self._keys.decrypt(row[1]) != display_name):
            await connection.execute(
                "UPDATE members SET display_name_encrypted = %s WHERE id = %s",
                [self._keys.encrypt(display_name), row[0]],
            )
        return MemberId(row[0])


async def _channels(
    connection: Connection, workspace_id: WorkspaceId, refs: Sequence[str]
) -> tuple[ChannelId, ...]:
    """Those of the channels that are stored."""
    found = await connection.execute(
        "SELECT id FROM channels WHERE workspace_id = %s AND platform_id = ANY(%s) ORDER BY id",
        [workspace_id, list(refs)],
    )
    return tuple(ChannelId(row[0]) for row in await found.fetchall())


async def _upsert(connection: Connection, select: str, insert: str, values: list[object]) -> UUID:
    """The row's id; made by us, or by another process between our two looks."""
    for statement in (select, insert, select):
        row = await (await connection.execute(statement.encode(), values)).fetchone()
        if row is not None:
            return UUID(str(row[0]))
    raise AssertionError("a row was inserted twice and found never")
