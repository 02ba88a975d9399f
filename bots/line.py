"""A line of people who wait: first come, first served, and everybody knows their position."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator


class Line:
    """The first `width` in line are served at once; the others wait.

    Why not a semaphore: it does not tell how many are before one.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._tickets: list[Ticket] = []
        self._moved = asyncio.Event()

    @contextlib.contextmanager
    def ticket(self) -> Iterator["Ticket"]:
        """A place at the end of the line, for as long as the block runs."""
        ticket = Ticket(self)
        self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            self._tickets.remove(ticket)
            self._moved.set()
            self._moved = asyncio.Event()

    def position(self, ticket: "Ticket") -> int:
        """1 for the one that is served next, 0 for those being served."""
        return max(0, self._tickets.index(ticket) + 1 - self._width)

    async def until_moved(self) -> None:
        """Wait until somebody leaves the line."""
        await self._moved.wait()


class Ticket:
    """A place in a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def positions(self) -> AsyncGenerator[int, None]:
        """The position now and whenever it has changed; ends when it is this one's turn."""
        shown = 0
        while position := self._line.position(self):
            if position != shown:
                shown = position
                yield position
                continue  # others may have left meanwhile
            await self._line.until_moved()
