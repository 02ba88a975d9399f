"""Edits at a platform's pace."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from bots.throttle import Edits, RetryAfter

WITHIN_S = 10.0
NEVER_S = 3600.0


@dataclass
class Platform:
    """Takes edits; each waits for `open`, and what `fails` holds is raised once."""

    taken: list[tuple[str, str]] = field(default_factory=list)
    begun: list[tuple[str, str]] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, key: str, value: str) -> None:
        self.begun.append((key, value))
        self._changed.set()
        await self.open.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.taken.append((key, value))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def test_of_previews_that_wait_only_the_newest_is_sent() -> None:
    platform = Platform()
    async with Edits(platform.send, interval_s=0.01) as edits:
        edits.put("m", "one")
        await platform.until(lambda: platform.begun)
        for value in ("two", "three", "four"):
            edits.put("m", value)
        platform.open.set()
        await platform.until(lambda: len(platform.taken) == 2)
    assert platform.taken == [("m", "one"), ("m", "four")]


async def test_what_the_platform_does_not_count_holds_up_nothing() -> None:
    platform = Platform()
    platform.open.set()
    async with Edits(platform.send, interval_s=NEVER_S) as edits:
        edits.put("m", "new message", paced=False)
        await platform.until(lambda: len(platform.taken) == 1)
        edits.put("m", "first edit")
        await platform.until(lambda: len(platform.taken) == 2)


async def test_the_last_text_waits_for_no_pause_and_follows_the_edit_under_way() -> None:
    platform = Platform()
    async with Edits(platform.send, interval_s=NEVER_S) as edits:
        edits.put("m", "one")
        await platform.until(lambda: platform.begun)
        finishing = asyncio.create_task(edits.finish("m", "end"))
        edits.put("m", "too late")
        platform.open.set()
        async with asyncio.timeout(WITHIN_S):
            await finishing
    assert platform.taken == [("m", "one"), ("m", "end")]


async def test_last_texts_overtake_the_previews_of_others() -> None:
    platform = Platform()
    async with Edits(platform.send, interval_s=0.01, concurrency=1) as edits:
        edits.put("first", "preview")
        await platform.until(lambda: platform.begun)
        edits.put("second", "preview")
        finishing = asyncio.create_task(edits.finish("third", "end"))
        await asyncio.sleep(0)
        platform.open.set()
        await finishing
        await platform.until(lambda: len(platform.taken) == 3)
    assert [key for key, _ in platform.taken] == ["first", "third", "second"]


async def test_a_refusal_holds_everything_back_and_drops_nothing() -> None:
    platform = Platform()
    platform.open.set()
    platform.fails = [RetryAfter(0.05), RetryAfter(0.05)]
    loop = asyncio.get_running_loop()
    async with Edits(platform.send, interval_s=0.0, concurrency=1) as edits:
        begun = loop.time()
        edits.put("other", "preview")
        async with asyncio.timeout(WITHIN_S):
            await edits.finish("m", "end")
        assert loop.time() - begun >= 0.1
        await platform.until(lambda: len(platform.taken) == 2)
    assert set(platform.taken) == {("m", "end"), ("other", "preview")}


async def test_the_pace_of_previews_does_not_hold_back_a_last_text() -> None:
    platform = Platform()
    platform.open.set()
    platform.fails = [RetryAfter(WITHIN_S)]
    async with Edits(platform.send, interval_s=0.0, concurrency=1) as edits:
        edits.put("m", "preview")
        await platform.until(lambda: platform.begun)
        async with asyncio.timeout(WITHIN_S / 2):
            await edits.finish("m", "end")
    assert platform.taken == [("m", "end")]


async def test_a_failed_preview_is_silent_and_a_failed_last_text_is_not() -> None:
    platform = Platform()
    platform.open.set()
    platform.fails = [LookupError("preview"), LookupError("end")]
    async with Edits(platform.send, interval_s=0.0) as edits:
        edits.put("m", "preview")
        await platform.until(lambda: platform.begun)
        with pytest.raises(LookupError, match="end"):
            await edits.finish("m", "end")
        await edits.finish("m", "end")
    assert platform.taken == [("m", "end")]


async def test_closing_leaves_nobody_waiting() -> None:
    platform = Platform()
    async with Edits(platform.send, interval_s=0.0) as edits:
        finishing = asyncio.create_task(edits.finish("m", "end"))
        await platform.until(lambda: platform.begun)
    with pytest.raises(asyncio.CancelledError):
        await finishing
