"""A migrated database for one benchmark."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from storage.settings import DatabaseSettings


@asynccontextmanager
async def temporary_database() -> AsyncIterator[str]:
    """URL of an embedded Postgres with the settings that Parley runs with, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="parley-benchmark-") as home:
        server = EmbeddedPostgres(Path(home))
        url = server.start()
        try:
            await migrate(url, DatabaseSettings())
            yield url
        finally:
            server.stop()
