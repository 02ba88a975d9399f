"""Discord hears of a run in its thread: one message, however often it is posted."""

from bots.discord_bot import notices
from bots.discord_bot.context import SURFACE
from storage.notices import PERSON, NewNotice, Notices
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.bots.discord_bot.stage import Stage, hearing

stage = hearing()


async def test_a_promotion_is_one_message_with_its_picture(stage: Stage, pool: Pool) -> None:
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

    await notices.post(stage.context, notice)
    await notices.post(stage.context, notice)  # as after a crash before it was noted as told

    (posted,) = team.living()
    assert f"promoted by <@{ana.id}>" in posted.body["content"]
    (attachment,) = posted.body["attachments"]
    assert attachment["filename"] == notices.PICTURE_NAME
