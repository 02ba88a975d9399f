"""A turn with nothing left out: the default models in a real engine, a database, real documents."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from bots.settings import AssistantSettings
from bots.worker import embed
from bots.workplace import PLACE, Workplace, workplace_on
from engine.client import EngineClient
from engine.manifest import Manifest
from engine.tokenizer import Tokenizer
from storage.documents import Document
from storage.identity import Keys
from storage.ingest import ingest
from storage.pool import Pool
from storage.settings import DocumentsSettings, SearchSettings

START_DEADLINE_S = 60.0
CHECKOUT = Path(__file__).parents[2]

AddDocument = Callable[[str, str], Awaitable[Document]]


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
        audience = await workplace.identities.resolve(**PLACE)
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
