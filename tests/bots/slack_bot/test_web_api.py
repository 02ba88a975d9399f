"""Calls to Slack: patience where it asks for it, order where calls must wait, silence in errors."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot import lanes
from bots.slack_bot.lanes import PREVIEW_SHARE, Lane, Priority
from bots.slack_bot.web_api import RateLimited, SlackAway, SlackCalls, SlackRefused
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel

SECRET = "the merger is on Monday"


@pytest.fixture
async def calls(slack: SlackServer) -> AsyncIterator[SlackCalls]:
    client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    yield SlackCalls(client, timeout_s=5.0, preview_pace_s=0.0)


@pytest.fixture
def team(slack: SlackServer) -> Channel:
    return slack.add_channel("team", slack.add_person("Ana"))


async def test_a_message_is_posted_without_previews_of_its_links(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    ts = await calls.post_message(channel=team.id, text="Hello")
    posted = team.messages[ts].posted
    assert (posted["unfurl_links"], posted["unfurl_media"]) == (False, False)


@pytest.mark.parametrize("refusal", [{"status": 429}, {"error": "ratelimited"}])
async def test_a_call_too_many_waits_and_is_made_once_more(
    slack: SlackServer, calls: SlackCalls, team: Channel, refusal: dict[str, object]
) -> None:
    slack.fail("chat.postMessage", channel=team.id, retry_after_s=0.3, **refusal)
    ts = await calls.post_message(channel=team.id, text="Hello")
    first, second = slack.calls_of("chat.postMessage")
    assert second.at - first.at >= 0.29
    assert list(team.messages) == [ts]


async def test_a_refused_channel_lets_the_final_text_go_first(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    ts = await calls.post_message(channel=team.id, text="…")
    slack.fail("chat.update", status=429, retry_after_s=0.3)

    async def update(text: str, priority: Priority) -> None:
        await calls.update_message(channel=team.id, ts=ts, text=text, priority=priority)

    with pytest.raises(RateLimited):
        await update("preview", Priority.PREVIEW)
    await asyncio.gather(
        update("first", Priority.NORMAL),
        update("second", Priority.NORMAL),
        update("final", Priority.FINAL),
    )
    texts = [call.args["text"] for call in slack.calls_of("chat.update")]
    assert texts == ["preview", "final", "first", "second"]


async def test_a_preview_does_not_wait(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    ts = await calls.post_message(channel=team.id, text="…")
    slack.fail("chat.update", status=429, retry_after_s=30)
    for _ in range(2):
        with pytest.raises(RateLimited) as refused:
            await calls.update_message(channel=team.id, ts=ts, text="…", priority=Priority.PREVIEW)
        assert 25 < refused.value.after_s <= 31
    assert len(slack.calls_of("chat.update")) == 1


async def test_the_previews_of_a_channel_keep_its_rate_and_a_final_text_does_not(
    slack: SlackServer, team: Channel
) -> None:
    client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    calls = SlackCalls(client, preview_pace_s=30.0)
    ts = await calls.post_message(channel=team.id, text="…")
    async with asyncio.timeout(5):  # the first words wait for nothing
        await calls.update_message(channel=team.id, ts=ts, text="a", priority=Priority.PREVIEW)
    with pytest.raises(RateLimited) as refused:
        await calls.update_message(channel=team.id, ts=ts, text="ab", priority=Priority.PREVIEW)
    assert 25 < refused.value.after_s <= 30
    async with asyncio.timeout(5):
        await calls.update_message(channel=team.id, ts=ts, text="b", priority=Priority.FINAL)
    assert team.messages[ts].versions == ["…", "a", "b"]


async def test_previews_leave_a_share_of_the_methods_tier_to_answers(
    slack: SlackServer, calls: SlackCalls
) -> None:
    rooms = [slack.add_channel(f"room-{n}", slack.add_person("Ana")) for n in range(3)]
    posted = [await calls.post_message(channel=room.id, text="…") for room in rooms]

    async def update(number: int, priority: Priority) -> None:
        room = number % 3
        await calls.update_message(
            channel=rooms[room].id, ts=posted[room], text=str(number), priority=priority
        )

    with pytest.raises(RateLimited) as refused:
        for number in range(50):
            await update(number, Priority.PREVIEW)
    previews = len(slack.calls_of("chat.update"))
    assert 10 < previews < 30
    assert 0 < refused.value.after_s <= 60 / 50 / PREVIEW_SHARE
    for number in range(20):
        await update(number, Priority.FINAL)
    assert len(slack.calls_of("chat.update")) == previews + 20


async def test_other_channels_do_not_wait(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    other = slack.add_channel("other", slack.add_person("Ben"))
    slack.fail("chat.postMessage", channel=team.id, status=429, retry_after_s=30, times=None)
    waiting = asyncio.create_task(calls.post_message(channel=team.id, text="Hello"))
    await slack.until(lambda: slack.calls_of("chat.postMessage"), "the refused call")
    async with asyncio.timeout(5):
        await calls.post_message(channel=other.id, text="Hello")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_an_update_is_repeated_while_slack_has_trouble(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    ts = await calls.post_message(channel=team.id, text="…")
    slack.fail("chat.update", status=503, times=2)
    await calls.update_message(channel=team.id, ts=ts, text="Done")
    assert team.messages[ts].seen == "Done"


async def test_a_post_is_not_repeated_because_it_may_be_there(
    slack: SlackServer, calls: SlackCalls, team: Channel
) -> None:
    slack.fail("chat.postMessage", status=500, after=True)
    with pytest.raises(SlackAway):
        await calls.post_message(channel=team.id, text="Hello")
    assert len(team.messages) == 1


async def test_a_call_that_hangs_ends_at_its_deadline(slack: SlackServer, team: Channel) -> None:
    client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    slack.fail("chat.postMessage", delay_s=30)
    begun = time.monotonic()
    with pytest.raises(SlackAway):
        await SlackCalls(client, timeout_s=0.2).post_message(channel=team.id, text="Hello")
    assert time.monotonic() - begun < 5


async def test_an_error_names_slacks_code_and_nobodys_words(
    slack: SlackServer, calls: SlackCalls, team: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SlackRefused) as refused:
        await calls.post_message(
            channel=team.id, text=SECRET, blocks=[{"type": "section", "text": SECRET}]
        )
    assert refused.value.code == "invalid_blocks"
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    slack.fail("chat.postMessage", error="ratelimited", retry_after_s=0.1)
    await calls.post_message(channel=team.id, text=SECRET)
    logged = "\n".join(r.getMessage() for r in caplog.records if r.levelname != "DEBUG")
    assert SECRET not in logged
    assert slack.bot_token not in logged


async def test_a_lane_that_nobody_refused_is_open() -> None:
    lane = Lane()
    async with asyncio.timeout(1):
        for _ in range(100):
            await lane.enter(Priority.NORMAL)


async def test_a_refused_lane_lets_one_through_at_a_time_until_none_waits() -> None:
    lane = Lane()
    lane.refused(0.1)
    begun = time.monotonic()
    await asyncio.gather(*(lane.enter(Priority.NORMAL) for _ in range(3)))
    assert time.monotonic() - begun >= 0.1 + 2 * lanes.PACE_S - 0.05
    assert lane.wait_s > 0


async def test_who_gives_up_waiting_does_not_hold_up_the_others() -> None:
    lane = Lane()
    lane.refused(0.2)
    first = asyncio.create_task(lane.enter(Priority.FINAL))
    second = asyncio.create_task(lane.enter(Priority.NORMAL))
    await asyncio.sleep(0)
    first.cancel()
    begun = time.monotonic()
    async with asyncio.timeout(5):
        await second
    assert time.monotonic() - begun < lanes.PACE_S + 0.2
    assert first.cancelled() or first.cancelling()
