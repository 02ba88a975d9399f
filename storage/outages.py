"""Work that goes on after the database was away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from procrastinate.exceptions import ProcrastinateException

from storage.errors import StorageUnavailable

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 15.0
STABLE_AFTER_S = 30.0
"""After working this long, the next loss of the database starts at the first backoff again."""


async def outlive_outages(work: Callable[[], Awaitable[None]], *, action: str) -> None:
    """Begin `work` again whenever it loses the database, until it returns or is cancelled.

    Args:
        work: raises `StorageUnavailable` where it lost the database.
        action: names the loss in the log.
    """
    backoff_s = FIRST_BACKOFF_S
    while True:
        begun = monotonic()
        try:
            await work()
            return
        except (StorageUnavailable, ProcrastinateException) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Stopping needs the database too: its loss must not swallow the stop.
                raise asyncio.CancelledError from error
            if monotonic() - begun >= STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            logger.warning(
                "the database went away (%s); next try in %.1f s",
                error,
                backoff_s,
                extra={"action": action},
            )
        await asyncio.sleep(backoff_s)
        backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
