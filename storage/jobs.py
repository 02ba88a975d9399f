"""The job queue: procrastinate on our own connections.

Why procrastinate: a job is queued in the transaction that stores what it works on, so neither
exists without the other, and no further server is needed.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Job, Status

from storage.errors import (
    DiskFull,
    DocumentNotFound,
    EmbeddingFailed,
    IngestSuperseded,
    StorageUnavailable,
)
from storage.identity import DocumentId
from storage.pool import Connection, Pool, one_row

logger = logging.getLogger(__name__)

INGEST_DOCUMENT = "ingest_document"
QUEUE = "parley"

HEARTBEAT_S = 1.0
STALLED_AFTER_S = 5.0
"""A worker silent for this long is dead. One that was only slow finds itself overtaken."""
SHUTDOWN_S = 2.0
"""What a job in progress gets to finish at a stop; afterwards it is queued again."""
MAX_ATTEMPTS = 3
"""Before a document that breaks the worker, or runs into a bug of ours, counts as failed."""
LONGEST_WAIT_S = 30

Ingest = Callable[[DocumentId], Awaitable[object]]
"""What the worker does for a document."""

_OUTAGES = (StorageUnavailable, DiskFull, EmbeddingFailed)
"""Not the document's fault: its job waits until they are over."""


async def defer_ingest(connection: Connection, document_id: DocumentId) -> None:
    """Queue a document's ingest in the caller's transaction; one runs at a time per document."""
    deferrer = App(connector=PsycopgConnector()).configure_task(
        INGEST_DOCUMENT, queue=QUEUE, lock=str(document_id), connection=connection
    )
    try:
        await deferrer.defer_async(document_id=str(document_id))
    except ProcrastinateException as error:
        # The pool maps the driver's own error, which procrastinate wrapped.
        raise error.__cause__ or error from None


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run until `work` ends, or SIGINT or SIGTERM cancels it.

    Why not procrastinate's own handlers: they stay with its first run, and a worker that has
    outlived an outage, which is a second run, would no longer hear a signal.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def run_worker(pool: Pool, *, ingest: Ingest) -> None:
    """Work until cancelled.

    Jobs of workers that were killed run again within `STALLED_AFTER_S` and a second.

    Args:
        pool: needs one connection more than jobs run at once, and one for listening.
        ingest: may be called twice for the same document; the last call counts.

    Raises:
        StorageUnavailable: the database went away; safe to call again.
    """
    app = App(connector=PsycopgConnector())

    @app.task(name=INGEST_DOCUMENT, queue=QUEUE, retry=_RetryPolicy(), pass_context=True)
    async def ingest_document(context: JobContext, document_id: str) -> None:
        last_attempt = context.job.attempts + 1 >= MAX_ATTEMPTS
        await _ingest(pool, DocumentId(UUID(document_id)), ingest, last_attempt=last_attempt)

    async with app.open_async(pool.driver):
        recovery = asyncio.create_task(_recover_for_ever(app, pool))
        try:
            await app.run_worker_async(
                queues=[QUEUE],
                concurrency=1,  # the embedder is the bottleneck: a second document gains nothing
                # New jobs are announced; jobs whose pause is over are not.
                fetch_job_polling_interval=HEARTBEAT_S,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_AFTER_S,
                shutdown_graceful_timeout=SHUTDOWN_S,
                delete_jobs="successful",
                install_signal_handlers=False,
            )
        except ProcrastinateException as error:
            raise StorageUnavailable(str(error.__cause__ or error)) from error
        finally:
            recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await recovery


async def worker_count(pool: Pool) -> int:
    """Workers that gave a sign of life lately."""
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT count(*) FROM procrastinate_workers"
            " WHERE last_heartbeat > now() - make_interval(secs => %s)",
            [STALLED_AFTER_S],
        )
        return int((await one_row(found))[0])


class _RetryPolicy(BaseRetryStrategy):
    """Outages and stops are retried for ever, with growing pauses; bugs a few times."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        if isinstance(exception, _OUTAGES):
            return RetryDecision(retry_in={"seconds": min(2**job.attempts, LONGEST_WAIT_S)})
        if job.attempts + 1 < MAX_ATTEMPTS:
            return RetryDecision(retry_in={"seconds": 1})
        return None


async def _ingest(
    pool: Pool, document_id: DocumentId, ingest: Ingest, *, last_attempt: bool
) -> None:
    try:
        await ingest(document_id)
    except (DocumentNotFound, IngestSuperseded) as error:
        logger.info("%s", error, extra={"action": "ingest_superseded"})
    except _OUTAGES as error:
        with contextlib.suppress(StorageUnavailable, DiskFull):
            await _set_state(pool, document_id, status="queued", reason=f"Waiting: {error}")
        raise
    except Exception:
        status = "failed" if last_attempt else "queued"
        reason = "Reading it failed; see the worker's log."
        await _set_state(pool, document_id, status=status, reason=reason)
        raise


async def _set_state(pool: Pool, document_id: DocumentId, *, status: str, reason: str) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE document_versions SET status = %s, reason = %s, updated_at = now()"
            " WHERE document_id = %s AND status IN ('queued', 'parsing', 'embedding')",
            [status, reason, document_id],
        )


async def _recover_for_ever(app: App, pool: Pool) -> None:
    """Queue again what killed workers were doing; at the start and ever after."""
    while True:
        try:
            for job in await app.job_manager.get_stalled_jobs(
                queue=QUEUE, seconds_since_heartbeat=STALLED_AFTER_S
            ):
                await _recover(app, pool, job)
        except (ProcrastinateException, StorageUnavailable) as error:
            logger.warning("no recovery now: %s", error, extra={"action": "recovery_failed"})
        await asyncio.sleep(HEARTBEAT_S)


async def _recover(app: App, pool: Pool, job: Job) -> None:
    if job.attempts + 1 < MAX_ATTEMPTS:
        logger.warning("a worker died; its job runs again", extra={"action": "job_recovered"})
        await app.job_manager.retry_job(job)
        return
    document_id = DocumentId(UUID(str(job.task_kwargs["document_id"])))
    reason = f"Reading it ended the worker {MAX_ATTEMPTS} times."
    await _set_state(pool, document_id, status="failed", reason=reason)
    await app.job_manager.finish_job(job, status=Status.FAILED, delete_job=False)
