"""How tasks are ended: with time to end well, and again where that did not help."""

import asyncio

from storage.queue import end


async def test_a_task_that_is_ending_already_is_left_to_it() -> None:
    cancelled, may_end = 0, asyncio.Event()

    async def slow() -> None:
        nonlocal cancelled
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                cancelled += 1

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    task.cancel()
    ending = asyncio.create_task(end([task], again_after_s=10.0))
    await asyncio.sleep(0)
    may_end.set()
    await ending
    assert cancelled == 1


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task], again_after_s=0.01)
    assert swallowed.is_set()
    assert task.cancelled()
