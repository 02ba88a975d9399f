"""A turn with nothing left out: the default models in a real engine, a database, real documents."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from bots.settings import AssistantSettings
from bots.worker import embed
from bots.workplace import PLACE, Workplace, workplace_on
from engine.client import EngineClient
from engine.manifest import Manifest
from engine.tokenizer import Tokenizer
from storage.documents import Document, Documents, Owner
from storage.identity import Audience, DocumentId, Identities, Keys
from storage.ingest import ingest
from storage.jobs import run_worker
from storage.pool import Pool
from storage.settings import DocumentsSettings, SearchSettings
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import NAME, ScriptedModel

START_DEADLINE_S = 60.0
CHECKOUT = Path(__file__).parents[2]

EMBEDDER = "all-minilm-l6-v2"

AddDocument = Callable[[str, str], Awaitable[Document]]
ReadIn = Callable[[DocumentId], Awaitable[None]]
Learn = Callable[[Audience, str, str, Owner], Awaitable[None]]


@pytest.fixture(scope="session")
def engine_url(default_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an engine process that serves the default models."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    home = tmp_path_factory.mktemp("engine")
    (home / "models").symlink_to(default_models, target_is_directory=True)
    environment = {**os.environ, "PARLEY_HOME": str(home), "PARLEY_ENGINE__PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "serve"], cwd=CHECKOUT, env=environment
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_DEADLINE_S
    while not _ready(url):
        assert process.poll() is None, "the engine ended"
        assert time.monotonic() < deadline, "the engine does not become ready"
        time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    process.wait(START_DEADLINE_S)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
async def workplace(pool: Pool, engine_url: str, tmp_path: Path) -> AsyncIterator[Workplace]:
    """What a surface has, on this test's database."""
    async with EngineClient(url=engine_url) as engine:
        yield make_workplace(pool, engine, tmp_path)


def make_workplace(pool: Pool, engine: EngineClient, home: Path) -> Workplace:
    """A workplace on any engine."""
    return workplace_on(
        pool,
        engine,
        Keys(fernet_keys=(Fernet.generate_key().decode(),)),
        files_dir=home / "files",
        documents_settings=DocumentsSettings(),
        search_settings=SearchSettings(),
        assistant_settings=AssistantSettings(max_answer_tokens=48),
    )


@pytest.fixture
def add_document(workplace: Workplace, default_models: Path, tmp_path: Path) -> AddDocument:
    """Adds a text to the team's channel and ingests it."""
    directory = default_models / "all-minilm-l6-v2"
    tokenizer = Tokenizer.read(directory / Manifest.read(directory, verify=False).tokenizer)

    async def add(name: str, text: str) -> Document:
        audience = await workplace.identities.resolve(**PLACE, channel_open=True)
        document = await workplace.documents.add(name, text.encode(), audience=audience)
        await ingest(
            document.id,
            pool=workplace.pool,
            files_dir=tmp_path / "files",
            embed=lambda texts: embed(workplace.engine, texts),
            count_tokens=tokenizer.count,
            settings=DocumentsSettings(),
        )
        return await workplace.documents.get(document.id, audience=audience)

    return add


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# ---------------------------------------------------------------- what chat surfaces need


@pytest.fixture(scope="session")
def model_port() -> int:
    """Where the scripted model of each test listens, as the engine knows it."""
    return free_port()


@pytest.fixture(scope="session")
def chat_engine(
    model_port: int, default_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """An engine with the real embedder and a scripted model; a test that stops it starts it."""
    with EngineProcess(
        home=tmp_path_factory.mktemp("chat-engine"),
        models={NAME: ScriptedModel(model_port).source},
        live=NAME,
        embedder=f"ctranslate2:{default_models / EMBEDDER}",
        port=free_port(),
        replicas=1,
    ) as engine:
        yield engine


@pytest.fixture(scope="session")
def chat_engine_url(chat_engine: EngineProcess) -> str:
    """Address of that engine, the same after a restart."""
    return chat_engine.url


@pytest.fixture
async def model(model_port: int) -> AsyncIterator[ScriptedModel]:
    """The model that answers; says that it is so and cites the first source."""
    async with ScriptedModel(model_port) as model:
        yield model


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
def identities(pool: Pool, keys: Keys) -> Identities:
    """People and places as the app finds them."""
    return Identities(pool=pool, keys=keys)


@pytest.fixture
def read_in(pool: Pool, home: Path, default_models: Path, chat_engine_url: str) -> ReadIn:
    """Ingests a document of the app, with the real embedder."""
    directory = default_models / EMBEDDER
    tokenizer = Tokenizer.read(directory / Manifest.read(directory, verify=False).tokenizer)

    async def read_in(document_id: DocumentId) -> None:
        async with EngineClient(url=chat_engine_url) as engine:
            await ingest(
                document_id,
                pool=pool,
                files_dir=home / "files",
                embed=lambda texts: embed(engine, texts),
                count_tokens=tokenizer.count,
                settings=DocumentsSettings(),
            )

    return read_in


@pytest.fixture
async def worker(pool: Pool, read_in: ReadIn) -> AsyncIterator[None]:
    """Reads whatever becomes a document during the test."""
    async with running(run_worker(pool, ingest=read_in)):
        yield


@pytest.fixture
def learn(pool: Pool, home: Path, read_in: ReadIn) -> Learn:
    """Gives an audience a document, ready to be found."""

    async def learn(readers: Audience, name: str, text: str, owner: Owner) -> None:
        documents = Documents(pool=pool, files_dir=home / "files", settings=DocumentsSettings())
        document = await documents.add(name, text.encode(), audience=readers, owner=owner)
        await read_in(document.id)
        assert (await documents.get(document.id, audience=readers)).status == "ready"

    return learn


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let something run meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
