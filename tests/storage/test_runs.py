"""Runs and the versions they make: what is kept, which version answers, who ended what."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from storage import audit
from storage.identity import AnswerId, WorkspaceId
from storage.model_versions import ModelVersion, ModelVersions
from storage.notices import NewNotice, Notices
from storage.pool import Pool, one_row
from storage.runs import Recipe, RunId, RunKind, RunRow, Runs


async def a_workspace(pool: Pool, *, name: str = "T1") -> WorkspaceId:
    async with pool.connection() as connection:
        added = await connection.execute(
            "INSERT INTO workspaces (platform, platform_id) VALUES ('slack', %s) RETURNING id",
            [name],
        )
        return WorkspaceId((await one_row(added))[0])


async def queued(pool: Pool, workspace: WorkspaceId) -> RunId:
    recipe = Recipe(kind="train", parameters={"recipe": "sft"})
    return await Runs(pool).queue(recipe, workspace_id=workspace, by=None, place={})


async def version(pool: Pool, workspace: WorkspaceId, **changes: Any) -> ModelVersion:
    versions = ModelVersions(pool)
    number = await versions.next_number(workspace)
    values: dict[str, Any] = {
        "workspace_id": workspace,
        "number": number,
        "name": f"v{number}",
        "run_id": await queued(pool, workspace),
        "parent_id": None,
        "directory": Path("/models/one"),
        "sha256": "0" * 64,
        "snapshot_sha256": "1" * 64,
        "recipe": {"kind": "sft"},
        "gate": {"outcome": "candidate"},
        "status": "candidate",
    }
    return await versions.add(**(values | changes))


async def test_a_run_is_told_of_while_it_goes_and_ends_once(pool: Pool) -> None:
    runs, workspace = Runs(pool), await a_workspace(pool)
    run_id = await queued(pool, workspace)
    assert await runs.start(run_id)
    assert not await runs.tell(run_id, stage="sft", metrics=[("sft", 1, {"loss": 3.0})])
    # A killed run tells its last steps again.
    await runs.tell(
        run_id, stage="sft", metrics=[("sft", 1, {"loss": 3.5}), ("sft", 2, {"loss": 2})]
    )
    told = await runs.metrics(run_id)
    assert [(each.step, each.values) for each in told] == [(1, {"loss": 3.5}), (2, {"loss": 2})]
    running = await runs.get(run_id)
    assert running is not None
    assert (running.status, running.stage, running.note) == ("running", "sft", None)

    await runs.end(run_id, "failed", failure="out of memory", advice="lower the batch size")
    await runs.end(run_id, "succeeded", result={"version": "v1"})

    ended = await runs.get(run_id)
    assert ended is not None
    assert (ended.status, ended.failure, ended.advice) == (
        "failed",
        "out of memory",
        "lower the batch size",
    )
    assert not await runs.start(run_id)


async def test_a_run_ends_together_with_its_notice_or_not_at_all(pool: Pool) -> None:
    runs, workspace = Runs(pool), await a_workspace(pool)
    recipe = Recipe(kind="train", parameters={})
    place = {"platform": "slack", "workspace": "T1", "channel": "C1"}
    run_id = await runs.queue(recipe, workspace_id=workspace, by=None, place=place)
    run = await runs.get(run_id)
    assert run is not None

    def notice(text: str) -> NewNotice:
        return NewNotice(run=run, text=text, about="ended")

    with pytest.raises(psycopg.DataError):
        await runs.end(run_id, "failed", notice=notice("no text: \0"))
    queued_still = await runs.get(run_id)
    assert queued_still is not None and queued_still.status == "queued"
    assert await runs.end(run_id, "cancelled", notice=notice("It was cancelled."))
    assert not await runs.end(run_id, "failed", notice=notice("It failed."))
    assert [each.text for each in await Notices(pool).due("slack")] == ["It was cancelled."]


async def test_what_a_stage_says_stays_until_it_says_another_or_ends(pool: Pool) -> None:
    runs, workspace = Runs(pool), await a_workspace(pool)
    run_id = await queued(pool, workspace)
    await runs.start(run_id)

    async def told(stage: str | None, note: str | None = None) -> str | None:
        await runs.tell(run_id, stage=stage, note=note)
        run = await runs.get(run_id)
        assert run is not None
        return run.note

    assert await told("prepare", "Loading the base model.") == "Loading the base model."
    assert await told(None) == "Loading the base model."
    assert await told("sft") is None
    assert await told("sft", "Going on from step 40.") == "Going on from step 40."
    assert await told("sft") == "Going on from step 40."
    await runs.end(run_id, "succeeded")
    run = await runs.get(run_id)
    assert run is not None and run.note is None


async def test_a_judgement_waits_its_turn_among_the_trainings(pool: Pool) -> None:
    workspace = await a_workspace(pool)
    kinds: tuple[RunKind, ...] = ("train", "judge", "promote")
    for kind in kinds:
        recipe = Recipe(kind=kind, parameters={})
        await Runs(pool).queue(recipe, workspace_id=workspace, by=None, place={})
    async with pool.connection() as connection:
        jobs = await connection.execute("SELECT queue_name FROM procrastinate_jobs ORDER BY id")
        assert [queue for (queue,) in await jobs.fetchall()] == ["training", "training", "serving"]


async def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_is_asked(pool: Pool) -> None:
    runs, workspace = Runs(pool), await a_workspace(pool)
    waiting, running = await queued(pool, workspace), await queued(pool, workspace)
    await runs.start(running)

    assert await runs.cancel(waiting, by=None)
    assert await runs.cancel(running, by=None)

    assert [each.status for each in await runs.list(workspace, limit=5)] == ["running", "cancelled"]
    assert await runs.tell(running, stage="sft")
    assert not await runs.start(waiting)
    await runs.end(running, "cancelled")
    assert not await runs.cancel(running, by=None)


async def test_rows_are_found_from_both_ends(pool: Pool) -> None:
    runs, workspace = Runs(pool), await a_workspace(pool)
    run_id, other = await queued(pool, workspace), await queued(pool, workspace)
    answers = [AnswerId(uuid4()), AnswerId(uuid4())]
    row = RunRow(row_id="abc", kind="sft", split="train", basis="votes", answer_ids=answers)
    # Begun again after a crash, the run may find other rows.
    for rows in ([row, replace(row, row_id="gone")], [row]):
        await runs.learn_from(run_id, snapshot_sha256="1" * 64, rows=rows)
    await runs.learn_from(other, snapshot_sha256="2" * 64, rows=[replace(row, row_id="def")])

    assert await runs.rows_of_run(run_id) == [(run_id, row)]
    found = await runs.rows_of_answer(answers[1])
    assert {(each, row.row_id) for each, row in found} == {(run_id, "abc"), (other, "def")}
    assert [each.id for each in await runs.of_row("def")] == [other]


async def test_one_version_answers_and_the_one_before_can_again(pool: Pool) -> None:
    versions, workspace = ModelVersions(pool), await a_workspace(pool)
    first, second = await version(pool, workspace), await version(pool, workspace)
    refused = await version(pool, workspace, status="rejected")
    assert [each.status for each in (first, second, refused)] == [
        "candidate",
        "candidate",
        "rejected",
    ]
    await versions.promote(first.id, by=None)
    await versions.start_canary(second.id, share=0.2)
    serving = await versions.serving(workspace)
    assert serving.live and serving.canary
    assert (serving.live.name, serving.canary.name) == ("v1", "v2")
    assert serving.canary.share == pytest.approx(0.2)

    await versions.promote(second.id, by=None)
    assert [each.status for each in await versions.list(workspace)] == [
        "rejected",
        "live",
        "retired",
    ]
    await versions.roll_back(second.id, was="live", to=first.id, by=None, why="worse")
    serving = await versions.serving(workspace)
    assert (serving.live and serving.live.name, serving.canary) == ("v1", None)
    noted = [entry.action for entry in await audit.entries(pool, workspace_id=workspace, limit=3)]
    assert noted == ["version_rolled_back", "version_promoted", "canary_started"]


async def test_a_run_makes_one_version_however_often_it_is_told(pool: Pool) -> None:
    workspace = await a_workspace(pool)
    run_id = await queued(pool, workspace)
    one = await version(pool, workspace, run_id=run_id)
    again = await version(pool, workspace, run_id=run_id)
    assert again == one
    assert await ModelVersions(pool).of_run(run_id) == one


async def test_versions_of_other_workspaces_do_not_answer(pool: Pool) -> None:
    versions = ModelVersions(pool)
    one, other = await a_workspace(pool), await a_workspace(pool, name="other")
    await versions.promote((await version(pool, one)).id, by=None)
    assert (await versions.serving(other)).live is None
    assert [each.workspace_id for each in await versions.serving_everywhere()] == [one]
