"""Buttons and comparisons on real turns: the whole app in this process, a scripted model."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bots.slack_bot.blocks import COMPARE_ACTIONS
from storage.identity import Audience
from storage.places import Places
from storage.pool import Pool, one_row
from tests.bots.slack_bot.conftest import Know, Running
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

HANDBOOK = """# Annual leave

Full-time employees of Marlow Tools receive 27 days of paid annual leave each calendar year.
"""
QUESTION = "How many days of paid annual leave do full-time employees receive?"
ANSWER = "Full-time employees of Marlow Tools receive 27 days of paid annual leave [1]."
LEAVE = "27 days of paid annual leave"

AudienceOf = Callable[[Channel, Person | None], Awaitable[Audience]]


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
async def team(
    slack: SlackServer, ana: Person, know: Know, model: ScriptedModel, slack_app: Running
) -> AsyncIterator[Channel]:
    """A channel with a handbook, and the app in it."""
    model.script = lambda prompt: ANSWER
    channel = slack.add_channel("team", ana)
    await know(channel, "handbook.md", HANDBOOK)
    async with slack_app(edit_interval_s=0.05):
        yield channel


async def message_with(slack: SlackServer, channel: Channel, action_id: str) -> Message:
    """The first message of a channel that holds an element."""

    def check() -> Message | None:
        found = [m for m in slack.world.written_by_app([channel]) if action_id in m.elements]
        return found[0] if found else None

    found = await slack.until(check, f"a message with {action_id}")
    assert found is not None
    return found


async def save_settings(
    pool: Pool, audience: AudienceOf, channel: Channel, person: Person, **settings: object
) -> None:
    place = await audience(channel, person)
    assert place.channel_id is not None and place.member_id is not None
    await Places(pool).save_channel_settings(place.channel_id, settings, by=place.member_id)


async def test_a_comparison_by_command_is_blind_until_the_vote(
    slack: SlackServer, team: Channel, ana: Person
) -> None:
    await slack.command(ana, team, "/parley", f"compare {QUESTION}").acknowledged()
    vote = await message_with(slack, team, COMPARE_ACTIONS["left"])
    written = slack.world.written_by_app([team])
    assert len([message for message in written if LEAVE in message.seen]) == 2
    assert all("scripted" not in str(message.body) for message in written)
    await slack.click(ana, vote, COMPARE_ACTIONS["right"]).acknowledged()

    def told() -> bool:
        return any("A was `scripted`" in m.seen for m in slack.ephemerals(team, ana))

    await slack.until(told, "the models' names", within_s=10)


async def test_the_channels_share_of_questions_becomes_comparisons(
    slack: SlackServer, team: Channel, ana: Person, pool: Pool, audience: AudienceOf
) -> None:
    await save_settings(pool, audience, team, ana, comparison_share=1.0)
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    vote = await message_with(slack, team, COMPARE_ACTIONS["tie"])
    assert vote.thread_ts == asked.ts


async def test_asking_again_replaces_the_answer_in_its_message(
    slack: SlackServer, team: Channel, ana: Person, model: ScriptedModel
) -> None:
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    answer = await slack.answer_to(asked)
    first = answer.elements["parley_feedback"]["positive_button"]["value"]
    model.script = lambda prompt: f"It is so: {ANSWER}"
    await slack.click(ana, answer, "parley_regenerate").acknowledged()

    def replaced() -> bool:
        rating = answer.elements.get("parley_feedback")
        return rating is not None and rating["positive_button"]["value"] != first

    await slack.until(replaced, "another answer")
    assert "It is so" in answer.seen
    assert slack.replies(asked) == [answer]
    # The former answer is no longer shown, but a vote on it that was under way still counts.
    await slack.click(ana, answer, "parley_feedback", side="positive", value=first).acknowledged()
    await slack.until(
        lambda: any("recorded" in m.seen for m in slack.ephemerals(team, ana)), "a vote"
    )


async def test_a_stopped_answer_keeps_what_was_said_and_can_be_rated(
    slack: SlackServer, team: Channel, ana: Person, model: ScriptedModel, pool: Pool
) -> None:
    model.may_end.clear()
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    message = await message_with(slack, team, "parley_stop")
    await model.begun_answers(1)
    await slack.until(lambda: "Full-time employees" in message.seen, "the beginning")
    await slack.click(ana, message, "parley_stop").acknowledged()
    answer = await slack.answer_to(asked)
    assert answer.ts == message.ts
    assert "parley_stop" not in answer.elements
    async with pool.connection() as connection:
        found = await connection.execute("SELECT finish_reason FROM answers")
        assert (await one_row(found))[0] == "stopped"


async def test_a_private_answer_is_seen_by_the_asker_until_it_is_shared(
    slack: SlackServer, team: Channel, ana: Person, pool: Pool, audience: AudienceOf
) -> None:
    await save_settings(pool, audience, team, ana, ephemeral=True)
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")

    def answered() -> Message | None:
        found = [m for m in slack.ephemerals(team, ana) if "parley_share" in m.elements]
        return found[0] if found else None

    private = await slack.until(answered, "a private answer")
    assert private is not None
    assert slack.replies(asked) == []
    await slack.click(ana, private, "parley_share").acknowledged()
    shared = await slack.answer_to(asked)
    assert LEAVE in shared.seen and "handbook.md" in shared.seen
    assert shared.thread_ts == asked.ts


async def test_a_private_answer_can_be_asked_again_and_stays_private(
    slack: SlackServer, team: Channel, ana: Person, pool: Pool, audience: AudienceOf
) -> None:
    await save_settings(pool, audience, team, ana, ephemeral=True)
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")

    def private() -> list[Message]:
        return [m for m in slack.ephemerals(team, ana) if "parley_share" in m.elements]

    (first,) = await slack.until(private, "a private answer")
    await slack.click(ana, first, "parley_regenerate").acknowledged()
    await slack.until(lambda: len(private()) == 2, "another private answer")
    assert slack.replies(asked) == []
    await slack.click(ana, first, "parley_share").acknowledged()
    await slack.until(
        lambda: any("newer answer" in m.seen for m in slack.ephemerals(team, ana)), "a hint"
    )
    assert slack.replies(asked) == []


async def test_a_direct_answer_can_be_asked_again_and_rated(
    slack: SlackServer, team: Channel, ana: Person
) -> None:
    direct = slack.direct(ana)
    asked = slack.say(ana, direct, QUESTION)
    answer = await slack.answer_to(asked)
    first = answer.elements["parley_feedback"]["positive_button"]["value"]
    await slack.click(ana, answer, "parley_regenerate").acknowledged()

    def replaced() -> bool:
        rating = answer.elements.get("parley_feedback")
        return rating is not None and rating["positive_button"]["value"] != first

    await slack.until(replaced, "another answer")
    await slack.click(ana, answer, "parley_feedback", side="positive").acknowledged()
    await slack.until(
        lambda: any("recorded" in m.seen for m in slack.ephemerals(direct, ana)), "a vote"
    )
