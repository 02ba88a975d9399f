"""Ingest as the worker does it: parsing, the engine's embeddings, Postgres; speed and memory.

`python -m tests.benchmarks ingest [--short]`. The texts are XQuAD's passages, several times over,
numbered so that no two are the same; once as a text file, once as a PDF of dense pages.
"""

import asyncio
import io
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from bots.settings import Settings
from bots.worker import embed, embedder_counter
from engine.client import EngineClient
from storage.documents import Document, Documents
from storage.identity import Audience, Identities, Keys
from storage.ingest import ingest
from storage.pool import Pool, open_pool
from storage.settings import DatabaseSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import EMBEDDER, xquad
from tests.benchmarks.database import temporary_database
from tests.engine.serving import EngineProcess

REACH_PER_S = 50
REACH_PDF_S = 30
MEMORY_SLACK_MB = 60
"""Growth of peak memory that a document ten times as long may cause: allocator noise."""
WORDS_PER_PAGE = 225
"""A full page of a report."""


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """A document that became ready, and how long that took."""

    document: Document
    seconds: float


def run(*, short: bool) -> list[Row]:
    """Texts of 200 and 2,000 passages and a PDF of 200 pages, or 20, 60 and 10."""
    return asyncio.run(_run((20, 60), 10) if short else _run((200, 2000), 200))


async def _run(sizes: tuple[int, int], pages: int) -> list[Row]:
    rows, peaks = [], []
    async with _worker() as (pool, home, audience, engine):
        take = partial(_ingest, pool, home, audience, engine)
        for size in sizes:
            done = await take(f"{size}.txt", "\n\n".join(islice(_passages(), size)).encode())
            rate = done.document.chunks / done.seconds
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            rows.append(
                Row(
                    what=f"ingest of {size} passages ({done.document.chunks} chunks)",
                    reached=f"{rate:.0f} chunks/s",
                    target=f">= {REACH_PER_S}",
                    ok=rate >= REACH_PER_S,
                )
            )
        done = await take(f"{pages}.pdf", _pdf(pages))
    growth = peaks[1] - peaks[0]
    return [
        *rows,
        Row(
            what="memory of the worker, long document against short one",
            reached=f"{growth:+.0f} MB (peak {peaks[1]:.0f} MB)",
            target=f"< +{MEMORY_SLACK_MB} MB",
            ok=growth < MEMORY_SLACK_MB,
        ),
        Row(
            what=f"PDF of {done.document.pages} pages, {WORDS_PER_PAGE} words each, until ready "
            f"({done.document.chunks} chunks)",
            reached=f"{done.seconds:.1f} s",
            target=f"< {REACH_PDF_S} s",
            ok=done.document.pages == pages and done.seconds < REACH_PDF_S,
        ),
    ]


@asynccontextmanager
async def _worker() -> AsyncIterator[tuple[Pool, Path, Audience, EngineClient]]:
    """What the worker has: a database, a folder for files, and a real engine process."""
    models = Path(os.environ.get("PARLEY_HOME", ".parley")).resolve() / "models"
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "models").symlink_to(models)
        served = f"ctranslate2:{EMBEDDER}"
        async with temporary_database() as url, open_pool(url, settings=DatabaseSettings()) as pool:
            identities = Identities(pool=pool, keys=Keys.load(home=home, secret=None))
            audience = await identities.resolve(platform="b", workspace="w", channel="c")
            with EngineProcess(home=home, models={}, live="none", embedder=served) as process:
                async with EngineClient(url=process.url) as engine:
                    yield pool, home, audience, engine


async def _ingest(
    pool: Pool, home: Path, audience: Audience, engine: EngineClient, name: str, content: bytes
) -> Ingested:
    """Take a file, read it, embed it; all that lies between an upload and a searchable document."""
    settings = Settings(home=home)
    files_dir = home / "files"
    documents = Documents(pool=pool, files_dir=files_dir, settings=settings.documents)
    started = time.perf_counter()
    document = await documents.add(name, content, audience=audience)
    await ingest(
        document.id,
        pool=pool,
        files_dir=files_dir,
        embed=partial(embed, engine),
        count_tokens=embedder_counter(settings, engine),
        settings=settings.documents,
    )
    seconds = time.perf_counter() - started
    return Ingested(document=await documents.get(document.id, audience=audience), seconds=seconds)


def _passages() -> Iterator[str]:
    """XQuAD's passages without end, each with its number."""
    passages = [part["context"] for article in xquad() for part in article["paragraphs"]]
    return (f"{n}. {text}" for n, text in enumerate(cycle(passages)))


def _pdf(pages: int) -> bytes:
    """A PDF of full pages of text."""
    style = getSampleStyleSheet()["BodyText"]
    words = (word for text in _passages() for word in text.split())
    flow = []
    for _ in range(pages):
        text = " ".join(islice(words, WORDS_PER_PAGE))
        flow += [Paragraph(escape(text), style), PageBreak()]
    file = io.BytesIO()
    SimpleDocTemplate(file, pagesize=A4).build(flow)
    return file.getvalue()
