"""The buttons of an answer in Discord, and whose they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from discord.http import Route

from bots.channel_settings import ChannelSettings, save
from bots.discord_bot import actions, custom_ids
from bots.discord_bot.clicks import refuse_forged
from bots.discord_bot.messages import answer_posts, progress_post
from bots.messages import Answer
from bots.screens import Reach
from storage.places import Places
from storage.pool import Pool
from tests.bots.discord_bot.conftest import AudienceOf, Know, Running
from tests.bots.discord_bot.stage import Stage, logged_in
from tests.bots.model_list import serve_models
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import EPHEMERAL, Channel, Message, Person
from tests.fakes.scripted_model import ScriptedModel
from tests.feedback.conftest import rows

JOBS = "SELECT task_name, queue_name FROM procrastinate_jobs"


@pytest.fixture
async def stage(
    discord_server: DiscordServer, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    async with (
        serve_models() as engine,
        logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
        stage.listening(actions),
    ):
        refuse_forged(stage.context)
        yield stage


async def configure(stage: Stage, person: Person, channel: Channel, **settings: object) -> None:
    audience = await stage.audience(person, channel)
    assert audience.channel_id is not None and audience.member_id is not None
    await save(
        stage.context.workplace.places,
        audience.channel_id,
        ChannelSettings.model_validate(settings),
        by=audience.member_id,
    )


async def private_answer(stage: Stage, person: Person, channel: Channel) -> tuple[Message, Answer]:
    """An answer that only the asker of a command sees."""
    _, answer = await stage.answered(person, channel)
    used = stage.discord.slash(person, channel, "ask")
    route = Route("POST", "/interactions/{id}/{token}/callback", id=used.id, token=used.token)
    deferral = {"type": 5, "data": {"flags": EPHEMERAL}}
    await stage.context.client.http.request(route, json=deferral)
    (post,) = answer_posts(answer, links={}, reach=Reach.PRIVATE)
    await stage.context.rest.edit_response(
        stage.discord.app_id, used.token, content=post.content, view=post.view()
    )
    assert used.original is not None and used.ephemeral
    return used.original, answer


async def forget_posts(pool: Pool, channel: Channel) -> None:
    """As if the process had died between each post and its record, and long ago."""
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM deliveries")
    for message in channel.living():
        message.posted.pop("nonce", None)


# -- Stop, answer again ---------------------------------------------------------------------------


async def test_only_the_asker_may_stop_or_ask_again_and_a_second_click_asks_no_more(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    ana, eve = discord.add_person("Ana"), discord.add_person("Eve")
    team = discord.add_channel("team")
    message, answer = await stage.answered(ana, team)
    writing = await stage.post(team, progress_post("…", answer.message_id))
    for click in (discord.click(eve, message, "Answer again"), discord.click(eve, writing, "Stop")):
        assert "Only the person who asked" in await discord.told(click)
        assert click.ephemeral
    assert "complete already" in await discord.told(discord.click(ana, writing, "Stop"))
    assert await rows(pool, JOBS) == []
    await discord.acknowledged(discord.click(ana, message, "Answer again"))
    again = discord.click(ana, message, "Answer again")
    assert "answering again already" in await discord.told(again)
    assert await rows(pool, JOBS) == [("regenerate", "discord")]


async def test_who_lost_the_role_that_may_ask_cannot_ask_again(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    staff = discord.add_role("staff")
    ana = discord.add_person("Ana", staff)
    team = discord.add_channel("team")
    await configure(stage, ana, team, roles=[staff.id])
    message, _ = await stage.answered(ana, team)
    discord.take(ana, staff)
    assert "certain roles" in await discord.told(discord.click(ana, message, "Answer again"))
    discord.give(ana, staff)
    await discord.acknowledged(discord.click(ana, message, "Answer again"))
    assert await rows(pool, JOBS) == [("regenerate", "discord")]


async def test_a_private_answer_is_replaced_and_stopped_where_it_was_clicked(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    discord_audience: AudienceOf,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    discord = discord_server
    ana, team = discord.add_person("Ana"), discord.add_channel("team")
    await discord_know(team, "leave.md", "Everybody has 30 days of leave a year.")
    audience = await discord_audience(team, ana)
    assert audience.channel_id is not None and audience.member_id is not None
    await save(
        Places(pool), audience.channel_id, ChannelSettings(ephemeral=True), by=audience.member_id
    )
    async with discord_app():
        answer = await discord.answer_to(
            discord.slash(ana, team, "ask", question="How many days of leave?")
        )
        discord.fail("callback", delay_s=0.3)
        model.script = lambda prompt: "Thirty days it is for everybody [1]."
        model.may_end.clear()
        click = discord.click(ana, answer, "Answer again")
        await discord.until(lambda: "Thirty" in answer.seen, "half of another answer")
        discord.click(ana, answer, "Stop")
        await discord.until(lambda: "Answer again" in answer.buttons, "a stopped answer")
        assert "Thirty" in answer.seen and "everybody" not in answer.seen
    assert click.ack_s is not None and click.ack_s < 3
    assert discord.ephemerals(ana) == [answer]
    assert team.living() == []


# -- Sharing --------------------------------------------------------------------------------------


async def test_a_private_answer_is_shared_once_by_its_asker_and_taken_away(stage: Stage) -> None:
    discord = stage.discord
    ana, eve = discord.add_person("Ana"), discord.add_person("Eve")
    team = discord.add_channel("team")
    private, answer = await private_answer(stage, ana, team)
    own, _ = await private_answer(stage, eve, team)
    before = team.living()
    own.body["components"][0]["components"][-1]["custom_id"] = custom_ids.share(answer.id)
    refused = discord.click(eve, own, "Share with channel")
    assert "Only the person who asked" in await discord.told(refused)
    first, second = (discord.click(ana, private, "Share with channel") for _ in range(2))
    await asyncio.gather(discord.acknowledged(first), discord.acknowledged(second))
    await discord.until(lambda: private.deleted, "the private answer is gone")
    (shared,) = (message for message in team.living() if message not in before)
    assert answer.text in shared.seen
    assert list(shared.buttons) == ["Good answer", "Bad answer"]
    assert "shared already" in first.text + second.text


async def test_a_share_whose_record_was_lost_is_not_repeated(stage: Stage, pool: Pool) -> None:
    discord = stage.discord
    ana, team = discord.add_person("Ana"), discord.add_channel("team")
    private, _ = await private_answer(stage, ana, team)
    await discord.acknowledged(discord.click(ana, private, "Share with channel"))
    await discord.until(lambda: private.deleted, "the private answer is gone")
    posted = team.living()
    await forget_posts(pool, team)
    private.deleted = False
    await discord.acknowledged(discord.click(ana, private, "Share with channel"))
    await discord.until(lambda: private.deleted, "the private answer is gone")
    private.deleted = False
    again = discord.click(ana, private, "Share with channel")
    assert "shared already" in await discord.told(again)
    assert team.living() == posted


# -- People ---------------------------------------------------------------------------------------


async def test_only_the_people_and_roles_that_the_channel_names_are_called_and_once(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    helpdesk = discord.add_role("helpdesk")
    ana, ben = discord.add_person("@everyone"), discord.add_person("Ben")
    team = discord.add_channel("team")
    discord.overwrite(team, discord.bot, allow=Permission.MENTION_EVERYONE)
    await configure(stage, ana, team, humans=[ben.id, helpdesk.id, discord.home.id])
    message, _ = await stage.answered(ana, team)
    for _ in range(2):
        await discord.acknowledged(discord.click(ana, message, "I need a human"))
    again = discord.click(ana, message, "I need a human")
    assert "called for this answer already" in await discord.told(again)
    called = team.living()
    await forget_posts(pool, team)
    await discord.acknowledged(discord.click(ana, message, "I need a human"))
    assert team.living() == called
    (call,) = (each for each in team.living() if "needs a person's help" in each.seen)
    assert call.pings == [f"<@{ben.id}>", f"<@&{helpdesk.id}>"]
    assert call.body["message_reference"]["message_id"] == message.id


async def test_nobody_is_called_where_nobody_is_named_and_a_refusal_is_said(stage: Stage) -> None:
    discord = stage.discord
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team = discord.add_channel("team")
    message, _ = await stage.answered(ana, team)
    before = team.living()
    assert "No people are named" in await discord.told(
        discord.click(ana, message, "I need a human")
    )
    await configure(stage, ana, team, humans=[ben.id])
    discord.overwrite(team, discord.bot, deny=Permission.SEND_MESSAGES)
    assert "mention them yourself" in await discord.told(
        discord.click(ana, message, "I need a human")
    )
    assert team.living() == before


# -- Rights ---------------------------------------------------------------------------------------


async def test_a_click_by_somebody_who_may_not_read_the_channel_any_more_does_nothing(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    staff = discord.add_role("staff")
    ana, ben = discord.add_person("Ana", staff), discord.add_person("Ben")
    team = discord.add_channel("team", only=[staff])
    await configure(stage, ana, team, humans=[ben.id])
    message, answer = await stage.answered(ana, team)
    writing = await stage.post(team, progress_post("…", answer.message_id))
    private, _ = await private_answer(stage, ana, team)
    before = team.living()
    discord.take(ana, staff)
    for place, label in (
        (message, "Answer again"),
        (message, "I need a human"),
        (writing, "Stop"),
        (private, "Share with channel"),
    ):
        assert "may not read" in await discord.told(discord.click(ana, place, label))
    assert await rows(pool, JOBS) == []
    assert team.living() == before and not private.deleted


async def test_ids_of_another_channel_and_ids_that_no_message_has_do_nothing(
    stage: Stage, pool: Pool
) -> None:
    discord = stage.discord
    ana, eve = discord.add_person("Ana"), discord.add_person("Eve")
    _, hidden = await stage.answered(ana, discord.add_channel("secret", only=[ana]))
    other = discord.add_channel("other")
    await configure(stage, eve, other, humans=[ana.id])
    message, _ = await stage.answered(eve, other)
    before = other.living()
    for forged in (
        custom_ids.again(hidden.message_id, 0),
        custom_ids.stop(hidden.message_id, 0),
        custom_ids.share(hidden.id),
        custom_ids.human(hidden.id),
    ):
        sent = discord.click_id(eve, message, forged)
        assert "another conversation" in await discord.told(sent)
        message.body["components"][0]["components"][0]["custom_id"] = forged
        assert "another conversation" in await discord.told(discord.click_id(eve, message, forged))
    assert await rows(pool, JOBS) == []
    assert other.living() == before
