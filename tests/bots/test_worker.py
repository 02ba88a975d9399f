"""`python -m bots worker` on a database of its own, which goes away and comes back."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.documents import Documents
from storage.embedded import EmbeddedPostgres
from storage.identity import Identities, Keys
from storage.migrate import migrate
from storage.pool import open_pool
from storage.settings import DatabaseSettings, DocumentsSettings

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 60.0
STOP_DEADLINE_S = 5.0
"""Less than the supervisor waits before it kills."""


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below pytest's own folder: every other run of pytest closes that to the server's user."""
    with tempfile.TemporaryDirectory(prefix="parley-test-") as name:
        yield Path(name)


@pytest.fixture
def postgres(home: Path) -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop: the session's own is everybody's."""
    server = EmbeddedPostgres(home)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return {**kept, "PARLEY_HOME": str(home), "PARLEY_DATABASE__CONNECT_TIMEOUT_S": "3"}


@pytest.fixture
async def worker(
    postgres: EmbeddedPostgres, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    await migrate(postgres.url, DatabaseSettings())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", "worker"),
        env=environment,
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def said(process: asyncio.subprocess.Process, pattern: str) -> None:
    """Read the log until a line matches."""
    assert process.stderr is not None
    read = []
    async with asyncio.timeout(DEADLINE_S):
        while line := (await process.stderr.readline()).decode():
            read.append(line)
            if re.search(pattern, line):
                return
    raise AssertionError(f"the worker ended without saying {pattern!r}:\n{''.join(read)}")


async def test_a_worker_that_outlived_an_outage_works_and_still_stops_on_a_signal(
    worker: asyncio.subprocess.Process, postgres: EmbeddedPostgres, home: Path
) -> None:
    await said(worker, "worker ready")
    postgres.stop()
    await said(worker, "the database went away")
    settings = DatabaseSettings()
    async with open_pool(postgres.start(), settings=settings) as pool:
        identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
        audience = await identities.resolve(platform="local", workspace="w", channel="c")
        documents = Documents(pool=pool, files_dir=home / "files", settings=DocumentsSettings())
        empty = await documents.add("empty.txt", b" ", audience=audience)
        async with asyncio.timeout(DEADLINE_S):
            # Another process has no event to wait for.
            while (await documents.get(empty.id, audience=audience)).status != "failed":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        assert await worker.wait() == 0
    assert time.monotonic() - asked < STOP_DEADLINE_S
