"""Following a document says every change once, ends, and gives up in time."""

import asyncio
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from bots.ingest_status import describe, follow
from storage.documents import Document, Documents
from storage.errors import DocumentNotFound
from storage.identity import Audience, Identities, Keys
from storage.pool import Pool
from storage.settings import DocumentsSettings


@pytest.fixture
async def audience(pool: Pool) -> Audience:
    keys = Keys(fernet_keys=(Fernet.generate_key().decode(),))
    identities = Identities(pool=pool, keys=keys)
    return await identities.resolve(platform="web", workspace="T", channel="general")


@pytest.fixture
def documents(pool: Pool, tmp_path: Path) -> Documents:
    return Documents(pool=pool, files_dir=tmp_path / "files", settings=DocumentsSettings())


async def change(pool: Pool, document: Document, assignments: str) -> None:
    """What the worker does to it."""
    async with pool.connection() as connection:
        await connection.execute(
            f"UPDATE document_versions SET {assignments} WHERE document_id = %s".encode(),
            [document.id],
        )


async def test_every_change_is_told_once_and_the_end_ends_it(
    documents: Documents, audience: Audience, pool: Pool
) -> None:
    added = await documents.add("plan.md", b"a plan", audience=audience)
    steps = iter(
        [
            "status = 'parsing'",
            "status = 'embedding', progress = 0.3",
            "status = 'ready', progress = 1, chunks = 1, pages = 2",
        ]
    )
    told = []
    async for document in follow(added.id, documents=documents, audience=audience, deadline_s=30):
        told.append(describe(document))
        if (step := next(steps, None)) is not None:
            await change(pool, added, step)
    assert told == ["Queued", "Reading", "Reading (30%)", "Ready: 2 pages, 1 passage"]


async def test_what_does_not_end_is_left_at_the_deadline(
    documents: Documents, audience: Audience
) -> None:
    added = await documents.add("plan.md", b"a plan", audience=audience)
    async with asyncio.timeout(10):
        changes = follow(added.id, documents=documents, audience=audience, deadline_s=0.5)
        told = [document.status async for document in changes]
    assert told == ["queued"]


async def test_a_removed_document_ends_it(documents: Documents, audience: Audience) -> None:
    added = await documents.add("plan.md", b"a plan", audience=audience)
    with pytest.raises(DocumentNotFound):
        async for _ in follow(added.id, documents=documents, audience=audience, deadline_s=30):
            await documents.delete(added.id, audience=audience)


async def test_a_failure_says_why_and_what_stays(
    documents: Documents, audience: Audience, pool: Pool
) -> None:
    added = await documents.add("plan.md", b"a plan", audience=audience)
    await change(pool, added, "status = 'failed', reason = 'The file is empty.'")
    (document,) = [
        each
        async for each in follow(added.id, documents=documents, audience=audience, deadline_s=30)
    ]
    assert describe(document) == "Failed: The file is empty."
