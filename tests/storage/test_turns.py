"""The worker of a chat surface answers what was accepted, whatever dies or is down meanwhile."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from storage import jobs
from storage.conversations import Conversations
from storage.embedded import EmbeddedPostgres
from storage.errors import StorageUnavailable
from storage.identity import Identities, Keys, MessageId
from storage.jobs import STALLED_AFTER_S, RetryLater, TurnJob, defer_again, run_turns, worker_count
from storage.migrate import migrate
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.storage.conftest import Team
from tests.storage.test_jobs import ROOT, until

DEADLINE_S = 20.0

Accepts = Callable[..., Awaitable[MessageId]]


@pytest.fixture
def accept(pool: Pool, keys: Keys, team: Team) -> Accepts:
    conversations = Conversations(pool=pool, keys=keys)

    async def accept(text: str) -> MessageId:
        message_id, new = await conversations.accept_question(
            audience=team.general,
            thread_ref="thread",
            message_ref=text,
            text=text,
            author_id=None,
            surface="chat",
            place={"channel": "C1"},
        )
        assert new
        return message_id

    return accept


@asynccontextmanager
async def working(
    pool: Pool,
    run: Callable[[TurnJob], Awaitable[None]],
    *,
    gave_up: Callable[[TurnJob], Awaitable[None]] | None = None,
    concurrency: int = 4,
) -> AsyncIterator[asyncio.Task[None]]:
    async def unexpected(job: TurnJob) -> None:
        raise AssertionError(job)

    task = asyncio.create_task(
        run_turns(
            pool, surface="chat", run=run, gave_up=gave_up or unexpected, concurrency=concurrency
        )
    )
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def jobs_left(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) FROM procrastinate_jobs")).fetchone()
    assert row is not None
    return int(row[0])


async def no_job_left(pool: Pool) -> None:
    async def none_left() -> bool:
        return await jobs_left(pool) == 0

    await until(none_left, deadline_s=DEADLINE_S)


async def test_questions_are_worked_on_at_once_and_told_where_and_what(
    accept: Accepts, pool: Pool
) -> None:
    ids = {await accept(text) for text in "abc"}
    seen: list[TurnJob] = []
    together = asyncio.Barrier(3)

    async def run(job: TurnJob) -> None:
        seen.append(job)
        await asyncio.wait_for(together.wait(), DEADLINE_S)

    async with working(pool, run):
        await no_job_left(pool)
        assert await worker_count(pool) == 0  # who answers questions reads no documents
    assert {job.message_id for job in seen} == ids and len(seen) == 3
    assert {(job.kind, job.place["channel"], job.attempt) for job in seen} == {("answer", "C1", 0)}


async def test_one_question_is_never_worked_on_twice_at_once(accept: Accepts, pool: Pool) -> None:
    message_id = await accept("When?")
    kinds: list[str] = []
    busy = asyncio.Lock()
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def run(job: TurnJob) -> None:
        assert not busy.locked()
        async with busy:
            kinds.append(job.kind)
            begun.set()
            await asyncio.wait_for(go_on.wait(), DEADLINE_S)

    async with working(pool, run):
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
        place = {"channel": "C1"}
        assert await defer_again(pool, message_id, surface="chat", place=place)
        assert not await defer_again(pool, message_id, surface="chat", place=place)
        other = await accept("And?")  # is not kept waiting
        assert other != message_id
        go_on.set()
        await no_job_left(pool)
    assert sorted(kinds) == ["answer", "answer", "regenerate"]


async def test_outages_do_not_count_as_failures(
    accept: Accepts, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_TURN_ATTEMPTS", 2)
    await accept("When?")
    outcomes: list[Exception | None] = [
        RetryLater(0),
        StorageUnavailable("gone"),
        RetryLater(0),
        ZeroDivisionError(),
        RetryLater(0),
        None,
    ]
    attempts: list[int] = []

    async def run(job: TurnJob) -> None:
        attempts.append(job.attempt)
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    async with working(pool, run):
        await no_job_left(pool)
    assert attempts == [0, 1, 2, 3, 4, 5]


async def test_a_question_that_always_fails_is_given_up_and_said_so(
    accept: Accepts, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_TURN_ATTEMPTS", 2)
    message_id = await accept("When?")
    runs = 0
    given_up: list[MessageId] = []

    async def run(job: TurnJob) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError

    async def gave_up(job: TurnJob) -> None:
        given_up.append(job.message_id)

    async with working(pool, run, gave_up=gave_up):
        await no_job_left(pool)
    assert (runs, given_up) == (2, [message_id])


async def test_what_a_killed_process_was_doing_is_done_again_soon(
    accept: Accepts, pool: Pool, database_url: str
) -> None:
    ids = {await accept("When?"), await accept("Where?")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.turn_process", database_url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        begun = {(await process.stdout.readline()).decode().strip() for _ in ids}
    assert begun == {str(message_id) for message_id in ids}
    process.send_signal(signal.SIGKILL)
    await process.wait()
    killed = time.monotonic()
    done: list[MessageId] = []

    async def run(job: TurnJob) -> None:
        done.append(job.message_id)

    async with working(pool, run):
        await no_job_left(pool)
    assert time.monotonic() - killed < STALLED_AFTER_S + 3
    assert sorted(done) == sorted(ids)


async def test_a_stop_gives_questions_back_at_once(accept: Accepts, pool: Pool) -> None:
    message_id = await accept("When?")
    begun = asyncio.Event()

    async def hang(job: TurnJob) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with working(pool, hang) as task:
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    again: list[MessageId] = []

    async def run(job: TurnJob) -> None:
        again.append(job.message_id)

    stopped = time.monotonic()
    async with working(pool, run):
        await no_job_left(pool)
    assert again == [message_id]
    assert time.monotonic() - stopped < STALLED_AFTER_S


async def test_a_database_that_goes_away_loses_no_question(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    settings = DatabaseSettings(connect_timeout_s=2)
    url = server.start()
    await migrate(url, settings)
    keys = Keys.load(home=tmp_path, secret=None)
    begun, done = asyncio.Event(), asyncio.Event()

    async def run(job: TurnJob) -> None:
        if begun.is_set():
            done.set()
            return
        begun.set()
        await asyncio.Event().wait()

    async with open_pool(url, settings=settings) as pool:
        audience = await Identities(pool=pool, keys=keys).resolve(
            platform="chat", workspace="T", channel=uuid4().hex
        )
        await Conversations(pool=pool, keys=keys).accept_question(
            audience=audience,
            thread_ref="thread",
            message_ref=uuid4().hex,
            text="When?",
            author_id=None,
            surface="chat",
            place={},
        )
        async with working(pool, run) as task:
            await asyncio.wait_for(begun.wait(), DEADLINE_S)
            await asyncio.to_thread(server.stop)
            with pytest.raises(StorageUnavailable):
                await asyncio.wait_for(task, DEADLINE_S)
        server.start()
        async with working(pool, run):
            await asyncio.wait_for(done.wait(), DEADLINE_S)
            await no_job_left(pool)


async def test_a_job_whose_end_could_not_be_marked_runs_again(
    accept: Accepts, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queue.STALLED_AFTER_S", 1.0)
    await accept("When?")
    runs = 0

    async def run(job: TurnJob) -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            return
        async with pool.connection() as connection:
            await connection.execute(_REFUSE_ONCE)

    async with working(pool, run):
        await no_job_left(pool)
    assert runs == 2


_REFUSE_ONCE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('refusals') = 1 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '57P01'; END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER refuse BEFORE DELETE ON procrastinate_jobs
    FOR EACH ROW EXECUTE FUNCTION refuse_once();
"""
