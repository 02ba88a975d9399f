"""A run that an administrator asks for: its thread is opened first, and hears how it goes."""

import logging
from collections.abc import Mapping
from typing import Protocol

from bots.administration import Actor, Administration, NotAdministrator
from bots.administration_wording import NOT_QUEUED, run_asked, run_queued
from bots.dialect import Dialect
from storage.errors import StorageError
from storage.runs import Recipe

logger = logging.getLogger(__name__)


class RunThread(Protocol):
    """Where a platform tells of a run."""

    async def open(self, text: str) -> Mapping[str, str]:
        """Post the head of a thread; returns the place, as the run keeps it."""

    async def report(self, text: str) -> None:
        """Post into the thread."""


async def ask_for_run(
    administration: Administration,
    actor: Actor,
    recipe: Recipe,
    *,
    person: str,
    thread: RunThread,
    dialect: Dialect,
) -> None:
    """Open a run's thread and queue the run; without a place to report to nothing is queued.

    Args:
        person: the name of who asks, as plain text.

    Raises:
        NotAdministrator: the actor is none; nothing was posted.
        StorageError: it could not be queued, which the thread says.
    """
    if not actor.administers:
        raise NotAdministrator
    place = await thread.open(run_asked(recipe, person, dialect))
    try:
        run_id = await administration.queue(actor, recipe, place=place)
    except StorageError:
        await thread.report(NOT_QUEUED)
        raise
    try:
        await thread.report(run_queued(run_id, dialect))
    except Exception as error:  # whatever a platform refuses with: who hears of it asks again
        logger.warning(
            "a queued run was not told of: %s",
            type(error).__name__,
            extra={"action": "run_not_told"},
        )
