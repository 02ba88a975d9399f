"""A fake Slack and the app beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bots.settings import Settings
from storage.documents import Owner
from storage.identity import Audience, Identities, Keys
from tests.bots.app_process import START_DEADLINE_S, inside
from tests.bots.conftest import Learn
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Person

Know = Callable[[Channel, str, str], Awaitable[None]]
Running = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    """A Slack with one workspace in which the app is installed."""
    async with SlackServer() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of the app in the test's process are short; a process of its own makes real ones."""
    monkeypatch.setattr("bots.slack_bot.web_api.AWAY_PAUSES_S", (0.01, 0.02, 0.04))
    monkeypatch.setattr("bots.slack_bot.board.AWAY_PAUSE_S", 0.01)
    monkeypatch.setattr("bots.slack_bot.lanes.PACE_S", 0.1)


# ---------------------------------------------------------------- the app


@pytest.fixture
def slack_process(
    slack: SlackServer,
    home: Path,
    keys: Keys,
    database_url: str,
    chat_engine_url: str,
    model: ScriptedModel,
) -> Iterator[SlackProcess]:
    """The app as a process of its own, not yet started: use it as a context manager."""
    process = SlackProcess(slack, home=home, database_url=database_url, engine_url=chat_engine_url)
    yield process
    print(process.log)  # pytest shows it where the test failed


@pytest.fixture
def slack_app(
    slack: SlackServer,
    home: Path,
    keys: Keys,
    database_url: str,
    chat_engine_url: str,
    model: ScriptedModel,
) -> Running:
    """The app inside the test's process: `async with slack_app(**slack_settings)`."""
    from bots.slack_bot.process import run

    @asynccontextmanager
    async def running(**slack_settings: Any) -> AsyncIterator[asyncio.Task[None]]:
        sections = {
            "home": home,
            "database": {"url": database_url},
            "engine": {"url": chat_engine_url},
            "slack": {
                "base_url": slack.base_url,
                "bot_token": slack.bot_token,
                "app_token": slack.app_token,
                **slack_settings,
            },
        }
        app = run(Settings.model_validate(sections))
        async with inside(app, _a_socket(slack)) as task:
            yield task

    return running


async def _a_socket(slack: SlackServer) -> None:
    if slack.sockets.request_url is None:
        await slack.sockets.connected(within_s=START_DEADLINE_S)


# ---------------------------------------------------------------- what the app knows


@pytest.fixture
def audience(
    slack: SlackServer, identities: Identities
) -> Callable[[Channel, Person | None], Awaitable[Audience]]:
    """The audience of a channel, or of a person in it."""

    async def resolve(channel: Channel, person: Person | None = None) -> Audience:
        return await identities.resolve(
            platform="slack",
            workspace=channel.team_id,
            channel=None if channel.kind == "im" else channel.id,
            member=person.id if person is not None else channel.partner,
        )

    return resolve


@pytest.fixture
def know(learn: Learn, audience: Callable[[Channel, Person | None], Awaitable[Audience]]) -> Know:
    """Gives a channel (or a direct conversation) a document, ready to be found."""

    async def know(channel: Channel, name: str, text: str) -> None:
        owner: Owner = "member" if channel.kind == "im" else "channel"
        await learn(await audience(channel, None), name, text, owner)

    return know
