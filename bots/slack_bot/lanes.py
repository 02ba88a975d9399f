"""Slack's patience, channel by channel: who may speak now, and who goes first after a refusal.

Slack allows about one message a second and channel, and bursts above it for a while; how much it
allows it says only by refusing. So calls go out at once until a channel refuses one. From then on
that channel's calls wait for the time that Slack named and leave one a second, the most important
first, until none waits any more. Only previews keep to the documented rate at all times: all of a
channel together, one a second.
"""

import asyncio
import enum
import heapq
import itertools
import math
from time import monotonic

PACE_S = 1.0
"""Between two calls in a channel that refused one; Slack's documented rate of messages."""


class Priority(enum.IntEnum):
    """Who goes first where calls must wait."""

    FINAL = 0
    """What a person waits for: an answer, a failure."""
    NORMAL = 1
    PREVIEW = 2
    """Replaced by the next one anyhow: it never waits."""


class Lane:
    """The calls to one channel, or of one method that belongs to no channel."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._spoken_at = -math.inf

    @property
    def idle_s(self) -> float:
        """Seconds since a call left; infinite before the first, 0 while some wait."""
        return monotonic() - self._spoken_at if self._timer is None else 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until a new call could leave; 0 = now."""
        if self._timer is None:
            return 0.0
        return max(0.0, self._free_at - monotonic()) + PACE_S * len(self._waiting)

    async def enter(self, priority: Priority) -> None:
        """Wait until a call may leave."""
        if self._timer is None:
            self._spoken_at = monotonic()
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting = [waiting for waiting in self._waiting if waiting[2] is not turn]
            heapq.heapify(self._waiting)
            raise
        self._spoken_at = monotonic()

    def refused(self, retry_after_s: float) -> None:
        """Slack refused a call: nobody speaks before `retry_after_s` are over."""
        self._free_at = max(self._free_at, monotonic() + retry_after_s)
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self._free_at - monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._next)

    def _next(self) -> None:
        self._timer = None
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                self._free_at = monotonic() + PACE_S
                self._wake()
                return
