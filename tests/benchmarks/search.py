"""Search latency and recall over many chunks: `python -m tests.benchmarks search [--short]`.

The collection is made of real sentences: texts mix them and replace some words by rarer ones, so
that words are as unevenly frequent as in life; vectors mix the sentences' embeddings.
"""

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
from storage.search import EXACT_VECTORS, search
from storage.settings import DatabaseSettings, SearchSettings
from storage.terms import document_terms
from tests.benchmarks import Row
from tests.benchmarks.corpus import Embedding, load_embedding, sentences
from tests.benchmarks.database import temporary_database

CALLERS = 8
SHARES = {"everything": 0.889, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001, "nothing": 0.0}
REACH_P95_MS = 40
REACH_RECALL = 0.97
SECONDARY_INDEXES = ("chunk_vectors_hnsw", "chunk_terms_terms")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What was built: whom to search as, and questions with their vectors."""

    audiences: dict[str, Audience]
    questions: list[tuple[str, NDArray[np.float32]]]


def run(*, short: bool) -> list[Row]:
    """100,000 chunks, or 5,000."""
    return asyncio.run(_run(5_000 if short else 100_000))


async def _run(total: int) -> list[Row]:
    settings = DatabaseSettings()
    rows = []
    async with temporary_database() as url, open_pool(url, settings=settings) as pool:
        collection, speeds = await _build(pool, load_embedding(), total)
        for name, audience in collection.audiences.items():
            times, rate = await _latency(pool, audience, collection.questions)
            p95 = statistics.quantiles(times, n=20)[-1]
            reached = f"p50 {statistics.median(times):.1f} ms, p95 {p95:.1f} ms, {rate:.0f}/s"
            what = f"search, {CALLERS} callers, who may read {name} of {total} chunks"
            rows.append(
                Row(
                    what=what,
                    reached=reached,
                    target=f"p95 < {REACH_P95_MS} ms",
                    ok=p95 < REACH_P95_MS,
                )
            )
            if SHARES[name] * total <= EXACT_VECTORS * SearchSettings().exact_below:
                continue  # search compares all of their vectors exactly
            recall = await _recall(pool, audience, collection)
            what = f"HNSW recall@10, who may read {name}"
            rows.append(
                Row(
                    what=what,
                    reached=f"{recall:.3f}",
                    target=f">= {REACH_RECALL}",
                    ok=recall >= REACH_RECALL,
                )
            )
    return rows + [Row(what=what, reached=reached) for what, reached in speeds.items()]


async def _build(pool: Pool, embedding: Embedding, total: int) -> tuple[Collection, dict[str, str]]:
    """Load the collection without its large indexes, build these, then insert a few more rows."""
    rng = random.Random(7)
    texts = sentences()
    vectors = await embedding.embed(texts)
    speeds = {}
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
    speeds["loaded without indexes"] = f"{total / (time.perf_counter() - started):.0f} chunks/s"
    async with pool.connection() as connection:
        await connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '1GB'")
        for definition in definitions:
            started = time.perf_counter()
            await connection.execute(definition.encode())
            speeds[f"{definition.split()[2]} built"] = f"{time.perf_counter() - started:.0f} s"
    started = time.perf_counter()
    more = min(2000, total // 10)
    await _load(pool, workspace, scopes["everything"], more, texts, vectors, rng)
    speeds["inserted with indexes"] = f"{more / (time.perf_counter() - started):.0f} chunks/s"
    await _count(pool)
    asked = [_question(rng, texts) for _ in range(200)]
    asked_vectors = await embedding.embed(asked)
    audiences = {
        name: Audience(workspace_id=workspace, channel_id=scope) for name, scope in scopes.items()
    }
    questions = list(zip(asked, asked_vectors, strict=True))
    return Collection(audiences=audiences, questions=questions), speeds


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
            await write_chunks(connection, rows, document_id=document_id, version=1, scope_id=scope)


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


async def _recall(pool: Pool, audience: Audience, collection: Collection) -> float:
    """Share of the exactly nearest ten chunks among the candidates that the index proposes."""
    shares = []
    for _, vector in collection.questions[:100]:
        found = await _nearest(pool, audience, vector, exact=False)
        true = await _nearest(pool, audience, vector, exact=True)
        shares.append(len(found & true) / len(true) if true else 1.0)
    return statistics.mean(shares)


async def _nearest(
    pool: Pool, audience: Audience, vector: NDArray[np.float32], *, exact: bool
) -> set[UUID]:
    async with pool.connection() as connection:
        if exact:
            await connection.execute(
                "SET LOCAL enable_indexscan = off; SET LOCAL enable_seqscan = on"
            )
        rows = await connection.execute(
            "SELECT chunk_id FROM (SELECT chunk_id, embedding <=> %s AS distance"
            " FROM chunk_vectors WHERE (scope_id = ANY(%s)) IS NOT FALSE"
            " ORDER BY distance LIMIT %s) candidates ORDER BY distance LIMIT 10",
            [Vector(vector), list(audience.scope_ids), SearchSettings().candidates],
            prepare=False,  # a prepared plan would not hear of the switches above
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

    # Once before the clock runs: every connection prepares the statement, pages come into memory.
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    waiting.extend(questions)
    times.clear()
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return times, len(times) / (time.perf_counter() - started)
