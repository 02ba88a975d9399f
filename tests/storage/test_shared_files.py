"""A shared file is noted once, with its job, and forgotten with its person."""

import asyncio
from pathlib import Path

from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.members import forget
from storage.pool import Pool, one_row
from storage.shared_files import (
    QUESTION_FILES,
    FileJob,
    SharedFileId,
    SharedFiles,
    run_files,
)
from tests.storage.conftest import Team

PLACE = {"thread": "1.2"}


async def accept(files: SharedFiles, audience: Audience, ref: str) -> SharedFileId | None:
    return await files.accept(
        audience=audience, ref=ref, source={"url": "x"}, surface="slack", place=PLACE
    )


async def jobs(pool: Pool) -> int:
    async with pool.connection() as connection:
        counted = await connection.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'slack_files'"
        )
        return int((await one_row(counted))[0])


async def test_ten_deliveries_at_once_are_one_file_and_one_job(pool: Pool, team: Team) -> None:
    files = SharedFiles(pool)
    noted = await asyncio.gather(*(accept(files, team.general, "A:C:1:F") for _ in range(10)))
    assert len([file_id for file_id in noted if file_id is not None]) == 1
    assert await jobs(pool) == 1


async def test_the_queue_hands_out_each_file_with_its_place(pool: Pool, team: Team) -> None:
    files = SharedFiles(pool)
    noted = {await accept(files, team.general, f"A:C:1:F{number}") for number in range(3)}
    seen: list[FileJob] = []
    enough = asyncio.Event()

    async def run(job: FileJob) -> None:
        seen.append(job)
        if len(seen) == 3:
            enough.set()

    async def gave_up(job: FileJob) -> None:
        raise AssertionError(job)

    worker = asyncio.create_task(
        run_files(pool, surface="slack", run=run, gave_up=gave_up, concurrency=2)
    )
    async with asyncio.timeout(30):
        await enough.wait()
    worker.cancel()
    await asyncio.wait([worker])
    assert {job.file_id for job in seen} == noted
    assert all(job.place == PLACE and job.attempt == 0 for job in seen)


async def test_who_shared_a_document_and_where_its_status_stands_is_known_until_it_is_deleted(
    pool: Pool, team: Team, documents: Documents
) -> None:
    files = SharedFiles(pool)
    file_id = await accept(files, team.general, "A:C:1:F")
    assert file_id is not None
    document = await documents.add("plan.md", b"a plan", audience=team.general)
    await files.shown(file_id, "C:1.3")
    await files.settle(file_id, document.id)
    stored = await files.get(file_id)
    assert stored is not None
    assert (stored.source, stored.document_id, stored.status_ref) == ({}, document.id, "C:1.3")
    assert team.ada.member_id is not None and team.bob.member_id is not None
    assert await files.shared_by(document.id, team.ada.member_id)
    assert not await files.shared_by(document.id, team.bob.member_id)
    assert await files.status_refs(document.id, limit=5) == ["C:1.3"]
    await documents.delete(document.id, audience=team.general)
    stored = await files.get(file_id)
    assert stored is not None and stored.document_id is None
    await files.settle(file_id, document.id)  # deleted before it could be noted


async def test_a_forgotten_person_leaves_no_note(pool: Pool, team: Team, files_dir: Path) -> None:
    files = SharedFiles(pool)
    file_id = await accept(files, team.general, "A:C:1:F")
    assert file_id is not None and team.ada.member_id is not None
    await forget(pool, team.ada.member_id, files_dir=files_dir)
    assert await files.get(file_id) is None


async def test_a_forgotten_person_takes_the_files_of_their_questions_along(
    pool: Pool, team: Team, documents: Documents, keys: Keys, files_dir: Path
) -> None:
    assert team.ada.member_id is not None
    question = await Identities(pool=pool, keys=keys).resolve(
        platform="discord", workspace="@me", channel=f"{QUESTION_FILES}9", member="U1"
    )
    files = SharedFiles(pool)
    kept = await documents.add("plan.md", b"a plan", audience=team.general)
    attached = await documents.add("diary.md", b"mine", audience=question)
    for audience, document in ((team.general, kept), (question, attached)):
        file_id = await accept(files, audience, "A:C:1:F")
        assert file_id is not None
        await files.settle(file_id, document.id)
        assert audience.member_id is not None
        await forget(pool, audience.member_id, files_dir=files_dir)
    async with pool.connection() as connection:
        left = await connection.execute("SELECT name FROM documents")
        assert await left.fetchall() == [("plan.md",)]
