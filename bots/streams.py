"""Asynchronous streams, watched and walked in step."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final, TypeVar

T = TypeVar("T")


class _End:
    """What a stream that has ended yields."""


_END: Final = _End()


async def watch(
    events: AsyncGenerator[T, None], *, stop: asyncio.Event | None, quiet_s: float | None = None
) -> AsyncGenerator[T | None, None]:
    """Yield the events until they end or `stop` is set; then `events` is closed, as at any end.

    Args:
        stop: cancels the wait for the next event; None for no way to stop.
        quiet_s: yield None whenever nothing has come for so many seconds.
    """
    stop = stop or asyncio.Event()
    stopped = asyncio.create_task(stop.wait())
    step: asyncio.Task[T | _End] | None = None
    try:
        while not stop.is_set():
            step = step or asyncio.create_task(_step(events))
            await asyncio.wait(
                {step, stopped}, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED
            )
            if stopped.done():
                return
            if not step.done():
                yield None
                continue
            event, step = step.result(), None
            if isinstance(event, _End):
                return
            yield event
    finally:
        await _cancelled(*(task for task in (step, stopped) if task is not None))
        await events.aclose()


async def in_step(
    streams: Mapping[int, AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Yield the next event of each stream, then the next of each again, until all have ended.

    So none of them runs ahead. What one raises ends all.
    """
    live = dict(streams)
    try:
        while live:
            steps = {index: asyncio.create_task(_step(live[index])) for index in live}
            try:
                await asyncio.gather(*steps.values())
            finally:
                await _cancelled(*steps.values())
            for index, step in steps.items():
                event = step.result()
                if isinstance(event, _End):
                    del live[index]
                else:
                    yield index, event
    finally:
        for stream in streams.values():
            await stream.aclose()


async def _step(events: AsyncGenerator[T, None]) -> T | _End:
    return await anext(events, _END)


async def _cancelled(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
