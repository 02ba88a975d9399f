"""The buttons of an answer, and whose they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bots.messages import Answer
from bots.screens import Reach
from bots.slack_bot.blocks import answer_posts
from storage.pool import Pool, one_row
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def name_humans(stage: Stage, person: Person, channel: Channel, *humans: str) -> None:
    audience = await stage.audience(person, channel)
    assert audience.channel_id is not None and audience.member_id is not None
    await stage.context.workplace.places.save_channel_settings(
        audience.channel_id, {"humans": list(humans)}, by=audience.member_id
    )


async def private_answer(stage: Stage, person: Person, channel: Channel) -> tuple[Message, Answer]:
    """An answer that only the asker sees, in the thread of the question."""
    _, answer = await stage.answered(person, channel)
    (post,) = answer_posts(answer, links={}, reach=Reach.PRIVATE)
    await stage.context.calls(stage.client).post_ephemeral(
        channel=channel.id, user=person.id, **post.arguments()
    )
    return stage.slack.ephemerals(channel, person)[-1], answer


async def forget_posts(pool: Pool) -> None:
    """As if the process had died between each post and its record."""
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM deliveries")


async def jobs(pool: Pool) -> list[tuple[str, str]]:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT task_name, queue_name FROM procrastinate_jobs")
        return [(row[0], row[1]) for row in await rows.fetchall()]


# -- Stop, answer again ---------------------------------------------------------------------------


async def test_only_the_asker_may_stop_or_ask_again(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    team = slack.add_channel("team", ana, eve)
    message, answer = await stage.answered(ana, team)
    stop = await stage.post_stop(team, answer.message_id)
    await slack.click(eve, message, "parley_regenerate").acknowledged()
    await slack.click(eve, stop, "parley_stop").acknowledged()
    await slack.until(
        lambda: (
            sum("Only the person who asked" in m.seen for m in slack.ephemerals(team, eve)) == 2
        ),
        "two refusals",
    )
    assert await jobs(pool) == []


async def test_a_question_of_another_channel_cannot_be_stopped_or_asked_again(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team, other = slack.add_channel("team", ana), slack.add_channel("other", ana)
    _, hidden = await stage.answered(ana, team)
    message, answer = await stage.answered(ana, other)
    stop = await stage.post_stop(other, answer.message_id)
    forged = str(hidden.message_id)
    await slack.click(ana, message, "parley_regenerate", value=forged).acknowledged()
    await slack.click(ana, stop, "parley_stop", value=forged).acknowledged()
    await slack.until(
        lambda: sum("another conversation" in m.seen for m in slack.ephemerals(other, ana)) == 2,
        "two refusals",
    )
    assert await jobs(pool) == []


async def test_an_answer_that_is_complete_cannot_be_stopped(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    _, answer = await stage.answered(ana, team)
    stop = await stage.post_stop(team, answer.message_id)
    await slack.click(ana, stop, "parley_stop").acknowledged()
    await stage.told(ana, team, "complete already")


async def test_asking_again_twice_is_one_job(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    for _ in range(2):
        await slack.click(ana, message, "parley_regenerate").acknowledged()
    await stage.told(ana, team, "answering again already")
    assert await jobs(pool) == [("regenerate", "slack")]


# -- Sharing --------------------------------------------------------------------------------------


async def test_a_private_answer_is_shared_once_and_can_be_rated_by_all(stage: Stage) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    private, answer = await private_answer(stage, ana, team)
    before = set(team.messages)
    await asyncio.gather(
        *(slack.click(ana, private, "parley_share").acknowledged() for _ in range(2))
    )
    await stage.told(ana, team, "shared already")
    await slack.until(lambda: private.deleted, "the private answer is gone")
    (shared,) = [message for ts, message in team.messages.items() if ts not in before]
    assert answer.text in shared.seen
    assert "parley_share" not in shared.elements
    await slack.click(ben, shared, "parley_feedback", side="positive").acknowledged()
    await stage.told(ben, team, "recorded")


async def test_a_share_whose_record_was_lost_is_not_repeated(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    private, _ = await private_answer(stage, ana, team)
    await slack.click(ana, private, "parley_share").acknowledged()
    posted = list(team.messages)
    await forget_posts(pool)
    await slack.click(ana, private, "parley_share").acknowledged()
    await slack.click(ana, private, "parley_share").acknowledged()
    await stage.told(ana, team, "shared already")
    assert list(team.messages) == posted


async def test_nobody_shares_the_answer_of_somebody_else(stage: Stage) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    team = slack.add_channel("team", ana, eve)
    _, answer = await private_answer(stage, ana, team)
    own, _ = await private_answer(stage, eve, team)
    before = len(team.messages)
    await slack.click(eve, own, "parley_share", value=str(answer.id)).acknowledged()
    await stage.told(eve, team, "Only the person who asked")
    assert len(team.messages) == before


# -- People ---------------------------------------------------------------------------------------


async def test_only_the_people_that_the_channel_names_are_called_and_once(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("<!channel> Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    await name_humans(stage, ana, team, ben.id, "S0HELPDESK")
    message, _ = await stage.answered(ana, team)
    for _ in range(2):
        await slack.click(ana, message, "parley_need_human").acknowledged()
    await stage.told(ana, team, "called for this answer already")
    calls = [m for m in team.messages.values() if "needs a person's help" in m.seen]
    assert [call.pings for call in calls] == [["<!subteam^S0HELPDESK>", f"<@{ben.id}>"]]
    assert calls[0].thread_ts == message.thread_ts


async def test_a_call_that_a_crash_cut_short_is_made_at_the_next_click_and_once(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    await name_humans(stage, ana, team, ben.id)
    message, answer = await stage.answered(ana, team)
    audience = await stage.audience(ana, team)
    await stage.context.workplace.feedback.need_human(answer_id=answer.id, audience=audience)
    await slack.click(ana, message, "parley_need_human").acknowledged()
    await slack.until(lambda: [m for m in team.messages.values() if m.pings], "a call")
    await forget_posts(pool)
    await slack.click(ana, message, "parley_need_human").acknowledged()
    await stage.told(ana, team, "called for this answer already")
    assert len([m for m in team.messages.values() if m.pings]) == 1


async def test_who_cannot_be_called_is_said(stage: Stage) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    await name_humans(stage, ana, team, ben.id)
    message, _ = await stage.answered(ana, team)
    slack.fail("chat.postMessage", error="restricted_action")
    await slack.click(ana, message, "parley_need_human").acknowledged()
    await stage.told(ana, team, "mention them yourself")


async def test_without_named_people_nobody_is_called(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    before = len(team.messages)
    await slack.click(ana, message, "parley_need_human").acknowledged()
    await stage.told(ana, team, "No people are named")
    assert len(team.messages) == before
    async with pool.connection() as connection:
        counted = await connection.execute("SELECT count(*) FROM help_requests")
        assert (await one_row(counted))[0] == 0


async def test_an_answer_of_another_channel_calls_nobody(stage: Stage) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    team, other = slack.add_channel("team", ana), slack.add_channel("other", eve)
    await name_humans(stage, eve, other, ana.id)
    _, hidden = await stage.answered(ana, team)
    message, _ = await stage.answered(eve, other)
    before = len(other.messages)
    forged = str(hidden.id)
    await slack.click(eve, message, "parley_need_human", value=forged).acknowledged()
    await stage.told(eve, other, "another conversation")
    assert len(other.messages) == before
