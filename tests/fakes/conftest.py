"""A fake Slack, and the real clients that speak to it."""

from collections.abc import AsyncIterator

import pytest
from slack_sdk.web.async_client import AsyncWebClient

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
