"""A tried version is promoted or taken back by live votes, and the place of its run is told."""

import itertools
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from engine.client import EngineClient, ModelInfo
from feedback import Feedback
from storage.conversations import Conversations
from storage.identity import Keys
from storage.model_versions import ModelVersion, ModelVersions, live_alias, version_name
from storage.notices import MAX_ATTEMPTS, Notices
from storage.pool import Pool
from storage.runs import Recipe, Runs
from storage.settings import TrainingSettings
from tests.storage.conftest import Team
from training.canary import CanaryWatch
from training.serving import ModelSwitch

BASE = "base"


class Engine(EngineClient):
    """Remembers what it was told, without a server."""

    def __init__(self) -> None:
        super().__init__(url="http://127.0.0.1:9")
        self.loaded = {BASE: BASE}
        self.aliases: dict[str, str] = {}

    async def models(self) -> list[ModelInfo]:
        names = [*self.loaded, *self.aliases]
        return [ModelInfo(name=name, root=name, context_length=None) for name in names]

    async def load(self, name: str, source: str) -> None:
        self.loaded[name] = source

    async def unload(self, name: str) -> None:
        del self.loaded[name]

    async def alias(self, alias: str, name: str) -> None:
        assert name in self.loaded
        self.aliases[alias] = name


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def watch(pool: Pool, engine: Engine) -> Callable[..., CanaryWatch]:
    def make(**settings: object) -> CanaryWatch:
        return CanaryWatch(
            pool=pool,
            switch=ModelSwitch(versions=ModelVersions(pool), engine=engine),
            settings=TrainingSettings.model_validate(settings),
            base=BASE,
        )

    return make


@pytest.fixture
async def tried(pool: Pool, team: Team, watch: Callable[..., CanaryWatch]) -> ModelVersion:
    """A candidate that answers half of the threads."""
    workspace = team.general.workspace_id
    run = await Runs(pool).queue(
        Recipe(kind="train", parameters={}),
        workspace_id=workspace,
        by=None,
        place={"platform": "slack", "channel": "C1"},
    )
    version = await ModelVersions(pool).add(
        workspace_id=workspace,
        number=1,
        name=version_name(workspace, 1),
        run_id=run,
        parent_id=None,
        directory=Path("/models/one"),
        sha256="0",
        snapshot_sha256="0",
        recipe={},
        gate={},
        accepted=True,
    )
    await watch().switch.try_out(version, share=0.5)
    found = await ModelVersions(pool).get(version.id)
    assert found is not None
    return found


Votes = Callable[[str, Literal[-1, 1], int], Awaitable[None]]


@pytest.fixture
def vote(pool: Pool, keys: Keys, team: Team) -> Votes:
    conversations, feedback = Conversations(pool=pool, keys=keys), Feedback(pool)

    numbers = count()

    async def vote(model: str, value: Literal[-1, 1], times: int) -> None:
        for number in itertools.islice(numbers, times):
            message_id, _ = await conversations.accept_question(
                audience=team.general,
                thread_ref=f"thread {number}",
                message_ref=f"message {number}",
                text="When?",
                author_id=team.general.member_id,
                surface="chat",
                place={},
            )
            answer = await conversations.save_answer(
                message_id,
                audience=team.general,
                text="Then.",
                found=True,
                finish_reason="stop",
                model=model,
                prompt_sha256="",
                prompt_tokens=1,
                completion_tokens=1,
                timings_ms={},
                sources=(),
            )
            await feedback.vote(answer_id=answer, audience=team.general, value=value)

    return vote


async def test_a_version_that_people_like_less_is_taken_back_and_the_channel_is_told(
    pool: Pool,
    team: Team,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    vote: Votes,
    engine: Engine,
) -> None:
    for _ in range(30):
        await vote(BASE, 1, 1)
        await vote(tried.name, -1, 1)
    assert (await watch().look(tried)).verdict == "worse"
    serving = await ModelVersions(pool).serving(team.general.workspace_id)
    assert serving.canary is None
    assert tried.name not in engine.loaded
    (notice,) = await Notices(pool).due("slack")
    assert tried.name in notice.text and "answers nobody any more" in notice.text
    assert notice.place["channel"] == "C1"
    await Notices(pool).told(notice.id)
    assert not await Notices(pool).due("slack")


async def test_a_better_version_is_promoted_or_an_administrator_is_asked_once(
    pool: Pool,
    team: Team,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    vote: Votes,
    engine: Engine,
) -> None:
    assert (await watch().look(tried)).verdict == "undecided"
    for _ in range(30):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    await watch(promote="ask").look(tried)
    await watch(promote="ask").look(tried)
    (asked,) = await Notices(pool).due("slack")
    assert "may promote it now" in asked.text
    assert (await ModelVersions(pool).serving(team.general.workspace_id)).live is None

    await watch(promote="auto").look(tried)

    live = (await ModelVersions(pool).serving(team.general.workspace_id)).live
    assert live is not None and live.id == tried.id
    assert engine.aliases == {live_alias(team.general.workspace_id): tried.name}


async def test_a_notice_that_no_place_takes_is_given_up(pool: Pool, tried: ModelVersion) -> None:
    assert tried.run_id is not None
    run = await Runs(pool).get(tried.run_id)
    assert run is not None
    await Notices(pool).add(run, "hello")
    handed_out = [len(await Notices(pool).due("slack")) for _ in range(MAX_ATTEMPTS + 1)]
    assert handed_out == [1] * MAX_ATTEMPTS + [0]
