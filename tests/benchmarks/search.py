"""Search latency and recall over many chunks: `python -m tests.benchmarks search [--short]`.

The collection is made of real sentences: texts mix them and replace some words by rarer ones, so that
words are as unevenly frequent as in life; vectors mix the sentences' embeddings.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql

from storage.chunking import Chunk
from storage.identity import Audience, ChannelId, WorkspaceId
from storage.ingest import ChunkRow, write_chunks
from storage.pool import Pool, one_row, open_pool
from storage.search import search
from storage.settings import DatabaseSettings, SearchSettings
from storage.terms import document_terms
from tests.benchmarks.corpus import Embedding, load_embedding, sentences
from tests.benchmarks.database import temporary_database

CALLERS = 8
SHARES = {"everything": 0.889, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001, "nothing": 0.0}
SECONDARY_INDEXES = ("chunk_vectors_hnsw", "chunk_terms_terms")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What was built: whom to search as, and questions with their vectors."""

    audiences: dict[str, Audience]
    questions: list[tuple[str, NDArray[np.float32]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--short", action="store_true", help="5,000 chunks, times not judged")
    parser.add_argument("--chunks", type=int, default=None)


async def run(args: argparse.Namespace) -> int:
    total = args.chunks or (5_000 if args.short else 100_000)
    embedding = load_embedding()
    async with temporary_database() as url:
        settings = DatabaseSettings()
        async with open_pool(url, settings=settings) as pool:
            collection = await _build(pool, embedding, total)
            recall = await _recall(pool, collection, settings)
            print(f"{'audience':<12}{'p50 ms':>8}{'p95 ms':>8}{'per s':>8}{'recall@10':>11}")
            worst_p95 = 0.0
            for name, audience in collection.audiences.items():
                times, rate = await _latency(pool, audience, collection.questions)
                p95 = statistics.quantiles(times, n=20)[-1]
                worst_p95 = max(worst_p95, p95)
                print(
                    f"{name:<12}{statistics.median(times):>8.1f}{p95:>8.1f}{rate:>8.0f}"
                    f"{recall[name]:>11.3f}"
                )
    lowest = min(recall.values())
    print(f"p95 {worst_p95:.1f} ms (reach 40), recall@10 {lowest:.3f} (reach 0.97)")
    return 0 if lowest >= 0.97 and (args.short or worst_p95 < 40) else 1


async def _build(pool: Pool, embedding: Embedding, total: int) -> Collection:
    """Load the collection without its large indexes, build these, then insert a few more rows."""
    rng = random.Random(7)
    texts = sentences()
    vectors = await embedding.embed(texts)
    print(f"{len(texts)} real sentences embedded")
    workspace = WorkspaceId(uuid4())
    scopes = {name: ChannelId(uuid4()) for name in SHARES}
    definitions = []
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO workspaces (id, platform, platform_id) VALUES (%s, 'benchmark', 'b')",
            [workspace],
        )
        for index in SECONDARY_INDEXES:
            found = await connection.execute("SELECT pg_get_indexdef(%s::regclass)", [index])
            definitions.append((await one_row(found))[0])
            await connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
    started = time.perf_counter()
    for name, share in SHARES.items():
        await _load(pool, workspace, scopes[name], round(total * share), texts, vectors, rng)
    print(f"loaded without indexes: {total / (time.perf_counter() - started):.0f} chunks/s")
    async with pool.connection() as connection:
        await connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '1GB'")
        for definition in definitions:
            started = time.perf_counter()
            await connection.execute(definition.encode())
            print(f"{definition.split()[2]} built in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    more = min(2000, total // 10)
    await _load(pool, workspace, scopes["everything"], more, texts, vectors, rng)
    print(f"inserted with indexes: {more / (time.perf_counter() - started):.0f} chunks/s")
    await _count(pool)
    asked = [_question(rng, texts) for _ in range(200)]
    asked_vectors = await embedding.embed(asked)
    return Collection(
        audiences={
            name: Audience(workspace_id=workspace, channel_id=scope)
            for name, scope in scopes.items()
        },
        questions=list(zip(asked, asked_vectors, strict=True)),
    )


def _mixed_text(rng: random.Random, texts: Sequence[str], picked: Sequence[int]) -> str:
    """The picked sentences; half of their longer words become one of many rarer words."""
    words = " ".join(texts[index] for index in picked).split()
    return " ".join(
        f"{word}{int(rng.paretovariate(0.7)) % 5000}"
        if len(word) > 5 and rng.random() < 0.5
        else word
        for word in words
    )


def _question(rng: random.Random, texts: Sequence[str]) -> str:
    words = _mixed_text(rng, texts, [rng.randrange(len(texts))]).split()
    begin = rng.randrange(max(len(words) - 12, 1))
    return f"What is known about {' '.join(words[begin : begin + 10])}?"


async def _load(
    pool: Pool,
    workspace: UUID,
    scope: UUID,
    count: int,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    rng: random.Random,
) -> None:
    """Write `count` chunks of one scope as ready documents of 1,000 chunks each."""
    noise = np.random.default_rng(rng.randrange(2**32))
    for begin in range(0, count, 1000):
        size = min(1000, count - begin)
        rows = []
        for ordinal in range(size):
            picked = rng.sample(range(len(texts)), 5)
            weights = noise.dirichlet([0.6] * 5).astype(np.float32)
            vector = weights @ vectors[picked]
            vector += noise.normal(0, 0.02, vector.shape).astype(np.float32)
            text = _mixed_text(rng, texts, picked)
            chunk = Chunk(ordinal=ordinal, text=text, page=None, heading=None, offset=0)
            rows.append(
                ChunkRow(
                    chunk=chunk,
                    embedding=vector / np.linalg.norm(vector),
                    terms=document_terms(text),
                )
            )
        async with pool.connection() as connection:
            made = await connection.execute(
                "INSERT INTO documents (workspace_id, scope_id, name, visible)"
                " VALUES (%s, %s, %s, 1) RETURNING id",
                [workspace, scope, f"document {uuid4()}"],
            )
            document_id = (await one_row(made))[0]
            await connection.execute(
                "INSERT INTO document_versions"
                " (document_id, version, sha256, bytes, media_type, status, chunks)"
                " VALUES (%s, 1, '', 0, 'text/plain', 'ready', %s)",
                [document_id, size],
            )
            await write_chunks(
                connection, rows, document_id=document_id, version=1, scope_id=scope
            )


async def _count(pool: Pool) -> None:
    """The statistics that ingest keeps, all at once."""
    async with pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(
            "INSERT INTO term_frequencies SELECT d.workspace_id, term, count(*)"
            " FROM chunk_terms t JOIN documents d ON d.id = t.document_id, unnest(t.terms) term"
            " GROUP BY 1, 2"
        )
        await connection.execute(
            "INSERT INTO scope_sizes SELECT t.scope_id, d.workspace_id, count(*)"
            " FROM chunk_terms t JOIN documents d ON d.id = t.document_id GROUP BY 1, 2"
        )
        await connection.commit()
        await connection.set_autocommit(True)
        await connection.execute("VACUUM ANALYZE")
        await connection.set_autocommit(False)


async def _recall(
    pool: Pool, collection: Collection, settings: DatabaseSettings
) -> dict[str, float]:
    """Share of the exactly nearest ten chunks that the index returns, per audience."""
    recall = {}
    for name, audience in collection.audiences.items():
        shares = []
        for _, vector in collection.questions[:100]:
            found = await _nearest(pool, audience, vector, exact=False)
            true = await _nearest(pool, audience, vector, exact=True)
            shares.append(len(found & true) / len(true) if true else 1.0)
        recall[name] = statistics.mean(shares)
    return recall


async def _nearest(
    pool: Pool, audience: Audience, vector: NDArray[np.float32], *, exact: bool
) -> set[UUID]:
    async with pool.connection() as connection:
        if exact:
            await connection.execute("SET LOCAL enable_indexscan = off")
        rows = await connection.execute(
            "SELECT chunk_id FROM chunk_vectors WHERE (scope_id = ANY(%s)) IS NOT FALSE"
            " ORDER BY embedding <=> %s LIMIT 10",
            [list(audience.scope_ids), Vector(vector)],
        )
        return {row[0] for row in await rows.fetchall()}


async def _latency(
    pool: Pool, audience: Audience, questions: Sequence[tuple[str, NDArray[np.float32]]]
) -> tuple[list[float], float]:
    """Milliseconds of each search with `CALLERS` at a time, and searches per second."""
    settings = SearchSettings()
    waiting = list(questions)
    times: list[float] = []

    async def caller() -> None:
        while waiting:
            text, vector = waiting.pop()
            started = time.perf_counter()
            await search(pool, query=text, vector=vector, audience=audience, settings=settings)
            times.append((time.perf_counter() - started) * 1000)

    for question in questions[:CALLERS]:  # every connection has prepared the statement
        waiting_before = waiting
        waiting = [question] * CALLERS
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        waiting = waiting_before
    times.clear()
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return times, len(times) / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(main())
