"""Runs from the queue to a version: real process, real database, real engine, a tiny model."""

import os
import signal
from pathlib import Path

import pytest
from procrastinate.jobs import Job

from engine.client import EngineClient
from storage.model_versions import ModelVersions, live_alias
from storage.pool import Pool
from storage.runs import Runs, StoredRun
from tests.engine.serving import EngineProcess
from tests.storage.conftest import Team
from tests.training.conftest import (
    ENOUGH,
    MODEL,
    RECIPE,
    Rates,
    Working,
    ended,
    notices,
    processes_of,
    queued,
    until,
)
from training.execute_files import RESULT
from training.plan import Plan


async def test_corrections_become_a_version_although_its_process_is_killed(
    pool: Pool,
    team: Team,
    rate: Rates,
    working: Working,
    engine_process: EngineProcess,
) -> None:
    await rate(ENOUGH)
    run_id = await queued(pool, team, recipe=RECIPE)
    runs = Runs(pool)

    async def has_stepped(_: StoredRun) -> bool:
        return any(metric.step >= 3 for metric in await runs.metrics(run_id))

    async with working(engine_process.url) as worker:
        await until(pool, run_id, has_stepped)
        for process in processes_of(worker.folder(run_id)):
            os.kill(process, signal.SIGKILL)
        run = await until(pool, run_id, ended)
        result = worker.folder(run_id) / RESULT
        told_at = result.stat().st_mtime_ns
        # Begun again, as where it is killed before its end is stored, it judges no second time.
        job = Job(id=1, queue="training", lock=None, queueing_lock=None, task_name="run")
        await worker._train(run, job)
        assert result.stat().st_mtime_ns == told_at

    assert (run.status, run.failure) == ("succeeded", None)
    metrics = [each for each in await runs.metrics(run_id) if "loss" in each.values]
    assert [each.step for each in metrics] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "learning_rate", "eta_s"} <= set(each.values) for each in metrics)
    (version,) = await ModelVersions(pool).list(team.general.workspace_id)
    assert version.gate["outcome"] == run.result["outcome"] in ("candidate", "rejected")
    assert version.gate["reasons"]
    assert version.gate["evidence"]["questions"] >= 20
    assert version.snapshot_sha256 == run.snapshot_sha256
    plan = Plan.read(worker.folder(run_id))
    assert plan.snapshot_sha256 == run.snapshot_sha256
    assert 50 <= plan.labels < ENOUGH  # a correction is one, whatever it makes
    assert {"torch", "trl", "peft", "transformers"} <= set(plan.versions)
    assert run.result["code"] == plan.code != "unknown"
    rows = [row for _, row in await runs.rows_of_run(run_id)]
    assert len(rows) >= 40
    assert {row.kind for row in rows if row.split == "train"} == {"sft"}
    held_out = {row.kind for row in rows if row.split == "held_out"}
    assert held_out == {"sft", "preference", "unpaired"}


@pytest.mark.parametrize(
    ("count", "reason"),
    [(2, "labels; 10 are needed"), (40, "held-out questions; 20 are needed")],
    ids=["to learn from", "to be judged on"],
)
async def test_too_little_feedback_trains_nothing(
    pool: Pool, team: Team, rate: Rates, working: Working, count: int, reason: str
) -> None:
    await rate(count)
    run_id = await queued(pool, team, recipe="sft")
    async with working() as worker:
        run = await until(pool, run_id, ended)
    assert run.status == "failed"
    assert run.failure is not None and run.failure.startswith("Not enough feedback")
    assert reason in run.failure
    assert run.advice
    assert not worker.folder(run_id).exists()


async def test_nothing_is_trained_where_the_files_of_the_live_version_are_gone(
    pool: Pool, team: Team, working: Working, home: Path
) -> None:
    versions = ModelVersions(pool)
    version = await versions.add(
        workspace_id=team.general.workspace_id,
        number=1,
        name="v1",
        run_id=await queued(pool, team, recipe="nonsense"),
        parent_id=None,
        directory=home / "gone",
        sha256="0",
        snapshot_sha256="0",
        recipe={},
        gate={},
        status="candidate",
    )
    await versions.promote(version.id, by=None)
    run_id = await queued(pool, team, recipe="sft")
    async with working() as worker:
        run = await until(pool, run_id, ended)
    assert run.failure is not None and run.failure.startswith("The files of the live model v1 are")
    assert run.advice is not None and "parley rollback base" in run.advice
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
    await rate(ENOUGH)
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
    await rate(ENOUGH)
    run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 100_000})
    runs = Runs(pool)

    async def has_stepped(_: StoredRun) -> bool:
        return bool(await runs.metrics(run_id))

    async with working():
        await until(pool, run_id, has_stepped)
        rollback = await until(pool, await queued(pool, team, "rollback"), ended)
        assert rollback.failure is not None and "nothing to take back" in rollback.failure
        assert "nothing to take back" in "".join(await notices(pool))
        assert await runs.cancel(run_id, by=None)
        run = await until(pool, run_id, ended)
        assert await notices(pool) == ["The run was cancelled."]
    assert run.status == "cancelled"


async def test_a_run_that_is_cancelled_before_its_turn_is_told_of_once(
    pool: Pool, team: Team, working: Working
) -> None:
    run_id = await queued(pool, team, recipe="sft")
    assert await Runs(pool).cancel(run_id, by=None)
    async with working():
        assert await notices(pool) == ["The run was cancelled."]


async def test_a_reward_model_alone_is_told_of(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(20)  # it needs no questions for the gate
    run_id = await queued(pool, team, recipe={**RECIPE, "kind": "reward", "max_steps": 1})
    async with working():
        run = await until(pool, run_id, ended)
    assert (run.status, run.result["outcome"]) == ("succeeded", "no policy")
    assert await notices(pool) == ["The run made a reward model; it answers nobody."]


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
