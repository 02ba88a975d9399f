"""A team with two channels and two people, and the stores on the test's database."""

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.documents import Document, Documents, Owner
from storage.embedded import EmbeddedPostgres
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool
from storage.search import Hit, search
from storage.settings import DocumentsSettings, SearchSettings
from tests.storage.embedding import count_tokens, embed


@dataclass(frozen=True, kw_only=True)
class Team:
    """Audiences: two channels, the first one open, as one person sees them; two people's own."""

    general: Audience
    secret: Audience
    ada: Audience
    bob: Audience


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Home of `server`; not below pytest's own folder, which the server's user may not enter."""
    with tempfile.TemporaryDirectory(prefix="parley-test-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """An embedded server to stop, kill and start; no test relies on its state."""
    server = EmbeddedPostgres(server_folder)
    yield server
    server.stop()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.load(home=tmp_path, secret=None)


@pytest.fixture
async def team(pool: Pool, keys: Keys) -> Team:
    identities = Identities(pool=pool, keys=keys)

    async def audience(channel: str | None, member: str) -> Audience:
        return await identities.resolve(
            platform="web",
            workspace="T",
            channel=channel,
            channel_open=channel == "general",
            member=member,
            display_name=member,
        )

    return Team(
        general=await audience("general", "Ada"),
        secret=await audience("secret", "Ada"),
        ada=await audience(None, "Ada"),
        bob=await audience(None, "Bob"),
    )


@pytest.fixture
def files_dir(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def documents(pool: Pool, files_dir: Path) -> Documents:
    return Documents(pool=pool, files_dir=files_dir, settings=DocumentsSettings(max_upload_mb=1))


Puts = Callable[..., Awaitable[Document]]
Finds = Callable[..., Awaitable[list[Hit]]]


@pytest.fixture
def put(pool: Pool, documents: Documents, files_dir: Path) -> Puts:
    """Add a document and ingest it at once, without a worker."""

    async def put(
        name: str, data: bytes | str, audience: Audience, *, owner: Owner = "channel"
    ) -> Document:
        content = data.encode() if isinstance(data, str) else data
        document = await documents.add(name, content, audience=audience, owner=owner)
        await ingest(
            document.id,
            pool=pool,
            files_dir=files_dir,
            embed=embed,
            count_tokens=count_tokens,
            settings=DocumentsSettings(),
        )
        return await documents.get(document.id, audience=audience)

    return put


@pytest.fixture
def find(pool: Pool) -> Finds:
    """Search with the tiny embedder."""

    async def find(
        query: str, audience: Audience, *, limit: int = 8, settings: SearchSettings | None = None
    ) -> list[Hit]:
        return await search(
            pool,
            query=query,
            vector=(await embed([query]))[0],
            audience=audience,
            limit=limit,
            settings=settings or SearchSettings(),
        )

    return find
