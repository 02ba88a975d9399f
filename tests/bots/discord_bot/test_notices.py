"""Discord hears of a run in its thread: one message, however often it is posted."""

from bots.discord_bot import notices
from bots.discord_bot.context import SURFACE
from storage.notices import PERSON, NewNotice, Notice, Notices
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.bots.discord_bot.stage import Stage, hearing
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_world import Channel

stage = hearing()


async def test_a_promotion_is_one_message_with_its_picture(stage: Stage, pool: Pool) -> None:
    team, notice = await _promoted(stage, pool)
    await notices.post(stage.context, notice)
    await notices.post(stage.context, notice)  # as after a crash before it was noted as told

    (posted,) = team.living()
    assert f"promoted by <@{notice.person}>" in posted.body["content"]
    (attachment,) = posted.body["attachments"]
    assert attachment["filename"] == notices.PICTURE_NAME


async def test_where_no_files_may_be_attached_a_promotion_is_told_without_its_picture(
    stage: Stage, pool: Pool
) -> None:
    team, notice = await _promoted(stage, pool)
    stage.discord.overwrite(team, stage.discord.bot, deny=Permission.ATTACH_FILES)
    await notices.post(stage.context, notice)
    (posted,) = team.living()
    assert "Your 212 votes made v7" in posted.body["content"]
    assert not posted.body["attachments"]


async def _promoted(stage: Stage, pool: Pool) -> tuple[Channel, Notice]:
    """A channel, and what it is to be told."""
    discord = stage.discord
    ana, team = discord.add_person("Ana"), discord.add_channel("team")
    audience = await stage.audience(ana, team)
    assert team.guild is not None
    place = {"platform": SURFACE, "workspace": team.guild.id, "channel": team.id}
    run_id = await Runs(pool).queue(
        Recipe(kind="promote", parameters={}),
        workspace_id=audience.workspace_id,
        by=audience.member_id,
        place={**place, "member": ana.id, "thread": team.id},
    )
    run = await Runs(pool).get(run_id)
    assert run is not None
    text = f"Your 212 votes made v7; promoted by {PERSON}. It replaces v6."
    await Notices(pool).add(NewNotice(run=run, text=text, about="promoted", picture=b"\x89PNG"))
    (notice,) = await Notices(pool).due(SURFACE)
    return team, notice
