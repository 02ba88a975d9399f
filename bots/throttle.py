"""Edits of messages at the pace that a platform allows: the newest preview wins, ends go first.

A streamed answer changes faster than a chat platform takes edits. So of all previews of a message
only the newest is sent, not more often than allowed; the final text is never dropped, waits for no
pause of its own, and overtakes the previews of all other messages.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 4
"""Edits of different messages that are under way at once."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RetryAfter(Exception):
    """Raised by `send`: the platform takes nothing for so many seconds."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        super().__init__(f"nothing is taken for {after_s} s")


@dataclass(frozen=True, kw_only=True)
class _Final(Generic[Value]):
    value: Value
    sent: asyncio.Future[None]


class Edits(Generic[Key, Value]):
    """Sends the edits of many messages; use as an async context manager.

    What was sent last for a message is what was put or finished last: one edit of a message is
    under way at a time.

    Args of the constructor:
        send: sends one edit and has its own deadline; may raise `RetryAfter`, which holds back
            everything, or all previews where one of them was refused. What else it raises ends a
            preview silently, and a final text loudly.
        interval_s: least seconds between the beginnings of two previews of one message.
        concurrency: edits under way at once.
    """

    def __init__(
        self,
        send: Callable[[Key, Value], Awaitable[None]],
        *,
        interval_s: float,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> None:
        self._send = send
        self._interval_s = interval_s
        self._concurrency = concurrency
        self._previews: dict[Key, tuple[Value, bool]] = {}
        self._finals: dict[Key, _Final[Value]] = {}
        self._due: dict[Key, float] = {}
        self._sending: set[Key] = set()
        self._blocked_until = 0.0
        self._previews_blocked_until = 0.0
        self._changed = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._senders = [
            asyncio.create_task(self._send_for_ever(), name="edits")
            for _ in range(self._concurrency)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; who still waits for a final text is cancelled."""
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        for final in self._finals.values():
            final.sent.cancel()

    def put(self, key: Key, value: Value, *, paced: bool = True) -> None:
        """Show this preview when the message's turn comes, unless a newer one comes first.

        Args:
            paced: whether the platform counts it, so that the next one must keep its distance.
        """
        if key not in self._finals:
            self._previews[key] = (value, paced)
            self._changed.set()

    async def finish(self, key: Key, value: Value) -> None:
        """Send the last text of a message, and return when it is there.

        Raises:
            Exception: what `send` raised, other than `RetryAfter`, which is waited for.
        """
        self._previews.pop(key, None)
        if earlier := self._finals.pop(key, None):
            earlier.sent.cancel()
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._finals[key] = final = _Final(value=value, sent=sent)
        self._changed.set()
        try:
            await sent
        finally:
            if self._finals.get(key) is final:
                del self._finals[key]
            self._due.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop what waits for a message that gets no further edit here."""
        self._previews.pop(key, None)
        self._due.pop(key, None)

    # -- Sending ----------------------------------------------------------------------------------

    async def _send_for_ever(self) -> None:
        while True:
            key, wait_s = self._next()
            if key is None:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                continue
            self._sending.add(key)
            try:
                await self._send_one(key)
            finally:
                self._sending.discard(key)
                self._changed.set()

    def _next(self) -> tuple[Key | None, float | None]:
        """What to send now; else the seconds until something may be due, None for no such time."""
        now = asyncio.get_running_loop().time()
        if now < self._blocked_until:
            return None, self._blocked_until - now
        for key in self._finals:
            if key not in self._sending:
                return key, None
        if now < self._previews_blocked_until:
            return None, self._previews_blocked_until - now
        waiting = [key for key in self._previews if key not in self._sending]
        for key in waiting:
            if self._due.get(key, 0.0) <= now:
                return key, None
        return None, min((self._due[key] - now for key in waiting), default=None)

    async def _send_one(self, key: Key) -> None:
        final = self._finals.get(key)
        value, paced = (final.value, True) if final is not None else self._previews.pop(key)
        loop = asyncio.get_running_loop()
        if paced:
            self._due[key] = loop.time() + self._interval_s
        try:
            await self._send(key, value)
        except RetryAfter as error:
            until = loop.time() + error.after_s
            if final is not None:
                self._blocked_until = max(self._blocked_until, until)
                return
            self._previews_blocked_until = max(self._previews_blocked_until, until)
            if key not in self._finals:
                self._previews.setdefault(key, (value, paced))
        except Exception as error:
            if final is None:
                logger.warning("a preview was lost: %s", error, extra={"action": "preview_lost"})
            elif not final.sent.done():
                final.sent.set_exception(error)
                self._settle(key, final)
        else:
            if final is not None and not final.sent.done():
                final.sent.set_result(None)
                self._settle(key, final)

    def _settle(self, key: Key, final: _Final[Value]) -> None:
        """Send a final text no second time before its waiter has woken up."""
        if self._finals.get(key) is final:
            del self._finals[key]
