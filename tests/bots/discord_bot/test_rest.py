"""Calls to Discord end in time, say what went wrong and nothing else, and poison no others."""

import asyncio
from collections.abc import AsyncIterator

import discord
import pytest

from bots.discord_bot.rest import DiscordAway, DiscordCalls, DiscordRefused, RateLimited
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel

TEXT = "something confidential"


@pytest.fixture
async def client(
    discord_server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[discord.Client]:
    monkeypatch.setattr(discord.http.Route, "BASE", discord_server.api_url)
    async with discord.Client(
        intents=discord.Intents(guilds=True), max_ratelimit_timeout=30.0
    ) as client:
        await client.login(discord_server.token)
        yield client


@pytest.fixture
def team(discord_server: DiscordServer) -> Channel:
    discord_server.add_person("Ana")
    return discord_server.add_channel("team")


async def test_a_post_that_got_no_answer_may_be_repeated(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    calls = DiscordCalls(client)
    discord_server.fail("POST", status=503, after=True, times=1)
    with pytest.raises(DiscordAway):
        await calls.send(team.id, content=TEXT, nonce="n1")
    posted = await calls.send(team.id, content=TEXT, nonce="n1")
    assert [message.id for message in team.living()] == [posted]


async def test_a_discord_that_hangs_is_away(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    discord_server.fail("POST", hang=True)
    with pytest.raises(DiscordAway):
        await DiscordCalls(client, timeout_s=0.1).send(team.id, content=TEXT)


async def test_whoever_gives_up_in_a_pause_of_everything_holds_up_nobody(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    discord_server.fail("POST", status=429, everywhere=True, retry_after_s=25.0)
    with pytest.raises(DiscordAway):
        await DiscordCalls(client, timeout_s=0.1).send(team.id, content=TEXT)
    async with asyncio.timeout(5):
        assert await DiscordCalls(client).send(team.id, content="more")


async def test_a_pause_that_is_too_long_is_known(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    discord_server.fail("POST", status=429, retry_after_s=300.0)
    with pytest.raises(RateLimited) as caught:
        await DiscordCalls(client).send(team.id, content=TEXT)
    assert caught.value.after_s == 300.0


@pytest.mark.parametrize(("via", "status"), [(False, 429), (True, 502)])
async def test_an_error_says_nothing_of_what_was_sent(
    via: bool,
    status: int,
    client: discord.Client,
    discord_server: DiscordServer,
    team: Channel,
) -> None:
    calls = DiscordCalls(client, timeout_s=0.5)
    with pytest.raises(DiscordRefused) as refused:
        await calls.send(team.id, content=TEXT * 200)
    assert refused.value.status == 400
    discord_server.fail("POST", status=status, via=via)
    with pytest.raises(DiscordAway) as away:
        await calls.send(team.id, content=TEXT)
    for caught in (refused, away):
        assert TEXT not in f"{caught.value}{caught.value.__cause__}"
        assert caught.value.__suppress_context__


async def test_a_thread_is_opened_once(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    calls = DiscordCalls(client)
    message = await calls.send(team.id, content="question")
    threads = [await calls.open_thread(team.id, message, "question") for _ in range(2)]
    assert threads == [message, message]


async def test_messages_come_in_their_order(
    client: discord.Client, discord_server: DiscordServer, team: Channel
) -> None:
    calls = DiscordCalls(client)
    ids = [await calls.send(team.id, content=f"{n}") for n in range(4)]
    found = await calls.messages(team.id, after=ids[0])
    assert [message["id"] for message in found] == ids[1:]
    assert [message["id"] for message in await calls.messages(team.id, limit=2)] == ids[2:]
