"""Curation comes back: what curators submit, correct or discard in Argilla is kept with us.

Argilla cannot be asked which responses changed: a response changes no time of its record. But it
notes per data set when somebody last responded by hand, which the relay's bulk writes do not touch.
So a look costs two small requests, and only a data set in which curators were at work is read; a
large one at most for a tenth of the time.
"""

import asyncio
import logging
import time
from typing import Final

from feedback.argilla_client import Activity, ArgillaClient
from feedback.errors import FeedbackError
from feedback.records import workspace_name
from storage.curations import Curations
from storage.errors import StorageUnavailable
from storage.outbox import Outbox
from storage.pool import Pool

logger = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Between two looks."""
WAIT_S: Final = 15.0
"""Before the next look where Argilla or the database is away."""
REST: Final = 9.0
"""So reading takes a tenth of the time at most."""


class Pull:
    """Fetches what curators say; needs a client of its own.

    Args of the constructor:
        poll_s: between two looks, in seconds.
        rest: how many times as long as it took to read a data set it is not read again.
    """

    def __init__(
        self, pool: Pool, client: ArgillaClient, *, poll_s: float = POLL_S, rest: float = REST
    ) -> None:
        self._outbox = Outbox(pool)
        self._curations = Curations(pool)
        self._client = client
        self._poll_s = poll_s
        self._rest = rest
        self._read: dict[str, str] = {}
        self._rests_until: dict[str, float] = {}

    async def run(self) -> None:
        """Look again and again until cancelled; whatever is away is waited for."""
        while True:
            try:
                changed = await self.look()
            except (FeedbackError, StorageUnavailable) as error:
                logger.warning("curation waits: %s", error, extra={"action": "curation_waits"})
                await asyncio.sleep(WAIT_S)
                continue
            if changed:
                logger.info("%d curations kept", changed, extra={"action": "curated"})
            await asyncio.sleep(self._poll_s)

    async def look(self) -> int:
        """Keep what curators said since the last look; how much of it is new, changed or withdrawn.

        Raises:
            ArgillaUnavailable, ArgillaMisconfigured, StorageUnavailable: nothing is lost.
        """
        ours = {workspace_name(each) for each in await self._outbox.workspaces()}
        changed = 0
        for activity in await self._client.activity():
            if activity.workspace in ours and self._due(activity):
                changed += await self._sweep(activity)
        return changed

    def _due(self, activity: Activity) -> bool:
        rests_until = self._rests_until.get(activity.dataset_id, 0.0)
        return (
            self._read.get(activity.dataset_id) != activity.at and time.monotonic() >= rests_until
        )

    async def _sweep(self, activity: Activity) -> int:
        started = time.monotonic()
        changed = 0
        async for page in self._client.curated(activity):
            changed += await self._curations.keep(page)
        ended = time.monotonic()
        self._rests_until[activity.dataset_id] = ended + self._rest * (ended - started)
        self._read[activity.dataset_id] = activity.at
        return changed
