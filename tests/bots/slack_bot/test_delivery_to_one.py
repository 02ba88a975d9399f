"""Turns in Slack that one person alone sees: native streams, and private answers in channels."""

import pytest

from bots.errors import Reply
from bots.messages import (
    Delayed,
    TextDelta,
)
from bots.slack_bot.blocks import (
    FEEDBACK_ACTION,
    REGENERATE_ACTION,
    SHARE_ACTION,
    STOP_ACTION,
)
from bots.slack_bot.board import INTERRUPTED
from storage.jobs import RetryLater
from tests.bots.slack_bot.talk import SlackTalk
from tests.bots.slack_bot.talk import alone as alone
from tests.bots.slack_bot.talk import stage as stage
from tests.bots.slack_bot.talk import team as team
from tests.fakes.slack_world import Message

# ---------------------------------------------------------------- alone with the assistant


async def test_one_reader_sees_a_native_stream_that_ends_with_buttons(alone: SlackTalk) -> None:
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        TextDelta(text="days. "),
        await alone.answered("Twenty-five days. Yes."),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days. Yes.")
    assert set(reply.elements) == {FEEDBACK_ACTION, REGENERATE_ACTION}
    [start] = alone.slack.calls_of("chat.startStream")
    assert start.args["recipient_user_id"] == alone.person.id
    assert start.args["recipient_team_id"] == alone.person.team_id
    assert start.args["thread_ts"] == alone.asked.ts
    [stop] = alone.slack.calls_of("chat.stopStream")
    assert stop.args["blocks"]
    assert alone.slack.calls_of("chat.postMessage") == []


async def test_a_stream_can_be_stopped_while_it_is_written(alone: SlackTalk) -> None:
    async def stop_button() -> None:
        await alone.shows("Twenty")()
        [reply] = alone.replies
        assert reply.elements[STOP_ACTION]["value"] == str(alone.message_id)

    await alone.deliver(
        alone.searching, TextDelta(text="Twenty "), stop_button, await alone.answered("Twenty x")
    )
    assert STOP_ACTION not in alone.replies[0].elements


async def test_a_stream_that_takes_no_button_streams_without(alone: SlackTalk) -> None:
    alone.slack.fail("chat.startStream", error="invalid_chunks")
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty "),
        alone.shows("Twenty"),
        await alone.answered("Twenty x"),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty x")
    assert FEEDBACK_ACTION in reply.elements
    assert alone.slack.calls_of("chat.update") == []


async def test_a_stream_that_expires_loses_nothing(alone: SlackTalk) -> None:
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        alone.slack.expire_streams,
        TextDelta(text="days, "),
        TextDelta(text="and five more "),
        alone.shows("and five more"),
        TextDelta(text="later. "),
        await alone.answered("Twenty-five days, and five more later."),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days, and five more later.")
    assert FEEDBACK_ACTION in reply.elements


async def test_a_stream_that_expires_in_silence_ends_with_the_answer(alone: SlackTalk) -> None:
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        alone.slack.expire_streams,
        await alone.answered("Twenty-five days."),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days.")
    assert FEEDBACK_ACTION in reply.elements


async def test_where_slack_does_not_stream_the_answer_is_edited(alone: SlackTalk) -> None:
    alone.slack.fail("chat.startStream", error="channel_type_not_supported", times=None)
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        await alone.answered("Twenty-five days."),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_a_stream_whose_start_got_no_answer_is_found_and_completed(alone: SlackTalk) -> None:
    alone.slack.fail("chat.startStream", status=502, after=True)
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        await alone.answered("Twenty-five days."),
    )
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days.")
    assert FEEDBACK_ACTION in reply.elements


async def test_an_answer_that_differs_from_its_stream_replaces_it(alone: SlackTalk) -> None:
    await alone.deliver(
        alone.searching,
        TextDelta(text="Twenty-five [link removed] "),
        alone.shows("link removed"),
        await alone.answered("Twenty-five days."),
    )
    [reply] = alone.replies
    assert "link removed" not in reply.seen
    assert reply.seen.startswith("Twenty-five days.")


async def test_a_very_long_stream_ends_as_several_messages(alone: SlackTalk) -> None:
    text = "\n\n".join(f"Paragraph {n} & more of the same, said at length." for n in range(400))
    await alone.deliver(
        alone.searching,
        *(TextDelta(text=text[start : start + 500]) for start in range(0, len(text), 500)),
        await alone.answered(text),
    )
    seen = "\n".join(reply.seen for reply in alone.replies)
    assert all(f"Paragraph {n} &amp; more" in seen for n in range(400))


async def test_a_stream_that_a_crash_left_open_becomes_the_answer(alone: SlackTalk) -> None:
    await alone.deliver(alone.searching, TextDelta(text="Twenty-five "), alone.shows("Twenty-five"))
    await alone.deliver(alone.searching, await alone.answered("Twenty-five days."), attempt=1)
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days.")
    assert FEEDBACK_ACTION in reply.elements


async def test_an_open_stream_that_nobody_remembers_is_found_by_its_button(
    alone: SlackTalk,
) -> None:
    await alone.deliver(alone.searching, TextDelta(text="Twenty-five "), alone.shows("Twenty-five"))
    await alone.stage.context.workplace.deliveries.remove(alone.message_id, part=0)
    await alone.deliver(alone.searching, await alone.answered("Twenty-five days."), attempt=1)
    [reply] = alone.replies
    assert reply.seen.startswith("Twenty-five days.")


async def test_the_status_says_what_happens_and_is_kept_alive(alone: SlackTalk) -> None:
    async def refreshed() -> None:
        await alone.slack.until(
            lambda: len([s for s in alone.slack.world.statuses if "Searching" in s.status]) >= 3,
            "a status that is set again",
        )

    await alone.deliver(alone.searching, refreshed, await alone.answered("Yes."))
    [first, *_] = alone.slack.world.statuses
    assert first.loading_messages
    assert not alone.slack.world.current_status(alone.channel.id, alone.asked.ts)


async def test_a_status_that_fails_harms_nothing(alone: SlackTalk) -> None:
    alone.slack.fail("assistant.threads.setStatus", error="missing_scope", times=None)
    await alone.deliver(alone.searching, await alone.answered("Yes."))
    assert alone.replies[0].seen == "Yes."


async def test_an_engine_that_is_slow_is_said_and_the_answer_follows(alone: SlackTalk) -> None:
    slow = Delayed(reply=Reply(text="This takes longer than usual.", retryable=True))
    await alone.deliver(
        alone.searching,
        slow,
        alone.shows("longer than usual"),
        TextDelta(text="Twenty-five "),
        alone.shows("Twenty-five"),
        await alone.answered("Twenty-five days."),
    )
    [reply] = alone.replies
    assert reply.seen == "Twenty-five days."


# ---------------------------------------------------------------- for the asker alone


async def test_a_private_answer_is_seen_by_its_asker_who_may_share_it(team: SlackTalk) -> None:
    await team.deliver(
        team.searching,
        TextDelta(text="Twenty-five "),
        await team.answered("Twenty-five days."),
        via="ephemeral",
    )
    assert team.replies == []
    [told] = team.slack.ephemerals(team.channel, team.person)
    assert told.seen.startswith("Twenty-five days.")
    assert {SHARE_ACTION, FEEDBACK_ACTION} <= set(told.elements)


async def test_a_private_answer_is_posted_once_and_plain_where_blocks_are_refused(
    team: SlackTalk,
) -> None:
    team.slack.fail("chat.postEphemeral", error="invalid_blocks")
    await team.deliver(await team.answered("Yes."), via="ephemeral")
    await team.deliver(await team.again(), via="ephemeral", attempt=1)
    [told] = team.slack.ephemerals(team.channel, team.person)
    assert told.seen == "Yes."


async def test_a_private_answer_that_may_have_been_posted_comes_again_and_says_why(
    team: SlackTalk,
) -> None:
    team.slack.fail("chat.postEphemeral", after=True, status=503)
    with pytest.raises(RetryLater):
        await team.deliver(await team.answered("Yes."), via="ephemeral")
    await team.deliver(await team.again(), via="ephemeral", attempt=1)
    first, second = [m.seen for m in team.slack.ephemerals(team.channel, team.person)]
    assert first.startswith("Yes.")
    assert INTERRUPTED in second
    assert "Yes." in second
    await team.deliver(await team.again(), via="ephemeral", attempt=2)
    assert len(team.slack.ephemerals(team.channel, team.person)) == 2


async def test_an_answer_outside_of_threads_is_found_again_after_a_crash(team: SlackTalk) -> None:
    def ours() -> list[Message]:
        return [message for message in team.channel.messages.values() if message.metadata]

    await team.deliver(
        team.searching, lambda: team.slack.until(ours, "a placeholder"), thread="", ts=""
    )
    [before] = ours()
    await team.stage.context.workplace.deliveries.remove(team.message_id, part=0)
    await team.deliver(await team.answered("Yes."), thread="", ts="", attempt=1)
    [after] = ours()
    assert (after.ts, after.seen[:4]) == (before.ts, "Yes.")


async def test_another_private_answer_is_a_new_message(team: SlackTalk) -> None:
    await team.deliver(await team.answered("Yes."), via="ephemeral")
    again = await team.again("No.")
    await team.deliver(again, via="ephemeral", kind="regenerate")
    told = [message.seen for message in team.slack.ephemerals(team.channel, team.person)]
    assert told == ["Yes.", "No."]
