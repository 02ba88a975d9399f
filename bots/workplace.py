"""What a local surface works with, opened in one place: database, engine, stores, assistant."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bots.administration import Administration
from bots.assistant import Assistant
from bots.serving import ServingModels
from bots.settings import AssistantSettings, Settings
from engine.client import EngineClient
from feedback import Feedback
from storage.conversations import Conversations
from storage.deliveries import Deliveries
from storage.documents import Documents
from storage.embedded import database_url
from storage.identity import Identities, Keys
from storage.installations import Installations
from storage.members import Members
from storage.model_versions import ModelVersions
from storage.places import Places
from storage.pool import Pool, open_pool
from storage.runs import Runs
from storage.settings import DocumentsSettings, SearchSettings

PLACE = {"platform": "local", "workspace": "local", "channel": "team"}
"""The channel that the web page shows, as `Identities.resolve` takes it; the terminal's default."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Everything that a surface needs, for as long as it runs.

    Attributes:
        files_dir: where the bytes of documents lie.
    """

    pool: Pool
    engine: EngineClient
    files_dir: Path
    identities: Identities
    conversations: Conversations
    documents: Documents
    places: Places
    members: Members
    deliveries: Deliveries
    installations: Installations
    runs: Runs
    versions: ModelVersions
    feedback: Feedback
    assistant: Assistant

    @property
    def administration(self) -> Administration:
        """What administrators do from a chat."""
        return Administration(
            pool=self.pool,
            engine=self.engine,
            documents=self.documents,
            places=self.places,
            runs=self.runs,
            files_dir=self.files_dir,
        )


def workplace_on(
    pool: Pool,
    engine: EngineClient,
    keys: Keys,
    *,
    files_dir: Path,
    documents_settings: DocumentsSettings,
    search_settings: SearchSettings,
    assistant_settings: AssistantSettings,
) -> Workplace:
    """Everything on a database and an engine that are open already."""
    conversations = Conversations(pool=pool, keys=keys)
    documents = Documents(pool=pool, files_dir=files_dir, settings=documents_settings)
    return Workplace(
        pool=pool,
        engine=engine,
        files_dir=files_dir,
        identities=Identities(pool=pool, keys=keys),
        conversations=conversations,
        documents=documents,
        places=Places(pool),
        members=Members(pool),
        deliveries=Deliveries(pool),
        installations=Installations(pool=pool, keys=keys),
        runs=Runs(pool),
        versions=ModelVersions(pool),
        feedback=Feedback(pool),
        assistant=Assistant(
            engine=engine,
            pool=pool,
            conversations=conversations,
            documents=documents,
            serving=ServingModels(versions=ModelVersions(pool), engine=engine),
            search_settings=search_settings,
            settings=assistant_settings,
        ),
    )


@asynccontextmanager
async def open_workplace(settings: Settings) -> AsyncIterator[Workplace]:
    """Open everything, and close it in reverse.

    Raises:
        StorageError: the database does not answer or is not of this version.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings.database, home=settings.home))
        pool = await stack.enter_async_context(open_pool(url, settings=settings.database))
        engine = await stack.enter_async_context(engine_client(settings))
        yield workplace_on(
            pool,
            engine,
            Keys.load(home=settings.home, secret=settings.database.encryption_keys),
            files_dir=settings.home / "files",
            documents_settings=settings.documents,
            search_settings=settings.search,
            assistant_settings=settings.assistant,
        )


def engine_client(settings: Settings) -> EngineClient:
    """A client of the engine that the settings name."""
    key = settings.engine.api_key
    return EngineClient(
        url=settings.engine.effective_url,
        api_key=key.get_secret_value() if key else None,
        timeout_s=settings.engine.request_timeout_s,
    )
