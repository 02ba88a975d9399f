"""Documents: their bytes on disk, their versions in the database, and who may see them."""

import contextlib
import hashlib
import logging
import mimetypes
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import class_row
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from storage.audit import add_entry
from storage.errors import DocumentNotFound, DocumentTooLarge, errors_mapped
from storage.identity import Audience, DocumentId
from storage.jobs import defer_ingest
from storage.lexical import count_terms
from storage.outbox import mark_rated
from storage.pool import Connection, Pool, one_row
from storage.settings import DocumentsSettings

logger = logging.getLogger(__name__)

Status = Literal["queued", "parsing", "embedding", "ready", "failed"]
Owner = Literal["channel", "workspace", "member"]

_BLOCK_BYTES = 1024 * 1024
_INCOMING = "incoming"
_MAX_NAME_LENGTH = 255

_SELECT = """
SELECT d.id, d.name, d.scope_id, d.created_at, d.origin,
       v.media_type, v.bytes, v.sha256, v.status, v.reason, v.progress, v.updated_at,
       coalesce(seen.pages, v.pages) AS pages, coalesce(seen.chunks, v.chunks) AS chunks,
       d.visible IS NOT NULL AS searchable
FROM documents d
JOIN LATERAL (
    SELECT * FROM document_versions WHERE document_id = d.id ORDER BY version DESC LIMIT 1
) v ON true
LEFT JOIN document_versions seen ON seen.document_id = d.id AND seen.version = d.visible
"""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document and the state of its newest version.

    Attributes:
        status: of the newest version; an older one may be searchable meanwhile (`searchable`).
        reason: why `status` is `failed`, or why it is still `queued`; a sentence for a person.
        progress: of the newest version's ingest, 0 to 1.
        pages: of the searchable version; None where the format has none. `chunks` likewise.
        searchable: whether some version is found by search now.
        origin: where it came from; empty where that was not said.
    """

    id: DocumentId
    name: str
    media_type: str
    bytes: int
    sha256: str
    status: Status
    reason: str | None
    pages: int | None
    chunks: int
    progress: float
    searchable: bool
    scope_id: UUID
    created_at: datetime
    updated_at: datetime
    origin: Mapping[str, str] = field(default_factory=dict)


class Documents:
    """The store of documents.

    Args:
        files_dir: holds the bytes of every version, `<document id>.<version>`.
    """

    def __init__(self, *, pool: Pool, files_dir: Path, settings: DocumentsSettings) -> None:
        self._pool = pool
        self._files_dir = files_dir
        self._settings = settings

    @property
    def max_bytes(self) -> int:
        """Size of the largest file that is taken."""
        return self._settings.max_upload_mb * 1024 * 1024

    async def add(
        self,
        name: str,
        data: Path | bytes | AsyncIterator[bytes],
        *,
        audience: Audience,
        owner: Owner = "channel",
        origin: Mapping[str, str] | None = None,
    ) -> Document:
        """Store a file and queue its ingest.

        The same name with the same bytes is no work; with other bytes it is a new version, which
        replaces the old one when it is ready.

        Args:
            name: the file's name; it decides the format together with the content.
            data: the bytes, read in pieces from a path or an iterator.
            audience: who adds; names workspace, channel and member.
            owner: which of these owns the document from now on.
            origin: where it came from, such as {"permalink": …}; None leaves what was known.

        Raises:
            DocumentTooLarge: more than `max_upload_mb`; reading stops there.
            DiskFull: nothing of it stays.
            StorageUnavailable: likewise; safe to retry.
        """
        scope_id = _owner_id(audience, owner)
        self._files_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        incoming = self._files_dir / f"{_INCOMING}.{uuid4()}"
        kept: list[Path] = []
        try:
            with errors_mapped():
                sha256, size = await self._receive(data, incoming)
            async with self._pool.connection() as connection:
                document_id, version = await _new_version(
                    connection,
                    audience=audience,
                    scope_id=scope_id,
                    name=_clean_name(name),
                    sha256=sha256,
                    size=size,
                )
                if origin is not None:
                    await connection.execute(
                        "UPDATE documents SET origin = %s WHERE id = %s",
                        [Jsonb(dict(origin)), document_id],
                    )
                if version is not None:
                    path = version_path(self._files_dir, document_id, version)
                    kept.append(path)
                    incoming.rename(path)
                    _sync_folder(self._files_dir)
                    await defer_ingest(connection, document_id)
        except BaseException:
            for path in kept:
                path.unlink(missing_ok=True)
            raise
        finally:
            incoming.unlink(missing_ok=True)
        if version is not None:
            await self._remove_old_files(document_id, newest=version)
        return await self.get(document_id, audience=audience)

    async def get(self, document_id: DocumentId, *, audience: Audience) -> Document:
        """One document.

        Raises:
            DocumentNotFound: none that this audience may read.
        """
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Document))
            await cursor.execute(
                _SELECT + "WHERE d.id = %s AND d.scope_id = ANY(%s)",
                [document_id, list(audience.scope_ids)],
            )
            document = await cursor.fetchone()
        if document is None:
            raise DocumentNotFound(document_id)
        return document

    async def list(self, *, audience: Audience) -> list[Document]:
        """Every document that the audience may read, newest first."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Document))
            await cursor.execute(
                _SELECT + "WHERE d.scope_id = ANY(%s) ORDER BY d.created_at DESC, d.id",
                [list(audience.scope_ids)],
            )
            return await cursor.fetchall()

    async def delete(self, document_id: DocumentId, *, audience: Audience) -> None:
        """Remove a document for good: bytes, versions, chunks, statistics, quotes in answers.

        Also the prompts that held text of it, wherever they were copied to. An ingest of it that
        runs stops within a second.

        Raises:
            DocumentNotFound: none that this audience may read.
        """
        async with self._pool.connection() as connection:
            deleted = await delete_documents(
                connection,
                "id = %s AND scope_id = ANY(%s)",
                [document_id, list(audience.scope_ids)],
            )
            if not deleted:
                raise DocumentNotFound(document_id)
            await _record(connection, audience, "document_deleted", document_id)
        remove_files(self._files_dir, deleted)

    async def _receive(
        self, data: Path | bytes | AsyncIterator[bytes], incoming: Path
    ) -> tuple[str, int]:
        """Write the bytes to disk for good; return their hash and number."""
        limit_bytes = self.max_bytes
        digest = hashlib.sha256()
        size = 0
        with incoming.open("xb") as file:
            async for block in _blocks(data):
                size += len(block)
                if size > limit_bytes:
                    raise DocumentTooLarge(limit_bytes=limit_bytes)
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest(), size

    async def _remove_old_files(self, document_id: DocumentId, *, newest: int) -> None:
        """Remove bytes of versions that are gone from the database."""
        async with self._pool.connection() as connection:
            rows = await connection.execute(
                "SELECT version FROM document_versions WHERE document_id = %s", [document_id]
            )
            known = {version for (version,) in await rows.fetchall()}
        for version in set(range(1, newest)) - known:
            version_path(self._files_dir, document_id, version).unlink(missing_ok=True)


def version_path(files_dir: Path, document_id: DocumentId, version: int) -> Path:
    """Where the bytes of a version lie."""
    return files_dir / f"{document_id}.{version}"


async def delete_documents(
    connection: Connection, condition: LiteralString, values: Sequence[object]
) -> list[DocumentId]:
    """Delete the documents that `condition` selects, with all that was copied from them.

    Their files are the caller's to remove, once this is committed.
    """
    await connection.execute("SET LOCAL statement_timeout = '10min'")
    found = await connection.execute(
        SQL("SELECT id, visible FROM documents WHERE {} ORDER BY id FOR UPDATE").format(
            SQL(condition)
        ),
        values,
    )
    rows = await found.fetchall()
    ids = [DocumentId(document_id) for document_id, _ in rows]
    for document_id, visible in rows:
        if visible is not None:
            await count_terms(connection, document_id, removed=visible, added=None)
    quoting = "a.id IN (SELECT answer_id FROM answer_sources WHERE document_id = ANY(%s))"
    await mark_rated(connection, quoting, [ids])
    await connection.execute(
        SQL("UPDATE answers a SET prompt = NULL WHERE {}").format(SQL(quoting)), [ids]
    )
    await connection.execute("DELETE FROM documents WHERE id = ANY(%s)", [ids])
    return ids


def remove_files(files_dir: Path, document_ids: Iterable[DocumentId]) -> None:
    """Remove the bytes of all versions of documents."""
    gone = {str(document_id) for document_id in document_ids}
    if not gone or not files_dir.is_dir():
        return
    for path in files_dir.iterdir():
        if path.name.partition(".")[0] in gone:
            path.unlink(missing_ok=True)


def remove_leftovers(files_dir: Path, *, older_than_s: float) -> int:
    """Remove what killed processes had received of files that they never stored.

    Args:
        older_than_s: seconds since something was last written to it; more than any upload pauses.

    Returns:
        How many there were.
    """
    written_before = time.time() - older_than_s
    removed = 0
    for path in files_dir.glob(f"{_INCOMING}.*"):
        with contextlib.suppress(FileNotFoundError):  # its upload ended, or another worker swept
            if path.stat().st_mtime < written_before:
                path.unlink()
                removed += 1
    if removed:
        logger.info("%d unfinished uploads removed", removed, extra={"action": "uploads_swept"})
    return removed


def _owner_id(audience: Audience, owner: Owner) -> UUID:
    owner_id = {
        "workspace": audience.workspace_id,
        "channel": audience.channel_id,
        "member": audience.member_id,
    }[owner]
    if owner_id is None:
        raise ValueError(f"the audience has no {owner} to own a document")
    return owner_id


def _clean_name(name: str) -> str:
    """The last part of a path, without what Postgres or a terminal cannot show."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    shown = "".join(char if char.isprintable() else " " for char in last)
    shown = shown.encode("utf-8", "replace").decode().strip()
    return shown[-_MAX_NAME_LENGTH:] or "unnamed"


async def _blocks(data: Path | bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        with data.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    else:
        async for block in data:
            yield block


async def _new_version(
    connection: Connection,
    *,
    audience: Audience,
    scope_id: UUID,
    name: str,
    sha256: str,
    size: int,
) -> tuple[DocumentId, int | None]:
    """Make the row of a new version; None where the newest one has these very bytes."""
    await connection.execute(
        "INSERT INTO documents (workspace_id, scope_id, name) VALUES (%s, %s, %s)"
        " ON CONFLICT ON CONSTRAINT documents_name DO NOTHING",
        [audience.workspace_id, scope_id, name],
    )
    found = await connection.execute(
        "SELECT id, visible FROM documents WHERE scope_id = %s AND name = %s FOR UPDATE",
        [scope_id, name],
    )
    document_id, visible = await one_row(found)
    found = await connection.execute(
        "SELECT version, sha256, status FROM document_versions"
        " WHERE document_id = %s ORDER BY version DESC LIMIT 1",
        [document_id],
    )
    newest = await found.fetchone()
    if newest is not None and newest[1] == sha256 and newest[2] != "failed":
        return DocumentId(document_id), None
    version = newest[0] + 1 if newest is not None else 1
    # A version that never became visible is overtaken: whoever works on it finds its row gone.
    await connection.execute(
        "DELETE FROM document_versions WHERE document_id = %s AND version IS DISTINCT FROM %s",
        [document_id, visible],
    )
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    await connection.execute(
        "INSERT INTO document_versions (document_id, version, sha256, bytes, media_type)"
        " VALUES (%s, %s, %s, %s, %s)",
        [document_id, version, sha256, size, media_type],
    )
    action = "document_added" if version == 1 else "document_replaced"
    await _record(connection, audience, action, document_id, version=version, bytes=size)
    return DocumentId(document_id), version


async def _record(
    connection: Connection, audience: Audience, action: str, subject_id: UUID, **details: object
) -> None:
    await add_entry(
        connection,
        workspace_id=audience.workspace_id,
        member_id=audience.member_id,
        action=action,
        subject_id=subject_id,
        details=details,
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems refuse it for folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
