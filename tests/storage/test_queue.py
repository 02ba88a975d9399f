"""What counts against a job: its own failures, not outages, nor what it failed of before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from procrastinate.jobs import Job
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.logs import JsonFormatter
from storage.outages import outlive_outages
from storage.pool import Pool, open_pool
from storage.queue import (
    HEARTBEAT_S,
    STALLED_AFTER_S,
    RetryLater,
    Worker,
    defer,
    progressed,
)
from storage.settings import DatabaseSettings

QUEUE = "chores"
TIMEOUT_S = 60.0


async def queue(pool: Pool, name: str = "chore") -> None:
    async with pool.connection() as connection:
        await defer(connection, "chore", queue=QUEUE, lock=name, arguments={"name": name})


@asynccontextmanager
async def working(
    pool: Pool,
    run: Callable[[Job], Awaitable[None]],
    *,
    max_attempts: int,
    concurrency: int = 1,
    tell: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[list[Job]]:
    """Workers, a new one after each outage, of what is queued; the jobs that they gave up.

    Args:
        tell: what telling that a job is given up begins with.
    """
    given_up: list[Job] = []

    async def gave_up(job: Job, died: bool) -> None:
        if tell is not None:
            await tell()
        given_up.append(job)

    async def work() -> None:
        await Worker(
            pool=pool,
            queue=QUEUE,
            tasks=("chore",),
            run=run,
            gave_up=gave_up,
            concurrency=concurrency,
            max_attempts=max_attempts,
            delete_jobs="always",
        ).work()

    task = asyncio.create_task(outlive_outages(work, action="chores_database_lost"))
    try:
        yield given_up
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def outage(database_url: str) -> AsyncIterator[None]:
    """Nobody reaches the database, and who had a connection has lost it."""
    name = str(conninfo_to_dict(database_url)["dbname"])
    elsewhere = make_conninfo(database_url, dbname="postgres")
    async with await psycopg.AsyncConnection.connect(elsewhere, autocommit=True) as connection:
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        await connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            await connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


async def test_an_outage_is_no_failure_of_the_job_that_was_being_done(database_url: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    async with (
        asyncio.timeout(TIMEOUT_S),
        open_pool(database_url, settings=DatabaseSettings(connect_timeout_s=1)) as pool,
    ):

        async def run(job: Job) -> None:
            begun.set()
            try:
                while True:
                    async with pool.connection() as connection:
                        await connection.execute("SELECT 1")
                    await asyncio.sleep(0.1)
            finally:
                ended.set()

        await queue(pool)
        async with working(pool, run, max_attempts=1) as given_up:
            await begun.wait()
            async with outage(database_url):
                await ended.wait()
                begun.clear()
                await asyncio.sleep(STALLED_AFTER_S)  # that it ended cannot be written down
            await begun.wait()
    assert not given_up


async def test_only_failures_since_the_last_progress_give_a_job_up(pool: Pool) -> None:
    calls = 0
    done = asyncio.Event()

    async def run(job: Job) -> None:
        nonlocal calls
        calls += 1
        if calls <= 4:
            await progressed(pool, job)
        if calls == 6:
            done.set()
        raise ZeroDivisionError

    await queue(pool)
    async with asyncio.timeout(TIMEOUT_S), working(pool, run, max_attempts=3) as given_up:
        await done.wait()
        while not given_up:  # noqa: ASYNC110 (told a moment after the attempt)
            await asyncio.sleep(0.05)
    assert (calls, len(given_up)) == (6, 1)


async def test_a_job_that_another_process_took_up_is_not_begun_a_second_time(
    database_url: str, pool: Pool
) -> None:
    busy, taken = asyncio.Event(), asyncio.Event()
    begun = 0

    async def put_off(job: Job) -> None:
        if job.task_kwargs["name"] == "put off":
            raise RetryLater(1)
        busy.set()
        await asyncio.Event().wait()

    async def take_up(job: Job) -> None:
        nonlocal begun
        begun += 1
        taken.set()
        await asyncio.Event().wait()

    for name in ("put off", "keeps busy"):
        await queue(pool, name)
    async with (
        asyncio.timeout(TIMEOUT_S),
        open_pool(database_url, settings=DatabaseSettings()) as elsewhere,
        working(pool, put_off, max_attempts=1),
    ):
        await busy.wait()
        async with working(elsewhere, take_up, max_attempts=1, concurrency=2):
            await taken.wait()
            await asyncio.sleep(STALLED_AFTER_S + 3 * HEARTBEAT_S)
    assert begun == 1


async def test_why_a_job_failed_is_logged_and_not_what_it_was_given(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(job: Job) -> None:
        raise ZeroDivisionError("the cause")

    await queue(pool, "what somebody wrote")
    async with asyncio.timeout(TIMEOUT_S), working(pool, run, max_attempts=2) as given_up:
        while not given_up:  # noqa: ASYNC110 (told a moment after the attempt)
            await asyncio.sleep(0.05)
    (failed,) = [each for each in caplog.records if getattr(each, "action", "") == "job_failed"]
    logged = JsonFormatter().format(failed)
    assert "ZeroDivisionError: the cause" in logged and '"task": "chore"' in logged
    assert "somebody wrote" not in logged


async def test_a_job_of_whose_end_nobody_could_be_told_stays_until_somebody_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queue.GAVE_UP_TIMEOUT_S", 0.2)
    calls = 0

    async def run(job: Job) -> None:
        raise ZeroDivisionError

    async def tell() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()

    await queue(pool)
    async with (
        asyncio.timeout(TIMEOUT_S),
        working(pool, run, max_attempts=1, tell=tell) as given_up,
    ):
        while not given_up:  # noqa: ASYNC110 (told a moment after the attempt)
            await asyncio.sleep(0.05)
    assert calls == 2
