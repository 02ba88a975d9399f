"""Comparisons: blind until the vote, one vote per person, models named to the voter alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from bots.comparisons import open_shown, order_of
from bots.slack_bot.blocks import COMPARE_ACTIONS, vote_post
from feedback import ComparisonId
from storage.identity import Audience, MessageId
from storage.pool import Pool
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_blocks import check_blocks
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def compared(
    stage: Stage, person: Person, channel: Channel
) -> tuple[Message, MessageId, tuple[str, str]]:
    """The vote on two answers, the question, and the models from left to right."""
    _, message_id = await stage.ask(person, channel, "How many days of leave?")
    audience = await stage.audience(person, channel)
    first = await stage.store_answer(message_id, audience, model="alpha-7")
    second = await stage.store_answer(message_id, audience, model="omega-9", current=False)
    comparison_id = await open_shown(
        stage.context.workplace.feedback,
        message_id=message_id,
        audience=audience,
        answers=(first, second),
    )
    message = await stage.post_blocks(channel, vote_post(comparison_id).blocks)
    models = ("alpha-7", "omega-9")
    left, right = order_of(message_id)
    return message, message_id, (models[left], models[right])


async def winners(pool: Pool) -> list[str]:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT winner FROM comparison_votes ORDER BY winner")
        return [row[0] for row in await rows.fetchall()]


async def current_model(stage: Stage, message_id: MessageId, audience: Audience) -> str:
    conversations = stage.context.workplace.conversations
    answer = (await conversations.question(message_id, audience=audience)).answer
    assert answer is not None
    return answer.model


@pytest.mark.parametrize("winner", COMPARE_ACTIONS)
async def test_the_models_are_named_after_the_vote_and_to_the_voter_alone(
    winner: str, stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    vote, _, (left, right) = await compared(stage, ana, team)
    assert "alpha-7" not in str(vote.body) and "omega-9" not in str(vote.body)
    await slack.click(ben, vote, COMPARE_ACTIONS[winner]).acknowledged()
    told = await stage.told(ben, team, "You")
    assert f"A was `{left}`, B was `{right}`" in told.seen
    assert await winners(pool) == [winner]
    assert slack.ephemerals(team, ana) == []
    assert all("alpha-7" not in str(message.body) for message in team.messages.values())


async def test_the_winner_becomes_the_answer(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    vote, message_id, (left, right) = await compared(stage, ana, team)
    audience = await stage.audience(ana, team)
    for side, model in (("left", left), ("right", right)):
        await slack.click(ana, vote, COMPARE_ACTIONS[side]).acknowledged()
        assert await current_model(stage, message_id, audience) == model


async def test_a_second_vote_changes_the_first_and_a_double_click_nothing(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    vote, _, _ = await compared(stage, ana, team)
    await slack.click(ben, vote, COMPARE_ACTIONS["left"]).acknowledged()
    for _ in range(2):
        await slack.click(ana, vote, COMPARE_ACTIONS["left"]).acknowledged()
    assert await winners(pool) == ["left", "left"]
    await slack.click(ana, vote, COMPARE_ACTIONS["tie"]).acknowledged()
    await stage.told(ana, team, "(changed)")
    assert await winners(pool) == ["left", "tie"]


async def test_a_comparison_of_another_channel_is_refused_and_reveals_nothing(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    secret, other = slack.add_channel("secret", ana), slack.add_channel("open", eve)
    hidden, _, _ = await compared(stage, ana, secret)
    vote, _, _ = await compared(stage, eve, other)
    forged = hidden.elements[COMPARE_ACTIONS["left"]]["value"]
    await slack.click(eve, vote, COMPARE_ACTIONS["left"], value=forged).acknowledged()
    told = await stage.told(eve, other, "belongs to another conversation")
    assert "alpha-7" not in told.seen
    assert await winners(pool) == []


async def test_showing_again_after_a_restart_is_the_same_comparison(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    _, message_id = await stage.ask(ana, team, "How many?")
    audience = await stage.audience(ana, team)
    answers = (
        await stage.store_answer(message_id, audience, model="a"),
        await stage.store_answer(message_id, audience, model="b", current=False),
    )
    opened = [
        await open_shown(
            stage.context.workplace.feedback,
            message_id=message_id,
            audience=audience,
            answers=answers,
        )
        for _ in range(2)
    ]
    assert opened[0] == opened[1]


async def test_comparing_nothing_says_how_to_ask(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", "compare").acknowledged()
    await stage.told(ana, team, "/parley compare How many")


def test_the_vote_fits_slack_and_names_no_model() -> None:
    post = vote_post(ComparisonId(uuid4()))
    check_blocks(list(post.blocks))
    _, actions = post.blocks
    assert [element["action_id"] for element in actions["elements"]] == list(
        COMPARE_ACTIONS.values()
    )
