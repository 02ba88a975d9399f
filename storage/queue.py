"""The job queue: procrastinate on our own connections.

What every worker shares: a job that was being done when its process died runs again; an outage is
waited for, however long; only a job that fails by itself, or ends its process again and again, is
given up, and says so.

Why procrastinate: a job is queued in the transaction that stores what it works on, so neither
exists without the other, and no further server is needed.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Literal
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Job, Status
from procrastinate.types import JSONValue

from storage.errors import DiskFull, EmbeddingFailed, StorageUnavailable
from storage.pool import Connection, Pool, one_row

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
STALLED_AFTER_S = 5.0
"""A worker silent for this long is dead. One that was only slow finds itself overtaken."""
SHUTDOWN_S = 2.0
"""What a job in progress gets to finish at a stop; afterwards it is queued again."""
LONGEST_WAIT_S = 30
AFTER_FAILURE_S = 1.0
GAVE_UP_TIMEOUT_S = 30.0


class RetryLater(Exception):
    """Raised by a job that cannot be done now through no fault of its own: it will run again.

    Attributes:
        after_s: seconds until then; None for pauses that grow up to `LONGEST_WAIT_S`.
    """

    def __init__(self, after_s: float | None = None) -> None:
        self.after_s = after_s
        super().__init__(f"to be tried again in {after_s} s" if after_s else "to be tried again")


OUTAGES = (RetryLater, StorageUnavailable, DiskFull, EmbeddingFailed)
"""Not the job's fault: it waits until they are over."""


async def defer(
    connection: Connection,
    task: str,
    *,
    queue: str,
    lock: str,
    arguments: Mapping[str, JSONValue],
) -> None:
    """Queue a job in the caller's transaction; of one `lock`, one job runs at a time, in order."""
    deferrer = App(connector=PsycopgConnector()).configure_task(
        task, queue=queue, lock=lock, connection=connection
    )
    try:
        await deferrer.defer_async(**arguments)
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


async def workers_of(pool: Pool, *, queue: str) -> int:
    """Workers of a queue that gave a sign of life lately."""
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT count(*) FROM queue_workers"
            " WHERE queue = %s AND seen_at > now() - make_interval(secs => %s)",
            [queue, STALLED_AFTER_S],
        )
        return int((await one_row(found))[0])


async def end(tasks: Iterable[asyncio.Task[Any]], *, again_after_s: float) -> None:
    """Cancel tasks until they have ended; those that are being cancelled get their time first.

    Why not once: in Python 3.11 `asyncio.wait_for`, which the driver waits by, swallows a
    cancellation that comes at the moment of a result. Why not twice at once: a worker that is
    ending would leave its jobs behind, and `asyncio.gather` has cancelled all when one has ended.
    """
    running = {task for task in tasks if not task.done()}
    due = {task for task in running if not task.cancelling()}
    while running:
        for task in due:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_after_s)
        due = running


async def progressed(pool: Pool, job: Job) -> None:
    """Note that a job got further than ever before: its failures until now count no longer.

    Raises:
        StorageUnavailable: safe to retry.
    """
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE procrastinate_jobs SET args = args - 'failures'"
            " WHERE id = %s AND args ? 'failures'",
            [job.id],
        )


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """An attempt at a job that ended here.

    Attributes:
        worker_id: of procrastinate's worker that made it.
        at: when it ended, by `monotonic`.
    """

    worker_id: int | None
    at: float


@dataclass(kw_only=True)
class _Here:
    """What this process does with the jobs of a database, whichever of its workers does it.

    It outlives the workers: one that is built after an outage does not take the jobs of the one
    before for those of a dead process.

    Attributes:
        running: ids of the jobs in progress. A heartbeat that was late does not make them run a
            second time beside themselves.
        ended: by the ids of jobs, the last attempt that ended. One that the database still holds
            for running a while later could not be marked, and is queued again.
    """

    running: set[int] = field(default_factory=set)
    ended: dict[int, _Ended] = field(default_factory=dict)

    def has_ended(self, number: int, worker_id: int | None) -> bool:
        """Whether an attempt that the database holds for running has ended here.

        Args:
            worker_id: whose it is; None = procrastinate has forgotten that worker.
        """
        ended = self.ended.get(number)
        return ended is not None and worker_id in (None, ended.worker_id)


_here: WeakKeyDictionary[Pool, _Here] = WeakKeyDictionary()


@dataclass(kw_only=True)
class Worker:
    """Takes the jobs of one queue, whatever they are.

    Attributes:
        run: works on a job; `OUTAGES` are waited for without end, other exceptions and the death of
            the process `max_attempts` times, counted anew when the job `progressed`.
        gave_up: told when a job is not tried again, and whether its process died of it.
    """

    pool: Pool
    queue: str
    tasks: tuple[str, ...]
    run: Callable[[Job], Awaitable[None]]
    gave_up: Callable[[Job, bool], Awaitable[None]]
    concurrency: int
    max_attempts: int
    delete_jobs: Literal["successful", "always"]
    id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self._here = _here.setdefault(self.pool, _Here())

    async def work(self) -> None:
        """Work until cancelled.

        Raises:
            StorageUnavailable: the database went away; a new worker may go on.
        """
        app = App(connector=PsycopgConnector())
        for task in self.tasks:
            app.task(name=task, retry=_RetryPolicy(), pass_context=True)(self._run)
        async with app.open_async(self.pool.driver):
            recovery = asyncio.create_task(self._recover_for_ever(app))
            try:
                await app.run_worker_async(
                    queues=[self.queue],
                    concurrency=self.concurrency,
                    # New jobs are announced; jobs whose pause is over are not.
                    fetch_job_polling_interval=HEARTBEAT_S,
                    update_heartbeat_interval=HEARTBEAT_S,
                    stalled_worker_timeout=STALLED_AFTER_S,
                    shutdown_graceful_timeout=SHUTDOWN_S,
                    delete_jobs=self.delete_jobs,
                    install_signal_handlers=False,
                )
            except ProcrastinateException as error:
                raise StorageUnavailable(str(error.__cause__ or error)) from error
            finally:
                await end([recovery], again_after_s=0.2)
                with contextlib.suppress(StorageUnavailable):
                    await self._sign_off()
        # It ends by itself only where its listener or its heartbeat lost the database.
        raise StorageUnavailable("the queue's connection was lost")

    async def _run(self, context: JobContext, /, **arguments: object) -> None:
        job = context.job
        number = _number(job)
        self._here.ended.pop(number, None)
        self._here.running.add(number)
        try:
            await self.run(job)
        except OUTAGES:
            raise
        except Exception as error:
            if await self._count_failure(job) < self.max_attempts:
                logger.warning(
                    "a job failed; it runs again",
                    exc_info=error,
                    extra={"action": "job_failed", "task": job.task_name, "job": number},
                )
                raise RetryLater(AFTER_FAILURE_S) from error
            await self._give_up(job, died=False)
            raise
        finally:
            self._here.running.discard(number)
            self._here.ended[number] = _Ended(worker_id=job.worker_id, at=monotonic())

    async def _give_up(self, job: Job, *, died: bool) -> None:
        """Say that a job is not tried again.

        Raises:
            RetryLater: that took too long, so nobody may know: the job stays until somebody does.
        """
        logger.error(
            "a job is given up after %d attempts",
            self.max_attempts,
            extra={"action": "job_given_up", "task": job.task_name},
        )
        try:
            async with asyncio.timeout(GAVE_UP_TIMEOUT_S):
                await self.gave_up(job, died)
        except TimeoutError as error:
            raise RetryLater from error

    async def _count_failure(self, job: Job) -> int:
        """Failures of the job so far, this one included; outages and stops are none."""
        async with self.pool.connection() as connection:
            counted = await connection.execute(
                "UPDATE procrastinate_jobs SET args ="
                " args || jsonb_build_object('failures', coalesce((args->>'failures')::int, 0) + 1)"
                " WHERE id = %s RETURNING (args->>'failures')::int",
                [job.id],
            )
            row = await counted.fetchone()
            return int(row[0]) if row is not None else 0

    async def _recover_for_ever(self, app: App) -> None:
        """Queue again what killed workers were doing; at the start and ever after."""
        while True:
            try:
                await self._give_sign_of_life()
                for job in await app.job_manager.get_stalled_jobs(
                    queue=self.queue, seconds_since_heartbeat=STALLED_AFTER_S
                ):
                    if not self._is_own(job):
                        await self._recover(app, job)
                await self._requeue_unmarked(app)
            except (ProcrastinateException, StorageUnavailable, TimeoutError, RetryLater) as error:
                logger.warning("no recovery now: %s", error, extra={"action": "recovery_failed"})
            except Exception:
                logger.exception("recovery failed", extra={"action": "recovery_failed"})
            await asyncio.sleep(HEARTBEAT_S)

    async def _give_sign_of_life(self) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO queue_workers (id, queue) VALUES (%s, %s)"
                " ON CONFLICT (id) DO UPDATE SET seen_at = now()",
                [self.id, self.queue],
            )

    async def _sign_off(self) -> None:
        """Leave, and clear away those who never did."""
        async with self.pool.connection() as connection:
            await connection.execute(
                "DELETE FROM queue_workers WHERE id = %s OR seen_at < now() - interval '1 day'",
                [self.id],
            )

    def _is_own(self, job: Job) -> bool:
        """Whether a job is, or was until lately, this process's: no death left it behind."""
        number = _number(job)
        return number in self._here.running or self._here.has_ended(number, job.worker_id)

    async def _recover(self, app: App, job: Job) -> None:
        if await self._count_failure(job) < self.max_attempts:
            logger.warning("a worker died; its job runs again", extra={"action": "job_recovered"})
            await app.job_manager.retry_job(job)
            return
        await self._give_up(job, died=True)
        await app.job_manager.finish_job(
            job, status=Status.FAILED, delete_job=self.delete_jobs == "always"
        )

    async def _requeue_unmarked(self, app: App) -> None:
        long_ago = monotonic() - STALLED_AFTER_S
        numbers = [number for number, ended in self._here.ended.items() if ended.at < long_ago]
        if not numbers:
            return
        async with self.pool.connection() as connection:
            found = await connection.execute(
                "SELECT id, worker_id FROM procrastinate_jobs"
                " WHERE id = ANY(%s) AND status = 'doing'",
                [numbers],
            )
            doing = dict(await found.fetchall())
        for number in numbers:
            # Another process may have begun it meanwhile, whose attempt is not to be ended here.
            if number in doing and self._here.has_ended(number, doing[number]):
                await app.job_manager.retry_job_by_id_async(number, datetime.now(UTC))
            self._here.ended.pop(number, None)


def _number(job: Job) -> int:
    if job.id is None:
        raise ValueError("a job without a number was never queued")
    return job.id


class _RetryPolicy(BaseRetryStrategy):
    """Outages and stops are retried for ever, with growing pauses; what was given up is not."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            pause_s = 0.0
        elif isinstance(exception, RetryLater) and exception.after_s is not None:
            pause_s = exception.after_s
        elif isinstance(exception, OUTAGES):
            pause_s = float(min(2 ** min(job.attempts, 10), LONGEST_WAIT_S))
        else:
            return None
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=pause_s))
