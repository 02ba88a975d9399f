"""Which model answers a workspace: its own version, a tried one for a share of threads, never
another's."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bots.serving import ServingModels, in_share
from engine.client import EngineClient, ModelInfo
from storage.identity import ThreadId, WorkspaceId
from storage.model_versions import (
    ModelVersion,
    ModelVersions,
    is_elsewhere,
    live_alias,
    version_name,
)
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.storage.conftest import Team, keys, team

__all__ = ["keys", "team"]


class Engine(EngineClient):
    """A client that knows which models are loaded, without a server."""

    def __init__(self, *loaded: str) -> None:
        super().__init__(url="http://127.0.0.1:9")
        self.loaded = loaded

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name=each, root=each, context_length=None) for each in self.loaded]


async def a_version(pool: Pool, workspace: WorkspaceId, number: int) -> ModelVersion:
    run = await Runs(pool).queue(
        Recipe(kind="train", parameters={}), workspace_id=workspace, by=None, place={}
    )
    return await ModelVersions(pool).add(
        workspace_id=workspace,
        number=number,
        name=version_name(workspace, number),
        run_id=run,
        parent_id=None,
        directory=Path("/models/one"),
        sha256="0",
        snapshot_sha256="0",
        recipe={},
        gate={},
        status="candidate",
    )


async def test_a_share_of_the_threads_is_answered_by_the_version_that_is_tried(
    pool: Pool, team: Team
) -> None:
    workspace = team.general.workspace_id
    versions = ModelVersions(pool)
    live, tried = [await a_version(pool, workspace, number) for number in (1, 2)]
    serving = ServingModels(versions=versions, engine=Engine(live.name, tried.name))
    threads = [ThreadId(UUID(int=number)) for number in range(400)]
    assert await serving.model(workspace, threads[0]) is None

    await versions.promote(live.id, by=None)
    await versions.start_canary(tried.id, share=0.25)

    chosen = [await serving.model(workspace, thread) for thread in threads[:40]]
    assert chosen == [await serving.model(workspace, thread) for thread in threads[:40]]
    assert set(chosen) == {live.name, tried.name}
    assert await serving.model(workspace, None) == live.name
    stored = (await versions.serving(workspace)).canary
    assert stored is not None
    assert 60 <= sum(in_share(thread, stored) for thread in threads) <= 140


async def test_a_version_that_is_not_loaded_leaves_the_answer_to_the_settings_model(
    pool: Pool, team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    version = await a_version(pool, team.general.workspace_id, 1)
    await ModelVersions(pool).promote(version.id, by=None)
    serving = ServingModels(versions=ModelVersions(pool), engine=Engine("other"))
    assert await serving.model(team.general.workspace_id, ThreadId(uuid4())) is None
    assert [record.action for record in caplog.records if hasattr(record, "action")] == [
        "version_missing"
    ]


async def test_a_chosen_version_answers_while_it_is_loaded_and_ours(pool: Pool, team: Team) -> None:
    workspace = team.general.workspace_id
    live = await a_version(pool, workspace, 1)
    await ModelVersions(pool).promote(live.id, by=None)
    chosen, foreign = version_name(workspace, 2), version_name(WorkspaceId(uuid4()), 2)
    loaded = ServingModels(versions=ModelVersions(pool), engine=Engine(live.name, chosen, foreign))
    assert await loaded.model(workspace, None, named=chosen) == chosen
    assert await loaded.model(workspace, None, named=foreign) == live.name
    taken_back = ServingModels(versions=ModelVersions(pool), engine=Engine(live.name))
    assert await taken_back.model(workspace, None, named=chosen) == live.name


def test_versions_of_another_workspace_are_known_by_their_names() -> None:
    ours, theirs = WorkspaceId(uuid4()), WorkspaceId(uuid4())
    for name in (version_name(ours, 3), live_alias(ours), "live", "smollm2", "v2-instruct"):
        assert not is_elsewhere(name, ours)
    assert is_elsewhere(version_name(theirs, 3), ours)
    assert is_elsewhere(live_alias(theirs), ours)
