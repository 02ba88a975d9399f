"""Files that people share in chats: noted once, fetched by a job, never lost in between.

A surface notes a file before it acknowledges the event. A job of the queue `<surface>_files` then
fetches it, stores it as a document and follows it until it is ready. Why a queue of its own: a file
is followed for as long as its ingest takes, and must not keep a question waiting.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NewType
from uuid import UUID

from procrastinate.jobs import Job
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from storage.identity import Audience, DocumentId, MemberId, WorkspaceId
from storage.pool import Pool
from storage.queue import Worker, defer

SharedFileId = NewType("SharedFileId", UUID)

FETCH_FILE = "fetch_file"
MAX_FILE_ATTEMPTS = 10
"""As for questions: several files are worked on at once, and the innocent ones must survive it when
another one breaks the process."""


@dataclass(frozen=True, kw_only=True)
class SharedFile:
    """A file that somebody shared.

    Attributes:
        name: what people call it; None where it was not noted.
        source: where to get it, in the surface's words; empty once that is done or given up.
        reason: why it was given up.
        document_id: what it was stored as; None before that, and after that was deleted.
        status_ref: the platform's name of the message that shows its status; None before that.
    """

    id: SharedFileId
    name: str | None
    source: Mapping[str, Any]
    reason: str | None
    document_id: DocumentId | None
    status_ref: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """A file that is to be fetched and followed.

    Attributes:
        place: what the surface needs to find people and messages again.
        attempt: how often it was begun before, 0 the first time.
    """

    file_id: SharedFileId
    place: Mapping[str, str]
    attempt: int


_SELECT: LiteralString = (
    "SELECT id, name, source, reason, document_id, status_ref, created_at FROM shared_files"
)

QUESTION_FILES = "files:"
"""How the names of the scopes begin that hold the files of questions, one for each conversation."""


class SharedFiles:
    """The notes of shared files."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accept(
        self,
        *,
        audience: Audience,
        ref: str,
        source: Mapping[str, Any],
        surface: str,
        place: Mapping[str, str],
    ) -> SharedFileId | None:
        """Note a file and queue its job, in one transaction.

        Args:
            audience: where it was shared, and by whom.
            ref: the platform's name of message and file, unique within the workspace.
            source: where to get it, with its "name"; kept until it was fetched.
            surface: whose queue it goes to.
            place: what `FileJob.place` will be; kept until the job ends.

        Returns:
            None when it was noted before.

        Raises:
            StorageUnavailable: safe to retry.
        """
        async with self._pool.connection() as connection:
            made = await connection.execute(
                "INSERT INTO shared_files (workspace_id, member_id, platform_ref, name, source)"
                " VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT ON CONSTRAINT shared_files_ref DO NOTHING RETURNING id",
                [
                    *(audience.workspace_id, audience.member_id, ref, source.get("name")),
                    Jsonb(dict(source)),
                ],
            )
            row = await made.fetchone()
            if row is None:
                return None
            await defer(
                connection,
                FETCH_FILE,
                queue=_queue(surface),
                lock=str(row[0]),
                arguments={"file_id": str(row[0]), "place": dict(place)},
            )
            return SharedFileId(row[0])

    async def get(self, file_id: SharedFileId) -> SharedFile | None:
        """A noted file; None where its workspace is gone."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SharedFile))
            await cursor.execute(
                _SELECT + " WHERE id = %s",
                [file_id],
            )
            return await cursor.fetchone()

    async def of_message(self, workspace_id: WorkspaceId, message_ref: str) -> list[SharedFile]:
        """The files that were noted as `<message_ref>:…`, in the order of their noting."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SharedFile))
            await cursor.execute(
                _SELECT + " WHERE workspace_id = %s AND starts_with(platform_ref, %s)"
                " ORDER BY created_at, id",
                [workspace_id, f"{message_ref}:"],
            )
            return await cursor.fetchall()

    async def shown(self, file_id: SharedFileId, status_ref: str) -> None:
        """Remember which message shows the status."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE shared_files SET status_ref = %s WHERE id = %s", [status_ref, file_id]
            )

    async def settle(
        self,
        file_id: SharedFileId,
        document_id: DocumentId | None,
        *,
        reason: str | None = None,
    ) -> None:
        """Remember what it was stored as, None where it is given up; forget where it came from.

        Args:
            reason: why it is given up, for the person who shared it.
        """
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE shared_files SET source = '{}', reason = %s,"
                " document_id = (SELECT id FROM documents WHERE id = %s) WHERE id = %s",
                [reason, document_id, file_id],
            )

    async def shared_by(self, document_id: DocumentId, member_id: MemberId) -> bool:
        """Whether the member shared a file that became (a version of) the document."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT 1 FROM shared_files WHERE document_id = %s AND member_id = %s LIMIT 1",
                [document_id, member_id],
            )
            return await found.fetchone() is not None

    async def status_refs(self, document_id: DocumentId, *, limit: int) -> list[str]:
        """The newest messages that show the document's status."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT status_ref FROM shared_files WHERE document_id = %s"
                " AND status_ref IS NOT NULL ORDER BY created_at DESC LIMIT %s",
                [document_id, limit],
            )
            return [row[0] for row in await found.fetchall()]


async def run_files(
    pool: Pool,
    *,
    surface: str,
    run: Callable[[FileJob], Awaitable[None]],
    gave_up: Callable[[FileJob], Awaitable[None]],
    concurrency: int,
) -> None:
    """Work on the files that `surface` accepted, until cancelled.

    Jobs of processes that were killed run again within `STALLED_AFTER_S` and a second.

    Args:
        pool: connections.
        surface: whose queue.
        run: works on one file; never called twice at once for the same. Outages
            (`storage.queue.OUTAGES`) are waited for without end, any other exception
            `MAX_FILE_ATTEMPTS` times.
        gave_up: called instead of another attempt; has `GAVE_UP_TIMEOUT_S`.
        concurrency: files that are worked on at once.

    Raises:
        StorageUnavailable: the database went away; safe to call again.
    """

    async def run_job(job: Job) -> None:
        await run(_file_job(job))

    async def job_gave_up(job: Job, died: bool) -> None:
        await gave_up(_file_job(job))

    worker = Worker(
        pool=pool,
        queue=_queue(surface),
        tasks=(FETCH_FILE,),
        run=run_job,
        gave_up=job_gave_up,
        concurrency=concurrency,
        max_attempts=MAX_FILE_ATTEMPTS,
        delete_jobs="always",  # a failed one names people, and nobody would delete it
    )
    await worker.work()


def _queue(surface: str) -> str:
    return f"{surface}_files"


def _file_job(job: Job) -> FileJob:
    arguments: dict[str, Any] = job.task_kwargs
    return FileJob(
        file_id=SharedFileId(UUID(arguments["file_id"])),
        place=arguments["place"],
        attempt=job.attempts,
    )
