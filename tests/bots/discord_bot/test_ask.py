"""`/ask` and `/compare`: stored, deferred, answered in a thread; said when that cannot be."""

import asyncio

from storage.pool import Pool
from tests.bots.discord_bot.conftest import Know, Running
from tests.fakes.discord_gateway import Intent
from tests.fakes.discord_server import DiscordServer
from tests.feedback.conftest import rows

LEAVE = "Everybody has 30 days of leave a year."
QUESTION = "How many days of leave?"


async def test_a_command_is_deferred_and_its_thread_goes_on_without_a_mention(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know, pool: Pool
) -> None:
    discord_server.allow(Intent.MESSAGE_CONTENT)
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app(message_content=True):
        asked = discord_server.slash(ana, team, "ask", question=QUESTION)
        answer = await discord_server.answer_to(asked)
        assert asked.deferred and asked.original is not None
        assert QUESTION in asked.original.content and not asked.ephemeral
        thread = answer.channel
        assert (thread.id, thread.name) == (asked.original.id, QUESTION)
        second = discord_server.say(ana, thread, "And in a year?")
        await discord_server.answer_to(second)
    assert await rows(pool, "SELECT platform_ref FROM threads") == [(thread.id,)]


async def test_a_comparison_shows_two_answers_and_asks_for_a_vote(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    ana = discord_server.add_person("Ana")
    own = discord_server.direct(ana)
    await discord_know(own, "leave.md", LEAVE)
    async with discord_app():
        asked = discord_server.slash(ana, own, "compare", question=QUESTION)
        shown = await discord_server.until(
            lambda: [
                m for m in discord_server.replies(asked) if "parley:compare" in str(m.buttons)
            ],
            "a vote",
        )
        assert len(shown) == 1


async def test_a_repeated_command_is_answered_once_and_an_expired_one_in_the_channel(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know, pool: Pool
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app():
        asked = discord_server.slash(ana, team, "ask", question=QUESTION)
        discord_server.gateway.emit("INTERACTION_CREATE", lambda intents: asked.payload)
        await discord_server.answer_to(asked)
        late = discord_server.slash(ana, team, "ask", question=f"{QUESTION} Really?")
        late.expire()
        discord_server.callback_within_s = 0.0
        await discord_server.answer_to(late)
    assert len(await rows(pool, "SELECT 1 FROM messages")) == 2


async def test_an_answer_never_overtakes_its_deferral(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app():
        discord_server.fail("callback", delay_s=0.4)
        asked = discord_server.slash(ana, team, "ask", question=QUESTION)
        await discord_server.answer_to(asked)
        assert team.living() == [asked.original]
        assert asked.original is not None and not asked.original.loading


async def test_a_database_that_is_away_is_said_to_the_person_alone(
    discord_server: DiscordServer, discord_app: Running, pool: Pool
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    async with discord_app(), pool.connection() as blocking:
        await blocking.execute("LOCK TABLE workspaces")
        asked = discord_server.slash(ana, team, "ask", question=QUESTION)
        async with asyncio.timeout(10):
            assert "try again" in await discord_server.told(asked)
        assert asked.ephemeral
        assert asked.ack_s is not None and asked.ack_s < 3
    assert await rows(pool, "SELECT 1 FROM messages") == []
