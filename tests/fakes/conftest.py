"""A fake Slack and a fake Discord, and the real clients that speak to them."""

from collections.abc import AsyncIterator

import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route
from slack_sdk.web.async_client import AsyncWebClient

from tests.fakes.discord_listener import point_at
from tests.fakes.discord_server import DiscordServer
from tests.fakes.slack_server import SlackServer


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    """A Slack with one workspace in which the app is installed."""
    async with SlackServer() as server:
        yield server


@pytest.fixture
def client(slack: SlackServer) -> AsyncWebClient:
    """The SDK's client with the app's token, without retries."""
    return AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])


@pytest.fixture
async def discord_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordServer]:
    """A Discord with one guild in which the app is installed, and discord.py pointed at it."""
    monkeypatch.setattr(Route, "BASE", Route.BASE)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", DiscordWebSocket.DEFAULT_GATEWAY)
    async with DiscordServer() as server:
        point_at(server)
        yield server
