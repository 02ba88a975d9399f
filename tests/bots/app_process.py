"""An app (`python -m bots slack`, `… discord`) as a process of its own, beside a fake platform."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from storage.pool import Pool
from tests.bots.forks import Fork

CHECKOUT = Path(__file__).parents[2]
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.05


class AppProcess:
    """A surface; a context manager that starts it and ends it with SIGTERM.

    Args of the constructor:
        verb: what `python -m bots` is told to do.
        home: state folder; the log is in it.
        fresh: whether it begins as an operator's does, which takes seconds longer: for tests of its
            start and its memory.
        environment: further settings, as `PARLEY_…` names them.
    """

    def __init__(
        self,
        verb: str,
        *,
        home: Path,
        database_url: str,
        engine_url: str,
        fresh: bool = False,
        **environment: str,
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
        self.environment = {
            **kept,
            "PARLEY_HOME": str(home),
            "PARLEY_DATABASE__URL": database_url,
            "PARLEY_ENGINE__URL": engine_url,
            **environment,
        }
        self._verb = verb
        self.home = home
        self._log = home / f"{verb}.log"
        self.fresh = fresh
        self._process: asyncio.subprocess.Process | Fork | None = None

    async def connected(self, opened: int) -> None:
        """Wait until the platform has a socket of the app besides the first `opened` ones."""
        raise NotImplementedError

    async def disconnected(self) -> None:
        """Wait until the platform has no socket of the app."""
        raise NotImplementedError

    @property
    def opened(self) -> int:
        """How many sockets the platform has had."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop()

    @property
    def log(self) -> str:
        """What the process has logged so far, over all its starts."""
        return self._log.read_text() if self._log.exists() else ""

    async def start(self, *, connected: bool = True) -> None:
        """Start the process, and wait until it has a socket.

        Args:
            connected: False = return at once.

        Raises:
            AssertionError: it ended, or had no socket in time.
        """
        opened = self.opened
        with self._log.open("ab") as log:
            if self.fresh:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bots", self._verb),
                    cwd=CHECKOUT,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                )
            else:
                self._process = await Fork.start(self._verb, environment=self.environment, log=log)
        if not connected:
            return
        ended = asyncio.ensure_future(self._process.wait())
        waiting = asyncio.ensure_future(self.connected(opened))
        try:
            await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            assert not ended.done(), f"the app ended:\n{self.log}"
            await waiting
        finally:
            ended.cancel()
            waiting.cancel()

    async def stop(self) -> int:
        """Ask it to stop; returns its exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it in the middle of whatever it does, and wait until its sockets are gone."""
        await self._end(signal.SIGKILL)
        await self.disconnected()

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"the app does not stop:\n{self.log}") from None

    @property
    def resident_mb(self) -> float:
        """Resident memory of the process now, in MiB."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


@asynccontextmanager
async def inside(
    app: Coroutine[Any, Any, None], connected: Coroutine[Any, Any, object]
) -> AsyncIterator[asyncio.Task[None]]:
    """An app inside the test's process, from its first socket to the end of the block.

    Args:
        app: what runs it.
        connected: waits for a socket of it.
    """
    running, waiting = asyncio.create_task(app), asyncio.create_task(connected)
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            raise AssertionError("the app ended")
        await waiting
        yield running
    finally:
        waiting.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def eventually(
    check: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 30.0
) -> None:
    """Wait for something of which nobody tells (a row, a file), by looking again and again.

    Raises:
        AssertionError: it was not so in time.
    """
    try:
        async with asyncio.timeout(within_s):
            while not await check():  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


async def no_turns(pool: Pool, surface: str) -> bool:
    """Whether no question of a surface is queued or answered."""
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
            " AND queue_name LIKE %s LIMIT 1",
            [f"{surface}%"],
        )
        return await found.fetchone() is None
