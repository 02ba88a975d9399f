"""What a worker does by itself: it queues runs, and deletes what forgotten people left."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from engine.client import EngineClient
from engine.settings import EngineSettings
from feedback import Feedback
from storage.identity import Audience
from storage.members import Members, forget
from storage.model_versions import ModelVersions
from storage.places import Places
from storage.pool import Pool
from storage.runs import TRIAL_DAYS, Recipe, Runs
from storage.settings import DatabaseSettings, TrainingSettings
from tests.feedback.conftest import Answers, answered, conversations
from tests.feedback.test_forgotten_rows import member, write_rows
from tests.storage.conftest import Team, keys, team
from tests.training.conftest import at_work
from tests.training.test_canary import made
from training import schedule
from training.schedule import queue_due, queue_due_runs
from training.serving import ModelSwitch
from training.settings import TrainingProcessSettings

__all__ = ["answered", "conversations", "keys", "team"]

TIMEOUT_S = 30.0


async def _agreed(pool: Pool, audience: Audience) -> None:
    assert audience.member_id is not None
    await Members(pool).set_consent(audience.member_id, True)
    await Places(pool).save_workspace_settings(
        audience.workspace_id, {"consent_to_train": True}, by=audience.member_id
    )


async def test_a_training_is_due_after_new_ratings_or_hours_but_never_twice(
    pool: Pool, team: Team, answered: Answers
) -> None:
    runs, feedback = Runs(pool), Feedback(pool)
    audience = team.general
    await _agreed(pool, audience)

    async def due(**when: Any) -> int:
        return len(await runs.due(**({"every_new_ratings": None, "every_hours": None} | when)))

    assert await due(every_new_ratings=1, every_hours=1) == 0
    for _ in range(2):
        (answer,) = (await answered(audience)).answers
        await feedback.vote(answer_id=answer, audience=audience, value=1)
    assert await due() == 0
    assert (await due(every_new_ratings=3), await due(every_new_ratings=2)) == (0, 1)
    assert await due(every_hours=1) == 1

    settings = TrainingSettings(every_new_ratings=2)
    assert await queue_due(runs, settings) == 1
    assert await queue_due(runs, settings) == 0
    (run,) = await runs.list(audience.workspace_id, limit=5)
    assert (run.kind, run.parameters, run.member_id) == ("train", {"recipe": "sft"}, None)
    await runs.end(run.id, "succeeded")
    assert (await due(every_new_ratings=1), await due(every_hours=1)) == (0, 0)


async def test_no_training_is_due_while_a_version_is_tried_for_the_first_weeks(
    pool: Pool, team: Team, answered: Answers
) -> None:
    runs, versions = Runs(pool), ModelVersions(pool)
    await _agreed(pool, team.general)
    tried = await made(pool, team, 1)
    assert tried.run_id is not None
    await runs.end(tried.run_id, "succeeded")
    await versions.start_canary(tried.id, share=0.2)
    (answer,) = (await answered(team.general)).answers
    await Feedback(pool).vote(answer_id=answer, audience=team.general, value=1)

    async def due() -> int:
        return len(await runs.due(every_new_ratings=1, every_hours=None))

    assert await due() == 0
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE model_versions SET status_at = now() - make_interval(days => %s)", [TRIAL_DAYS]
        )
    assert await due() == 1


async def test_two_workers_queue_a_due_training_once_and_for_nobody(
    pool: Pool, team: Team, answered: Answers
) -> None:
    runs, audience = Runs(pool), team.general
    await _agreed(pool, audience)
    place = {"channel": "C1", "member": "U1"}
    asked = Recipe(kind="rollback", parameters={})
    await runs.queue(asked, workspace_id=audience.workspace_id, by=audience.member_id, place=place)
    (answer,) = (await answered(audience)).answers
    await Feedback(pool).vote(answer_id=answer, audience=audience, value=1)
    settings = TrainingSettings(every_new_ratings=1)
    queued = await asyncio.gather(*(queue_due(runs, settings) for _ in range(4)))
    assert sorted(queued) == [0, 0, 0, 1]
    run, _ = await runs.list(audience.workspace_id, limit=5)
    # Who asked for the last run has nothing to do with this one, and may be forgotten.
    assert (run.kind, run.place) == ("train", {"channel": "C1"})


async def test_the_schedule_outlives_what_the_database_refuses(
    pool: Pool, team: Team, answered: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LOOK_EVERY_S", 0.05)
    await _agreed(pool, team.general)
    (answer,) = (await answered(team.general)).answers
    await Feedback(pool).vote(answer_id=answer, audience=team.general, value=1)

    async def rename(table: str, name: str) -> None:
        async with pool.connection() as connection:
            await connection.execute(f"ALTER TABLE {table} RENAME TO {name}".encode())

    await rename("corrections", "elsewhere")
    runs = Runs(pool)
    looking = asyncio.create_task(queue_due_runs(runs, TrainingSettings(every_new_ratings=1)))
    try:
        await asyncio.sleep(0.5)
        assert not looking.done()
        await rename("elsewhere", "corrections")
        async with asyncio.timeout(TIMEOUT_S):
            # The database has no event for it.
            while not await runs.list(team.general.workspace_id, limit=5):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def test_a_worker_deletes_what_forgotten_people_left_in_snapshots(
    pool: Pool, team: Team, tmp_path: Path, database_url: str
) -> None:
    snapshot = write_rows(tmp_path / "snapshots", 1, team.general)
    await forget(pool, member(team.general), files_dir=tmp_path / "files")
    settings = TrainingProcessSettings(
        home=tmp_path,
        database=DatabaseSettings(url=SecretStr(database_url)),
        engine=EngineSettings(),
        training=TrainingSettings(),
    )
    async with EngineClient(url="http://127.0.0.1:9") as engine:
        switch = ModelSwitch(versions=ModelVersions(pool), engine=engine)
        async with at_work(pool, settings, switch), asyncio.timeout(TIMEOUT_S):
            while (snapshot / "rows.jsonl").exists():  # noqa: ASYNC110 - no event either
                await asyncio.sleep(0.05)
    assert [file.name for file in snapshot.iterdir()] == ["manifest.json"]
