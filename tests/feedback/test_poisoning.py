"""Who steers the votes is flagged, who merely votes is not; who is quarantined counts nowhere."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from feedback import Feedback
from feedback.datasets import snapshot
from feedback.poisoning import BURST_RATINGS, MIN_JUDGEMENTS, SHARED_ITEMS, flags
from feedback.rules import Rules
from storage import audit
from storage.identity import MemberId
from storage.members import Members
from storage.places import Places
from storage.pool import Pool
from storage.rated import Judgement, RatedComparison
from storage.ratings import ComparisonId, Winner
from tests.feedback.conftest import Answers, compared
from tests.feedback.test_rows import ANA, AT, BEN, CLEO, answer, vote
from tests.storage.conftest import Team


def test_ratings_faster_than_reading_are_flagged() -> None:
    def rated(count: int, *, every_s: float) -> list[str]:
        answers = [
            answer(n, votes=(replace(vote(ANA, 1), at=AT + timedelta(seconds=n * every_s)),))
            for n in range(1, count + 1)
        ]
        return [flag.sign for flag in flags(answers, [])]

    assert rated(BURST_RATINGS, every_s=1) == ["burst"]
    assert rated(BURST_RATINGS - 1, every_s=1) == []
    assert rated(10 * BURST_RATINGS, every_s=30) == []


def test_two_people_who_always_vote_alike_at_once_are_flagged() -> None:
    def rated(*, apart: timedelta, differ: int = 0) -> list[tuple[MemberId, ...]]:
        answers = []
        for n in range(1, SHARED_ITEMS + 1):
            at = AT + timedelta(minutes=10 * n)
            other = vote(BEN, -1 if n <= differ else 1)
            votes = (replace(vote(ANA, 1), at=at), replace(other, at=at + apart))
            answers.append(answer(n, votes=votes))
        return [flag.members for flag in flags(answers, [])]

    assert rated(apart=timedelta(seconds=30)) == [(ANA, BEN)]
    assert rated(apart=timedelta(hours=1)) == []
    assert rated(apart=timedelta(seconds=30), differ=1) == []


def judged(number: int, voter: MemberId, winner: Winner) -> RatedComparison:
    return RatedComparison(
        id=ComparisonId(UUID(int=1000 + number)),
        left=answer(1, model="a@1"),
        right=answer(2, model="b@1"),
        judgements=(
            Judgement(voter=voter, winner=winner, consent=True, at=AT + timedelta(hours=number)),
        ),
    )


def test_a_preference_against_everybody_elses_is_flagged() -> None:
    others = [judged(n, BEN if n % 2 else CLEO, "left" if n % 3 else "right") for n in range(60)]
    against = [judged(100 + n, ANA, "right") for n in range(MIN_JUDGEMENTS)]
    along = [judged(100 + n, ANA, "left" if n % 3 else "right") for n in range(MIN_JUDGEMENTS)]
    (flag,) = flags([], others + against)
    assert (flag.sign, flag.members) == ("one-sided", (ANA,)) and "b@1 20 of 20" in flag.what
    assert flags([], others + along) == []


async def test_a_quarantined_voter_leaves_rankings_and_rows_until_released(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    audience = team.general
    assert audience.member_id is not None and audience.channel_id is not None
    members = Members(pool)
    await members.set_consent(audience.member_id, True)
    await Places(pool).save_channel_settings(
        audience.channel_id, {"consent_to_train": True}, by=audience.member_id
    )
    asked = await answered(audience, "a@1", "b@1")
    await compared(feedback, audience, asked, "left")

    async def counted() -> tuple[int, int, int]:
        board = await feedback.ranking(workspace_id=audience.workspace_id)
        places = await feedback.compared_places()
        rows = await snapshot(pool, workspace_id=audience.workspace_id, rules=Rules())
        return board.votes, sum(place.votes for place in places), len(rows.rows)

    assert await counted() == (1, 1, 1)
    for on, counts in ((True, (0, 0, 0)), (False, (1, 1, 1))):
        changed = await members.quarantine(
            audience.member_id, workspace_id=audience.workspace_id, on=on, by=None
        )
        assert changed and await counted() == counts
    assert not await members.quarantine(
        audience.member_id, workspace_id=team.bob.workspace_id, on=False, by=None
    )
    done = await audit.entries(pool, workspace_id=audience.workspace_id, limit=2)
    assert [entry.action for entry in done] == ["member_released", "member_quarantined"]
