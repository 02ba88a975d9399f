"""Runs from the queue to a version: real process, real database, real engine, a tiny model."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.client import EngineClient
from storage.model_versions import ModelVersions, live_alias
from storage.pool import Pool
from storage.runs import Recipe, RunId, Runs, StoredRun
from tests.engine.serving import EngineProcess
from tests.storage.conftest import Team
from tests.training.conftest import MODEL, Rates, processes_of
from training.plan import Plan
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.supervision import CANCEL_S
from training.worker import TrainingWorker

TIMEOUT_S = 120.0
RECIPE = {
    "kind": "sft",
    "lora": {"r": 4},
    "learning_rate": 0.01,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_steps": 2,
}
Working = Callable[..., contextlib.AbstractAsyncContextManager[TrainingWorker]]


@pytest.fixture
def engine_process(home: Path) -> Iterator[EngineProcess]:
    with EngineProcess(
        home=home,
        models={MODEL: f"ctranslate2:{MODEL}"},
        live=MODEL,
        embedder=f"ctranslate2:{MODEL}",
    ) as process:
        yield process


@pytest.fixture
def working(pool: Pool, settings_of: Callable[..., TrainingProcessSettings]) -> Working:
    """A worker at work, with an engine where one is given."""

    @asynccontextmanager
    async def working(
        engine_url: str = "http://127.0.0.1:9", **training: object
    ) -> AsyncIterator[TrainingWorker]:
        async with EngineClient(url=engine_url, admin_token="the-admin-token") as engine:
            worker = TrainingWorker(
                pool=pool,
                settings=settings_of(**training),
                environment={**os.environ, "OMP_NUM_THREADS": "1"},
                switch=ModelSwitch(versions=ModelVersions(pool), engine=engine),
            )
            task = asyncio.create_task(worker.work())
            try:
                yield worker
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return working


async def queued(pool: Pool, team: Team, kind: Any = "train", **parameters: object) -> RunId:
    recipe = Recipe(kind=kind, parameters=parameters)
    return await Runs(pool).queue(
        recipe, workspace_id=team.general.workspace_id, by=team.general.member_id, place={}
    )


async def until(
    pool: Pool, run_id: RunId, condition: Callable[[StoredRun], bool | Awaitable[bool]]
) -> StoredRun:
    runs = Runs(pool)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            run = await runs.get(run_id)
            assert run is not None
            holds = condition(run)
            if holds if isinstance(holds, bool) else await holds:
                return run
            await asyncio.sleep(0.05)


def ended(run: StoredRun) -> bool:
    return run.ended_at is not None


async def test_corrections_become_a_version_although_its_process_is_killed(
    pool: Pool,
    team: Team,
    rate: Rates,
    working: Working,
    engine_process: EngineProcess,
) -> None:
    await rate(40)
    run_id = await queued(pool, team, recipe=RECIPE)
    runs = Runs(pool)

    async def has_stepped(_: StoredRun) -> bool:
        return any(metric.step >= 3 for metric in await runs.metrics(run_id))

    async with working(engine_process.url) as worker:
        await until(pool, run_id, has_stepped)
        for process in processes_of(worker.folder(run_id)):
            os.kill(process, signal.SIGKILL)
        run = await until(pool, run_id, ended)

    assert (run.status, run.failure) == ("succeeded", None)
    metrics = [each for each in await runs.metrics(run_id) if "loss" in each.values]
    assert [each.step for each in metrics] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "learning_rate", "eta_s"} <= set(each.values) for each in metrics)
    (version,) = await ModelVersions(pool).list(team.general.workspace_id)
    # A handful of held-out questions is too few to prove anything, which is what the gate says.
    assert version.gate["outcome"] == run.result["outcome"] == "not enough feedback"
    assert version.status == "rejected"
    assert version.gate["reasons"]
    assert version.snapshot_sha256 == run.snapshot_sha256
    plan = Plan.read(worker.folder(run_id))
    assert plan.snapshot_sha256 == run.snapshot_sha256
    assert {"torch", "trl", "peft", "transformers"} <= set(plan.versions)
    assert run.result["code"] == plan.code != "unknown"
    assert len(await runs.rows_of_run(run_id)) >= 40


async def test_too_little_feedback_trains_nothing(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(2)
    run_id = await queued(pool, team, recipe="sft")
    async with working() as worker:
        run = await until(pool, run_id, ended)
    assert run.status == "failed"
    assert run.failure is not None and run.failure.startswith("Not enough feedback")
    assert not worker.folder(run_id).exists()


async def test_a_wrong_recipe_fails_with_the_field_that_is_wrong(
    pool: Pool, team: Team, working: Working
) -> None:
    run_id = await queued(pool, team, recipe={"kind": "sft", "learning_rat": 1})
    async with working():
        run = await until(pool, run_id, ended)
    assert run.status == "failed"
    assert run.failure is not None and "learning_rat" in run.failure


async def test_a_run_that_needs_too_much_memory_fails_with_advice(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(40)
    run_id = await queued(pool, team, recipe=RECIPE)
    async with working(memory_mb=512):
        run = await until(pool, run_id, ended)
        again = await queued(pool, team, recipe="nonsense")
        await until(pool, again, ended)  # the worker lives
    assert run.status == "failed"
    assert run.advice is not None and "per_device_train_batch_size" in run.advice


async def test_a_run_is_cancelled_while_it_trains_and_a_rollback_does_not_wait_for_it(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(40)
    run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 100_000})
    runs = Runs(pool)

    async def has_stepped(_: StoredRun) -> bool:
        return bool(await runs.metrics(run_id))

    async with working():
        await until(pool, run_id, has_stepped)
        rollback = await until(pool, await queued(pool, team, "rollback"), ended)
        assert rollback.failure is not None and "nothing to take back" in rollback.failure
        assert await runs.cancel(run_id, by=None)
        run = await until(pool, run_id, ended)
    assert run.status == "cancelled"


async def test_a_run_that_is_cancelled_while_its_model_is_judged_ends_at_once(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(40)
    run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 2})
    async with working():
        await until(pool, run_id, lambda run: run.stage == "gate")
        assert await Runs(pool).cancel(run_id, by=None)
        async with asyncio.timeout(CANCEL_S / 4):
            run = await until(pool, run_id, ended)
    assert run.status == "cancelled"
    assert await ModelVersions(pool).list(team.general.workspace_id) == []


async def test_versions_are_promoted_and_taken_back_without_losing_a_request(
    pool: Pool, team: Team, working: Working, engine_process: EngineProcess, home: Path
) -> None:
    workspace = team.general.workspace_id
    versions = ModelVersions(pool)
    for number in (1, 2):
        await versions.add(
            workspace_id=workspace,
            number=number,
            name=f"v{number}",
            run_id=await queued(pool, team, recipe="nonsense"),
            parent_id=None,
            directory=home / "models" / MODEL,
            sha256="0",
            snapshot_sha256="0",
            recipe={},
            gate={},
            status="candidate",
        )

    async def answers(engine: EngineClient) -> str:
        models = {model.name: model.root for model in await engine.models()}
        return models.get(live_alias(workspace), "none")

    async with working(engine_process.url) as worker:
        engine = worker.switch.engine
        for asked, serves in (("v1", "v1"), (None, "v2")):
            run_id = await queued(pool, team, "promote", **({"version": asked} if asked else {}))
            assert (await until(pool, run_id, ended)).status == "succeeded"
            assert await answers(engine) == serves
        back = await until(pool, await queued(pool, team, "rollback"), ended)
        assert back.result["now"] == "v1"
        assert await answers(engine) == "v1"
        last = await until(pool, await queued(pool, team, "rollback"), ended)
        assert last.result["now"] is None
        none = await until(pool, await queued(pool, team, "rollback"), ended)
    assert none.status == "failed"
    assert {each.name: each.status for each in await versions.list(workspace)} == {
        "v1": "rolled_back",
        "v2": "rolled_back",
    }
