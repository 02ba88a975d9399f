"""A tried version is promoted or taken back by live votes, and the place of its run is told."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
from psycopg.errors import CheckViolation

from engine.client import EngineClient, ModelInfo
from engine.errors import ModelCorrupt
from feedback import Feedback
from storage.conversations import Conversations
from storage.identity import Identities, Keys
from storage.model_versions import (
    GateStatus,
    ModelVersion,
    ModelVersions,
    live_alias,
    version_name,
)
from storage.notices import Notices
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, Runs
from storage.settings import TrainingSettings
from tests.storage.conftest import Team
from training.canary import CanaryWatch
from training.errors import TrainingError
from training.serving import UNUSED_S, ModelSwitch

BASE = "smollm2"


class Engine(EngineClient):
    """Remembers what it was told, without a server."""

    def __init__(self) -> None:
        super().__init__(url="http://127.0.0.1:9")
        self.loaded = {BASE: BASE}
        self.aliases: dict[str, str] = {}
        self.damaged = False

    async def models(self) -> list[ModelInfo]:
        roots = {name: name for name in self.loaded} | {"live": BASE} | self.aliases
        return [ModelInfo(name=name, root=roots[name], context_length=None) for name in roots]

    async def load(self, name: str, source: str) -> None:
        if self.damaged:
            raise ModelCorrupt(Path(source), "damaged")
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
        )

    return make


async def made(
    pool: Pool,
    team: Team,
    number: int,
    *,
    status: GateStatus = "candidate",
    directory: Path = Path(__file__).parent,
    **place: str,
) -> ModelVersion:
    """A version of a run that was asked for there.

    Args:
        directory: of its model, which nobody reads here.
    """
    workspace = team.general.workspace_id
    run = await Runs(pool).queue(
        Recipe(kind="train", parameters={}), workspace_id=workspace, by=None, place=place
    )
    return await ModelVersions(pool).add(
        workspace_id=workspace,
        number=number,
        name=version_name(workspace, number),
        run_id=run,
        parent_id=None,
        directory=directory,
        sha256="0",
        snapshot_sha256="0",
        recipe={},
        gate={},
        status=status,
    )


@pytest.fixture
async def tried(pool: Pool, team: Team, watch: Callable[..., CanaryWatch]) -> ModelVersion:
    """A candidate that answers half of the threads."""
    version = await made(pool, team, 1, platform="slack", channel="C1")
    await watch().switch.try_out(version, share=0.5)
    found = await ModelVersions(pool).get(version.id)
    assert found is not None
    return found


class Votes(Protocol):
    """Votes on a model's answers, each in a thread of its own; two people take turns."""

    async def __call__(
        self, model: str, value: int, times: int, team: Team | None = None
    ) -> None: ...


@pytest.fixture
def vote(pool: Pool, keys: Keys, team: Team) -> Votes:
    ours = team
    conversations, feedback = Conversations(pool=pool, keys=keys), Feedback(pool)
    numbers = count()

    async def vote(model: str, value: int, times: int, team: Team | None = None) -> None:
        team = team or ours
        voters = (team.general, replace(team.general, member_id=team.bob.member_id))
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
            await feedback.vote(
                answer_id=answer,
                audience=voters[number // 2 % 2],
                value=1 if value > 0 else -1,
            )

    return vote


@pytest.fixture
async def other_team(pool: Pool, keys: Keys) -> Team:
    """Another workspace's."""
    identities = Identities(pool=pool, keys=keys)
    ada, bob = [
        await identities.resolve(
            platform="web",
            workspace="other",
            channel="general",
            channel_open=True,
            member=member,
            display_name=member,
        )
        for member in ("Ada", "Bob")
    ]
    return Team(general=ada, secret=ada, ada=ada, bob=bob)


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
    assert tried.name in engine.loaded  # turns that chose it may still be under way
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
    assert f"v{tried.number} better (60 live votes)" in asked.text
    assert "may promote it now" in asked.text
    assert (await ModelVersions(pool).serving(team.general.workspace_id)).live is None

    await watch(promote="auto").look(tried)

    live = (await ModelVersions(pool).serving(team.general.workspace_id)).live
    assert live is not None and live.id == tried.id
    assert engine.aliases == {live_alias(team.general.workspace_id): tried.name}
    (told,) = await Notices(pool).due("slack")
    assert "v1 answers everybody now" in told.text and "promoted by 60 live votes" in told.text


async def test_a_version_that_became_worse_while_an_administrator_was_asked_is_taken_back(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    async def each_likes(liked: str, times: int) -> None:
        for _ in range(times):
            await vote(BASE, 1 if liked == BASE else -1, 1)
            await vote(tried.name, 1 if liked == tried.name else -1, 1)

    asking = watch(promote="ask")
    await each_likes(tried.name, 15)
    assert (await asking.look(tried)).verdict == "better"
    await each_likes(BASE, 60)
    assert (await asking.look(tried)).verdict == "worse"
    assert (await ModelVersions(pool).serving(team.general.workspace_id)).canary is None
    texts = [notice.text for notice in await Notices(pool).due("slack")]
    assert [text.split()[-1] for text in texts] == ["v1`.", "again."]


async def test_votes_of_one_person_or_in_one_thread_decide_nothing(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    for _ in range(30):
        await vote(BASE, 1, 1)
        await vote(tried.name, -1, 1)
    async with pool.connection() as connection:
        await connection.execute("UPDATE votes SET member_id = %s", [team.bob.member_id])
    now = await watch().look(tried)
    assert (now.verdict, now.votes) == ("undecided", 60)
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE votes SET member_id = %s WHERE value > 0", [team.ada.member_id]
        )
        await connection.execute(
            "UPDATE messages SET thread_id = (SELECT id FROM threads ORDER BY id LIMIT 1)"
        )
    now = await watch().look(tried)
    assert (now.verdict, now.votes) == ("undecided", 1)


async def test_whatever_answers_where_no_version_is_live_is_what_a_version_is_compared_with(
    team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    await vote("what-the-alias-named-first", 1, 2)
    await vote("what-it-names-now", 1, 2)
    await vote(tried.name, -1, 3)
    await vote(version_name(team.general.workspace_id, 9), 1, 1)  # was live before
    await vote("", 1, 1)  # no model was asked
    now = await watch().look(tried)
    assert (now.votes, now.blocks) == (7, 1)


async def test_votes_where_somebody_chose_the_model_do_not_count(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    await vote(BASE, 1, 3)
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO comparisons (message_id, left_answer, right_answer)"
            " SELECT a.message_id, a.id, b.id FROM answers a JOIN answers b ON a.id < b.id LIMIT 1"
        )
    assert (await watch().look(tried)).votes == 1
    places, (channel, by) = Places(pool), (team.general.channel_id, team.general.member_id)
    assert channel is not None and by is not None
    for of_workspace, of_channel, counted in (
        ({"model": "other"}, {}, 0),
        ({"model": "other"}, {"model": None}, 1),
        ({}, {"model": "live"}, 1),
        ({}, {"model": "other"}, 0),
    ):
        await places.save_workspace_settings(team.general.workspace_id, of_workspace, by=by)
        await places.save_channel_settings(channel, of_channel, by=by)
        assert (await watch().look(tried)).votes == counted


async def test_what_cannot_be_told_is_not_done_and_the_next_look_does_both(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, vote: Votes
) -> None:
    for _ in range(30):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    versions, workspace = ModelVersions(pool), team.general.workspace_id

    async def change(rule: str) -> None:
        async with pool.connection() as connection:
            await connection.execute(f"ALTER TABLE notices {rule}")

    await change("ADD CONSTRAINT refused CHECK (false)")
    with pytest.raises(CheckViolation):
        await watch(promote="auto").look(tried)
    assert (await versions.serving(workspace)).live is None
    await change("DROP CONSTRAINT refused")
    await watch(promote="auto").look(tried)
    live = (await versions.serving(workspace)).live
    assert live is not None and live.id == tried.id
    assert len(await Notices(pool).due("slack")) == 1


async def test_what_fails_in_one_workspace_keeps_no_other_from_its_look(
    pool: Pool,
    team: Team,
    other_team: Team,
    watch: Callable[..., CanaryWatch],
    vote: Votes,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = sorted((team, other_team), key=lambda each: each.general.workspace_id)
    looked = watch(promote="auto")
    tried = {}
    for each, liked in ((first, 1), (second, -1)):
        version = await made(pool, each, 1)
        await ModelVersions(pool).start_canary(version.id, share=0.5)
        tried[each] = version
        for _ in range(30):
            await vote(BASE, -liked, 1, each)
            await vote(version.name, liked, 1, each)
    engine.damaged = True  # so that the first one's version cannot be promoted
    await looked.look_around()
    versions = ModelVersions(pool)
    assert (await versions.serving(first.general.workspace_id)).canary is not None
    assert (await versions.serving(second.general.workspace_id)).canary is None
    unwatched = [
        each for each in caplog.records if getattr(each, "action", "") == "canary_unwatched"
    ]
    assert [getattr(each, "model", "") for each in unwatched] == [tried[first].name]


async def test_a_promoted_version_is_not_taken_back_for_the_votes_of_its_trial(
    team: Team, watch: Callable[..., CanaryWatch], tried: ModelVersion, engine: Engine
) -> None:
    switch, workspace = watch().switch, team.general.workspace_id
    await switch.promote(workspace, None, by=None)
    assert not await switch.end_trial(tried, by=None, why="worse")
    live = (await switch.versions.serving(workspace)).live
    assert live is not None and live.id == tried.id
    assert tried.name in engine.loaded


async def test_what_is_taken_back_while_its_votes_are_weighed_is_not_promoted(
    pool: Pool,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    vote: Votes,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(30):
        await vote(BASE, -1, 1)
        await vote(tried.name, 1, 1)
    looked = watch(promote="auto")

    async def models() -> list[ModelInfo]:
        """Takes a moment, in which somebody acts."""
        await looked.switch.end_trial(tried, by=None, why="asked")
        return await Engine.models(engine)

    monkeypatch.setattr(engine, "models", models)
    assert (await looked.look(tried)).verdict == "better"
    kept = await ModelVersions(pool).get(tried.id)
    assert kept is not None and kept.status == "rolled_back"
    assert engine.aliases == {}
    assert await Notices(pool).due("slack") == []


async def test_a_version_that_is_no_candidate_answers_only_where_it_is_named_and_not_refused(
    pool: Pool, team: Team, watch: Callable[..., CanaryWatch]
) -> None:
    switch, workspace = watch().switch, team.general.workspace_id
    await made(pool, team, 1, status="undecided")
    await made(pool, team, 2, status="rejected")
    with pytest.raises(TrainingError, match="no candidate"):
        await switch.promote(workspace, None, by=None)
    with pytest.raises(TrainingError, match="rejected v2"):
        await switch.promote(workspace, "v2", by=None)
    assert (await switch.promote(workspace, "v1", by=None)).version.number == 1


async def test_what_an_engine_lost_is_served_again_but_what_cannot_be(
    pool: Pool,
    team: Team,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    switch = watch().switch
    await switch.promote(team.general.workspace_id, None, by=None)
    engine.loaded, engine.aliases = {BASE: BASE}, {}
    engine.damaged = True
    await switch.load_serving()
    assert [getattr(each, "action", "") for each in caplog.records][-1] == "version_missing"
    engine.damaged = False
    await switch.load_serving()
    assert engine.aliases == {live_alias(team.general.workspace_id): tried.name}


async def test_what_answers_nobody_leaves_the_engine_unless_a_place_names_it(
    pool: Pool,
    team: Team,
    watch: Callable[..., CanaryWatch],
    tried: ModelVersion,
    engine: Engine,
) -> None:
    switch, workspace = watch().switch, team.general.workspace_id
    assert team.general.channel_id is not None and team.general.member_id is not None
    second = await made(pool, team, 2)
    await switch.promote(workspace, tried.name, by=None)
    await switch.promote(workspace, second.name, by=None)
    await switch.unload_unused()
    assert tried.name in engine.loaded  # turns that chose it may still be under way
    places = Places(pool)

    async def named(model: str | None) -> None:
        assert team.general.channel_id is not None and team.general.member_id is not None
        settings = {"model": model}
        await places.save_channel_settings(
            team.general.channel_id, settings, by=team.general.member_id
        )
        async with pool.connection() as connection:
            await connection.execute(
                "UPDATE model_versions SET status_at = now() - make_interval(secs => %s)",
                [UNUSED_S + 1],
            )
        await switch.unload_unused()

    await named(tried.name)
    assert tried.name in engine.loaded
    engine.loaded = {BASE: BASE}
    await switch.load_serving()
    assert set(engine.loaded) == {BASE, tried.name, second.name}
    await named(None)
    assert set(engine.loaded) == {BASE, second.name}
