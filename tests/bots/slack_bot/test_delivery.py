"""Turns as people see them in Slack, whatever Slack or the engine does meanwhile."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from bots.comparisons import order_of
from bots.errors import Reply
from bots.messages import (
    Answered,
    Delayed,
    Queued,
    SourcesFound,
    TextDelta,
)
from bots.settings import SlackSettings
from bots.slack_bot.blocks import (
    COMPARE_ACTIONS,
    FEEDBACK_ACTION,
    NEED_HUMAN_ACTION,
    REGENERATE_ACTION,
    STOP_ACTION,
)
from bots.slack_bot.delivery import slack_delivery
from storage.jobs import RetryLater
from tests.bots.answers import cited
from tests.bots.slack_bot.talk import SlackTalk
from tests.bots.slack_bot.talk import alone as alone
from tests.bots.slack_bot.talk import stage as stage
from tests.bots.slack_bot.talk import team as team
from tests.bots.slack_bot.test_mrkdwn import assert_harmless
from tests.fakes.slack_blocks import texts_of

# ---------------------------------------------------------------- channels


async def test_in_a_channel_one_message_grows_into_the_answer(team: SlackTalk) -> None:
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        SourcesFound(sources=()),
        TextDelta(text="Twenty-five"),
        team.shows("Twenty-five"),
        TextDelta(text=" days."),
        await team.answered("Twenty-five days."),
    )
    [reply] = team.replies
    assert reply.seen.startswith("Twenty-five days.")
    assert reply.thread_ts == team.asked.ts
    assert {FEEDBACK_ACTION, REGENERATE_ACTION, NEED_HUMAN_ACTION} == set(reply.elements)
    assert reply.posted["unfurl_links"] is False
    assert reply.metadata is not None
    assert reply.metadata["event_payload"]["message_id"] == str(team.message_id)
    assert team.slack.calls_of("chat.startStream") == []
    assert all(posted.finished for posted in await _posted(team))


async def _posted(talk: SlackTalk) -> Any:
    return await talk.stage.context.workplace.deliveries.get(talk.message_id)


async def test_it_can_be_stopped_while_it_is_written(team: SlackTalk) -> None:
    seen: list[str] = []

    async def stop_buttons() -> None:
        await team.shows("Twenty")()
        [reply] = team.replies
        seen.append(str(reply.elements[STOP_ACTION]["value"]))

    await team.deliver(
        team.searching,
        TextDelta(text="Twenty"),
        stop_buttons,
        await team.answered("Twenty", finish_reason="stopped"),
    )
    assert seen == [str(team.message_id)]
    [reply] = team.replies
    assert STOP_ACTION not in reply.elements
    assert "Stopped." in reply.seen


async def test_who_waits_sees_the_position(team: SlackTalk) -> None:
    await team.deliver(
        Queued(position=3), team.shows("number 3 in the queue"), await team.answered("Yes.")
    )
    [reply] = team.replies
    assert "queue" not in reply.seen


async def test_edits_keep_their_distance(team: SlackTalk) -> None:
    team.delivery = slack_delivery(
        replace(team.stage.context, settings=SlackSettings(edit_interval_s=30))
    )
    words = [TextDelta(text=f"word{n} ") for n in range(200)]
    await team.deliver(team.searching, *words, await team.answered("All words."))
    assert len(team.slack.calls_of("chat.update")) <= 2
    assert team.replies[0].seen.startswith("All words.")


async def test_a_long_answer_becomes_several_messages_in_order(team: SlackTalk) -> None:
    text = "\n\n".join(f"Paragraph {n} says a little more than the one before." for n in range(200))
    await team.deliver(team.searching, TextDelta(text=text), await team.answered(text))
    assert len(team.replies) > 2
    seen = "\n".join(reply.seen for reply in sorted(team.replies, key=lambda reply: reply.ts))
    places = [seen.index(f"Paragraph {n} says") for n in range(200)]
    assert places == sorted(places)
    assert [FEEDBACK_ACTION in reply.elements for reply in team.replies].count(True) == 1


async def test_a_source_from_slack_is_a_link_to_it(team: SlackTalk) -> None:
    documents = team.stage.context.workplace.documents
    document = await documents.add(
        "leave.md",
        b"Twenty-five days.",
        audience=team.audience,
        origin={"permalink": "https://slack.example/files/F1"},
    )
    await team.deliver(await team.answered("Yes [1].", citations=(cited(document_id=document.id),)))
    texts = [text for kind, text in texts_of(team.replies[0].blocks) if kind == "mrkdwn"]
    assert "[1] <https://slack.example/files/F1|leave.md>, Leave" in texts


async def test_a_deleted_source_is_a_name(team: SlackTalk) -> None:
    await team.deliver(await team.answered("Yes [1].", citations=(cited(),)))
    assert "[1] leave.md, Leave" in team.replies[0].seen


async def test_nobody_is_pinged_by_what_a_model_says(team: SlackTalk) -> None:
    text = "<!channel> <@U123> @here <https://evil.example|x> `<!here>` & co"
    await team.deliver(
        team.searching, TextDelta(text=text + " "), team.shows("co"), await team.answered(text)
    )
    for call in team.slack.calls:
        if call.method.startswith("chat."):
            assert_harmless(str(call.args.get("text", "")))
            for kind, said in texts_of(call.args.get("blocks") or []):
                if kind != "plain_text":
                    assert_harmless(said)
    assert team.replies[0].pings == []


async def test_a_failure_is_said_in_the_message_that_was_waited_for(team: SlackTalk) -> None:
    fail = team.fail("This question is too long.")
    await team.deliver(team.searching, team.shows("Searching"), fail)
    [reply] = team.replies
    assert reply.seen == "This question is too long."


# ---------------------------------------------------------------- Slack in trouble


@pytest.mark.parametrize("code", ["invalid_blocks", "msg_blocks_too_long", "msg_too_long"])
async def test_an_answer_whose_blocks_are_refused_is_plain_text(team: SlackTalk, code: str) -> None:
    fault: list[Any] = []
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        lambda: fault.append(team.slack.fail("chat.update", error=code)),
        await team.answered("Twenty-five **days**."),
    )
    [reply] = team.replies
    assert reply.seen == "Twenty-five *days*."
    assert fault[0].met == 1


@pytest.mark.parametrize("refusal", [{"status": 429}, {"error": "ratelimited"}])
async def test_an_answer_waits_until_slack_takes_it(
    team: SlackTalk, refusal: dict[str, Any]
) -> None:
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        lambda: team.slack.fail("chat.update", times=2, retry_after_s=0.2, **refusal),
        TextDelta(text="Twenty "),
        await team.answered("Twenty-five days."),
    )
    [reply] = team.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_a_lost_answer_to_a_post_makes_no_second_message(team: SlackTalk) -> None:
    team.slack.fail("chat.postMessage", status=502, after=True)
    await team.deliver(team.searching, await team.answered("Twenty-five days."))
    [reply] = team.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_a_message_that_somebody_deleted_is_posted_again(team: SlackTalk) -> None:
    async def delete() -> None:
        await team.shows("Searching")()
        [reply] = team.replies
        reply.deleted = True

    await team.deliver(team.searching, delete, await team.answered("Twenty-five days."))
    [reply] = team.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_while_slack_is_away_the_turn_is_put_off(team: SlackTalk) -> None:
    team.slack.fail("chat.postMessage", status=503, times=None)
    team.slack.fail("conversations.replies", status=503, times=None)
    with pytest.raises(RetryLater):
        await team.deliver(team.searching, await team.answered("Twenty-five days."))
    for fault in team.slack.faults:
        fault.stop()
    await team.deliver(await team.again(), attempt=1)
    [reply] = team.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_a_channel_that_is_gone_ends_the_turn(team: SlackTalk) -> None:
    team.channel.archived = True
    await team.deliver(team.searching, await team.answered("Twenty-five days."))
    assert team.replies == []


# ---------------------------------------------------------------- again and again


async def test_a_finished_answer_is_not_delivered_twice(team: SlackTalk) -> None:
    await team.deliver(await team.answered("Yes."))
    calls = len(team.slack.calls)
    await team.deliver(await team.again(), attempt=1)
    assert len(team.slack.calls) == calls


async def test_after_a_crash_the_placeholder_becomes_the_answer(team: SlackTalk) -> None:
    await team.deliver(team.searching, team.shows("Searching"))  # the process ends here
    await team.deliver(team.searching, await team.answered("Yes."), attempt=1)
    [reply] = team.replies
    assert reply.seen == "Yes."


async def test_a_message_that_nobody_remembers_is_found_by_its_metadata(team: SlackTalk) -> None:
    await team.deliver(team.searching, team.shows("Searching"))
    await team.stage.context.workplace.deliveries.remove(team.message_id, part=0)
    await team.deliver(team.searching, await team.answered("Yes."), attempt=1)
    [reply] = team.replies
    assert reply.seen == "Yes."


async def test_without_the_right_to_read_the_thread_the_answer_comes_all_the_same(
    team: SlackTalk,
) -> None:
    team.slack.fail("conversations.replies", error="missing_scope", times=None)
    await team.deliver(team.searching, await team.answered("Yes."), attempt=1)
    assert [reply.seen for reply in team.replies] == ["Yes."]


async def test_a_token_that_ran_out_puts_the_turn_off(team: SlackTalk) -> None:
    team.slack.fail("chat.postMessage", error="token_expired", times=None)
    with pytest.raises(RetryLater):
        await team.deliver(await team.answered("Yes."))


async def test_an_engine_that_is_down_is_said_once_and_becomes_the_answer(team: SlackTalk) -> None:
    down = Delayed(reply=Reply(text="The model does not answer right now.", retryable=True))
    await team.deliver(team.searching, down)
    [reply] = team.replies
    assert reply.seen == "The model does not answer right now."
    for attempt in (1, 2):
        await team.deliver(team.searching, Queued(position=1), down, attempt=attempt)
    assert reply.versions.count(reply.seen) == 1
    assert reply.versions[-1] == "The model does not answer right now."
    await team.deliver(team.searching, await team.answered("Yes."), attempt=3)
    assert [message.seen for message in team.replies] == ["Yes."]


async def test_a_delay_that_could_not_be_shown_is_said_at_the_next_attempt(team: SlackTalk) -> None:
    down = Delayed(reply=Reply(text="The model does not answer right now.", retryable=True))
    away = [team.slack.fail("chat.update", status=503, times=None)]
    with pytest.raises(RetryLater):
        await team.deliver(team.searching, team.shows("Searching"), down)
    away[0].stop()
    await team.deliver(team.searching, down, attempt=1)
    assert [reply.seen for reply in team.replies] == ["The model does not answer right now."]


async def test_another_answer_takes_the_place_of_the_first(team: SlackTalk) -> None:
    long = "\n\n".join(f"Paragraph {n}, which is not short at all." for n in range(200))
    await team.deliver(await team.answered(long))
    assert len(team.replies) > 1
    first = min(team.replies, key=lambda reply: reply.ts)
    again = await team.again("Shorter.")
    await team.deliver(team.searching, again, kind="regenerate")
    assert [message.ts for message in team.replies] == [first.ts]
    assert first.seen == "Shorter."


async def test_the_answer_stays_where_another_one_fails(team: SlackTalk) -> None:
    fail = team.fail("No luck.")
    await team.deliver(await team.answered("Yes."))
    await team.deliver(team.searching, team.shows("Searching"), fail, kind="regenerate")
    [reply] = team.replies
    assert reply.seen == "Yes."
    assert FEEDBACK_ACTION in reply.elements
    assert [m.seen for m in team.slack.ephemerals(team.channel, team.person)] == ["No luck."]


# ---------------------------------------------------------------- comparisons


async def test_two_answers_stand_side_by_side_blind_and_can_be_voted_on(team: SlackTalk) -> None:
    one, two = await team.two()
    await team.deliver(
        (0, team.searching),
        (0, TextDelta(text="First")),
        (1, TextDelta(text="Second")),
        (0, Answered(answer=one)),
        (1, Answered(answer=two)),
        kind="compare",
    )
    left, right, vote = sorted(team.replies, key=lambda reply: reply.ts)
    texts = [(one, two)[which].text for which in order_of(team.message_id)]
    assert [left.seen.split()[0], right.seen.split()[0]] == ["*A*", "*B*"]
    assert [texts[0] in left.seen, texts[1] in right.seen] == [True, True]
    assert set(vote.elements) == set(COMPARE_ACTIONS.values())
    assert left.elements == right.elements == {}
    everything = str([call.args for call in team.slack.calls])
    assert "small-model" not in everything
    assert "large-model" not in everything
    comparison_id = UUID(str(vote.elements[COMPARE_ACTIONS["tie"]]["value"]))
    await team.slack.click(team.person, vote, COMPARE_ACTIONS["tie"]).acknowledged()
    await team.stage.told(team.person, team.channel, "small-model")
    assert comparison_id


async def test_neither_side_runs_ahead_of_the_other(team: SlackTalk) -> None:
    one, two = await team.two()
    long = "First comes the whole of the first answer. " * 5
    await team.deliver(
        (0, TextDelta(text=long)),
        (1, TextDelta(text="Second ")),
        team.shows("Second"),
        team.shows("First"),
        (0, Answered(answer=replace(one, text=long))),
        (1, Answered(answer=two)),
        kind="compare",
    )
    side = order_of(team.message_id).index(0)
    message = sorted(team.replies, key=lambda reply: reply.ts)[side]
    begun = [version for version in message.versions if "First" in version]
    assert len(begun[0]) < len(long)


async def test_after_a_crash_a_comparison_is_completed_in_its_messages(team: SlackTalk) -> None:
    one, two = await team.two()
    one = replace(one, text="First words. " * 1000)
    await team.deliver((0, TextDelta(text="First")), (1, TextDelta(text="Second")), kind="compare")
    assert len(team.replies) == 2
    for attempt in (1, 2):
        await team.deliver(
            (0, Answered(answer=one)), (1, Answered(answer=two)), kind="compare", attempt=attempt
        )
    replies = sorted(team.replies, key=lambda reply: reply.ts)
    [left, right, rest, vote] = [reply.seen for reply in replies]
    assert (left if order_of(team.message_id)[0] == 0 else right).count("First") > 800
    assert "First words." in rest
    assert "better" in vote


async def test_where_nothing_is_found_there_is_nothing_to_compare(team: SlackTalk) -> None:
    await team.deliver(
        (0, team.searching),
        (0, await team.answered("I found nothing.", found=False, finish_reason="not_found")),
        kind="compare",
    )
    [reply] = team.replies
    assert reply.seen == "I found nothing."
    assert FEEDBACK_ACTION in reply.elements
