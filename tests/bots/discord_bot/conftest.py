"""A fake Discord and the app beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bots.settings import Settings
from storage.documents import Document, Documents, Owner
from storage.identity import Audience, Identities, Keys
from storage.pool import Pool
from storage.settings import DocumentsSettings
from tests.bots.app_process import START_DEADLINE_S, inside
from tests.bots.conftest import Learn
from tests.bots.discord_bot.discord_process import DiscordProcess
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel, ChannelType, Person
from tests.fakes.scripted_model import ScriptedModel

AudienceOf = Callable[[Channel, Person | None], Awaitable[Audience]]
DocumentsOf = Callable[[Channel, Person], Awaitable[list[Document]]]
Know = Callable[[Channel, str, str], Awaitable[None]]
Running = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]


@pytest.fixture
async def discord_server() -> AsyncIterator[DiscordServer]:
    """A Discord with one guild in which the app is installed."""
    async with DiscordServer() as server:
        yield server


# ---------------------------------------------------------------- the app


@pytest.fixture
def discord_process(
    discord_server: DiscordServer,
    home: Path,
    keys: Keys,
    database_url: str,
    chat_engine_url: str,
    model: ScriptedModel,
) -> Iterator[DiscordProcess]:
    """The app as a process of its own, not yet started: use it as a context manager."""
    process = DiscordProcess(
        discord_server, home=home, database_url=database_url, engine_url=chat_engine_url
    )
    yield process
    print(process.log)  # pytest shows it where the test failed


@pytest.fixture
def discord_app(
    discord_server: DiscordServer,
    home: Path,
    keys: Keys,
    database_url: str,
    chat_engine_url: str,
    model: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> Running:
    """The app inside the test's process: `async with discord_app(**discord_settings)`."""
    from bots.discord_bot.process import run

    # the app points discord.py's classes at its Discord: they are to point back afterwards
    monkeypatch.setattr(Route, "BASE", Route.BASE)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", DiscordWebSocket.DEFAULT_GATEWAY)

    @asynccontextmanager
    async def running(**discord_settings: Any) -> AsyncIterator[asyncio.Task[None]]:
        sections = {
            "home": home,
            "database": {"url": database_url},
            "engine": {"url": chat_engine_url},
            "discord": {
                "api_url": discord_server.api_url,
                "gateway_url": discord_server.gateway_url,
                "token": discord_server.token,
                **discord_settings,
            },
        }
        app = run(Settings.model_validate(sections))
        async with inside(app, discord_server.gateway.connected(within_s=START_DEADLINE_S)) as task:
            yield task

    return running


# ---------------------------------------------------------------- what the app knows


@pytest.fixture
def discord_audience(discord_server: DiscordServer, identities: Identities) -> AudienceOf:
    """The audience of a channel, or of a person in it."""

    async def resolve(channel: Channel, person: Person | None = None) -> Audience:
        if channel.guild is None:
            member = person or channel.recipients[0]
            return await identities.resolve(platform="discord", workspace="@me", member=member.id)
        place, parent = channel, channel.parent
        if channel.type == ChannelType.PUBLIC_THREAD and parent is not None:
            place, parent = parent, None
        return await identities.resolve(
            platform="discord",
            workspace=channel.guild.id,
            channel=place.id,
            member=person.id if person is not None else None,
            also=[parent.id] if parent is not None and place.is_thread else [],
        )

    return resolve


@pytest.fixture
def discord_know(learn: Learn, discord_audience: AudienceOf) -> Know:
    """Gives a channel (or a direct conversation) a document, ready to be found."""

    async def know(channel: Channel, name: str, text: str) -> None:
        owner: Owner = "member" if channel.guild is None else "channel"
        await learn(await discord_audience(channel, None), name, text, owner)

    return know


@pytest.fixture
def discord_documents(pool: Pool, home: Path, discord_audience: AudienceOf) -> DocumentsOf:
    """What a person may read in a channel."""

    async def known(channel: Channel, person: Person) -> list[Document]:
        documents = Documents(pool=pool, files_dir=home / "files", settings=DocumentsSettings())
        return await documents.list(audience=await discord_audience(channel, person))

    return known
