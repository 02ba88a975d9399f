"""What is deleted is deleted everywhere: quotes, prompts, ratings, jobs, files, and the outbox."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from feedback import Feedback
from storage import audit
from storage.conversations import AnswerSource
from storage.documents import Document, Documents
from storage.identity import Audience, ChunkId
from storage.members import Forgotten, forget
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.feedback.conftest import Answers, compared, outbox, rows
from tests.storage.conftest import Puts, Team


def source(document: Document) -> AnswerSource:
    return AnswerSource(
        number=1,
        chunk_id=ChunkId(uuid4()),
        document_id=document.id,
        document=document.name,
        page=None,
        heading=None,
        score=0.5,
        quote="October",
    )


async def deliver(pool: Pool) -> None:
    """Empty the outbox, as whoever carries it does."""
    await rows(pool, "DELETE FROM outbox RETURNING 1")


async def test_the_outbox_is_told_of_rated_answers_that_lose_a_document(
    feedback: Feedback, answered: Answers, documents: Documents, team: Team, put: Puts, pool: Pool
) -> None:
    document = await put("plan.md", "The launch is in October.", team.general)
    voted, unrated, other = [
        await answered(team.general, "a", "b", sources=sources)
        for sources in ([source(document)], [source(document)], [])
    ]
    await feedback.vote(answer_id=voted.answers[0], audience=team.general, value=1)
    await feedback.vote(answer_id=other.answers[0], audience=team.general, value=1)
    comparison = await compared(feedback, team.general, unrated)
    await deliver(pool)
    await documents.delete(document.id, audience=team.general)
    assert set(await outbox(pool)) == {voted.answers[0], comparison}
    assert await rows(pool, "SELECT count(*) FROM answer_sources") == [(0,)]
    left = await rows(pool, "SELECT DISTINCT message_id FROM answers WHERE prompt IS NOT NULL")
    assert left == [(other.message_id,)]


async def test_a_forgotten_person_leaves_only_questions_in_channels_without_a_name(
    feedback: Feedback,
    answered: Answers,
    documents: Documents,
    team: Team,
    put: Puts,
    pool: Pool,
    files_dir: Path,
) -> None:
    ada = team.general.member_id
    assert ada is not None
    bob = replace(team.general, member_id=team.bob.member_id)
    await put("diary.md", "Dear diary.", team.ada, owner="member")
    shared = await put("plan.md", "The launch is in October.", team.general)
    private = await answered(team.ada)
    public = await answered(team.general, "a", "b")
    await feedback.vote(answer_id=private.answers[0], audience=team.ada, value=1)
    await feedback.vote(answer_id=public.answers[0], audience=team.general, value=-1)
    await feedback.vote(answer_id=public.answers[0], audience=bob, value=1)
    await feedback.correct(answer_id=public.answers[0], audience=team.general, text="In May.")
    comparison = await compared(feedback, team.general, public, "tie")
    await deliver(pool)
    await Runs(pool).queue(
        Recipe(kind="train", parameters={}),
        workspace_id=team.general.workspace_id,
        by=ada,
        place={"channel": "C1", "member": "U-ADA"},
    )

    forgotten = await forget(pool, ada, files_dir=files_dir)

    assert forgotten == Forgotten(
        votes=2, corrections=1, comparisons=1, threads=1, documents=1, questions=1
    )
    assert await rows(pool, "SELECT member_id, id FROM messages") == [(None, public.message_id)]
    assert await rows(pool, "SELECT member_id FROM votes") == [(team.bob.member_id,)]
    for table in ("corrections", "comparison_votes"):
        assert await rows(pool, f"SELECT 1 FROM {table}") == []
    assert await rows(pool, "SELECT member_id, place FROM runs") == [(None, {"channel": "C1"})]
    assert await rows(pool, "SELECT id FROM members") == [(team.bob.member_id,)]
    assert [document.id for document in await documents.list(audience=team.general)] == [shared.id]
    assert [path.name for path in files_dir.iterdir()] == [f"{shared.id}.1"]
    jobs = await rows(pool, "SELECT lock FROM procrastinate_jobs WHERE queue_name = 'chat'")
    assert jobs == [(str(public.message_id),)]
    assert set(await outbox(pool)) == {private.answers[0], public.answers[0], comparison}
    (entry, *_) = await audit.entries(pool, workspace_id=team.general.workspace_id, limit=1)
    assert (entry.action, entry.member_id) == ("member_forgotten", None)
    again = await forget(pool, ada, files_dir=files_dir)
    assert set(vars(again).values()) == {0}


async def test_a_removed_workspace_goes_after_its_time_of_grace_unless_it_comes_back(
    feedback: Feedback,
    answered: Answers,
    team: Team,
    put: Puts,
    pool: Pool,
    files_dir: Path,
    documents: Documents,
) -> None:
    places = Places(pool)
    await put("plan.md", "The launch is in October.", team.general)
    public = await answered(team.general)
    await feedback.vote(answer_id=public.answers[0], audience=team.general, value=1)
    await deliver(pool)
    assert await places.purge_removed("web", 0, files_dir=files_dir) == 0
    await places.remove_workspace("web", "T")
    await places.restore_workspace("web", "T")
    assert await places.purge_removed("web", 0, files_dir=files_dir) == 0
    await places.remove_workspace("web", "T")
    assert await places.purge_removed("web", 3600, files_dir=files_dir) == 0
    assert await places.purge_removed("slack", 0, files_dir=files_dir) == 0
    assert await still_there(documents, team.general)
    assert await places.purge_removed("web", 0, files_dir=files_dir) == 1
    for table in ("workspaces", "documents", "messages", "votes", "members", "term_frequencies"):
        assert await rows(pool, f"SELECT 1 FROM {table}") == []
    assert await rows(pool, "SELECT 1 FROM procrastinate_jobs WHERE queue_name = 'chat'") == []
    assert list(files_dir.iterdir()) == []
    assert set(await outbox(pool)) == {public.answers[0]}


async def still_there(documents: Documents, audience: Audience) -> bool:
    return len(await documents.list(audience=audience)) == 1
