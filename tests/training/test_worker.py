"""Runs from the queue to a version: real process, real database, real engine, a tiny model."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.client import EngineClient
from engine.settings import EngineSettings
from storage.model_versions import ModelVersions, live_alias
from storage.notices import Notices
from storage.pool import Pool
from storage.runs import Recipe, RunId, Runs, StoredRun
from tests.engine.serving import EngineProcess
from tests.storage.conftest import Team
from tests.training.conftest import MODEL, Rates, at_work, processes_of
from training.execute_files import EVENTS
from training.plan import Live, Plan
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings
from training.supervision import CANCEL_S
from training.worker import TrainingWorker

TIMEOUT_S = 300.0
PLACE = {"platform": "slack", "workspace": "T1", "channel": "C1"}
RECIPE = {
    "kind": "sft",
    "lora": {"r": 4},
    "learning_rate": 0.01,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_steps": 2,
}
ENOUGH = 100
"""Questions of which enough are held out for the gate to judge by."""
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
            switch = ModelSwitch(versions=ModelVersions(pool), engine=engine)
            async with at_work(pool, settings_of(**training), switch) as worker:
                yield worker

    return working


async def queued(pool: Pool, team: Team, kind: Any = "train", **parameters: object) -> RunId:
    recipe = Recipe(kind=kind, parameters=parameters)
    return await Runs(pool).queue(
        recipe, workspace_id=team.general.workspace_id, by=team.general.member_id, place=PLACE
    )


async def notices(pool: Pool) -> list[str]:
    """What the chat's app still has to tell, waited for, and told."""
    found = Notices(pool)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            due = await found.due(PLACE["platform"])
            for each in due:
                await found.told(each.id)
            if due:
                return [each.text for each in due]
            await asyncio.sleep(0.05)


def served_elsewhere(settings: TrainingProcessSettings) -> TrainingProcessSettings:
    """The same, with a live model that is not on this machine."""
    models = {**settings.engine.models, "hosted": "openai:http://127.0.0.1:9/v1#hosted"}
    return settings.model_copy(
        update={
            "engine": EngineSettings(models=models, live="hosted"),
            "training": settings.training.model_copy(update={"base": MODEL}),
        }
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
            assert run.ended_at is None, f"{run.failure} {run.advice}"
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

    assert (run.status, run.failure) == ("succeeded", None)
    metrics = [each for each in await runs.metrics(run_id) if "loss" in each.values]
    assert [each.step for each in metrics] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "learning_rate", "eta_s"} <= set(each.values) for each in metrics)
    (version,) = await ModelVersions(pool).list(team.general.workspace_id)
    assert version.gate["outcome"] == run.result["outcome"] in ("candidate", "rejected")
    assert version.gate["reasons"]
    assert version.gate["evidence"]["prompts"] >= 20
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


async def test_a_version_that_could_not_be_judged_is_judged_when_somebody_asks_again(
    pool: Pool, team: Team, rate: Rates, working: Working, engine_process: EngineProcess
) -> None:
    await rate(ENOUGH)
    versions, workspace = ModelVersions(pool), team.general.workspace_id
    async with working(engine_process.url) as worker:
        here, worker.settings = worker.settings, served_elsewhere(worker.settings)
        run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 2})
        run = await until(pool, run_id, ended)
        assert run.result["outcome"] == "no decision"
        assert "hosted answers from another server" in run.result["reasons"][0]
        (version,) = await versions.list(workspace)
        assert version.status == "undecided"
        assert "Ask again with `parley judge v1`" in (await notices(pool))[0]

        worker.settings = here
        plan = worker.folder(run_id) / "plan.json"
        planned = plan.read_bytes()
        again = await until(pool, await queued(pool, team, "judge", version="v1"), ended)
        assert (again.status, again.failure) == ("succeeded", None)
        assert plan.read_bytes() == planned
        assert again.result["outcome"] in ("candidate", "rejected")
        assert (await notices(pool))[0].startswith(f"The gate looked at {version.name} again")
        assert await Runs(pool).metrics(again.id) == []  # nothing was trained

        (judged,) = await versions.list(workspace)
        assert (judged.id, judged.directory) == (version.id, version.directory)
        assert judged.status in ("canary", "rejected")
        assert judged.gate["outcome"] == again.result["outcome"]
        none = await until(pool, await queued(pool, team, "judge"), ended)
        assert none.failure == "There is no version on which the gate could not decide."


async def test_a_version_is_compared_with_what_was_promoted_while_it_was_trained(
    pool: Pool, team: Team, rate: Rates, working: Working, home: Path
) -> None:
    await rate(ENOUGH)
    shutil.copytree(home / "models" / MODEL, home / "models" / "other")
    versions, workspace = ModelVersions(pool), team.general.workspace_id
    other = await versions.add(
        workspace_id=workspace,
        number=9,
        name="v9",
        run_id=await queued(pool, team, "rollback"),
        parent_id=None,
        directory=home / "models" / "other",
        sha256="0",
        snapshot_sha256="0",
        recipe={},
        gate={},
        status="candidate",
    )
    run_id = await queued(pool, team, recipe={**RECIPE, "max_steps": 2})
    async with working() as worker:
        await until(pool, run_id, lambda run: run.stage == "gate")
        assert Live.read(worker.folder(run_id)).name == MODEL
        await versions.promote(other.id, by=None)
        run = await until(pool, run_id, ended)
        assert (run.status, run.failure) == ("succeeded", None)
        assert Live.read(worker.folder(run_id)) == Live(
            name="v9", directory=home / "models" / "other"
        )
        # What was measured against the model before counts no longer.
        told = (worker.folder(run_id) / EVENTS).read_text()
        assert f"Comparing with the live model {MODEL}." in told
        assert told.rstrip().rpartition("Comparing with the live model")[2].startswith(" v9.")


async def test_a_run_that_is_cancelled_while_its_model_is_judged_ends_at_once(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(ENOUGH)
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
