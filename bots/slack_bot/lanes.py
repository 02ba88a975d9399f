"""Slack's patience, channel by channel: who may speak now, and who goes first after a refusal.

Slack allows about one message a second and channel, and bursts above it for a while; how much it
allows it says only by refusing. So calls go out at once until a channel refuses one. From then on
that channel's calls wait for the time that Slack named and leave one a second, the most important
first, until none waits any more. Only the edits of previews keep to rates at all times: all of a
channel together, one a second, and all channels together what a method's tier leaves for them.
"""

import asyncio
import enum
import heapq
import itertools
import math
from time import monotonic

PACE_S = 1.0
"""Between two calls in a channel that refused one; Slack's documented rate of messages."""


PREVIEW_TIERS = {"chat.update": 50, "chat.appendStream": 100}
"""Calls a minute that Slack allows a workspace: tiers 3 and 4 of
https://docs.slack.dev/apis/web-api/rate-limits."""
PREVIEW_SHARE = 0.8
"""Of a tier; the rest is for finished answers."""
BURST_S = 24.0
"""Worth of calls that may come at once after a rest."""


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
        self.previewed_at = -math.inf
        """When a preview was last edited here."""

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


class Budget:
    """How many calls of one method are left for previews: so many a minute, and a burst of them.

    What must be said spends of it, too, and never waits for it.
    """

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute * PREVIEW_SHARE / 60.0
        self._left = self._per_s * BURST_S
        self._counted_at = monotonic()

    @property
    def wait_s(self) -> float:
        """Seconds until a preview may leave; 0 = now."""
        self._count()
        return max(0.0, (1.0 - self._left) / self._per_s)

    def spend(self) -> None:
        """A call leaves."""
        self._count()
        self._left = max(self._left - 1.0, -self._per_s * BURST_S)

    def _count(self) -> None:
        now = monotonic()
        earned = (now - self._counted_at) * self._per_s
        self._left = min(self._left + earned, self._per_s * BURST_S)
        self._counted_at = now
