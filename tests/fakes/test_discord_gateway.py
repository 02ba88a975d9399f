"""The fake Discord's gateway, driven by the real discord.py."""

from collections.abc import AsyncIterator

import discord
import pytest

from tests.fakes.discord_gateway import Intent
from tests.fakes.discord_listener import PLAIN, Listener, listening
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel, Person


@pytest.fixture
async def client(discord_server: DiscordServer) -> AsyncIterator[Listener]:
    async with listening(discord_server) as listener:
        yield listener


@pytest.fixture
def ana(discord_server: DiscordServer) -> Person:
    return discord_server.add_person("Ana")


@pytest.fixture
def team(discord_server: DiscordServer) -> Channel:
    return discord_server.add_channel("team")


# ---------------------------------------------------------------- what a session is told


async def test_content_is_for_those_who_are_named_or_written_to(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    mine = await client.place(team.id).send("hello")
    discord_server.say(ana, team, "secret")
    discord_server.say(ana, team, f"{discord_server.mention} for you")
    discord_server.say(ana, team, "to you", reply_to=team.messages[str(mine.id)])
    discord_server.say(ana, team, "quietly", reply_to=team.messages[str(mine.id)], ping=False)
    discord_server.say(ana, discord_server.direct(ana), "between us")
    named = f"{discord_server.mention} for you"
    assert await client.contents(5) == ["", named, "to you", "", "between us"]
    listed = [m.content async for m in client.place(team.id).history(oldest_first=True)]
    assert listed == ["hello", "", named, "to you", ""]


async def test_the_message_content_intent_is_switched_on_by_the_owner(
    discord_server: DiscordServer, ana: Person, team: Channel
) -> None:
    wanted = discord.Intents(PLAIN.value | discord.Intents.message_content.flag)
    with pytest.raises(discord.PrivilegedIntentsRequired):
        async with listening(discord_server, wanted):
            pass
    discord_server.allow(Intent.MESSAGE_CONTENT)
    async with listening(discord_server, wanted) as client:
        discord_server.say(ana, team, "hello")
        assert await client.contents(1) == ["hello"]


async def test_a_wrong_token_is_refused(discord_server: DiscordServer) -> None:
    right, discord_server.token = discord_server.token, "another"
    client = Listener(discord_server)
    with pytest.raises(discord.LoginFailure):
        await client.login(right)
    await client.close()


async def test_unseen_channels_tell_nothing(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    hidden = discord_server.add_channel("hidden", only=[ana])
    discord_server.overwrite(hidden, discord_server.home.everyone, deny=Permission.VIEW_CHANNEL)
    del hidden.overwrites[discord_server.bot.id]
    discord_server.say(ana, hidden, f"{discord_server.mention} here")
    discord_server.say(ana, team, f"{discord_server.mention} there")
    assert await client.contents(1) == [f"{discord_server.mention} there"]


async def test_guilds_come_go_and_have_outages(
    discord_server: DiscordServer, client: Listener
) -> None:
    other = discord_server.add_guild("Other")
    await discord_server.until(lambda: len(client.guilds) == 2, "the guild")
    discord_server.lose(other)
    await discord_server.until(lambda: client.get_guild(int(other.id)).unavailable, "an outage")  # type: ignore[union-attr]
    discord_server.find(other)
    await discord_server.until(lambda: not client.get_guild(int(other.id)).unavailable, "its end")  # type: ignore[union-attr]
    discord_server.remove_app(other)
    await discord_server.until(lambda: len(client.guilds) == 1, "the removal")


async def test_roles_and_overwrites_are_told_at_once(
    discord_server: DiscordServer, client: Listener, ana: Person
) -> None:
    role = discord_server.add_role("staff")
    room = discord_server.add_channel("room", only=[role])
    await discord_server.until(lambda: client.get_channel(int(room.id)), "the channel")
    shown = client.get_channel(int(room.id))
    assert isinstance(shown, discord.TextChannel)
    assert {str(target.id) for target in shown.overwrites} >= {role.id, discord_server.home.id}


# ---------------------------------------------------------------- how sessions break


async def test_a_cut_socket_resumes_with_what_was_missed_and_nothing_twice(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    discord_server.say(ana, team, f"{discord_server.mention} 1")
    await client.contents(1)
    connection = await discord_server.gateway.connected()
    await connection.cut()
    discord_server.say(ana, team, f"{discord_server.mention} 2")
    texts = [f"{discord_server.mention} {number}" for number in (1, 2)]
    assert await client.contents(2) == texts
    assert (discord_server.gateway.resumed, discord_server.gateway.identified) == (1, 1)


async def test_a_resume_may_replay_what_was_seen(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    discord_server.say(ana, team, f"{discord_server.mention} 1")
    await client.contents(1)
    discord_server.gateway.replay_seen = 1
    (await discord_server.gateway.connected()).reconnect()
    assert len(set(await client.contents(2))) == 1
    assert discord_server.gateway.resumed == 1


async def test_a_message_may_be_told_twice(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    asked = discord_server.say(ana, team, f"{discord_server.mention} 1")
    discord_server.repeat(asked)
    await client.contents(2)
    assert len({message.id for message in client.heard}) == 1


async def test_a_forgotten_session_begins_anew_without_what_was_missed(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    connection = await discord_server.gateway.connected()
    discord_server.gateway.forget_sessions()
    await connection.close(4000)
    discord_server.say(ana, team, f"{discord_server.mention} lost")
    await discord_server.until(lambda: discord_server.gateway.identified == 2, "a new session")
    await discord_server.until(lambda: client.events.count("GUILD_CREATE") == 2, "ready")
    discord_server.say(ana, team, f"{discord_server.mention} heard")
    assert await client.contents(1) == [f"{discord_server.mention} heard"]


async def test_heartbeats_are_answered_until_a_socket_is_deaf(
    discord_server: DiscordServer,
) -> None:
    discord_server.gateway.heartbeat_interval_s = 0.05
    async with listening(discord_server) as client:
        connection = await discord_server.gateway.connected()
        await discord_server.until(lambda: len(connection.heartbeats) > 2, "heartbeats")
        assert 0 < client.latency < 1
        connection.deaf = True
        discord_server.add_channel("unheard")
        beats = len(connection.heartbeats)
        await discord_server.until(lambda: len(connection.heartbeats) > beats, "another")
        assert all(channel.name != "unheard" for channel in client.get_all_channels())
