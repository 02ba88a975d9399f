"""Slack hears of a run in its thread: one message, with its picture, that names who asked."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from bots.notices import tell_for_ever
from bots.slack_bot import notices
from bots.slack_bot.context import SURFACE
from storage.notices import PERSON, NewNotice, Notices
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.bots.conftest import running
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

PICTURE = b"\x89PNG"
TEXT = f"Your 212 votes made v7; promoted by {PERSON}. <it>"


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def told(stage: Stage, pool: Pool, ana: Person, team: Channel) -> Message:
    """What is posted of a run that Ana asked for in the team's channel."""
    head = stage.slack.say(ana, team, "a run", deliver=False)
    audience = await stage.audience(ana, team)
    place = {"platform": SURFACE, "workspace": team.team_id, "channel": team.id}
    run_id = await Runs(pool).queue(
        Recipe(kind="promote", parameters={}),
        workspace_id=audience.workspace_id,
        by=audience.member_id,
        place={**place, "member": ana.id, "thread": head.ts},
    )
    run = await Runs(pool).get(run_id)
    assert run is not None
    await Notices(pool).add(NewNotice(run=run, text=TEXT, about="promoted", picture=PICTURE))

    def reply() -> Message | None:
        return next((each for each in team.messages.values() if each.thread_ts == head.ts), None)

    work = tell_for_ever(Notices(pool), platform=SURFACE, post=partial(notices.post, stage.context))
    async with running(work):
        found = await stage.slack.until(reply, "the notice", within_s=10)
    assert found is not None
    return found


async def test_a_promotion_is_one_message_with_its_picture(stage: Stage, pool: Pool) -> None:
    ana = stage.slack.add_person("Ana", admin=True)
    team = stage.slack.add_channel("team", ana)
    posted = await told(stage, pool, ana, team)
    words = f"Your 212 votes made v7; promoted by <@{ana.id}>. &lt;it&gt;"
    assert posted.body["text"] == words
    (file,) = posted.body["files"]
    assert stage.slack.world.files[file["id"]].content == PICTURE
    assert len(team.messages) == 2


async def test_an_app_that_may_upload_nothing_tells_it_in_words(stage: Stage, pool: Pool) -> None:
    ana = stage.slack.add_person("Ana", admin=True)
    team = stage.slack.add_channel("team", ana)
    stage.slack.fail("files.getUploadURLExternal", error="missing_scope")
    posted = await told(stage, pool, ana, team)
    assert f"promoted by <@{ana.id}>" in posted.body["text"]
    assert "files" not in posted.body
