"""Tells in a chat what became of a run, in the place where it was asked for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bots.dialect import Dialect
from storage.errors import StorageError
from storage.notices import PERSON, Notice, Notices

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
POST_TIMEOUT_S = 60.0

Post = Callable[[Notice], Awaitable[None]]
"""Posts one notice; raises what the platform refuses with."""


def worded(notice: Notice, dialect: Dialect) -> str:
    """A notice's text as a platform writes it; whoever asked for the run is named."""
    person = dialect.person(notice.person) if notice.person else "an administrator"
    return person.join(dialect.plain(part) for part in notice.text.split(PERSON))


async def tell_for_ever(notices: Notices, *, platform: str, post: Post) -> None:
    """Post what is due until cancelled; what is refused is due again after a pause."""
    while True:
        try:
            for notice in await notices.due(platform):
                await _tell(notices, notice, post)
        except StorageError as error:
            logger.warning("no notices now: %s", error, extra={"action": "notices_unreadable"})
        except Exception:  # a bug: no reason to end what else the surface does
            logger.exception("no notices now", extra={"action": "notices_unreadable"})
        await asyncio.sleep(LOOK_EVERY_S)


async def _tell(notices: Notices, notice: Notice, post: Post) -> None:
    try:
        async with asyncio.timeout(POST_TIMEOUT_S):
            await post(notice)
    except StorageError:
        raise
    except Exception as error:  # whatever a platform refuses with: the next notice is due, too
        logger.warning(
            "a notice was not posted: %s",
            type(error).__name__,
            extra={"action": "notice_refused"},
        )
        return
    await notices.told(notice.id)
