"""The background worker: takes ingest jobs from the database's queue, embeds through the engine.

A stop (SIGTERM) finishes the job in hand or gives it back; a database that goes away is waited for.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import stamina
from numpy.typing import NDArray

from bots.settings import Settings
from bots.workplace import engine_client
from engine.client import EngineClient
from engine.errors import EngineBusy, EngineUnavailable
from engine.manifest import Manifest
from engine.tokenizer import Tokenizer
from storage.documents import remove_leftovers
from storage.embedded import database_url
from storage.errors import StorageUnavailable
from storage.identity import DocumentId
from storage.ingest import CountsTokens, ingest
from storage.jobs import run_worker, until_stopped
from storage.messages import forget_claims
from storage.outages import outlive_outages
from storage.pool import Pool, open_pool
from storage.queue import end

logger = logging.getLogger(__name__)

LEFTOVER_AFTER_S = 24 * 3600.0
"""An upload that did not grow for so long belongs to a process that was killed."""
TIDY_EVERY_S = 6 * 3600.0
STOP_AGAIN_S = 0.2
EMBED_ATTEMPTS = 6
EMBED_RETRY_TIMEOUT_S = 60.0
"""An engine that restarts is back within seconds; beyond this the job itself is tried again
later."""
COUNT_TIMEOUT_S = 30.0


async def work(settings: Settings) -> None:
    """Work until SIGINT or SIGTERM.

    Raises:
        StorageError: the database does not answer at the start, or is not of this version.
    """
    async with (
        database_url(settings.database, home=settings.home) as url,
        open_pool(url, settings=settings.database) as pool,
        engine_client(settings) as engine,
    ):
        await until_stopped(_work_on(pool, engine, settings))


async def _work_on(pool: Pool, engine: EngineClient, settings: Settings) -> None:
    count_tokens = embedder_counter(settings, engine)

    async def ingest_document(document_id: DocumentId) -> None:
        await ingest(
            document_id,
            pool=pool,
            files_dir=settings.home / "files",
            embed=partial(embed, engine),
            count_tokens=count_tokens,
            settings=settings.documents,
        )

    tidying = asyncio.create_task(_tidy_for_ever(pool, settings.home / "files"), name="tidy")
    logger.info("worker ready", extra={"action": "worker_ready"})
    try:
        await outlive_outages(
            lambda: run_worker(pool, ingest=ingest_document), action="worker_database_lost"
        )
    finally:
        await end([tidying], again_after_s=STOP_AGAIN_S)


async def _tidy_for_ever(pool: Pool, files_dir: Path) -> None:
    """Remove what nobody needs any more, at the start and every few hours."""
    while True:
        remove_leftovers(files_dir, older_than_s=LEFTOVER_AFTER_S)
        try:
            await forget_claims(pool)
        except StorageUnavailable as error:
            logger.warning("not tidied now: %s", error, extra={"action": "tidy_failed"})
        await asyncio.sleep(TIDY_EVERY_S)


async def embed(engine: EngineClient, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed, waiting for an engine that is busy or restarting.

    Raises:
        EngineError: it stayed so, or refuses.
    """
    async for attempt in stamina.retry_context(
        on=(EngineBusy, EngineUnavailable), attempts=EMBED_ATTEMPTS, timeout=EMBED_RETRY_TIMEOUT_S
    ):
        with attempt:
            return await engine.embed(texts)
    raise AssertionError("the last attempt returns or raises")


def embedder_counter(settings: Settings, engine: EngineClient) -> CountsTokens:
    """Count as the embedder does: here where its directory is, else by asking the engine."""
    kind, _, place = settings.engine.embedder.partition(":")
    directory = settings.home / "models" / place
    if kind == "ctranslate2" and settings.engine.url is None and directory.is_dir():
        manifest = Manifest.read(directory, verify=False)
        return Tokenizer.read(directory / manifest.tokenizer).count
    loop = asyncio.get_running_loop()

    def count(texts: Sequence[str]) -> list[int]:
        asked = asyncio.run_coroutine_threadsafe(engine.count_tokens(texts, model="embedder"), loop)
        return asked.result(COUNT_TIMEOUT_S)

    return count
