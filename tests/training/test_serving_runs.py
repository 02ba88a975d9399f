"""Promotions and rollbacks that are begun again: each is done once, and tells what it did."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from storage.errors import StorageUnavailable
from storage.model_versions import ModelVersion, ModelVersions
from storage.pool import Pool
from storage.runs import StoredRun
from tests.storage.conftest import Team
from tests.training.test_canary import Engine, made
from tests.training.test_worker import ended, queued, until
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.worker import TrainingWorker


class Interrupted(ModelVersions):
    """Loses the database right after its first change is committed."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.interruptions = 0

    async def promote(self, *arguments: Any, **options: Any) -> None:
        await super().promote(*arguments, **options)
        self._interrupt()

    async def roll_back(self, *arguments: Any, **options: Any) -> bool:
        done = await super().roll_back(*arguments, **options)
        self._interrupt()
        return done

    def _interrupt(self) -> None:
        self.interruptions += 1
        if self.interruptions == 1:
            raise StorageUnavailable("the connection was lost")


Finish = Callable[..., Any]


@pytest.fixture
def finish(pool: Pool, team: Team, settings_of: Callable[..., TrainingProcessSettings]) -> Finish:
    """Queue a run, and work until it has ended although the database goes away in its middle."""

    async def finish(kind: str, **parameters: object) -> StoredRun:
        versions = Interrupted(pool)
        worker = TrainingWorker(
            pool=pool,
            settings=settings_of(),
            environment=os.environ,
            switch=ModelSwitch(versions=versions, engine=Engine()),
        )
        work = asyncio.create_task(worker.work())
        try:
            run = await until(pool, await queued(pool, team, kind, **parameters), ended)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        assert versions.interruptions >= 1
        return run

    return finish


@pytest.fixture
async def answered_by_second(pool: Pool, team: Team) -> tuple[ModelVersion, ModelVersion]:
    """Two versions that answered one after the other; the second one is live."""
    first, second = await made(pool, team, 1), await made(pool, team, 2)
    for version in (first, second):
        await ModelVersions(pool).promote(version.id, by=None)
    return first, second


async def test_the_newest_candidate_is_promoted_and_no_other(
    pool: Pool, team: Team, finish: Finish
) -> None:
    first, second = await made(pool, team, 1), await made(pool, team, 2)
    run = await finish("promote")
    assert (run.status, run.result["version"]) == ("succeeded", second.name)
    assert await _statuses(pool, team) == {first.name: "candidate", second.name: "live"}


@pytest.mark.parametrize("named", [False, True])
async def test_one_version_is_taken_back_and_not_the_one_before_it(
    pool: Pool,
    team: Team,
    finish: Finish,
    answered_by_second: tuple[ModelVersion, ModelVersion],
    named: bool,
) -> None:
    first, second = answered_by_second
    run = await finish("rollback", **({"version": "v1"} if named else {}))
    assert (run.status, run.failure) == ("succeeded", None)
    assert (run.result["version"], run.result["now"]) == (second.name, first.name)
    assert await _statuses(pool, team) == {first.name: "live", second.name: "rolled_back"}


async def test_the_end_of_a_trial_does_not_take_back_what_is_live(
    pool: Pool, team: Team, finish: Finish
) -> None:
    live, tried = await made(pool, team, 1), await made(pool, team, 2)
    await ModelVersions(pool).promote(live.id, by=None)
    await ModelVersions(pool).start_canary(tried.id, share=0.5)
    run = await finish("rollback")
    assert (run.result["version"], run.result["now"]) == (tried.name, live.name)
    assert await _statuses(pool, team) == {live.name: "live", tried.name: "rolled_back"}


async def _statuses(pool: Pool, team: Team) -> dict[str, str]:
    versions = await ModelVersions(pool).list(team.general.workspace_id)
    return {version.name: version.status for version in versions}
