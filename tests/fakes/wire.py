"""What every fake platform needs: changes to wait for, sites, faults, a stranger's host."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")
Json = dict[str, Any]


class Changes:
    """Lets tests wait for what happens instead of sleeping."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def note(self) -> None:
        """Say that something changed."""
        happened, self._next = self._next, asyncio.Event()
        happened.set()

    async def until(self, check: Callable[[], T], what: str, *, within_s: float) -> T:
        """Wait until `check()` is true and return what it gave.

        Raises:
            AssertionError: It was not true in time.
        """
        try:
            async with asyncio.timeout(within_s):
                while True:
                    happens = self._next
                    found = check()
                    if found:
                        return found
                    await happens.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {what}") from None


class Sites:
    """HTTP servers on ports of this machine."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []

    async def serve(self, app: web.Application) -> str:
        """Serve an application; returns its root, without a final slash."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def serve_stranger(self, stranger: "Stranger") -> str:
        """Serve a host that is not the platform's."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", stranger.handle)
        return await self.serve(app)

    async def close(self) -> None:
        """Stop all of them."""
        for runner in self._runners:
            await runner.cleanup()


class Stranger:
    """A host that is not the platform's: whatever reaches it is noted."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        """(path, headers) of each request."""

    async def handle(self, request: web.Request) -> web.Response:
        """Answer anything with a text."""
        self.requests.append((request.path_qs, dict(request.headers)))
        return web.Response(text="from a stranger")


async def endless(request: web.Request, mimetype: str) -> web.StreamResponse:
    """More and more bytes, whatever size was said, until the reader hangs up."""
    answer = web.StreamResponse(headers={"Content-Type": mimetype})
    await answer.prepare(request)
    try:
        while True:
            await answer.write(b"x" * 65_536)
            await asyncio.sleep(0)
    except ConnectionError:
        return answer


@dataclass(kw_only=True)
class Mishap:
    """What goes wrong with calls of a platform's API, whichever platform it is.

    Attributes:
        times: How many calls it meets; None = until `stop`.
        status: HTTP status of the answer.
        delay_s: Pause before the answer (of the fault, or of the call where there is no other).
        after: Whether the call takes effect before the fault answers (a lost answer).
        hang: Never answer.
        met: How many calls it has met.
    """

    times: int | None = 1
    status: int | None = None
    delay_s: float = 0.0
    after: bool = False
    hang: bool = False
    met: int = 0

    @property
    def lasts(self) -> bool:
        """Whether it meets further calls."""
        return self.times is None or self.met < self.times

    def stop(self) -> None:
        """Let later calls pass."""
        self.times = self.met

    async def strike(self, run: Callable[[], Awaitable[object]]) -> None:
        """Do what it does before any answer; `run` lets the call take effect."""
        self.met += 1
        if self.after:
            await run()
        if self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay_s)
