"""Promotions and rollbacks that are begun again: each is done once, and tells what it did."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bots.serving import ServingModels
from engine.chat import Sampling
from engine.client import EngineClient
from engine.prompt import ChatMessage
from storage.errors import StorageUnavailable
from storage.identity import ThreadId
from storage.model_versions import ModelVersion, ModelVersions, live_alias
from storage.pool import Pool
from storage.runs import StoredRun
from tests.engine.serving import EngineProcess
from tests.storage.conftest import Team
from tests.training.conftest import MODEL, at_work, ended, queued, until
from tests.training.test_canary import BASE, Engine, made
from training import reports
from training.errors import TrainingError
from training.serving import UNUSED_S, ModelSwitch
from training.settings import TrainingProcessSettings


class Interrupted(ModelVersions):
    """Loses the database right after its first change is committed."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.interruptions = 0

    async def promote(self, *arguments: Any, **options: Any) -> bool:
        done = await super().promote(*arguments, **options)
        self._interrupt()
        return done

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
        async with at_work(pool, settings_of(), ModelSwitch(versions=versions, engine=Engine())):
            run = await until(pool, await queued(pool, team, kind, **parameters), ended)
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


async def test_a_version_whose_model_is_gone_does_not_answer_again(
    pool: Pool, team: Team, finish: Finish, tmp_path: Path
) -> None:
    kept, gone, live = [
        await made(pool, team, 1),
        await made(pool, team, 2, directory=tmp_path / "gone"),
        await made(pool, team, 3),
    ]
    for version in (kept, gone, live):
        await ModelVersions(pool).promote(version.id, by=None)
    run = await finish("rollback")
    assert (run.result["version"], run.result["now"]) == (live.name, kept.name)


@pytest.mark.parametrize("named", ["base", BASE])
async def test_the_base_model_answers_again_in_one_step_where_it_is_named(
    pool: Pool,
    team: Team,
    finish: Finish,
    answered_by_second: tuple[ModelVersion, ModelVersion],
    named: str,
) -> None:
    first, second = answered_by_second
    run = await finish("rollback", version=named)
    assert (run.status, run.failure) == ("succeeded", None)
    assert (run.result["version"], run.result["now"]) == (second.name, None)
    assert await _statuses(pool, team) == {first.name: "retired", second.name: "rolled_back"}


async def test_what_a_rollback_cannot_name_is_told_with_what_it_can(
    pool: Pool, team: Team, answered_by_second: tuple[ModelVersion, ModelVersion]
) -> None:
    switch = ModelSwitch(versions=ModelVersions(pool), engine=Engine())
    with pytest.raises(TrainingError, match="no version 'v9'; there are: v2, v1, base"):
        await switch.to_roll_back(team.general.workspace_id, to="v9")


async def test_no_request_fails_while_versions_are_tried_promoted_and_taken_back(
    pool: Pool, team: Team, home: Path, engine_process: EngineProcess
) -> None:
    workspace, versions = team.general.workspace_id, ModelVersions(pool)
    first, second, third = [await made(pool, team, number) for number in (1, 2, 3)]
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE model_versions SET directory = %s", [str(home / "models" / MODEL)]
        )
    answers: asyncio.Queue[str] = asyncio.Queue()
    answered: Counter[str] = Counter()

    async def ask(engine: EngineClient) -> None:
        """Choose a model, take the time that a search takes, and let it answer."""
        serving = ServingModels(versions=versions, engine=engine)
        while True:
            thread = ThreadId(uuid4())
            for message in ("When?", "And then?"):
                model = await serving.model(workspace, thread)
                await asyncio.sleep(0.1)
                async for delta in engine.chat(
                    [ChatMessage(role="user", content=message)],
                    model=model or "live",
                    sampling=Sampling(max_tokens=4),
                ):
                    if delta.finish_reason is not None:
                        answers.put_nowait(delta.model)

    async def change(switch: ModelSwitch) -> None:
        async def back(to: str | None) -> None:
            rollback = await switch.to_roll_back(workspace, to=to)
            await switch.roll_back(workspace, rollback, by=None, why="asked")

        stored = [await versions.get(each.id) for each in (first, second, third)]
        one, two, three = [each for each in stored if each is not None]
        steps = (
            lambda: switch.try_out(one, share=0.5),
            lambda: switch.promote(workspace, None, by=None),
            lambda: switch.promote(workspace, two.name, by=None),
            lambda: switch.try_out(three, share=0.5),
            lambda: back(None),  # the trial ends
            lambda: back("v1"),
            lambda: back("base"),
        )
        for step in steps:
            await step()
            answered.update([await answers.get() for _ in range(answers.qsize() + 12)])
            await switch.unload_unused()

    async with EngineClient(url=engine_process.url, admin_token="the-admin-token") as engine:
        asking = [asyncio.create_task(ask(engine)) for _ in range(4)]
        changing = asyncio.create_task(change(ModelSwitch(versions=versions, engine=engine)))
        ended, _ = await asyncio.wait(
            [*asking, changing], timeout=120, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (*asking, changing):
            task.cancel()
        await asyncio.gather(*asking, changing, return_exceptions=True)
        assert ended == {changing}, [task.exception() for task in ended]
        await changing
        roots = {model.name: model.root for model in await engine.models()}
    assert set(answered) == {MODEL, first.name, second.name, third.name}
    assert roots[live_alias(workspace)] == MODEL
    assert {first.name, second.name, third.name} <= set(roots)


async def test_a_version_that_was_taken_back_leaves_the_engine_later(
    pool: Pool, team: Team, answered_by_second: tuple[ModelVersion, ModelVersion]
) -> None:
    _, second = answered_by_second
    engine = Engine()
    switch = ModelSwitch(versions=ModelVersions(pool), engine=engine)
    await switch.load_serving()
    rollback = await switch.to_roll_back(team.general.workspace_id, to=None)
    await switch.roll_back(team.general.workspace_id, rollback, by=None, why="asked")
    await switch.unload_unused()
    assert second.name in engine.loaded
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE model_versions SET status_at = status_at - make_interval(secs => %s)",
            [UNUSED_S],
        )
    await switch.unload_unused()
    assert second.name not in engine.loaded


async def test_the_version_of_a_workspace_that_is_gone_leaves_the_engine(
    pool: Pool, team: Team
) -> None:
    kept, gone = await made(pool, team, 1), "v3-0123456789ab"
    engine = Engine()
    engine.loaded |= {name: name for name in (kept.name, gone)}
    await ModelSwitch(versions=ModelVersions(pool), engine=engine).unload_unused()
    assert kept.name in engine.loaded and gone not in engine.loaded


@pytest.fixture
async def live_and_tried(pool: Pool, team: Team) -> tuple[ModelVersion, ModelVersion]:
    live, tried = await made(pool, team, 1), await made(pool, team, 2)
    await ModelVersions(pool).promote(live.id, by=None)
    await ModelVersions(pool).start_canary(tried.id, share=0.5)
    return live, tried


async def test_the_end_of_a_trial_does_not_take_back_what_is_live(
    pool: Pool,
    team: Team,
    finish: Finish,
    live_and_tried: tuple[ModelVersion, ModelVersion],
) -> None:
    live, tried = live_and_tried
    run = await finish("rollback")
    assert (run.result["version"], run.result["now"]) == (tried.name, live.name)
    assert await _statuses(pool, team) == {live.name: "live", tried.name: "rolled_back"}


async def test_while_a_version_is_only_tried_the_base_answers_again_where_its_trial_ends(
    pool: Pool, team: Team, finish: Finish
) -> None:
    tried = await made(pool, team, 1)
    await ModelVersions(pool).start_canary(tried.id, share=0.5)
    switch = ModelSwitch(versions=ModelVersions(pool), engine=Engine())
    with pytest.raises(TrainingError, match="one is only tried") as told:
        await switch.to_roll_back(team.general.workspace_id, to="v1")
    assert "ends its trial" in told.value.advice
    run = await finish("rollback", version="base")
    assert (run.result["version"], run.result["now"]) == (tried.name, None)
    assert await _statuses(pool, team) == {tried.name: "rolled_back"}


async def test_a_rollback_says_that_another_version_is_still_tried(
    pool: Pool,
    team: Team,
    finish: Finish,
    live_and_tried: tuple[ModelVersion, ModelVersion],
) -> None:
    live, tried = live_and_tried
    run = await finish("rollback", version="base")
    assert f"{tried.name} is still tried" in reports.rolled_back(run.result)
    assert await _statuses(pool, team) == {live.name: "rolled_back", tried.name: "canary"}


async def _statuses(pool: Pool, team: Team) -> dict[str, str]:
    versions = await ModelVersions(pool).list(team.general.workspace_id)
    return {version.name: version.status for version in versions}
