"""What curators say is kept beside the raw ratings, as is what they took back."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from feedback import Feedback
from storage.curations import Curated, Curation, Curations
from storage.identity import AnswerId
from storage.members import forget
from storage.pool import Pool
from storage.rated import Rated
from tests.feedback.conftest import Answers, rows
from tests.storage.conftest import Team

MADE = datetime.now(UTC) - timedelta(hours=1)
EVE, FAY = UUID(int=1), UUID(int=2)


def word(curator: UUID = EVE, *, minutes: int = 1, **said: Any) -> Curation:
    values: dict[str, Any] = {
        "curator_id": curator,
        "curator": f"curator-{curator.int}",
        "status": "submitted",
        "at": MADE + timedelta(minutes=minutes),
    }
    return Curation(**values | said)


def curated(record_id: UUID, *said: Curation, made_at: datetime = MADE) -> Curated:
    return Curated(kind="answer", record_id=record_id, made_at=made_at, said=said)


async def read(pool: Pool, answer: AnswerId) -> tuple[Curation, ...]:
    (found,) = await Rated(pool).answers_of([answer])
    return found.curations


async def test_the_latest_word_of_each_curator_stands_until_it_is_taken_back(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    await feedback.vote(answer_id=answer, audience=team.general, value=1)
    curations = Curations(pool)
    first = word(value=-1, reasons=("wrong",), correction="In May.", comment="No.")
    other = word(FAY, minutes=2, status="discarded")
    assert await curations.keep([curated(answer, first, other)]) == 2
    assert await read(pool, answer) == (first, other)
    assert await curations.keep([curated(answer, first, other)]) == 0
    later = word(minutes=3, value=1)
    assert await curations.keep([curated(answer, later)]) == 2
    assert await read(pool, answer) == (later,)
    kept = "SELECT status, withdrawn_at IS NULL FROM curations ORDER BY curator_id"
    assert await rows(pool, kept) == [("submitted", True), ("discarded", False)]
    assert await curations.keep([curated(answer, later, other)]) == 1
    assert await read(pool, answer) == (other, later)
    (found,) = await Rated(pool).answers_of([answer])
    assert [vote.value for vote in found.votes] == [1]


async def test_what_curators_said_survives_a_wiped_curation_tool_but_not_the_answer(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool, tmp_path: Path
) -> None:
    (answer,) = (await answered(team.ada)).answers
    await feedback.vote(answer_id=answer, audience=team.ada, value=1)
    said = word(value=-1)
    curations = Curations(pool)
    await curations.keep([curated(answer, said), curated(uuid4(), said)])
    await curations.keep([curated(answer, made_at=MADE + timedelta(minutes=5))])
    assert await read(pool, answer) == (said,)
    assert team.ada.member_id is not None
    await forget(pool, team.ada.member_id, files_dir=tmp_path)
    assert await rows(pool, "SELECT 1 FROM curations") == []
    assert await curations.keep([curated(answer, said)]) == 0


async def test_where_people_differ_is_counted(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    answers = [(await answered(team.general)).answers[0] for _ in range(3)]
    curations = Curations(pool)
    assert (await curations.state()).last_pulled_at is None
    await curations.keep(
        [
            curated(answers[0], word(value=1), word(FAY, value=-1)),
            curated(answers[1], word(value=1), word(FAY, value=1)),
            curated(answers[2], word(value=1)),
        ]
    )
    await feedback.vote(answer_id=answers[1], audience=team.general, value=-1)
    await feedback.vote(answer_id=answers[2], audience=team.general, value=1)
    state = await curations.state(team.general.workspace_id)
    assert (state.records, state.curators) == (3, 2)
    assert (state.disagreements, state.changed_votes) == (1, 1)
    assert state.last_pulled_at is not None
    assert (await curations.state(team.ada.workspace_id)).records == 3


async def test_who_listens_hears_each_call_even_one_that_came_before_waiting(pool: Pool) -> None:
    async with asyncio.timeout(20), Curations(pool).listening() as called:
        await Curations(pool).call()
        await called(60)
        waiting = asyncio.ensure_future(called(60))
        await Curations(pool).call()
        await waiting
        await called(0.01)  # nobody calls
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM pg_listening_channels()")
        assert await found.fetchone() == (0,)
