"""Queues runs by themselves: after so many new ratings, or so many hours."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from storage.errors import StorageUnavailable
from storage.runs import Recipe, Runs
from storage.settings import TrainingSettings

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 60.0


async def queue_due_runs(runs: Runs, settings: TrainingSettings) -> None:
    """Queue what is due again and again until cancelled."""
    await look_for_ever(partial(queue_due, runs, settings), action="schedule_unread")


async def look_for_ever(look: Callable[[], Awaitable[object]], *, action: str) -> None:
    """Look again and again until cancelled.

    Args:
        action: names in the log a look that failed.
    """
    while True:
        try:
            await look()
        except StorageUnavailable as error:
            logger.warning("not looked: %s", error, extra={"action": action})
        except Exception:  # a full disk, a bug: no reason to end what else the worker does
            logger.exception("not looked", extra={"action": action})
        await asyncio.sleep(LOOK_EVERY_S)


async def queue_due(runs: Runs, settings: TrainingSettings) -> int:
    """Queue a training for every workspace where one is due; returns how many.

    Raises:
        StorageUnavailable: safe to repeat.
    """
    queued = await runs.queue_due(
        Recipe(kind="train", parameters={"recipe": settings.recipe}),
        every_new_ratings=settings.every_new_ratings,
        every_hours=settings.every_hours,
    )
    if queued:
        logger.info("a training is due", extra={"action": "run_due", "count": queued})
    return queued
