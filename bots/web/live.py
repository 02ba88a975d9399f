"""What happens in the channel, delivered to every open page."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

Event = dict[str, Any]
"""One JSON message to a page; `kind` says which, see `page.js`."""

MAX_PENDING = 512
"""Events that may wait for one page, about ten seconds of several streams; a page that falls
further behind is cut off, reconnects and reads the thread anew."""


class PageTooSlow(Exception):
    """A page did not take its events in time."""


class Subscription:
    """The events of one open page, which shows one thread.

    Attributes:
        thread_ref: the thread whose events the page wants, besides those for everybody.
    """

    def __init__(self) -> None:
        self.thread_ref: str | None = None
        self._pending: asyncio.Queue[Event] = asyncio.Queue(maxsize=MAX_PENDING)
        self._too_slow = False

    def put(self, event: Event) -> None:
        """Hand an event to this page; never waits."""
        try:
            self._pending.put_nowait(event)
        except asyncio.QueueFull:
            self._too_slow = True

    async def take(self) -> list[Event]:
        """Wait for events and return all that are due, oldest first.

        Raises:
            PageTooSlow: events were lost; the page must start over.
        """
        events = [await self._pending.get()]
        while not self._pending.empty():
            events.append(self._pending.get_nowait())
        if self._too_slow:
            raise PageTooSlow
        return events


class Hub:
    """Delivers events to the open pages of this process, and never waits for any of them."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def pages(self) -> int:
        """Number of open pages."""
        return len(self._subscriptions)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Open a subscription for as long as the page is connected."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, event: Event, *, thread_ref: str | None = None) -> None:
        """Send an event to the pages that show `thread_ref`, or to all."""
        for subscription in self._subscriptions:
            if thread_ref is None or subscription.thread_ref == thread_ref:
                subscription.put(event)
