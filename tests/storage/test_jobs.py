"""The worker ingests what is queued, and what a killed one was doing."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from storage.documents import Document, Documents
from storage.errors import StorageUnavailable
from storage.identity import DocumentId
from storage.ingest import BATCH_CHUNKS
from storage.jobs import STALLED_AFTER_S, run_worker, worker_count
from storage.pool import Pool
from tests.storage.conftest import Finds, Puts, Team
from tests.storage.test_documents import assert_statistics_are_exact, counts

ROOT = Path(__file__).parent.parent.parent
NEW = "\n\n".join(
    f"New paragraph {number} of the handbook " + "with words that fill it up " * 20
    for number in range(BATCH_CHUNKS * 6)
)


@asynccontextmanager
async def worker(
    url: str, files_dir: Path, *, pause_s: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.worker_process", url, str(files_dir), str(pause_s)),
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], *, deadline_s: float = 30.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110 (another process, or the database, has no event)
            await asyncio.sleep(0.05)


async def test_a_worker_killed_in_the_middle_leaves_the_old_version_and_finishes_the_new_one(
    put: Puts,
    find: Finds,
    documents: Documents,
    team: Team,
    pool: Pool,
    database_url: str,
    files_dir: Path,
) -> None:
    old = await put("handbook.txt", "The old handbook in one sentence.", team.general)

    async def state() -> Document:
        return await documents.get(old.id, audience=team.general)

    async def half_written() -> bool:
        return (await counts(pool))["chunks"] > BATCH_CHUNKS

    async def ready() -> bool:
        return (await state()).status == "ready"

    await documents.add("handbook.txt", NEW.encode(), audience=team.general)
    async with worker(database_url, files_dir, pause_s=0.5) as process:
        await until(half_written)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert [hit.text for hit in await find("handbook", team.general)] == [
        "The old handbook in one sentence."
    ]
    await assert_statistics_are_exact(pool)
    restarted = time.monotonic()
    async with worker(database_url, files_dir, pause_s=0.0) as process:
        await until(ready)
        assert time.monotonic() - restarted < STALLED_AFTER_S + 15
        new = await state()
        remaining = await counts(pool)
        assert remaining["chunks"] == remaining["chunk_terms"] == new.chunks > BATCH_CHUNKS * 5
        texts = [hit.text for hit in await find("handbook", team.general)]
        assert texts and all("New paragraph" in text for text in texts)
        await assert_statistics_are_exact(pool)
        assert [path.name for path in files_dir.iterdir()] == [f"{old.id}.2"]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_stopped_worker_gives_its_job_back(
    documents: Documents, team: Team, pool: Pool, database_url: str, files_dir: Path
) -> None:
    document = await documents.add("new.txt", NEW.encode(), audience=team.general)

    async def embedding() -> bool:
        return (await documents.get(document.id, audience=team.general)).status == "embedding"

    async with worker(database_url, files_dir, pause_s=5.0) as process:

        async def begun() -> bool:
            return (await documents.get(document.id, audience=team.general)).status == "parsing"

        await until(begun)
        assert await worker_count(pool) == 1
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT status FROM procrastinate_jobs")).fetchone()
    assert row == ("todo",)
    assert await worker_count(pool) == 0


async def test_an_outage_is_waited_for_and_named(
    documents: Documents, team: Team, pool: Pool
) -> None:
    document = await documents.add("plan.md", b"The launch is in May.", audience=team.general)
    calls = 0
    done = asyncio.Event()

    async def flaky(document_id: DocumentId) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StorageUnavailable("connection refused")
        state = await documents.get(document_id, audience=team.general)
        assert state.status == "queued"
        assert state.reason == "Waiting: The database does not answer (connection refused)."
        done.set()

    task = asyncio.create_task(run_worker(pool, ingest=flaky))
    try:
        await asyncio.wait_for(done.wait(), 15)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert document.status == "queued"


async def test_a_bug_fails_the_document_after_a_few_attempts(
    documents: Documents, team: Team, pool: Pool
) -> None:
    document = await documents.add("plan.md", b"The launch is in May.", audience=team.general)

    async def buggy(document_id: DocumentId) -> None:
        raise ZeroDivisionError

    async def failed() -> bool:
        return (await documents.get(document.id, audience=team.general)).status == "failed"

    task = asyncio.create_task(run_worker(pool, ingest=buggy))
    try:
        await until(failed)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
