"""A fake Slack, an engine with a scripted model, and the app beside them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bots.settings import Settings
from bots.worker import embed
from engine.client import EngineClient
from engine.manifest import Manifest
from engine.tokenizer import Tokenizer
from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool
from storage.settings import DocumentsSettings
from tests.bots.slack_bot.slack_process import START_DEADLINE_S, SlackProcess
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import NAME, ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Person

EMBEDDER = "all-minilm-l6-v2"

Know = Callable[[Channel, str, str], Awaitable[None]]
Running = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    """A Slack with one workspace in which the app is installed."""
    async with SlackServer() as server:
        yield server


# ---------------------------------------------------------------- the engine


@pytest.fixture(scope="session")
def model_port() -> int:
    """Where the scripted model of each test listens, as the engine knows it."""
    return free_port()


@pytest.fixture(scope="session")
def slack_engine(
    model_port: int, default_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """An engine with the real embedder and a scripted model; a test that stops it starts it."""
    with EngineProcess(
        home=tmp_path_factory.mktemp("slack-engine"),
        models={NAME: ScriptedModel(model_port).source},
        live=NAME,
        embedder=f"ctranslate2:{default_models / EMBEDDER}",
        port=free_port(),
        replicas=1,
    ) as engine:
        yield engine


@pytest.fixture(scope="session")
def slack_engine_url(slack_engine: EngineProcess) -> str:
    """Address of that engine, the same after a restart."""
    return slack_engine.url


@pytest.fixture
async def model(model_port: int) -> AsyncIterator[ScriptedModel]:
    """The model that answers; says that it is so and cites the first source."""
    async with ScriptedModel(model_port) as model:
        yield model


# ---------------------------------------------------------------- the app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """State folder of the app."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def keys(home: Path) -> Keys:
    """The keys that the app will use."""
    return Keys.load(home=home, secret=None)


@pytest.fixture
def slack_process(
    slack: SlackServer,
    home: Path,
    keys: Keys,
    database_url: str,
    slack_engine_url: str,
    model: ScriptedModel,
) -> Iterator[SlackProcess]:
    """The app as a process of its own, not yet started: use it as a context manager."""
    process = SlackProcess(slack, home=home, database_url=database_url, engine_url=slack_engine_url)
    yield process
    print(process.log)  # pytest shows it where the test failed


@pytest.fixture
def slack_app(
    slack: SlackServer,
    home: Path,
    keys: Keys,
    database_url: str,
    slack_engine_url: str,
    model: ScriptedModel,
) -> Running:
    """The app inside the test's process: `async with slack_app(**slack_settings)`."""
    from bots.slack_bot.process import run

    @asynccontextmanager
    async def running(**slack_settings: Any) -> AsyncIterator[asyncio.Task[None]]:
        sections = {
            "home": home,
            "database": {"url": database_url},
            "engine": {"url": slack_engine_url},
            "slack": {
                "base_url": slack.base_url,
                "bot_token": slack.bot_token,
                "app_token": slack.app_token,
                **slack_settings,
            },
        }
        app = asyncio.create_task(run(Settings.model_validate(sections)))
        waiting = asyncio.create_task(_a_socket(slack))
        try:
            await asyncio.wait({app, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if app.done():
                app.result()
                raise AssertionError("the app ended")
            await waiting
            yield app
        finally:
            waiting.cancel()
            app.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await app

    return running


async def _a_socket(slack: SlackServer) -> None:
    if slack.sockets.request_url is None:
        await slack.sockets.connected(within_s=START_DEADLINE_S)


# ---------------------------------------------------------------- what the app knows


@pytest.fixture
def identities(pool: Pool, keys: Keys) -> Identities:
    """People and places as the app finds them."""
    return Identities(pool=pool, keys=keys)


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
def know(
    pool: Pool,
    home: Path,
    default_models: Path,
    slack_engine_url: str,
    audience: Callable[[Channel, Person | None], Awaitable[Audience]],
) -> Know:
    """Gives a channel (or a direct conversation) a document, ready to be found."""
    directory = default_models / EMBEDDER
    tokenizer = Tokenizer.read(directory / Manifest.read(directory, verify=False).tokenizer)

    async def know(channel: Channel, name: str, text: str) -> None:
        settings = DocumentsSettings()
        documents = Documents(pool=pool, files_dir=home / "files", settings=settings)
        readers = await audience(channel, None)
        document = await documents.add(
            name,
            text.encode(),
            audience=readers,
            owner="member" if channel.kind == "im" else "channel",
        )
        async with EngineClient(url=slack_engine_url) as engine:
            await ingest(
                document.id,
                pool=pool,
                files_dir=home / "files",
                embed=lambda texts: embed(engine, texts),
                count_tokens=tokenizer.count,
                settings=settings,
            )
        assert (await documents.get(document.id, audience=readers)).status == "ready"

    return know
