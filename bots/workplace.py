"""What a local surface works with, opened in one place: database, engine, stores, assistant."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bots.assistant import Assistant
from bots.settings import Settings
from engine.client import EngineClient
from storage.conversations import Conversations
from storage.documents import Documents
from storage.embedded import database_url
from storage.identity import Identities, Keys
from storage.pool import Pool, open_pool

PLACE = {"platform": "local", "workspace": "local", "channel": "team"}
"""The channel that the web page shows, as `Identities.resolve` takes it; the terminal's default."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Everything that a surface needs, for as long as it runs."""

    pool: Pool
    engine: EngineClient
    identities: Identities
    conversations: Conversations
    documents: Documents
    assistant: Assistant


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
        keys = Keys.load(home=settings.home, secret=settings.database.encryption_keys)
        conversations = Conversations(pool=pool, keys=keys)
        documents = Documents(
            pool=pool, files_dir=settings.home / "files", settings=settings.documents
        )
        yield Workplace(
            pool=pool,
            engine=engine,
            identities=Identities(pool=pool, keys=keys),
            conversations=conversations,
            documents=documents,
            assistant=Assistant(
                engine=engine,
                pool=pool,
                conversations=conversations,
                documents=documents,
                search_settings=settings.search,
                settings=settings.assistant,
            ),
        )


def engine_client(settings: Settings) -> EngineClient:
    """A client of the engine that the settings name."""
    key = settings.engine.api_key
    return EngineClient(
        url=settings.engine.effective_url,
        api_key=key.get_secret_value() if key else None,
        timeout_s=settings.engine.request_timeout_s,
    )
