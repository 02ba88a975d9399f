"""A person has one vote on an answer, of which nothing is lost and nobody else's button can lie."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from feedback import ComparisonId, Feedback
from storage.conversations import Conversations
from storage.errors import MessageNotFound
from storage.identity import AnswerId, Audience
from storage.members import Members
from storage.places import Places
from storage.pool import Pool
from tests.feedback.conftest import Answers, compared, outbox, rows
from tests.storage.conftest import Team


async def test_a_vote_is_recorded_changed_repeated_and_withdrawn(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    revisions = [0]

    async def vote(outcome: str, **given: object) -> None:
        found = await feedback.vote(answer_id=answer, audience=team.general, **given)  # type: ignore[arg-type]
        assert found == outcome
        revisions.append((await outbox(pool)).get(answer, 0))

    await vote("unchanged", value=None)
    await vote("recorded", value=1)
    await vote("unchanged", value=1)
    await vote("changed", value=-1)
    await vote("changed", value=-1, reasons=["other", "wrong"], comment=" No\0. ")
    await vote("unchanged", value=-1)
    (kept,) = await feedback.mine(audience=team.general, limit=5)
    assert (kept.value, kept.reasons, kept.comment) == (-1, ["wrong", "other"], "No .")
    assert (kept.answer_id, kept.question) == (answer, "When is the launch?")
    await vote("withdrawn", value=None)
    assert await feedback.mine(audience=team.general, limit=5) == []
    first, *later = revisions[2:]
    unchanged = [first, later[0]]
    assert unchanged[0] == unchanged[1] > 0
    assert later[0] < later[1] < later[2] == later[3] < later[4]


async def test_many_clicks_at_once_are_one_vote(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    outcomes = await asyncio.gather(
        *(feedback.vote(answer_id=answer, audience=team.general, value=1) for _ in range(8))
    )
    assert sorted(outcomes) == ["recorded"] + ["unchanged"] * 7
    assert await rows(pool, "SELECT count(*) FROM votes") == [(1,)]


async def test_everybody_in_the_channel_has_a_vote_of_their_own(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    bob = replace(team.general, member_id=team.bob.member_id)
    await feedback.vote(answer_id=answer, audience=team.general, value=1)
    await feedback.vote(answer_id=answer, audience=bob, value=-1)
    assert await rows(pool, "SELECT value FROM votes ORDER BY value") == [(-1,), (1,)]
    assert [vote.value for vote in await feedback.mine(audience=bob, limit=5)] == [-1]


async def test_ids_that_the_audience_may_not_read_are_refused(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    mine = await answered(team.ada, "a", "b")
    left, right = mine.answers
    comparison = await compared(feedback, team.ada, mine)
    other = await answered(team.general)
    for audience in (team.bob, team.general, team.secret):
        for attempt in (
            feedback.vote(answer_id=left, audience=audience, value=1),
            feedback.vote(answer_id=left, audience=audience, value=None),
            feedback.correct(answer_id=left, audience=audience, text="In May."),
            feedback.need_human(answer_id=left, audience=audience),
            feedback.compare(comparison_id=comparison, audience=audience, winner="left"),
            feedback.open_comparison(
                message_id=mine.message_id,
                audience=audience,
                answers=(left, right),
                shown_order=(0, 1),
            ),
        ):
            with pytest.raises(MessageNotFound):
                await attempt
    for attempt in (
        feedback.vote(answer_id=AnswerId(uuid4()), audience=team.ada, value=1),
        feedback.compare(comparison_id=ComparisonId(uuid4()), audience=team.ada, winner="tie"),
        feedback.open_comparison(
            message_id=other.message_id,
            audience=team.ada,
            answers=(left, right),
            shown_order=(0, 1),
        ),
    ):
        with pytest.raises(MessageNotFound):
            await attempt
    assert await outbox(pool) == {}


async def test_what_makes_no_sense_is_refused(
    feedback: Feedback, answered: Answers, team: Team
) -> None:
    (answer,) = (await answered(team.general)).answers
    nobody = replace(team.general, member_id=None)
    with pytest.raises(ValueError, match="unknown reasons"):
        await feedback.vote(answer_id=answer, audience=team.general, value=-1, reasons=["ugly"])
    with pytest.raises(ValueError, match="only a person"):
        await feedback.vote(answer_id=answer, audience=nobody, value=1)
    with pytest.raises(ValueError, match="empty"):
        await feedback.correct(answer_id=answer, audience=team.general, text=" \0 ")


async def test_a_correction_replaces_an_earlier_one(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    revisions = []
    for text in ("In May.", "In June.", "In June."):
        await feedback.correct(answer_id=answer, audience=team.general, text=text)
        revisions.append((await outbox(pool))[answer])
    assert await rows(pool, "SELECT text FROM corrections") == [("In June.",)]
    assert revisions[0] < revisions[1] == revisions[2]


async def test_people_are_called_once(feedback: Feedback, answered: Answers, team: Team) -> None:
    (answer,) = (await answered(team.general)).answers
    bob = replace(team.general, member_id=team.bob.member_id)
    assert await feedback.need_human(answer_id=answer, audience=team.general)
    assert not await feedback.need_human(answer_id=answer, audience=bob)


async def test_the_winner_of_a_comparison_becomes_the_answer(
    feedback: Feedback, answered: Answers, conversations: Conversations, team: Team, pool: Pool
) -> None:
    asked = await answered(team.general, "small", "large")
    small, large = asked.answers
    bob = replace(team.general, member_id=team.bob.member_id)

    async def current() -> AnswerId:
        turn = await conversations.question(asked.message_id, audience=team.general)
        assert turn.answer is not None
        return turn.answer.id

    opened = [
        await feedback.open_comparison(
            message_id=asked.message_id,
            audience=team.general,
            answers=(small, large),
            shown_order=(1, 0),
        )
        for _ in range(2)
    ]
    assert opened[0] == opened[1]

    async def judge(audience: Audience, winner: object) -> bool:
        outcome = await feedback.compare(
            comparison_id=opened[0],
            audience=audience,
            winner=winner,  # type: ignore[arg-type]
        )
        assert (outcome.models, outcome.result) == (("large", "small"), winner)
        return outcome.changed

    assert not await judge(team.general, "left")
    assert await current() == large
    assert not await judge(bob, "right")
    assert await current() == large  # a draw changes nothing
    assert await judge(team.general, "both_bad")
    assert await current() == small
    before = await outbox(pool)
    assert not await judge(team.general, "both_bad")
    assert await outbox(pool) == before and set(before) == {opened[0]}
    ranking = await feedback.ranking(workspace_id=team.general.workspace_id)
    assert [(each.model, each.wins, each.losses, each.ties) for each in ranking.models] == [
        ("large", 0, 1, 1),
        ("small", 1, 0, 1),
    ]


async def test_a_comparison_does_not_undo_a_regenerated_answer(
    feedback: Feedback, answered: Answers, conversations: Conversations, team: Team
) -> None:
    asked = await answered(team.general, "small", "large", "newer")
    newer = asked.answers[2]
    comparison = await compared(feedback, team.general, asked)
    await conversations.make_current(newer, audience=team.general)
    await feedback.compare(comparison_id=comparison, audience=team.general, winner="right")
    turn = await conversations.question(asked.message_id, audience=team.general)
    assert turn.answer is not None and turn.answer.id == newer


async def test_a_vote_remembers_consent_and_loses_it_when_it_is_withdrawn(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    members, places = Members(pool), Places(pool)
    assert team.general.member_id is not None and team.general.channel_id is not None
    ada, general = team.general.member_id, team.general.channel_id
    assert not await members.consent(ada)

    async def consent_of_a_vote(audience: Audience) -> bool:
        (answer,) = (await answered(audience)).answers
        await feedback.vote(answer_id=answer, audience=audience, value=1)
        ((consent,),) = await rows(pool, f"SELECT consent FROM votes WHERE answer_id = '{answer}'")
        assert isinstance(consent, bool)
        return consent

    assert not await consent_of_a_vote(team.general)
    await members.set_consent(ada, True)
    assert not await consent_of_a_vote(team.general)
    await places.save_channel_settings(general, {"consent_to_train": True}, by=ada)
    assert await consent_of_a_vote(team.general)
    assert not await consent_of_a_vote(team.secret)
    await places.save_workspace_settings(
        team.general.workspace_id, {"consent_to_train": True}, by=ada
    )
    assert await consent_of_a_vote(team.secret)
    assert await consent_of_a_vote(team.ada)
    assert await rows(pool, "SELECT count(*) FROM votes WHERE consent") == [(3,)]
    await places.save_channel_settings(general, {"consent_to_train": False}, by=ada)
    assert await rows(pool, "SELECT count(*) FROM votes WHERE consent") == [(2,)]
    await places.save_channel_settings(general, {"consent_to_train": True}, by=ada)
    assert await consent_of_a_vote(team.general)
    await places.save_workspace_settings(team.general.workspace_id, {}, by=ada)
    assert await rows(pool, "SELECT count(*) FROM votes WHERE consent") == [(1,)]
    await members.set_consent(ada, False)
    assert await rows(pool, "SELECT count(*) FROM votes WHERE consent") == [(0,)]


@pytest.mark.parametrize("whose", ["person", "channel", "workspace"])
async def test_who_withdraws_consent_reaches_a_vote_that_is_just_being_stored(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool, database_url: str, whose: str
) -> None:
    members, places, workspace = Members(pool), Places(pool), team.general.workspace_id
    assert team.general.member_id is not None and team.general.channel_id is not None
    ada, general = team.general.member_id, team.general.channel_id

    async def agree(given: bool, *to: str) -> None:
        settings = {"consent_to_train": given}
        if "person" in to:
            await members.set_consent(ada, given)
        if "workspace" in to:
            await places.save_workspace_settings(workspace, settings, by=ada)
        if "channel" in to:
            await places.save_channel_settings(general, settings, by=ada)

    async def wait(task: asyncio.Task[Any], *, waiting: int) -> None:
        """Until the task has ended, or so many statements wait for others to end."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        locked = f"{count} AND wait_event_type = 'Lock'"
        while not task.done() and await rows(pool, locked) != [(waiting,)]:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.02)

    await agree(True, "person", "channel" if whose == "channel" else "workspace")
    (answer,) = (await answered(team.general)).answers
    async with await psycopg.AsyncConnection.connect(database_url) as same_vote:
        await same_vote.execute(
            "INSERT INTO votes (answer_id, member_id, value, consent) VALUES (%s, %s, 1, false)",
            [answer, ada],
        )
        voting = asyncio.create_task(
            feedback.vote(answer_id=answer, audience=team.general, value=1)
        )
        await wait(voting, waiting=1)
        withdrawing = asyncio.create_task(agree(False, whose))
        await wait(withdrawing, waiting=2)
        await same_vote.rollback()
    await asyncio.gather(voting, withdrawing)
    assert await rows(pool, "SELECT consent FROM votes") == [(False,)]


async def test_a_vote_whose_outbox_row_fails_is_not_recorded(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    (answer,) = (await answered(team.general)).answers
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE outbox ADD CHECK (false) NOT VALID")
    with pytest.raises(psycopg.errors.CheckViolation):
        await feedback.vote(answer_id=answer, audience=team.general, value=1)
    assert await rows(pool, "SELECT count(*) FROM votes") == [(0,)]
