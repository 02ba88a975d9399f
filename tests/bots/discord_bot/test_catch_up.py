"""What was said while the app was away is answered once, what was answered is not again."""

from storage.identity import Keys
from storage.installations import Installations
from storage.places import Places
from storage.pool import Pool
from tests.bots.app_process import eventually
from tests.bots.discord_bot.conftest import Know, Running
from tests.fakes.discord_server import DiscordServer
from tests.feedback.conftest import rows

LEAVE = "Everybody has 30 days of leave a year."
QUESTION = "How many days of leave?"


async def test_a_session_that_is_lost_and_a_process_that_was_away_miss_nothing(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    pool: Pool,
    keys: Keys,
) -> None:
    ana = discord_server.add_person("Ana")
    team, own = discord_server.add_channel("team"), discord_server.direct(ana)
    await discord_know(team, "leave.md", LEAVE)
    await discord_know(own, "leave.md", LEAVE)
    call = discord_server.mention
    async with discord_app():
        first = discord_server.say(ana, team, f"{call} {QUESTION}")
        await discord_server.answer_to(first)
        await discord_server.answer_to(discord_server.say(ana, own, QUESTION))
        installations = Installations(pool=pool, keys=keys)

        async def noted() -> bool:
            return await installations.find("discord", "seen") is not None

        await eventually(noted, "a note of how far the app has come")
        connection = await discord_server.gateway.connected()
        missed = discord_server.say(ana, team, f"{call} {QUESTION} Missed.", deliver=False)
        discord_server.gateway.forget_sessions()
        await connection.cut()
        await discord_server.answer_to(missed)
    away = discord_server.say(ana, own, f"{QUESTION} Away.", deliver=False)
    discord_server.say(ana, team, "Nobody was called.", deliver=False)
    async with discord_app():
        await discord_server.until(
            lambda: [m for m in discord_server.replies(away) if m.buttons], "an answer"
        )
    assert len(await rows(pool, "SELECT 1 FROM messages")) == 4


async def test_a_server_that_removes_the_app_is_noted_even_if_the_app_was_away(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    pool: Pool,
) -> None:
    places = Places(pool)
    other, third = discord_server.add_guild("Other"), discord_server.add_guild("Third")
    for guild in (discord_server.home, other, third):
        channel = discord_server.add_channel("general", guild=guild)
        await discord_know(channel, "leave.md", LEAVE)

    async def until(*ids: str) -> None:
        async def same() -> bool:
            return set(await places.workspaces("discord")) == set(ids)

        await eventually(same, "exactly the servers that have the app")

    async with discord_app():
        await until(discord_server.home.id, other.id, third.id)
        discord_server.lose(third)
        discord_server.remove_app(other)
        await until(discord_server.home.id, third.id)
        discord_server.add_app(other)
        await until(discord_server.home.id, other.id, third.id)
    discord_server.find(third)
    discord_server.remove_app(other)
    async with discord_app():
        await until(discord_server.home.id, third.id)
