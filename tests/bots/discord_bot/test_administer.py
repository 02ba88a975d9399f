"""Commands of administrators in Discord, judged by each interaction; forget-me for everybody."""

from typing import Any

import pytest

from bots.channel_settings import load
from bots.discord_bot import administer, settings_panel
from feedback.rankings import MIN_VOTES
from storage import audit
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.bots.discord_bot.stage import Stage, hearing
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_world import Channel, Person
from tests.feedback.conftest import rows

REFUSED = "Only administrators of this workspace"


stage = hearing(administer, settings_panel)


def add_admin(stage: Stage) -> Person:
    staff = stage.discord.add_role("staff", Permission.MANAGE_GUILD)
    return stage.discord.add_person("Ana", staff)


async def actions(stage: Stage, person: Person, channel: Channel) -> list[str]:
    audience = await stage.audience(person, channel)
    entries = await audit.entries(
        stage.context.workplace.pool, workspace_id=audience.workspace_id, limit=50
    )
    return [entry.action for entry in reversed(entries)]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("model", {}),
        ("model", {"name": "large"}),
        ("settings", {}),
        ("settings", {"part": "server"}),
        ("train", {}),
        ("promote", {}),
        ("rollback", {}),
        ("judge", {}),
        ("status", {}),
    ],
)
async def test_others_are_refused_and_nothing_happens(
    command: str, options: dict[str, Any], stage: Stage
) -> None:
    eve, team = stage.discord.add_person("Eve"), stage.discord.add_channel("team")
    used = stage.discord.slash(eve, team, command, **options)
    assert REFUSED in await stage.discord.told(used)
    assert used.ephemeral
    assert await actions(stage, eve, team) == []
    assert list(team.messages) == []


async def test_rights_count_as_each_interaction_tells_them(stage: Stage) -> None:
    discord = stage.discord
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, team = discord.add_person("Ana", staff), discord.add_channel("team")
    used = discord.slash(ana, team, "status")
    told = await discord.told(used)
    assert "**Engine** answers; models: `live`, `small`, `large`" in told
    assert used.ephemeral
    discord.take(ana, staff)
    assert REFUSED in await discord.told(discord.slash(ana, team, "status"))
    assert await actions(stage, ana, team) == ["status_read"]


async def test_a_configured_role_administers_its_server_alone(stage: Stage) -> None:
    discord = stage.discord
    helpers = discord.add_role("helpers")
    stage.context.settings.__dict__["admin_roles"] = (helpers.id,)
    ana, team = discord.add_person("Ana", helpers), discord.add_channel("team")
    assert "Engine" in await discord.told(discord.slash(ana, team, "status"))
    other = discord.add_guild("Other")
    discord.join(ana, other)
    there = discord.add_channel("there", guild=other)
    assert REFUSED in await discord.told(discord.slash(ana, there, "status"))


async def test_models_are_suggested_listed_and_set_for_the_channel(stage: Stage) -> None:
    discord = stage.discord
    ana, eve = add_admin(stage), discord.add_person("Eve")
    team = discord.add_channel("team")
    typed = await discord.complete(ana, team, "model", "name", "l")
    assert [each["value"] for each in typed] == ["default", "live", "small", "large"]
    assert await discord.complete(eve, team, "model", "name", "l") == []
    told = await discord.told(discord.slash(ana, team, "model", name="large"))
    assert "answered by `large` from now on" in told
    assert "`large` (this channel's)" in await discord.told(discord.slash(ana, team, "model"))
    told = await discord.told(discord.slash(ana, team, "model", name="@everyone"))
    assert "is not loaded" in told
    audience = await stage.audience(ana, team)
    assert (await load(stage.context.workplace.places, audience.channel_id)).model == "large"


@pytest.mark.parametrize(
    ("command", "options", "parameters"),
    [
        ("train", {"method": "dpo"}, {"recipe": "dpo"}),
        ("promote", {"version": "small-3"}, {"version": "small-3"}),
        ("rollback", {"version": "base"}, {"version": "base"}),
        ("judge", {"version": "v3"}, {"version": "v3"}),
    ],
)
async def test_a_run_is_queued_and_its_thread_says_that_it_waits(
    command: str,
    options: dict[str, str],
    parameters: dict[str, str],
    stage: Stage,
    pool: Pool,
) -> None:
    discord = stage.discord
    ana, team = add_admin(stage), discord.add_channel("team")
    used = discord.slash(ana, team, command, **options)
    told = await discord.told(used)
    audience = await stage.audience(ana, team)
    (run,) = await Runs(pool).list(audience.workspace_id, limit=5)
    assert (run.kind, run.parameters, run.status) == (command, parameters, "queued")
    assert run.place["thread"] in told and "token" not in run.place
    (head,) = team.messages.values()
    assert head.thread is not None and head.thread.id == run.place["thread"]
    reports = [m.seen for m in head.thread.messages.values() if str(run.id) in m.seen]
    assert len(reports) == 1 and "I tell here how it ends" in reports[0]
    assert await actions(stage, ana, team) == [f"{command}_queued"]


async def test_a_long_status_is_told_in_several_messages(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    ana, team = add_admin(stage), discord.add_channel("team")
    workspace, runs = (await stage.audience(ana, team)).workspace_id, Runs(pool)
    recipe = Recipe(kind="train", parameters={})
    first, *waiting = [
        await runs.queue(recipe, workspace_id=workspace, by=None, place={}) for _ in range(45)
    ]
    await runs.end(first, "failed", failure="It broke.\n" + "Words of a log. " * 200)
    used = discord.slash(ana, team, "status")
    await discord.told(used)
    await discord.until(lambda: "Last run" in used.text, "the last line")
    assert all(str(run) in used.text for run in (first, *waiting))
    assert len(used.messages) == 2 and used.ephemeral


async def test_a_run_without_a_place_to_report_to_is_not_queued(stage: Stage) -> None:
    discord = stage.discord
    ana, team = add_admin(stage), discord.add_channel("team")
    discord.fail("POST /channels/{channel}/messages", channel=team.id, status=403, code=50013)
    assert "did not let me" in await discord.told(discord.slash(ana, team, "train"))
    assert await actions(stage, ana, team) == []


async def test_forget_me_reaches_every_server_and_direct_messages(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team, other = discord.add_channel("team"), discord.add_guild("Other")
    there = discord.add_channel("there", guild=other)
    discord.join(ana, other)
    for person, channel in ((ana, team), (ben, team), (ana, there), (ana, discord.direct(ana))):
        await stage.ask(person, channel, f"{person.name} in {channel.name}")
    own = await stage.audience(ana, discord.direct(ana))
    await stage.context.workplace.documents.add("diary.txt", b"mine", audience=own, owner="member")
    told = await discord.told(discord.slash(ana, team, "forget-me"))
    assert "1 private conversations and 1 private documents" in told
    assert "2 questions in channels no longer name" in told
    assert await rows(pool, "SELECT count(*) FROM members") == [(1,)]
    named = await rows(pool, "SELECT text FROM messages WHERE member_id IS NOT NULL")
    assert named == [("Ben in team",)]
    assert await rows(pool, "SELECT name FROM documents") == []


async def test_help_and_leaderboard_are_for_everybody_and_everywhere(stage: Stage) -> None:
    discord = stage.discord
    ana = discord.add_person("Ana")
    told = await discord.told(discord.slash(ana, discord.direct(ana), "help"))
    for command in ("ask", "compare", "documents", "upload", "home", "forget-me", "settings"):
        assert f"`/{command}" in told
    told = await discord.told(discord.slash(ana, discord.direct(ana), "leaderboard"))
    assert "No comparisons yet: `/compare QUESTION` starts one." in told


async def test_the_leaderboard_comes_with_a_picture_once_there_are_votes_enough(
    stage: Stage,
) -> None:
    discord = stage.discord
    ana, team = discord.add_person("Ana"), discord.add_channel("team")
    here = await stage.audience(ana, team)
    feedback = stage.context.workplace.feedback
    _, message_id = await stage.ask(ana, team, "How many days of leave?")
    answers = await stage.stored.two(message_id, here)
    comparison = await feedback.open_comparison(
        message_id=message_id,
        audience=here,
        answers=(answers[0].id, answers[1].id),
        shown_order=(0, 1),
    )
    for number in range(MIN_VOTES):
        voter = await stage.audience(discord.add_person(f"Voter {number}"), team)
        await feedback.compare(comparison_id=comparison, audience=voter, winner="left")
    asked = discord.slash(ana, team, "leaderboard")
    told = await discord.told(asked)
    assert told.index("**small-model**: preferred") < told.index("**large-model**: preferred")
    (drawn,) = await discord.until(lambda: asked.followups, "a picture", within_s=30)
    (file,) = drawn.body["attachments"]
    assert file["filename"] == "leaderboard.png" and file["size"] > 10_000
    assert asked.ephemeral
