"""Votes under answers: one per person, changeable, confirmed, explained, and nobody else's."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bots.slack_bot.modals import MAX_METADATA_CHARACTERS, Origin
from storage.pool import Pool, one_row
from tests.bots.app_process import eventually
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_server import SlackServer

FEEDBACK = "parley_feedback"


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def votes(pool: Pool) -> list[tuple[int, list[str], str | None]]:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT value, reasons, comment FROM votes ORDER BY value")
        return [(row[0], row[1], row[2]) for row in await rows.fetchall()]


async def count(pool: Pool, table: str) -> int:
    async with pool.connection() as connection:
        counted = await connection.execute(f"SELECT count(*) FROM {table}".encode())
        return int((await one_row(counted))[0])


async def test_a_vote_is_stored_before_its_ack_and_confirmed_to_the_voter_only(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    message, _ = await stage.answered(ana, team)
    click = slack.click(ben, message, FEEDBACK, side="positive")
    await click.acknowledged()
    assert await votes(pool) == [(1, [], None)]
    told = await stage.told(ben, team, "recorded")
    assert told.thread_ts == message.thread_ts
    assert slack.ephemerals(team, ana) == []
    assert slack.world.views == {}


async def test_a_double_click_is_one_vote_and_both_are_confirmed(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    first = slack.click(ana, message, FEEDBACK, side="positive")
    second = slack.click(ana, message, FEEDBACK, side="positive")
    await first.acknowledged()
    await second.acknowledged()
    await stage.told(ana, team, "recorded")
    await stage.told(ana, team, "was and stays")
    assert await votes(pool) == [(1, [], None)]
    assert await count(pool, "outbox") == 1


async def test_a_changed_vote_replaces_the_first(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    message, _ = await stage.answered(ana, team)
    await slack.click(ana, message, FEEDBACK, side="positive").acknowledged()
    await slack.click(ben, message, FEEDBACK, side="positive").acknowledged()
    await slack.click(ana, message, FEEDBACK, side="negative").acknowledged()
    await stage.told(ana, team, "changed")
    assert await votes(pool) == [(-1, [], None), (1, [], None)]


async def test_a_vote_can_be_withdrawn(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    await slack.click(ana, message, FEEDBACK, side="positive").acknowledged()
    told = await stage.told(ana, team, "recorded")
    await slack.click(ana, told, "parley_withdraw").acknowledged()
    await stage.told(ana, team, "withdrawn")
    assert await votes(pool) == []


async def test_a_down_vote_opens_a_modal_for_reasons_and_the_better_answer(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    await slack.click(ana, message, FEEDBACK, side="negative").acknowledged()
    view = await slack.modal(ana, "parley_reasons")
    assert len(view["private_metadata"]) <= MAX_METADATA_CHARACTERS
    filled = {"reasons": ["wrong", "outdated"], "comment": "It is 30.", "better": "Thirty days."}
    sent = await slack.submit(ana, view, filled).acknowledged()
    assert not sent.response
    await stage.told(ana, team, "what you wrote is kept")
    assert await votes(pool) == [(-1, ["wrong", "outdated"], "It is 30.")]
    async with pool.connection() as connection:
        found = await connection.execute("SELECT text FROM corrections")
        assert (await one_row(found))[0] == "Thirty days."


async def test_a_modal_that_was_skipped_can_be_opened_again(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    slack.fail("views.open", error="expired_trigger_id")
    await slack.click(ana, message, FEEDBACK, side="negative").acknowledged()
    told = await stage.told(ana, team, "recorded")
    assert slack.world.views == {}
    await slack.click(ana, told, "parley_explain").acknowledged()
    view = await slack.modal(ana, "parley_reasons")
    await slack.submit(ana, view, {"better": "Thirty days."}).acknowledged()
    await stage.told(ana, team, "what you wrote is kept")
    assert await votes(pool) == [(-1, [], None)]
    assert await count(pool, "corrections") == 1


@pytest.mark.parametrize("where", ["another channel", "direct messages"])
async def test_an_answers_id_from_elsewhere_is_refused(
    where: str, stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    secret = slack.add_channel("secret", ana, private=True)
    _, answer = await stage.answered(ana, secret)
    place = slack.direct(eve) if where == "direct messages" else slack.add_channel("open", eve)
    message, _ = await stage.answered(eve, place)
    forged = f"down:{answer.id}"
    await slack.click(eve, message, FEEDBACK, side="negative", value=forged).acknowledged()
    await stage.told(eve, place, "belongs to another conversation")
    assert await votes(pool) == []
    assert slack.world.views == {}


async def test_the_same_channel_in_another_workspace_is_another_place(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    click = slack.click(ana, message, FEEDBACK, side="positive")
    await click.acknowledged()
    payload = json.loads(json.dumps(click.payload))
    payload["team"]["id"] = payload["user"]["team_id"] = "T0OTHER"
    payload["actions"][0]["value"] = payload["actions"][0]["value"].replace("up:", "down:")
    await slack.sockets.deliver("interactive", payload).acknowledged()
    await stage.told(ana, team, "belongs to another conversation")
    assert await votes(pool) == [(1, [], None)]


@pytest.mark.parametrize("value", ["down:", "up:no-id", "sideways:7", "", "up"])
async def test_a_forged_value_is_refused(value: str, stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    payload = slack.click(ana, message, FEEDBACK, side="positive")
    await payload.acknowledged()
    await stage.told(ana, team, "recorded")
    forged = json.loads(json.dumps(payload.payload))
    forged["actions"][0]["value"] = value
    await slack.sockets.deliver("interactive", forged).acknowledged()
    await stage.told(ana, team, "belongs to another conversation")
    assert await votes(pool) == [(1, [], None)]


@pytest.mark.parametrize("changed", ["user", "team", "channel", "answer_id"])
async def test_a_modals_ids_are_checked_when_it_comes_back(
    changed: str, stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve")
    team, secret = slack.add_channel("team", ana, eve), slack.add_channel("secret", ana)
    message, _ = await stage.answered(eve, team)
    _, hidden = await stage.answered(ana, secret)
    await slack.click(eve, message, FEEDBACK, side="negative").acknowledged()
    view = await slack.modal(eve, "parley_reasons")
    ids = json.loads(view["private_metadata"])
    other = {"user": ana.id, "team": "T0OTHER", "channel": secret.id, "answer_id": str(hidden.id)}
    forged = {**view, "private_metadata": json.dumps({**ids, changed: other[changed]})}
    sent = await slack.submit(eve, forged, {"better": "Nonsense."}).acknowledged()
    assert sent.response is not None
    assert sent.response["response_action"] == "update"
    assert await count(pool, "corrections") == 0


async def test_a_strangers_click_counts_only_where_everyone_may_ask(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, sam = slack.add_person("Ana"), slack.add_person("Sam", team_id="T0ELSEWHERE")
    team = slack.add_channel("team", ana, sam, shared=True)
    message, _ = await stage.answered(ana, team)
    await slack.click(sam, message, FEEDBACK, side="negative").acknowledged()
    await stage.told(sam, team, "only members of this workspace")
    assert await votes(pool) == []
    audience = await stage.audience(ana, team)
    assert audience.channel_id is not None and audience.member_id is not None
    await stage.context.workplace.places.save_channel_settings(
        audience.channel_id, {"who": "everyone"}, by=audience.member_id
    )
    await slack.click(sam, message, FEEDBACK, side="negative").acknowledged()
    await stage.told(sam, team, "recorded")
    assert await votes(pool) == [(-1, [], None)]


async def test_fifty_votes_at_once_are_kept_and_acknowledged_in_time(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    people = [slack.add_person(f"Person {number}") for number in range(50)]
    team = slack.add_channel("team", *people)
    message, _ = await stage.answered(people[0], team)
    clicks = [slack.click(person, message, FEEDBACK, side="positive") for person in people]
    await asyncio.gather(*(click.acknowledged(within_s=3.0) for click in clicks))

    async def all_kept() -> bool:
        return await votes(pool) == [(1, [], None)] * 50

    await eventually(all_kept, "fifty votes")


async def test_a_slack_that_hangs_delays_neither_vote_nor_ack(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    slack.fail("views.open", hang=True)
    slack.fail("chat.postEphemeral", hang=True)
    click = slack.click(ana, message, FEEDBACK, side="negative")
    await click.acknowledged(within_s=2.0)
    assert await votes(pool) == [(-1, [], None)]


async def test_a_vote_is_confirmed_where_the_app_may_not_write(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    slack.fail("chat.postEphemeral", error="not_in_channel")
    await slack.click(ana, message, FEEDBACK, side="positive").acknowledged()
    told = await stage.told(ana, team, "recorded")
    assert "parley_withdraw" in told.elements
    assert len(slack.response_calls) == 1
    assert "parley_feedback" in message.elements, "the answer stays as it is"


async def test_a_vote_that_cannot_be_stored_is_acknowledged_and_said(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    await pool.driver.close()
    click = slack.click(ana, message, FEEDBACK, side="positive")
    await click.acknowledged(within_s=3.0)
    await stage.told(ana, team, "The database does not answer")


async def test_a_form_that_cannot_be_stored_stays_open_with_what_was_typed(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    message, _ = await stage.answered(ana, team)
    await slack.click(ana, message, FEEDBACK, side="negative").acknowledged()
    view = await slack.modal(ana, "parley_reasons")
    await pool.driver.close()
    sent = await slack.submit(ana, view, {"better": "Thirty days."}).acknowledged(within_s=3.0)
    assert sent.response is not None
    assert "does not answer" in sent.response["errors"]["better"]


async def test_direct_messages_can_be_rated_by_their_person(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    direct = slack.direct(ana)
    message, _ = await stage.answered(ana, direct)
    await slack.click(ana, message, FEEDBACK, side="negative").acknowledged()
    view = await slack.modal(ana, "parley_reasons")
    await slack.submit(ana, view, {"reasons": ["other"]}).acknowledged()
    await stage.told(ana, direct, "what you wrote is kept")
    assert await votes(pool) == [(-1, ["other"], None)]


def test_ids_that_are_too_long_for_a_modal_never_reach_slack() -> None:
    with pytest.raises(ValueError, match="too long"):
        Origin(team="T" * 3000, channel="C", user="U").dump()


@pytest.mark.parametrize("text", ["", "[]", "7", '{"team": "T"}', '{"unknown": 1}'])
def test_metadata_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no ids of ours"):
        Origin.load(text)
