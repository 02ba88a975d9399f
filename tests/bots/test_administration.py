"""Verbs of administrators: checked every time, audited, and honest about what is down."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bots.administration import Actor, Administration, NoChannel, NotAdministrator
from bots.channel_settings import ChannelSettings, load
from bots.runs import ask_for_run
from bots.slack_bot.mrkdwn import MRKDWN
from engine.client import EngineClient
from engine.errors import ModelNotFound
from storage import audit
from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, Runs
from storage.settings import DocumentsSettings
from tests.bots.model_list import serve_models

KEY = "c2VjcmV0LXRlc3Qta2V5LW9mLXRoaXJ0eS10d28tYnk="


def make_administration(pool: Pool, engine: EngineClient, home: Path) -> Administration:
    files_dir = home / "files"
    return Administration(
        pool=pool,
        engine=engine,
        documents=Documents(pool=pool, files_dir=files_dir, settings=DocumentsSettings()),
        places=Places(pool),
        runs=Runs(pool),
        files_dir=files_dir,
    )


@pytest.fixture
async def administration(pool: Pool, tmp_path: Path) -> AsyncIterator[Administration]:
    """The verbs, over an engine that lists its models."""
    async with serve_models() as engine:
        yield make_administration(pool, engine, tmp_path)


@pytest.fixture
async def audience(pool: Pool) -> Audience:
    """Somebody in a channel."""
    identities = Identities(pool=pool, keys=Keys(fernet_keys=(KEY,)))
    return await identities.resolve(platform="slack", workspace="T1", channel="C1", member="U1")


async def actions(pool: Pool, audience: Audience) -> list[str]:
    entries = await audit.entries(pool, workspace_id=audience.workspace_id, limit=20)
    assert all(entry.member_id == audience.member_id for entry in entries)
    return [entry.action for entry in entries]


VERBS: dict[str, Callable[[Administration, Actor], Awaitable[object]]] = {
    "models": lambda room, actor: room.models(actor),
    "set_model": lambda room, actor: room.set_model(actor, "large"),
    "settings": lambda room, actor: room.settings(actor),
    "save_settings": lambda room, actor: room.save_settings(actor, ChannelSettings()),
    "queue": lambda room, actor: room.queue(
        actor, Recipe(kind="train", parameters={}), place={"channel": "C1"}
    ),
    "status": lambda room, actor: room.status(actor),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_is_refused_to_others_and_leaves_nothing(
    verb: str, administration: Administration, audience: Audience, pool: Pool
) -> None:
    with pytest.raises(NotAdministrator):
        await VERBS[verb](administration, Actor(audience=audience, administers=False))
    assert await actions(pool, audience) == []
    assert await load(Places(pool), audience.channel_id) == ChannelSettings()
    assert await Runs(pool).list(audience.workspace_id, limit=5) == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_leaves_one_row_in_the_audit(
    verb: str, administration: Administration, audience: Audience, pool: Pool
) -> None:
    await VERBS[verb](administration, Actor(audience=audience, administers=True))
    assert len(await actions(pool, audience)) == 1


async def test_the_models_that_can_be_chosen_are_those_that_answer(
    administration: Administration, audience: Audience
) -> None:
    actor = Actor(audience=audience, administers=True)
    choice = await administration.models(actor)
    assert [model.name for model in choice.models] == ["live", "small", "large"]
    assert choice.chosen is None
    await administration.set_model(actor, "large")
    assert (await administration.models(actor)).chosen == "large"
    with pytest.raises(ModelNotFound, match="loaded: live, small, large"):
        await administration.set_model(actor, "mini")
    await administration.set_model(actor, None)
    assert (await administration.models(actor)).chosen is None


async def test_a_channels_verb_needs_a_channel(
    administration: Administration, audience: Audience
) -> None:
    alone = Audience(workspace_id=audience.workspace_id, member_id=audience.member_id)
    actor = Actor(audience=alone, administers=True)
    with pytest.raises(NoChannel):
        await administration.settings(actor)
    with pytest.raises(NoChannel):
        await administration.set_model(actor, "large")


async def test_a_run_waits_in_the_queue_and_shows_in_the_status(
    administration: Administration, audience: Audience
) -> None:
    actor = Actor(audience=audience, administers=True)
    recipe = Recipe(kind="promote", parameters={"version": "small-3"})
    run_id = await administration.queue(actor, recipe, place={"channel": "C1", "thread": "1.2"})
    status = await administration.status(actor)
    (run,) = status.training.waiting
    assert (run.id, run.kind, run.status) == (run_id, "promote", "queued")
    assert run.parameters == {"version": "small-3"}
    assert run.place == {"channel": "C1", "thread": "1.2"}


async def test_the_status_says_that_the_engine_is_down(
    pool: Pool, audience: Audience, tmp_path: Path
) -> None:
    async with EngineClient(url="http://127.0.0.1:9") as engine:
        room = make_administration(pool, engine, tmp_path)
        status = await room.status(Actor(audience=audience, administers=True))
    assert status.engine_trouble is not None
    assert status.models == ()


class Broken:
    """A thread that can be opened and not written to."""

    async def open(self, text: str) -> dict[str, str]:
        return {"platform": "slack", "workspace": "T1", "channel": "C1"}

    async def report(self, text: str) -> None:
        raise OSError("the platform is away")


async def test_a_run_that_is_queued_is_not_told_of_as_refused(
    administration: Administration, audience: Audience, pool: Pool
) -> None:
    """Who reads that it was refused asks again, and a second rollback takes back another one."""
    actor = Actor(audience=audience, administers=True)
    recipe = Recipe(kind="rollback", parameters={})
    await ask_for_run(administration, actor, recipe, person="Ana", thread=Broken(), dialect=MRKDWN)
    (run,) = await Runs(pool).list(audience.workspace_id, limit=5)
    assert (run.kind, run.status) == ("rollback", "queued")
