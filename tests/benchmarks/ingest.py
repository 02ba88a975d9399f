"""Ingest: passages per second through parsing, real embeddings and Postgres, and its memory.

`python -m tests.benchmarks ingest [--short]`. The document is XQuAD's passages, several times over,
numbered so that no two are the same.
"""

import asyncio
import resource
import tempfile
import time
from pathlib import Path

from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings, DocumentsSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import Embedding, load_embedding, xquad
from tests.benchmarks.database import temporary_database

REACH_PER_S = 50
MEMORY_SLACK_MB = 60
"""Growth of peak memory that a document ten times as long may cause: allocator noise."""


def run(*, short: bool) -> list[Row]:
    """Documents of 200 and 2,000 passages, or of 20 and 60."""
    return asyncio.run(_run((20, 60) if short else (200, 2000)))


async def _run(sizes: tuple[int, int]) -> list[Row]:
    embedding = load_embedding()
    rows = []
    peaks = []
    async with temporary_database() as url, open_pool(url, settings=DatabaseSettings()) as pool:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
            audience = await identities.resolve(platform="b", workspace="w", channel="c")
            for size in sizes:
                seconds, chunks = await _ingest_one(pool, home, audience, embedding, size)
                rate = chunks / seconds
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
                rows.append(
                    Row(
                        what=f"ingest of {size} passages ({chunks} chunks)",
                        reached=f"{rate:.0f} chunks/s",
                        target=f">= {REACH_PER_S}",
                        ok=rate >= REACH_PER_S,
                    )
                )
    growth = peaks[1] - peaks[0]
    return [
        *rows,
        Row(
            what="memory of the worker, long document against short one",
            reached=f"{growth:+.0f} MB (peak {peaks[1]:.0f} MB with the embedder)",
            target=f"< +{MEMORY_SLACK_MB} MB",
            ok=growth < MEMORY_SLACK_MB,
        ),
    ]


async def _ingest_one(
    pool: Pool, home: Path, audience: Audience, embedding: Embedding, size: int
) -> tuple[float, int]:
    """Seconds of one ingest, and the chunks that it made."""
    passages = [paragraph["context"] for a in xquad() for paragraph in a["paragraphs"]]
    text = "\n\n".join(f"{n}. {passages[n % len(passages)]}" for n in range(size))
    settings = DocumentsSettings()
    documents = Documents(pool=pool, files_dir=home / "files", settings=settings)
    document = await documents.add(f"{size}.txt", text.encode(), audience=audience)
    started = time.perf_counter()
    await ingest(
        document.id,
        pool=pool,
        files_dir=home / "files",
        embed=embedding.embed,
        count_tokens=embedding.count_tokens,
        settings=settings,
    )
    seconds = time.perf_counter() - started
    return seconds, (await documents.get(document.id, audience=audience)).chunks
