"""Curation comes back: what curators submit, correct or discard in Argilla is kept with us.

Argilla cannot be asked which responses changed: a response changes no time of its record. But it
notes per data set when somebody last responded by hand, which the relay's bulk writes do not touch.
So a look costs two small requests and one for every curator, whose deletion is noted nowhere, and
only a data set in which curators were at work is read; a large one at most for a tenth of the time.
Where Argilla's webhook says that somebody responded, the next look is at once.
"""

import asyncio
import logging
import math
import time
from collections.abc import Set
from typing import Final
from uuid import UUID

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
CALLED_POLL_S: Final = 60.0
"""The same where a webhook calls, which may be lost."""
GAP_S: Final = 0.25
"""Between two looks at the least, however often it calls."""
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
        self._curators: dict[str, set[UUID]] = {}
        self._rests_until: dict[str, float] = {}
        self._rest_ends = math.inf

    async def run(self) -> None:
        """Look again and again until cancelled; whatever is away is waited for."""
        while True:
            try:
                async with self._curations.listening() as called:
                    while True:
                        if changed := await self.look():
                            logger.info("%d curations kept", changed, extra={"action": "curated"})
                        await asyncio.sleep(min(GAP_S, self._poll_s))
                        await called(self._until_next_s())
            except (FeedbackError, StorageUnavailable) as error:
                logger.warning("curation waits: %s", error, extra={"action": "curation_waits"})
                await asyncio.sleep(WAIT_S)

    async def look(self) -> int:
        """Keep what curators said since the last look; how much of it is new, changed or withdrawn.

        Raises:
            ArgillaUnavailable, ArgillaMisconfigured, StorageUnavailable: nothing is lost.
        """
        ours = {workspace_name(each) for each in await self._outbox.workspaces()}
        gone = await self._client.gone(set().union(*self._curators.values()))
        changed = 0
        self._rest_ends = math.inf
        for activity in await self._client.activity():
            if activity.workspace in ours and self._news(activity, gone):
                rests_until = self._rests_until.get(activity.dataset_id, 0.0)
                if time.monotonic() < rests_until:
                    self._rest_ends = min(self._rest_ends, rests_until)
                else:
                    changed += await self._sweep(activity)
        return changed

    def _news(self, activity: Activity, gone: Set[UUID]) -> bool:
        curators = self._curators.get(activity.dataset_id, set())
        return self._read.get(activity.dataset_id) != activity.at or bool(gone & curators)

    def _until_next_s(self) -> float:
        """Until the next look: sooner where a data set with news ends its rest."""
        return max(0.0, min(self._poll_s, self._rest_ends - time.monotonic()))

    async def _sweep(self, activity: Activity) -> int:
        started = time.monotonic()
        changed = 0
        curators: set[UUID] = set()
        async for page in self._client.curated(activity):
            changed += await self._curations.keep(page)
            curators |= {word.curator_id for record in page for word in record.said}
        ended = time.monotonic()
        self._rests_until[activity.dataset_id] = ended + self._rest * (ended - started)
        self._read[activity.dataset_id] = activity.at
        self._curators[activity.dataset_id] = curators
        return changed
