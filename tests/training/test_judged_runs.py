"""Which models the gate compares, and when: real process, real database, a tiny model."""

import asyncio
import shutil
from pathlib import Path

from engine.settings import EngineSettings
from storage.model_versions import ModelVersions
from storage.pool import Pool
from storage.runs import Runs
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import NAME, ScriptedModel
from tests.storage.conftest import Team
from tests.training.conftest import (
    ENOUGH,
    MODEL,
    RECIPE,
    Rates,
    Working,
    compared_in,
    ended,
    notices,
    queued,
    until,
)
from training.execute_files import EVENTS
from training.plan import Live
from training.settings import TrainingProcessSettings
from training.supervision import CANCEL_S


def served_elsewhere(settings: TrainingProcessSettings) -> TrainingProcessSettings:
    """The same, with a live model that is not on this machine."""
    models = {**settings.engine.models, "hosted": "openai:http://127.0.0.1:9/v1#hosted"}
    return settings.model_copy(
        update={
            "engine": EngineSettings(models=models, live="hosted"),
            "training": settings.training.model_copy(update={"base": MODEL}),
        }
    )


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


async def test_a_team_that_only_votes_gets_a_model_that_a_judge_compares(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(ENOUGH, votes=True)
    recipe = {**RECIPE, "kind": "kto", "max_steps": 2, "per_device_train_batch_size": 4}
    async with working():
        refused = await until(pool, await queued(pool, team, recipe=recipe), ended)
        assert "nothing could prove the model better" in (refused.failure or "")
        assert "set training.judge_url" in (refused.advice or "")
    async with ScriptedModel() as judge:
        judge.script = prefers_more
        address, _, _ = judge.source.removeprefix("openai:").partition("#")
        async with working(judge_url=address, judge_model=NAME):
            run = await until(pool, await queued(pool, team, recipe=recipe), ended)
    assert (run.status, run.failure) == ("succeeded", None)
    assert run.result["outcome"] in ("candidate", "rejected")
    assert run.result["gate"]["evidence"]["judge_failure"] is None
    held_out = run.result["gate"]["figures"]["win_rate"]["compared"]
    assert 10 <= held_out < ENOUGH
    # Each pair in both orders, unless both models gave the same answer.
    assert 0 < judge.begun <= 2 * held_out and judge.begun % 2 == 0


def prefers_more(prompt: str) -> str:
    first, second = compared_in(prompt)
    return "A" if first > second else "B"
