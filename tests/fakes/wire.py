"""What every fake platform needs: changes to wait for, servers, faults, a stranger."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

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


class Platform(ABC):
    """A fake platform: an HTTP server on a port of this machine, and a stranger's beside it.

    Attributes:
        root: Its address, without a final slash.
        stranger: A host that is not the platform's.
        stranger_root: The stranger's address.
        changes: What tests wait for.
    """

    def __init__(self, changes: Changes) -> None:
        self.root = ""
        self.stranger = Stranger()
        self.stranger_root = ""
        self.changes = changes
        self._runners: list[web.AppRunner] = []

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Say what the platform serves."""

    @abstractmethod
    async def hang_up(self) -> None:
        """Close the sockets of apps."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        self.add_routes(app.router)
        self.root = await self._serve(app)
        foreign = web.Application()
        foreign.router.add_route("*", "/{path:.*}", self.stranger.handle)
        self.stranger_root = await self._serve(foreign)
        return self

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hang_up()
        for runner in self._runners:
            await runner.cleanup()

    async def until(self, check: Callable[[], T], what: str, *, within_s: float = 30.0) -> T:
        """Wait until `check()` is true and return what it gave; woken by every change.

        Raises:
            AssertionError: It was not true in time.
        """
        return await self.changes.until(check, what, within_s=within_s)


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
