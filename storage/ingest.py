"""Ingest: a document's bytes become searchable chunks. Runs in the worker.

Parse, embed and write overlap: each stage works while the next one is busy, with bounded queues
between them, so that the embedder never waits and memory does not grow with the document. Chunks
are written as they come, into a version that search does not see; one last transaction makes it
visible and removes the version before it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Protocol
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from pgvector import SparseVector, Vector

from storage.chunking import Chunk, chunk_blocks
from storage.documents import version_path
from storage.errors import (
    DocumentNotFound,
    DocumentRejected,
    EmbeddingFailed,
    IngestSuperseded,
    StorageError,
)
from storage.identity import DocumentId
from storage.lexical import count_terms
from storage.parsing import Block, Progress, parse
from storage.pool import Connection, Pool, one_row
from storage.settings import DocumentsSettings
from storage.terms import TERM_SPACE, document_terms

logger = logging.getLogger(__name__)

BATCH_CHUNKS = 64
"""Chunks embedded and written together: about a second of the embedder's work."""
QUEUED_BATCHES = 2
"""Between two stages; with `BATCH_CHUNKS`, what bounds the memory of an ingest."""
BATCH_BLOCKS = 64
PROGRESS_INTERVAL_S = 0.5
"""How often progress is written, and how soon a deletion or a newer version is noticed."""
GROWTH_TO_ANALYZE = 0.1
"""Part of the chunks known to the planner that may be new to it; autovacuum's own default."""
UNKNOWN_END = 0.95
"""Most progress shown for a format whose length is known only at its end."""


class Embeds(Protocol):
    """Turns texts into unit vectors, one row each."""

    async def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed; shape (len(texts), dimension)."""


class CountsTokens(Protocol):
    """Counts tokens as the embedder does."""

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """The version that is worked on; `run` is out of date as soon as somebody else works on it."""

    document_id: DocumentId
    version: int
    run: int
    name: str
    scope_id: UUID
    bytes: int


@dataclass(kw_only=True)
class _Progress:
    """What the stages know of how far they are."""

    pages_done: int = 0
    pages_total: int = 0
    written: int = 0
    offset: int = 0

    def fraction(self, version: _Version) -> float:
        """Read pages where there are any; else text written against bytes stored."""
        if self.pages_total:
            return min(self.pages_done / self.pages_total, 1.0) * UNKNOWN_END
        return min(self.offset / max(version.bytes, 1), UNKNOWN_END)


async def ingest(
    document_id: DocumentId,
    *,
    pool: Pool,
    files_dir: Path,
    embed: Embeds,
    count_tokens: CountsTokens,
    settings: DocumentsSettings,
) -> None:
    """Make the newest version of a document searchable, or say in its row why that cannot be.

    Killed at any point, it leaves the old version searchable and whole; calling it again starts
    over. Work that is done is not repeated.

    Args:
        document_id: the document.
        pool: connections; two are used at once.
        files_dir: where the bytes of versions lie.
        embed: called with up to `BATCH_CHUNKS` texts at once.
        count_tokens: called in a thread.
        settings: limits of parsing, sizes of chunks.

    Raises:
        DocumentNotFound: deleted before it began.
        IngestSuperseded: deleted, replaced or taken over by another worker meanwhile.
        EmbeddingFailed: `embed` raised; safe to retry, as are `StorageUnavailable` and `DiskFull`.
    """
    version = await _begin(pool, document_id)
    if version is None:
        return
    progress = _Progress()
    try:
        await _run_stages(
            version,
            progress,
            pool=pool,
            path=version_path(files_dir, document_id, version.version),
            embed=embed,
            count_tokens=count_tokens,
            settings=settings,
        )
        if progress.written == 0:
            raise DocumentRejected("No text was found in it.")
    except DocumentRejected as error:
        await _reject(pool, version, error.reason)
        return
    await _publish(pool, files_dir, version, progress)


def embedded_text(chunk: Chunk) -> str:
    """What the embedder reads of a chunk: the headings above it give it its subject."""
    return f"{chunk.heading}\n{chunk.text}" if chunk.heading else chunk.text


def lexical_text(name: str, chunk: Chunk) -> str:
    """What the lexical ranking reads: a file is asked for by its name, too."""
    return f"{PurePath(name).stem}\n{embedded_text(chunk)}"


async def _run_stages(
    version: _Version,
    progress: _Progress,
    *,
    pool: Pool,
    path: Path,
    embed: Embeds,
    count_tokens: CountsTokens,
    settings: DocumentsSettings,
) -> None:
    """Run the stages side by side; the first failure ends all of them and is raised alone."""

    def note(read: Progress) -> None:
        progress.pages_done, progress.pages_total = read.pages_done, read.pages_total

    chunks: asyncio.Queue[list[Chunk] | None] = asyncio.Queue(QUEUED_BATCHES)
    rows: asyncio.Queue[list[ChunkRow] | None] = asyncio.Queue(QUEUED_BATCHES)
    parser = parse(path, name=version.name, limits=settings.parse_limits, on_progress=note)

    async def work() -> None:
        async with asyncio.TaskGroup() as stages:
            stages.create_task(_chunk(parser, chunks, count_tokens, settings))
            stages.create_task(_embed(version, embed, chunks, rows))
            stages.create_task(_write(pool, version, progress, rows))

    try:
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(_report(pool, version, progress))
            worker = group.create_task(work())
            worker.add_done_callback(lambda _: reporter.cancel())
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to act on: what storage says on purpose before anything that followed from it."""
    leaves: list[BaseException] = []
    for failure in failures.exceptions:
        leaves.append(_first(failure) if isinstance(failure, BaseExceptionGroup) else failure)
    return next((leaf for leaf in leaves if isinstance(leaf, StorageError)), leaves[0])


# -- Stages ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChunkRow:
    """A chunk ready to be written."""

    chunk: Chunk
    embedding: NDArray[np.float32]
    terms: dict[int, float]


async def _chunk(
    parser: AsyncGenerator[Block, None],
    chunks: asyncio.Queue[list[Chunk] | None],
    count_tokens: CountsTokens,
    settings: DocumentsSettings,
) -> None:
    """Cut the parser's blocks into chunks, in a thread: counting tokens keeps a core busy."""
    async with contextlib.aclosing(parser):
        blocks = _BlocksForThread(parser)
        iterator = chunk_blocks(
            blocks,
            count_tokens=count_tokens,
            max_tokens=settings.chunk_max_tokens,
            small_tokens=settings.chunk_small_tokens,
            target_tokens=settings.chunk_target_tokens,
        )
        try:
            while batch := await asyncio.to_thread(lambda: list(islice(iterator, BATCH_CHUNKS))):
                await chunks.put(batch)
        finally:
            await blocks.stop()
    await chunks.put(None)


class _BlocksForThread:
    """A thread's view of the parser, which lives in the event loop."""

    def __init__(self, parser: AsyncGenerator[Block, None]) -> None:
        self._parser = parser
        self._loop = asyncio.get_running_loop()
        self._pending: Future[list[Block]] | None = None
        self._reading = asyncio.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Block]:
        while not self._stopped:
            self._pending = asyncio.run_coroutine_threadsafe(self._take(), self._loop)
            blocks = self._pending.result()
            yield from blocks
            if len(blocks) < BATCH_BLOCKS:
                return

    async def stop(self) -> None:
        """Let a thread that waits for blocks go, and wait until nobody reads the parser.

        A parser that is being read cannot be closed, and would leave its child running.
        """
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()
        async with self._reading:
            pass

    async def _take(self) -> list[Block]:
        blocks: list[Block] = []
        async with self._reading:
            if self._stopped:
                return blocks
            async for block in self._parser:
                blocks.append(replace(block, text=_storable(block.text)))
                if len(blocks) == BATCH_BLOCKS:
                    break
        return blocks


def _storable(text: str) -> str:
    """Text that Postgres takes, of unchanged length: no zero characters, no half surrogates."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


async def _embed(
    version: _Version,
    embed: Embeds,
    chunks: asyncio.Queue[list[Chunk] | None],
    rows: asyncio.Queue[list[ChunkRow] | None],
) -> None:
    while (batch := await chunks.get()) is not None:
        texts = [embedded_text(chunk) for chunk in batch]
        try:
            vectors, terms = await asyncio.gather(
                embed(texts), asyncio.to_thread(_document_terms, version.name, batch)
            )
        except Exception as error:
            raise EmbeddingFailed(f"The embedder failed: {error}") from error
        await rows.put(
            [
                ChunkRow(chunk=chunk, embedding=vector, terms=weights)
                for chunk, vector, weights in zip(batch, vectors, terms, strict=True)
            ]
        )
    await rows.put(None)


def _document_terms(name: str, batch: Sequence[Chunk]) -> list[dict[int, float]]:
    return [document_terms(lexical_text(name, chunk)) for chunk in batch]


async def _write(
    pool: Pool,
    version: _Version,
    progress: _Progress,
    rows: asyncio.Queue[list[ChunkRow] | None],
) -> None:
    while (batch := await rows.get()) is not None:
        async with pool.connection() as connection:
            await _hold(connection, version)
            await write_chunks(
                connection,
                batch,
                document_id=version.document_id,
                version=version.version,
                scope_id=version.scope_id,
            )
        progress.written += len(batch)
        progress.offset = batch[-1].chunk.offset + len(batch[-1].chunk.text)


async def write_chunks(
    connection: Connection,
    rows: Sequence[ChunkRow],
    *,
    document_id: UUID,
    version: int,
    scope_id: UUID,
) -> None:
    """Copy chunks into the three tables that search reads."""
    ids = [uuid4() for _ in rows]
    place = (document_id, version)
    await _copy(
        connection,
        'COPY chunks (id, document_id, version, ordinal, page, heading, "offset", text)'
        " FROM STDIN (FORMAT BINARY)",
        ["uuid", "uuid", "int4", "int4", "int4", "text", "int4", "text"],
        [
            (chunk_id, *place, c.ordinal, c.page, c.heading, c.offset, c.text)
            for chunk_id, c in zip(ids, (row.chunk for row in rows), strict=True)
        ],
    )
    await _copy(
        connection,
        "COPY chunk_vectors (chunk_id, document_id, version, scope_id, embedding)"
        " FROM STDIN (FORMAT BINARY)",
        ["uuid", "uuid", "int4", "uuid", "vector"],
        [
            (chunk_id, *place, scope_id, Vector(row.embedding))
            for chunk_id, row in zip(ids, rows, strict=True)
        ],
    )
    await _copy(
        connection,
        "COPY chunk_terms (chunk_id, document_id, version, scope_id, terms, bm25)"
        " FROM STDIN (FORMAT BINARY)",
        ["uuid", "uuid", "int4", "uuid", "int4[]", "sparsevec"],
        [
            (chunk_id, *place, scope_id, list(row.terms), _sparse(row.terms))
            for chunk_id, row in zip(ids, rows, strict=True)
        ],
    )


def _sparse(terms: dict[int, float]) -> SparseVector:
    """Term ids start at 1, the dictionary form of a sparse vector at 0."""
    return SparseVector({term - 1: weight for term, weight in terms.items()}, TERM_SPACE)


async def _copy(
    connection: Connection, statement: str, types: list[str], rows: list[tuple[Any, ...]]
) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            await copy.write_row(row)


async def _report(pool: Pool, version: _Version, progress: _Progress) -> None:
    """Write progress now and then; notice when the work has become pointless."""
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        async with pool.connection() as connection:
            await _hold(connection, version)
            await connection.execute(
                "UPDATE document_versions SET status = %s, progress = %s, updated_at = now()"
                " WHERE document_id = %s AND version = %s",
                [
                    "embedding" if progress.written else "parsing",
                    progress.fraction(version),
                    version.document_id,
                    version.version,
                ],
            )


# -- States of a version --------------------------------------------------------------------------


async def _begin(pool: Pool, document_id: DocumentId) -> _Version | None:
    """Take the newest version over from whoever had it; None where there is nothing to do."""
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT v.version, v.run + 1, d.name, d.scope_id, v.bytes, v.status"
            " FROM documents d JOIN document_versions v ON v.document_id = d.id"
            " WHERE d.id = %s ORDER BY v.version DESC LIMIT 1 FOR UPDATE OF v",
            [document_id],
        )
        row = await found.fetchone()
        if row is None:
            raise DocumentNotFound(document_id)
        number, run, name, scope_id, size, status = row
        if status in ("ready", "failed"):
            return None
        version = _Version(
            document_id=document_id,
            version=number,
            run=run,
            name=name,
            scope_id=scope_id,
            bytes=size,
        )
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        await connection.execute(
            "DELETE FROM chunks WHERE document_id = %s AND version = %s", [document_id, number]
        )
        await connection.execute(
            "UPDATE document_versions SET run = %s, status = 'parsing', reason = NULL,"
            " progress = 0, updated_at = now() WHERE document_id = %s AND version = %s",
            [run, document_id, number],
        )
    return version


async def _hold(connection: Connection, version: _Version) -> None:
    """Make sure that this version is still ours until the transaction ends.

    Raises:
        IngestSuperseded: it is not.
    """
    found = await connection.execute(
        "SELECT 1 FROM document_versions WHERE document_id = %s AND version = %s AND run = %s"
        " FOR NO KEY UPDATE",
        [version.document_id, version.version, version.run],
    )
    if await found.fetchone() is None:
        raise IngestSuperseded(f"document {version.document_id} changed meanwhile")


async def _reject(pool: Pool, version: _Version, reason: str) -> None:
    """Say why the version cannot be searched; nothing else of it stays."""
    async with pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        await _hold(connection, version)
        await connection.execute(
            "DELETE FROM chunks WHERE document_id = %s AND version = %s",
            [version.document_id, version.version],
        )
        found = await connection.execute(
            "SELECT visible IS NOT NULL FROM documents WHERE id = %s", [version.document_id]
        )
        if (await one_row(found))[0]:
            reason = f"{reason} The version before it stays searchable."
        await connection.execute(
            "UPDATE document_versions SET status = 'failed', reason = %s, progress = 0,"
            " updated_at = now() WHERE document_id = %s AND version = %s",
            [reason, version.document_id, version.version],
        )
    logger.info("document rejected", extra={"action": "document_rejected"})


async def _publish(pool: Pool, files_dir: Path, version: _Version, progress: _Progress) -> None:
    """Make the version visible and remove the one before it, in one transaction."""
    async with pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        found = await connection.execute(
            "SELECT visible FROM documents WHERE id = %s FOR UPDATE", [version.document_id]
        )
        row = await found.fetchone()
        if row is None:
            raise IngestSuperseded(f"document {version.document_id} was deleted meanwhile")
        await _hold(connection, version)
        old: int | None = row[0]
        await count_terms(connection, version.document_id, removed=old, added=version.version)
        await connection.execute(
            "UPDATE documents SET visible = %s WHERE id = %s",
            [version.version, version.document_id],
        )
        await connection.execute(
            "UPDATE document_versions SET status = 'ready', reason = NULL, progress = 1,"
            " chunks = %s, pages = %s, updated_at = now()"
            " WHERE document_id = %s AND version = %s",
            [
                progress.written,
                progress.pages_total or None,
                version.document_id,
                version.version,
            ],
        )
        await connection.execute(
            "DELETE FROM document_versions WHERE document_id = %s AND version = %s",
            [version.document_id, old],
        )
    if old is not None:
        version_path(files_dir, version.document_id, old).unlink(missing_ok=True)
    await _refresh_statistics(pool, added=progress.written)
    logger.info(
        "document ready",
        extra={"action": "document_ready", "chunks": progress.written},
    )


async def _refresh_statistics(pool: Pool, *, added: int) -> None:
    """Let the planner know a collection that has grown much, before autovacuum's next round.

    Without it, a search right after the first ingest takes 30 ms on 170 chunks instead of 2.
    """
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT reltuples FROM pg_class WHERE oid = 'chunk_vectors'::regclass"
        )
        if added > GROWTH_TO_ANALYZE * max((await one_row(found))[0], 0):
            await connection.execute("SET LOCAL statement_timeout = '10min'")
            await connection.execute(
                "ANALYZE documents, chunks, chunk_vectors, chunk_terms, term_frequencies,"
                " scope_sizes"
            )
