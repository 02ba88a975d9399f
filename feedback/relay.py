"""The relay: what people rated is told to Argilla, until both say the same.

`storage.outbox` names records that changed. For each the present state is read and told, whatever
the change was, so a repeated telling changes nothing and a record that is gone is deleted there.
Whose ratings Argilla may hold is written down before it is told them; so a rating that was
withdrawn is found there even if a process died in between.
"""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final
from uuid import UUID

from feedback.argilla_client import ArgillaClient
from feedback.argilla_server import credentials
from feedback.curation import CALLED_POLL_S, Pull
from feedback.curation import POLL_S as PULL_S
from feedback.errors import (
    ArgillaFailed,
    FeedbackError,
    RecordRefused,
)
from feedback.records import DATASETS, CurationRecord, of_answer, of_comparison, workspace_name
from feedback.settings import ArgillaSettings
from storage.errors import StorageUnavailable
from storage.identity import AnswerId, WorkspaceId
from storage.outbox import Change, Kind, Outbox, Relayed
from storage.pool import Pool
from storage.rated import Rated
from storage.ratings import ComparisonId

logger = logging.getLogger(__name__)

BATCH: Final = 250
"""Records that are read and told at once."""
POLL_S: Final = 1.0
"""Between two looks into an empty outbox."""
FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 30.0
MAX_ATTEMPTS: Final = 6
"""Before a record over which Argilla breaks down, while it takes others, is parked."""


class Relay:
    """Carries the outbox to Argilla.

    Args of the constructor:
        poll_s: between two looks into an empty outbox, in seconds.
    """

    def __init__(self, pool: Pool, client: ArgillaClient, *, poll_s: float = POLL_S) -> None:
        self._outbox = Outbox(pool)
        self._rated = Rated(pool)
        self._client = client
        self._poll_s = poll_s

    async def run(self) -> None:
        """Carry on until cancelled; whatever is away is waited for."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                carried = await self.carry()
            except (FeedbackError, StorageUnavailable) as error:
                logger.warning(
                    "ratings wait, next try in about %.1f s: %s",
                    backoff_s,
                    error,
                    extra={"action": "relay_waits"},
                )
                await asyncio.sleep(backoff_s * random.uniform(0.75, 1.25))  # noqa: S311
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
                continue
            backoff_s = FIRST_BACKOFF_S
            if carried:
                logger.info("%d records told", carried, extra={"action": "relayed"})
            else:
                await asyncio.sleep(self._poll_s)

    async def carry(self) -> int:
        """Carry what is due, at most `BATCH` records; how many there were.

        Raises:
            FeedbackError, StorageUnavailable: nothing is lost.
        """
        async with self._outbox.claimed() as alone:
            if not alone:
                return 0
            changes = sorted(await self._outbox.due(BATCH), key=_group)
            for (workspace_id, kind), group in groupby(changes, key=_group):
                await self._carry_group(workspace_id, kind, list(group))
            return len(changes)

    async def backfill(self, workspace_id: WorkspaceId | None = None) -> int:
        """Have everything told once more, and delete in Argilla what is rated no more.

        Returns:
            How many records are to be carried.

        Raises:
            FeedbackError, StorageUnavailable: safe to repeat.
        """
        marked = await self._outbox.mark_all(workspace_id)
        for each in await self._outbox.workspaces():
            if workspace_id in (None, each):
                await self._remove_strays(each)
        return marked

    # -- One workspace and kind -------------------------------------------------------------------

    async def _carry_group(
        self, workspace_id: WorkspaceId, kind: Kind, changes: Sequence[Change]
    ) -> None:
        workspace = workspace_name(workspace_id)
        if await self._client.prepare(workspace) and await self._outbox.holds(workspace_id):
            marked = await self._outbox.mark_all(workspace_id)
            logger.warning(
                "Argilla lost the data of %s; %d records are told again",
                workspace,
                marked,
                extra={"action": "argilla_wiped"},
            )
        records = await self._records(kind, changes)
        before = await self._outbox.relayed(changes)
        gone = [each for each in changes if each.record_id not in records]
        known_there = [str(each.record_id) for each in gone if each.record_id in before]
        await self._client.remove_records(workspace, kind, known_there)
        there = [each for each in changes if each.record_id in records]
        await self._outbox.announce([_relayed(each, records) for each in there])
        told = await self._tell(workspace, kind, there, records)
        withdrawn = {
            str(each.record_id): voters
            for each in told
            if each.record_id in before
            and (voters := before[each.record_id].voters - records[each.record_id].voters)
        }
        await self._client.remove_responses(workspace, kind, withdrawn)
        known = {voter for each in before.values() for voter in each.voters}
        for voter in await self._outbox.forgotten(known):
            await self._client.forget(voter)
        await self._outbox.settle(
            [*gone, *told],
            held=[_relayed(each, records) for each in told],
            removed=[each.record_id for each in gone],
        )

    async def _records(
        self, kind: Kind, changes: Sequence[Change]
    ) -> Mapping[UUID, CurationRecord]:
        """The present state of the records, as far as there is something to tell."""
        ids = [each.record_id for each in changes]
        states: dict[UUID, CurationRecord | None]
        if kind == "answer":
            answers = await self._rated.answers_of([AnswerId(each) for each in ids])
            states = {answer.id: of_answer(answer) for answer in answers}
        else:
            judged = await self._rated.comparisons_of([ComparisonId(each) for each in ids])
            states = {each.id: of_comparison(each) for each in judged}
        return {record_id: record for record_id, record in states.items() if record is not None}

    async def _tell(
        self,
        workspace: str,
        kind: Kind,
        changes: Sequence[Change],
        records: Mapping[UUID, CurationRecord],
    ) -> list[Change]:
        """Upsert records; where that fails over some of them, find those. What was told."""
        if not changes:
            return []
        try:
            await self._client.upsert(
                workspace, kind, [records[each.record_id] for each in changes]
            )
        except (RecordRefused, ArgillaFailed) as error:
            if isinstance(error, ArgillaFailed):
                await self._client.check()  # else it is Argilla and not what was sent
                await self._client.prepare(workspace)
            if len(changes) == 1:
                await self._give_up(changes[0], error)
                return []
            half = len(changes) // 2
            return [
                *await self._tell(workspace, kind, changes[:half], records),
                *await self._tell(workspace, kind, changes[half:], records),
            ]
        return list(changes)

    async def _give_up(self, change: Change, error: RecordRefused | ArgillaFailed) -> None:
        """Park a record that is refused; one over which Argilla failed is tried some more."""
        if isinstance(error, ArgillaFailed) and change.attempts + 1 < MAX_ATTEMPTS:
            delay_s = min(2.0**change.attempts, LONGEST_BACKOFF_S)
            await self._outbox.postpone([change], delay_s=delay_s, error=str(error))
            return
        logger.error(
            "Argilla does not take a record, which is parked: see `parley feedback status`",
            extra={"action": "record_parked"},
        )
        await self._outbox.park(change, error=str(error))

    async def _remove_strays(self, workspace_id: WorkspaceId) -> None:
        workspace = workspace_name(workspace_id)
        await self._client.prepare(workspace)
        for kind in DATASETS:
            there = [each async for each in self._client.ids(workspace, kind)]
            known = await self._outbox.known([UUID(each) for each in there])
            strays = [each for each in there if UUID(each) not in known]
            await self._client.remove_records(workspace, kind, strays)


def _group(change: Change) -> tuple[WorkspaceId, Kind]:
    return change.workspace_id, change.kind


def _relayed(change: Change, records: Mapping[UUID, CurationRecord]) -> Relayed:
    return Relayed(
        kind=change.kind,
        record_id=change.record_id,
        workspace_id=change.workspace_id,
        voters=records[change.record_id].voters,
    )


async def run(pool: Pool, settings: ArgillaSettings, *, home: Path) -> None:
    """Relay and pull with these settings until cancelled."""
    key = credentials.api_key(settings, home)
    async with (
        ArgillaClient(settings.effective_url, key) as client,
        # A client forgets what it knows when a request fails, which the relay relies on.
        ArgillaClient(settings.effective_url, key) as looking,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(Relay(pool, client).run())
        pull_s = CALLED_POLL_S if settings.webhook_url else PULL_S
        group.create_task(Pull(pool, looking, poll_s=pull_s).run())
