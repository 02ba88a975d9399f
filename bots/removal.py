"""The end of a workspace that removed the app: its data goes after a time of grace."""

import asyncio
import logging

from bots.workplace import Workplace
from storage.errors import StorageError

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
PURGE_EVERY_S = 3600.0


async def purge_for_ever(workplace: Workplace, *, platform: str, grace_days: float) -> None:
    """Delete the data of workspaces that removed the app longer ago than the time of grace."""
    while True:
        try:
            purged = await workplace.places.purge_removed(
                platform, grace_days * DAY_S, files_dir=workplace.files_dir
            )
            if purged:
                logger.info(
                    "the data of %d workspaces was deleted",
                    purged,
                    extra={"action": "workspaces_purged"},
                )
        except StorageError as error:
            logger.warning("nothing was purged: %s", error, extra={"action": "purge_failed"})
        await asyncio.sleep(min(PURGE_EVERY_S, max(1.0, grace_days * DAY_S)))
