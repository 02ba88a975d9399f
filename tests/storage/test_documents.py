"""Documents come, are replaced and go, and never leave half of anything."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.documents import Documents, remove_leftovers
from storage.errors import DiskFull, DocumentNotFound, DocumentTooLarge
from storage.identity import Audience
from storage.pool import Pool
from tests.storage.conftest import Finds, Puts, Team

TABLES = ("documents", "document_versions", "chunks", "chunk_vectors", "chunk_terms")


async def counts(pool: Pool) -> dict[str, int]:
    async with pool.connection() as connection:
        result = {}
        for table in (*TABLES, "term_frequencies", "procrastinate_jobs"):
            row = await (
                await connection.execute(f"SELECT count(*) FROM {table}".encode())
            ).fetchone()
            assert row is not None
            result[table] = row[0]
        return result


async def assert_statistics_are_exact(pool: Pool) -> None:
    """Kept statistics equal those counted anew from the visible chunks."""
    visible = (
        "FROM chunk_terms t JOIN documents d ON d.id = t.document_id AND d.visible = t.version"
    )
    async with pool.connection() as connection:
        for kept, counted in (
            (
                "SELECT term, chunks FROM term_frequencies WHERE chunks <> 0",
                f"SELECT term, count(*) {visible}, unnest(t.terms) term GROUP BY term",
            ),
            (
                "SELECT scope_id, chunks FROM scope_sizes WHERE chunks <> 0",
                f"SELECT t.scope_id, count(*) {visible} GROUP BY t.scope_id",
            ),
        ):
            have = await (await connection.execute(kept.encode())).fetchall()
            need = await (await connection.execute(counted.encode())).fetchall()
            assert sorted(have) == sorted(need)


async def test_a_new_document_waits_with_its_bytes_and_its_job(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    document = await documents.add("../notes/plan.md", b"# Plan\n", audience=team.general)
    assert (document.name, document.status, document.searchable) == ("plan.md", "queued", False)
    assert [path.read_bytes() for path in files_dir.iterdir()] == [b"# Plan\n"]
    async with pool.connection() as connection:
        job = await (
            await connection.execute("SELECT task_name, args, lock FROM procrastinate_jobs")
        ).fetchall()
    assert job == [("ingest_document", {"document_id": str(document.id)}, str(document.id))]


async def test_an_ingested_document_is_found_and_counted(
    put: Puts, find: Finds, team: Team, pool: Pool
) -> None:
    document = await put("plan.md", "# Plan\n\nThe launch is in October.\n", team.general)
    assert (document.status, document.chunks, document.progress) == ("ready", 1, 1.0)
    (hit,) = await find("When is the launch?", team.general)
    assert (hit.document, hit.heading, hit.text) == ("plan.md", "Plan", "The launch is in October.")
    await assert_statistics_are_exact(pool)


async def test_the_same_bytes_again_are_no_work(put: Puts, team: Team, pool: Pool) -> None:
    first = await put("plan.md", "The launch is in October.", team.general)
    before = await counts(pool)
    second = await put("plan.md", "The launch is in October.", team.general)
    assert (second.id, second.updated_at) == (first.id, first.updated_at)
    assert await counts(pool) == before


async def test_a_changed_file_replaces_its_old_version_only_when_it_is_ready(
    put: Puts, find: Finds, documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    old = await put("plan.md", "The launch is in October.", team.general)
    waiting = await documents.add("plan.md", b"The launch is in March.", audience=team.general)
    assert (waiting.id, waiting.status, waiting.searchable) == (old.id, "queued", True)
    assert [hit.text for hit in await find("launch", team.general)] == ["The launch is in October."]
    await put("plan.md", "The launch is in May, in Paris.", team.general)
    texts = [hit.text for hit in await find("launch", team.general)]
    assert texts == ["The launch is in May, in Paris."]
    assert [path.read_text() for path in files_dir.iterdir()] == texts
    assert (await counts(pool))["document_versions"] == 1
    await assert_statistics_are_exact(pool)


async def test_a_failed_new_version_leaves_the_old_one_searchable_and_says_so(
    put: Puts, find: Finds, team: Team, pool: Pool
) -> None:
    await put("plan.md", "The launch is in October.", team.general)
    failed = await put("plan.md", "   \n", team.general)
    assert failed.status == "failed" and failed.searchable
    assert failed.reason is not None
    assert failed.reason.endswith("The version before it stays searchable.")
    assert len(await find("launch", team.general)) == 1
    again = await put("plan.md", "The launch is in June.", team.general)
    assert (again.status, again.reason) == ("ready", None)
    await assert_statistics_are_exact(pool)


async def test_delete_leaves_nothing(
    put: Puts, find: Finds, documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    document = await put("plan.md", "The launch is in October.", team.general)
    other = await put("other.md", "Lunch is at noon in October.", team.general)
    await documents.delete(document.id, audience=team.general)
    assert [hit.document_id for hit in await find("October", team.general)] == [other.id]
    await assert_statistics_are_exact(pool)
    await documents.delete(other.id, audience=team.general)
    remaining = await counts(pool)
    assert {table: remaining[table] for table in (*TABLES, "term_frequencies")} == dict.fromkeys(
        (*TABLES, "term_frequencies"), 0
    )
    assert list(files_dir.iterdir()) == []
    with pytest.raises(DocumentNotFound):
        await documents.get(document.id, audience=team.general)


async def test_nobody_reads_or_deletes_what_another_audience_owns(
    put: Puts, find: Finds, documents: Documents, team: Team
) -> None:
    owned = {
        "secret": await put("s.md", "The secret launch code.", team.secret),
        "ada": await put("a.md", "The private launch notes.", team.ada, owner="member"),
        "team": await put("w.md", "The public launch date.", team.general, owner="workspace"),
    }
    readable = {
        "general": (team.general, {"team"}),
        "secret": (team.secret, {"team", "secret"}),
        "ada": (team.ada, {"team", "ada"}),
        "bob": (team.bob, {"team"}),
    }
    for audience, names in readable.values():
        ids = {owned[name].id for name in names}
        assert {document.id for document in await documents.list(audience=audience)} == ids
        assert {hit.document_id for hit in await find("launch", audience)} == ids
        for document in owned.values():
            if document.id not in ids:
                with pytest.raises(DocumentNotFound):
                    await documents.get(document.id, audience=audience)
                with pytest.raises(DocumentNotFound):
                    await documents.delete(document.id, audience=audience)


async def test_too_many_bytes_are_refused_while_they_arrive(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    sent = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(256 * 1024)

    with pytest.raises(DocumentTooLarge, match="larger than 1 MB"):
        await documents.add("zeros.bin", upload(), audience=team.general)
    assert sent == 5
    assert list(files_dir.iterdir()) == []
    assert (await counts(pool))["documents"] == 0


async def test_a_full_disk_leaves_nothing_half(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull):
        await documents.add("plan.md", upload(), audience=team.general)
    assert list(files_dir.iterdir()) == []
    assert (await counts(pool))["documents"] == 0


async def test_uploads_of_one_name_at_once_end_as_one_document(
    documents: Documents, team: Team, pool: Pool, files_dir: Path
) -> None:
    async def add(index: int, audience: Audience) -> None:
        await documents.add("plan.md", b"version %d" % index, audience=audience)

    await asyncio.gather(*(add(index, team.general) for index in range(6)))
    assert (await counts(pool))["documents"] == 1
    assert (await counts(pool))["document_versions"] == 1
    (document,) = await documents.list(audience=team.general)
    (path,) = files_dir.iterdir()
    assert path.name == f"{document.id}.6"


async def test_only_uploads_that_stopped_long_ago_are_removed(
    documents: Documents, team: Team, files_dir: Path
) -> None:
    document = await documents.add("plan.md", b"a plan", audience=team.general)
    killed, growing = files_dir / "incoming.1", files_dir / "incoming.2"
    for path in (killed, growing):
        path.write_bytes(b"half of a fi")
    for path in (killed, files_dir / f"{document.id}.1"):
        os.utime(path, (0, 0))
    assert remove_leftovers(files_dir, older_than_s=3600) == 1
    assert {path.name for path in files_dir.iterdir()} == {growing.name, f"{document.id}.1"}


def test_no_folder_means_no_leftovers(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "files", older_than_s=3600) == 0
