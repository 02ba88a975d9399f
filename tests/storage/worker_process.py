"""A worker with the tiny embedder, for tests that kill it: `DATABASE_URL FILES_DIR PAUSE_S`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.identity import DocumentId
from storage.ingest import ingest
from storage.jobs import run_worker, until_stopped
from storage.pool import open_pool
from storage.settings import DatabaseSettings, DocumentsSettings
from tests.storage.embedding import count_tokens, embed


async def main(url: str, files_dir: Path, pause_s: float) -> None:
    async def slowly(texts: Sequence[str]) -> NDArray[np.float32]:
        await asyncio.sleep(pause_s)
        return await embed(texts)

    async with open_pool(url, settings=DatabaseSettings()) as pool:

        async def work(document_id: DocumentId) -> None:
            await ingest(
                document_id,
                pool=pool,
                files_dir=files_dir,
                embed=slowly,
                count_tokens=count_tokens,
                settings=DocumentsSettings(),
            )

        await until_stopped(run_worker(pool, ingest=work))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
