"""What is queued, and who works on it: documents to ingest, questions to answer.

Two kinds of worker share everything but their work (`storage.queue`): one ingests documents, and
each chat surface runs one that answers what it accepted.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from uuid import UUID

from procrastinate.jobs import Job

from storage.errors import (
    DiskFull,
    DocumentNotFound,
    IngestSuperseded,
    StorageUnavailable,
)
from storage.identity import DocumentId, MessageId
from storage.pool import Connection, Pool
from storage.queue import OUTAGES, Worker, defer, workers_of
from storage.queue import STALLED_AFTER_S as STALLED_AFTER_S
from storage.queue import RetryLater as RetryLater
from storage.queue import until_stopped as until_stopped

logger = logging.getLogger(__name__)

INGEST_DOCUMENT = "ingest_document"
QUEUE = "parley"

MAX_ATTEMPTS = 3
"""Before a document that breaks the worker, or runs into a bug of ours, counts as failed."""
MAX_TURN_ATTEMPTS = 10
"""Of a question. More, because several questions are answered at once: the innocent ones that were
in progress whenever another one broke the process must survive it."""

TurnKind = Literal["answer", "compare", "regenerate"]

Ingest = Callable[[DocumentId], Awaitable[object]]
"""What the worker does for a document."""


@dataclass(frozen=True, kw_only=True)
class TurnJob:
    """A question that somebody waits for.

    Attributes:
        place: what the surface needs to find the place of the answer again.
        attempt: how often it was begun before, 0 the first time.
        stopped: whether `request_stop` came before this attempt.
    """

    message_id: MessageId
    place: Mapping[str, str]
    kind: TurnKind
    attempt: int
    stopped: bool


async def defer_ingest(connection: Connection, document_id: DocumentId) -> None:
    """Queue a document's ingest in the caller's transaction; one runs at a time per document."""
    await defer(
        connection,
        INGEST_DOCUMENT,
        queue=QUEUE,
        lock=str(document_id),
        arguments={"document_id": str(document_id)},
    )


async def defer_turn(
    connection: Connection,
    message_id: MessageId,
    *,
    surface: str,
    place: Mapping[str, str],
    kind: TurnKind,
) -> None:
    """Queue the work on a question in the caller's transaction; one runs at a time per question."""
    await defer(
        connection,
        kind,
        queue=surface,
        lock=str(message_id),
        arguments={"message_id": str(message_id), "place": dict(place)},
    )


async def defer_again(
    pool: Pool,
    message_id: MessageId,
    *,
    surface: str,
    place: Mapping[str, str],
    kind: TurnKind = "regenerate",
) -> bool:
    """Queue further work on a stored question, unless the same is queued or under way.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        await connection.execute(
            "SELECT 1 FROM messages WHERE id = %s FOR NO KEY UPDATE", [message_id]
        )
        found = await connection.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE lock = %s AND task_name = %s"
            " AND status IN ('todo', 'doing')",
            [str(message_id), kind],
        )
        if await found.fetchone() is not None:
            return False
        await defer_turn(connection, message_id, surface=surface, place=place, kind=kind)
        return True


async def request_stop(pool: Pool, message_id: MessageId) -> bool:
    """Ask whoever works on a question, now or after a pause, to end it.

    The wish stands in the job: it survives the process that works on it, and goes with the job.

    Returns:
        False where nobody does, and nobody will.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        asked = await connection.execute(
            "UPDATE procrastinate_jobs SET args = args || '{\"stopped\": true}',"
            " scheduled_at = CASE WHEN status = 'doing' THEN scheduled_at END"
            " WHERE lock = %s AND status IN ('todo', 'doing')",
            [str(message_id)],
        )
        return asked.rowcount > 0


async def stop_requests(pool: Pool, message_ids: Iterable[MessageId]) -> set[MessageId]:
    """Those of the questions in work that somebody wants to end.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT lock FROM procrastinate_jobs"
            " WHERE lock = ANY(%s) AND status = 'doing' AND args ? 'stopped'",
            [[str(message_id) for message_id in message_ids]],
        )
        return {MessageId(UUID(row[0])) for row in await found.fetchall()}


# -- Workers --------------------------------------------------------------------------------------


async def run_worker(pool: Pool, *, ingest: Ingest) -> None:
    """Ingest documents until cancelled.

    Jobs of workers that were killed run again within `STALLED_AFTER_S` and a second.

    Args:
        pool: connections.
        ingest: may be called twice for the same document; the last call counts.

    Raises:
        StorageUnavailable: the database went away; safe to call again.
    """

    async def run(job: Job) -> None:
        await _ingest(pool, _document_id(job), ingest)

    async def gave_up(job: Job, died: bool) -> None:
        reason = "Reading it failed; see the worker's log."
        if died:
            reason = f"Reading it ended the worker {MAX_ATTEMPTS} times."
        await _set_state(pool, _document_id(job), status="failed", reason=reason)

    worker = Worker(
        pool=pool,
        queue=QUEUE,
        tasks=(INGEST_DOCUMENT,),
        run=run,
        gave_up=gave_up,
        concurrency=1,  # the embedder is the bottleneck: a second document gains nothing
        max_attempts=MAX_ATTEMPTS,
        delete_jobs="successful",
    )
    await worker.work()


async def run_turns(
    pool: Pool,
    *,
    surface: str,
    run: Callable[[TurnJob], Awaitable[None]],
    gave_up: Callable[[TurnJob], Awaitable[None]],
    concurrency: int,
) -> None:
    """Work on the questions that `surface` accepted, until cancelled.

    Jobs of processes that were killed run again within `STALLED_AFTER_S` and a second.

    Args:
        pool: connections.
        surface: name of the queue.
        run: works on one question; never called twice at once for the same. `RetryLater` and
            `StorageUnavailable` are waited for without end, any other exception
            `MAX_TURN_ATTEMPTS` times.
        gave_up: called instead of another attempt; has `storage.queue.GAVE_UP_TIMEOUT_S`.
        concurrency: questions that are worked on at once.

    Raises:
        StorageUnavailable: the database went away; safe to call again.
    """

    async def run_job(job: Job) -> None:
        await run(_turn_job(job))

    async def job_gave_up(job: Job, died: bool) -> None:
        await gave_up(_turn_job(job))

    worker = Worker(
        pool=pool,
        queue=surface,
        tasks=get_args(TurnKind),
        run=run_job,
        gave_up=job_gave_up,
        concurrency=concurrency,
        max_attempts=MAX_TURN_ATTEMPTS,
        delete_jobs="always",  # a failed one names people, and nobody would delete it
    )
    await worker.work()


async def worker_count(pool: Pool) -> int:
    """Processes that ingest documents, of those that gave a sign of life lately."""
    return await workers_of(pool, queue=QUEUE)


def _turn_job(job: Job) -> TurnJob:
    arguments: dict[str, Any] = job.task_kwargs
    kind: TurnKind = job.task_name  # type: ignore[assignment]
    return TurnJob(
        message_id=MessageId(UUID(arguments["message_id"])),
        place=arguments["place"],
        kind=kind,
        attempt=job.attempts,
        stopped="stopped" in arguments,
    )


def _document_id(job: Job) -> DocumentId:
    return DocumentId(UUID(str(job.task_kwargs["document_id"])))


async def _ingest(pool: Pool, document_id: DocumentId, ingest: Ingest) -> None:
    try:
        await ingest(document_id)
    except (DocumentNotFound, IngestSuperseded) as error:
        logger.info("%s", error, extra={"action": "ingest_superseded"})
    except OUTAGES as error:
        with contextlib.suppress(StorageUnavailable, DiskFull):
            await _set_state(pool, document_id, status="queued", reason=f"Waiting: {error}")
        raise
    except Exception:
        reason = "Reading it failed and is tried again; see the worker's log."
        await _set_state(pool, document_id, status="queued", reason=reason)
        raise


async def _set_state(pool: Pool, document_id: DocumentId, *, status: str, reason: str) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE document_versions SET status = %s, reason = %s, updated_at = now()"
            " WHERE document_id = %s AND status IN ('queued', 'parsing', 'embedding')",
            [status, reason, document_id],
        )
