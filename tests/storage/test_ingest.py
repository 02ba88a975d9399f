"""Ingest stages overlap, stop when overtaken, and say what is wrong."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.documents import Documents, version_path
from storage.errors import EmbeddingFailed, IngestSuperseded
from storage.identity import DocumentId
from storage.ingest import BATCH_CHUNKS, Embeds, ingest
from storage.pool import Pool
from storage.settings import DocumentsSettings
from tests.storage.conftest import Finds, Puts, Team
from tests.storage.embedding import count_tokens, embed
from tests.storage.parsing_helpers import children_reading
from tests.storage.test_documents import assert_statistics_are_exact, counts

PARAGRAPHS = "\n\n".join(
    f"Paragraph {number} speaks of topic{number} " + "and of other matters too " * 20
    for number in range(BATCH_CHUNKS * 6)
)


async def run(pool: Pool, files_dir: Path, document_id: DocumentId, embed: Embeds) -> None:
    await ingest(
        document_id,
        pool=pool,
        files_dir=files_dir,
        embed=embed,
        count_tokens=count_tokens,
        settings=DocumentsSettings(),
    )


async def test_a_deleted_document_stops_its_ingest(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    document = await documents.add("long.txt", PARAGRAPHS.encode(), audience=team.general)
    begun = asyncio.Event()

    async def stuck(texts: Sequence[str]) -> NDArray[np.float32]:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(run(pool, files_dir, document.id, stuck))
    await asyncio.wait_for(begun.wait(), 10)
    await documents.delete(document.id, audience=team.general)
    with pytest.raises(IngestSuperseded):
        await asyncio.wait_for(task, 10)
    assert (await counts(pool))["chunks"] == 0


async def test_a_second_run_takes_over_and_the_first_one_stops(
    documents: Documents, team: Team, pool: Pool, files_dir: Path, find: Finds
) -> None:
    document = await documents.add("long.txt", PARAGRAPHS.encode(), audience=team.general)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(texts: Sequence[str]) -> NDArray[np.float32]:
        begun.set()
        await go_on.wait()
        return await embed(texts)

    first = asyncio.create_task(run(pool, files_dir, document.id, slow))
    await asyncio.wait_for(begun.wait(), 10)
    await run(pool, files_dir, document.id, embed)
    go_on.set()
    with pytest.raises(IngestSuperseded):
        await asyncio.wait_for(first, 10)
    ready = await documents.get(document.id, audience=team.general)
    assert ready.status == "ready"
    assert (await counts(pool))["chunks"] == ready.chunks >= BATCH_CHUNKS * 5
    await assert_statistics_are_exact(pool)


async def test_invisible_chunks_are_not_found_and_progress_shows(
    documents: Documents, team: Team, pool: Pool, files_dir: Path, find: Finds
) -> None:
    document = await documents.add("long.txt", PARAGRAPHS.encode(), audience=team.general)
    calls = 0
    middle, go_on = asyncio.Event(), asyncio.Event()

    async def pausing(texts: Sequence[str]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        assert len(texts) <= BATCH_CHUNKS
        if calls == 4:
            middle.set()
            await go_on.wait()
        return await embed(texts)

    task = asyncio.create_task(run(pool, files_dir, document.id, pausing))
    await asyncio.wait_for(middle.wait(), 10)
    async with asyncio.timeout(10):
        while (await counts(pool))["chunks"] < BATCH_CHUNKS * 3 or (  # noqa: ASYNC110 (another process, or the database, has no event)
            state := await documents.get(document.id, audience=team.general)
        ).progress < 0.3:
            await asyncio.sleep(0.02)
    assert state.status == "embedding" and state.progress < 0.9
    assert await find("topic7", team.general) == []
    go_on.set()
    await asyncio.wait_for(task, 20)
    assert (await find("topic7", team.general))[0].text.startswith("Paragraph 7 ")


async def test_an_ingest_cancelled_while_it_waits_for_the_parser_leaves_nothing_behind(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    document = await documents.add("long.txt", PARAGRAPHS.encode(), audience=team.general)
    path = version_path(files_dir, document.id, 1)
    before = asyncio.all_tasks()
    task = asyncio.create_task(run(pool, files_dir, document.id, embed))
    async with asyncio.timeout(10):
        while not children_reading(path):  # noqa: ASYNC110 (another process has no event)
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children_reading(path)
    assert asyncio.all_tasks() == before


async def test_an_embedder_that_fails_leaves_the_document_for_a_retry(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    document = await documents.add("plan.md", b"The launch is in May.", audience=team.general)

    async def broken(texts: Sequence[str]) -> NDArray[np.float32]:
        raise ConnectionError("nobody there")

    with pytest.raises(EmbeddingFailed, match="nobody there"):
        await run(pool, files_dir, document.id, broken)
    await run(pool, files_dir, document.id, embed)
    assert (await documents.get(document.id, audience=team.general)).status == "ready"


async def test_text_that_postgres_cannot_hold_is_mended(put: Puts, find: Finds, team: Team) -> None:
    document = await put("odd.txt", "A zero \x00 byte and an umlaut \u00fc.", team.general)
    assert document.status == "ready"
    assert len(await find("umlaut", team.general)) == 1


async def test_the_planner_knows_a_collection_right_after_it_has_grown(
    put: Puts, team: Team, pool: Pool
) -> None:
    await put("long.txt", PARAGRAPHS, team.general)
    async with pool.connection() as connection:
        found = await connection.execute(
            "SELECT reltuples FROM pg_class"
            " WHERE oid IN ('chunk_vectors'::regclass, 'chunk_terms'::regclass)"
        )
        assert [count for (count,) in await found.fetchall()] == [BATCH_CHUNKS * 6] * 2
