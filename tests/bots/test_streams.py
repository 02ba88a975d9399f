"""Streams that are watched, walked in step, and people in line."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from bots.line import Line
from bots.streams import in_step, watch


class Source:
    """Yields numbers; waits before those from `held` on, and notes how it ended."""

    def __init__(self, count: int, *, held: int | None = None) -> None:
        self._count = count
        self._held = held
        self.go = asyncio.Event()
        self.produced = 0
        self.ended = ""

    async def events(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                if self._held is not None and number >= self._held:
                    await self.go.wait()
                self.produced += 1
                yield number
            self.ended = "itself"
        except (asyncio.CancelledError, GeneratorExit):
            self.ended = "stopped"
            raise


async def test_a_watched_stream_is_the_same_stream() -> None:
    source = Source(3)
    assert [event async for event in watch(source.events(), stop=None)] == [0, 1, 2]
    assert source.ended == "itself"


async def test_a_stop_ends_even_a_wait() -> None:
    source, stop = Source(3, held=1), asyncio.Event()
    seen = []
    async for event in watch(source.events(), stop=stop):
        seen.append(event)
        asyncio.get_running_loop().call_later(0.01, stop.set)
    assert (seen, source.ended) == ([0], "stopped")


async def test_silence_is_told_without_disturbing_the_stream() -> None:
    source = Source(2, held=1)
    seen: list[int | None] = []
    async for event in watch(source.events(), stop=None, quiet_s=0.01):
        seen.append(event)
        if event is None:
            source.go.set()
    assert seen[0] == 0
    assert seen[-1] == 1
    assert set(seen[1:-1]) == {None}


async def test_cancelling_the_consumer_ends_the_stream() -> None:
    source = Source(1, held=0)

    async def consume() -> None:
        async for _ in watch(source.events(), stop=None):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.ended == "stopped"


async def test_streams_in_step_alternate_until_each_ends() -> None:
    streams = {0: Source(1).events(), 1: Source(3).events()}
    assert [event async for event in in_step(streams)] == [(0, 0), (1, 0), (1, 1), (1, 2)]


async def test_a_stream_in_step_does_not_run_ahead() -> None:
    slow, fast = Source(2, held=1), Source(9)
    seen = []
    async for event in in_step({0: slow.events(), 1: fast.events()}):
        seen.append(event)
        if len(seen) == 2:
            asyncio.get_running_loop().call_later(0.02, slow.go.set)
        if event == (0, 1):
            assert fast.produced == 2
            break


async def test_what_one_stream_raises_ends_both() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 0
        raise LookupError("gone")

    other = Source(9, held=1)
    with pytest.raises(LookupError, match="gone"):
        async for _ in in_step({0: failing(), 1: other.events()}):
            pass
    assert other.ended == "stopped"


async def test_a_line_serves_in_order_and_tells_positions() -> None:
    line = Line(1)
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        tickets = [
            first.enter_context(line.ticket()),
            second.enter_context(line.ticket()),
            second.enter_context(line.ticket()),
        ]
        positions = [ticket.positions() for ticket in tickets]
        assert [position async for position in positions[0]] == []
        assert [await anext(positions[1]), await anext(positions[2])] == [1, 2]
        moved = asyncio.create_task(_next(positions[2]))
        await asyncio.sleep(0)
        assert not moved.done()
        first.close()
        async with asyncio.timeout(10):
            assert await moved == 1
            assert [position async for position in positions[1]] == []
        assert [line.position(ticket) for ticket in tickets[1:]] == [0, 1]
        await positions[2].aclose()


async def _next(positions: AsyncGenerator[int, None]) -> int:
    return await anext(positions)
