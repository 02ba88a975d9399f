"""Tells in a chat what became of a run, in the place where it was asked for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from storage.errors import StorageUnavailable
from storage.notices import Notice, Notices

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
POST_TIMEOUT_S = 60.0

Post = Callable[[Notice], Awaitable[None]]
"""Posts one notice; raises what the platform refuses with."""


async def tell_for_ever(notices: Notices, *, platform: str, post: Post) -> None:
    """Post what is due until cancelled; a notice that is refused is tried a few times."""
    while True:
        try:
            for notice in await notices.due(platform):
                await _tell(notices, notice, post)
        except StorageUnavailable as error:
            logger.warning("no notices now: %s", error, extra={"action": "notices_unreadable"})
        await asyncio.sleep(LOOK_EVERY_S)


async def _tell(notices: Notices, notice: Notice, post: Post) -> None:
    try:
        async with asyncio.timeout(POST_TIMEOUT_S):
            await post(notice)
    except StorageUnavailable:
        raise
    except Exception as error:  # whatever a platform refuses with: the next notice is due, too
        logger.warning(
            "a notice was not posted: %s",
            type(error).__name__,
            extra={"action": "notice_refused"},
        )
        return
    await notices.told(notice.id)
