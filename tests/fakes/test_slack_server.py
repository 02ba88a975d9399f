"""The fake Slack's Web API, driven by the real SDK: it must refuse what Slack refuses."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def button(action_id: str, **more: object) -> Json:
    return {"type": "button", "action_id": action_id, "text": plain("Go"), **more}


def feedback(up: str, down: str) -> Json:
    buttons = {
        "type": "feedback_buttons",
        "action_id": "rate",
        "positive_button": {"text": plain("Good"), "value": up},
        "negative_button": {"text": plain("Bad"), "value": down},
    }
    return {"type": "context_actions", "elements": [buttons]}


async def refused(call: Awaitable[object]) -> str:
    """Error code with which Slack refuses a call."""
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
def team(slack: SlackServer, ana: Person) -> Channel:
    return slack.add_channel("team", ana)


@pytest.fixture
def asked(slack: SlackServer, ana: Person, team: Channel) -> Message:
    """A message of Ana's that the app is not told of."""
    return slack.say(ana, team, "a question", deliver=False)


# ---------------------------------------------------------------- tokens and scopes


async def test_a_token_speaks_for_its_workspace(slack: SlackServer, client: AsyncWebClient) -> None:
    said = await client.auth_test()
    assert (said["team_id"], said["user_id"]) == (slack.home.id, slack.home.bot_user_id)
    assert "chat:write" in said.headers["x-oauth-scopes"]
    stranger = AsyncWebClient("xoxb-wrong", base_url=slack.base_url)
    assert await refused(stranger.auth_test()) == "invalid_auth"
    await client.auth_revoke()
    assert await refused(client.auth_test()) == "token_revoked"


async def test_a_call_needs_the_scope_of_its_method(
    slack: SlackServer, client: AsyncWebClient, team: Channel
) -> None:
    slack.limit_scopes("channels:read")
    await client.conversations_info(channel=team.id)
    with pytest.raises(SlackApiError) as caught:
        await client.chat_postMessage(channel=team.id, text="hello")
    assert caught.value.response["error"] == "missing_scope"
    assert caught.value.response["needed"] == "chat:write"
    assert await refused(client.api_call("chat.unheard")) == "unknown_method"


# ---------------------------------------------------------------- messages


async def test_a_message_is_posted_changed_and_deleted(
    slack: SlackServer, client: AsyncWebClient, asked: Message
) -> None:
    channel = asked.channel.id
    metadata = {"event_type": "parley", "event_payload": {"id": "1"}}
    posted = await client.chat_postMessage(
        channel=channel, thread_ts=asked.ts, text="wait", metadata=metadata, unfurl_links=False
    )
    await client.chat_update(
        channel=channel,
        ts=posted["ts"],
        text="done",
        blocks=[{"type": "markdown", "text": "**done**"}, feedback("up:1", "down:1")],
    )
    [reply] = slack.replies(asked)
    assert reply.versions == ["wait", "**done**"]
    assert reply.posted == {"unfurl_links": False}
    shown = await client.conversations_replies(
        channel=channel, ts=asked.ts, include_all_metadata=True
    )
    assert [m["text"] for m in shown["messages"]] == ["a question", "done"]
    assert shown["messages"][1]["metadata"] == metadata
    without = await client.conversations_replies(channel=channel, ts=asked.ts)
    assert "metadata" not in without["messages"][1]
    await client.chat_delete(channel=channel, ts=posted["ts"])
    assert slack.replies(asked) == []


async def test_threads_are_read_page_by_page(
    slack: SlackServer, client: AsyncWebClient, ana: Person, asked: Message
) -> None:
    for number in range(5):
        slack.say(ana, asked.channel, f"reply {number}", thread=asked, deliver=False)
    texts = []
    async for page in await client.conversations_replies(
        channel=asked.channel.id, ts=asked.ts, limit=2
    ):
        texts += [message["text"] for message in page["messages"]]
    assert texts == ["a question", *(f"reply {number}" for number in range(5))]


async def test_places_where_the_app_may_not_write_are_refused(
    slack: SlackServer, client: AsyncWebClient, ana: Person, asked: Message
) -> None:
    outside = slack.add_channel("outside", ana, app_is_in=False)
    secret = slack.add_channel("secret", ana, private=True, app_is_in=False)
    other = slack.add_channel("theirs", workspace=slack.add_workspace("Other"))
    closed = slack.add_channel("old", ana)
    closed.archived = True
    found = {
        channel.name: await refused(client.chat_postMessage(channel=channel.id, text="x"))
        for channel in (outside, secret, other, closed)
    }
    assert found == {
        "outside": "not_in_channel",
        "secret": "channel_not_found",
        "theirs": "channel_not_found",
        "old": "is_archived",
    }
    channel = asked.channel.id
    assert (
        await refused(client.api_call("chat.postMessage", json={"channel": channel})) == "no_text"
    )
    nowhere = client.chat_postMessage(channel=channel, text="x", thread_ts="1.1")
    assert await refused(nowhere) == "thread_not_found"
    theirs = client.chat_update(channel=channel, ts=asked.ts, text="x")
    assert await refused(theirs) == "cant_update_message"
    assert await refused(client.chat_delete(channel=channel, ts="1.1")) == "message_not_found"
    someone = slack.add_person("Outsider")
    whisper = client.chat_postEphemeral(channel=channel, user=someone.id, text="x")
    assert await refused(whisper) == "user_not_in_channel"


async def test_a_direct_conversation_opens_by_the_persons_id(
    slack: SlackServer, client: AsyncWebClient, ana: Person
) -> None:
    posted = await client.chat_postMessage(channel=ana.id, text="hello")
    opened = await client.conversations_open(users=ana.id)
    assert posted["channel"] == opened["channel"]["id"] == slack.direct(ana).id


SECTION = {"type": "section", "text": mrkdwn("x")}
TOO_MUCH: dict[str, tuple[list[Json], str]] = {
    "51 blocks": ([SECTION] * 51, "invalid_blocks"),
    "long section": ([{"type": "section", "text": mrkdwn("x" * 3001)}], "invalid_blocks"),
    "empty section": ([{"type": "section", "text": mrkdwn("")}], "invalid_blocks"),
    "unknown block": ([{"type": "sektion"}], "invalid_blocks"),
    "long value": ([{"type": "actions", "elements": [button("a", value="x" * 2001)]}],) * 1
    + ("invalid_blocks",),
    "26 buttons": (
        [{"type": "actions", "elements": [button(f"a{i}") for i in range(26)]}],
        "invalid_blocks",
    ),
    "same action id": ([{"type": "actions", "elements": [button("a")] * 2}], "invalid_blocks"),
    "same block id": ([{**SECTION, "block_id": "b"}] * 2, "invalid_blocks"),
    "long label": (
        [{"type": "actions", "elements": [{**button("a"), "text": plain("x" * 76)}]}],
        "invalid_blocks",
    ),
    "11 context elements": ([{"type": "context", "elements": [mrkdwn("x")] * 11}],) * 1
    + ("invalid_blocks",),
    "button in context_actions": (
        [{"type": "context_actions", "elements": [button("a")]}],
        "invalid_blocks",
    ),
    "long header": ([{"type": "header", "text": plain("x" * 151)}], "invalid_blocks"),
    "mrkdwn header": ([{"type": "header", "text": mrkdwn("x")}], "invalid_blocks"),
    "no blocks at all": ({"type": "section"}, "invalid_blocks_format"),  # type: ignore[dict-item]
    "markdown in two blocks": (
        [{"type": "markdown", "text": "x" * 6001}] * 2,
        "msg_blocks_too_long",
    ),
}


@pytest.mark.parametrize("case", TOO_MUCH)
async def test_blocks_beyond_a_limit_are_refused(
    client: AsyncWebClient, team: Channel, case: str
) -> None:
    blocks, error = TOO_MUCH[case]
    assert await refused(client.chat_postMessage(channel=team.id, text="x", blocks=blocks)) == error


async def test_blocks_at_their_limits_are_taken(client: AsyncWebClient, team: Channel) -> None:
    blocks: list[Json] = [
        {"type": "markdown", "text": "x" * 12_000},
        {"type": "section", "text": mrkdwn("x" * 3000)},
        {"type": "context", "elements": [mrkdwn("x")] * 10},
        {"type": "actions", "elements": [button(f"a{i}", value="x" * 2000) for i in range(25)]},
        feedback("x" * 2000, "y"),
        *([SECTION] * 45),
    ]
    assert (await client.chat_postMessage(channel=team.id, text="x", blocks=blocks))["ok"]


async def test_texts_and_metadata_beyond_a_limit_are_refused_or_cut(
    client: AsyncWebClient, team: Channel
) -> None:
    posted = await client.chat_postMessage(channel=team.id, text="x" * 50_000)
    assert len(posted["message"]["text"]) == 40_000
    update = client.chat_update(channel=team.id, ts=posted["ts"], text="x" * 4001)
    assert await refused(update) == "msg_too_long"
    for metadata, error in (
        ({"event_type": "x"}, "invalid_metadata_schema"),
        ({"event_type": "x", "event_payload": {"a": "x" * 9000}}, "metadata_too_large"),
    ):
        post = client.chat_postMessage(channel=team.id, text="x", metadata=metadata)
        assert await refused(post) == error


async def test_pings_are_seen_where_slack_would_notify(
    slack: SlackServer, client: AsyncWebClient, asked: Message
) -> None:
    hostile = "<!channel> <!here|here> <!subteam^S1> <@U1> &lt;!channel&gt; @channel"
    await client.chat_postMessage(channel=asked.channel.id, thread_ts=asked.ts, text=hostile)
    [reply] = slack.replies(asked)
    assert reply.pings == ["<!channel>", "<!here|here>", "<!subteam^S1>", "<@U1>"]


# ---------------------------------------------------------------- streams


async def test_a_stream_grows_and_ends_with_blocks(
    slack: SlackServer, client: AsyncWebClient, ana: Person, asked: Message
) -> None:
    stream = await client.chat_stream(
        channel=asked.channel.id,
        thread_ts=asked.ts,
        recipient_team_id=slack.home.id,
        recipient_user_id=ana.id,
        buffer_size=1,
    )
    await stream.append(markdown_text="one ")
    await stream.append(markdown_text="two")
    [reply] = slack.replies(asked)
    ben = slack.add_person("Ben")
    assert reply.seen_by(ana) == "one two"
    assert reply.seen_by(ben) == "one "
    update = client.chat_update(channel=asked.channel.id, ts=reply.ts, text="no")
    assert await refused(update) == "streaming_state_conflict"
    await stream.stop(blocks=[feedback("up", "down")])
    assert reply.seen_by(ben) == "one two"
    assert "rate" in reply.elements
    append = client.chat_appendStream(channel=asked.channel.id, ts=reply.ts, markdown_text="x")
    assert await refused(append) == "message_not_in_streaming_state"


async def test_an_expired_stream_takes_nothing_but_can_be_updated(
    slack: SlackServer, client: AsyncWebClient, ana: Person
) -> None:
    direct = slack.direct(ana)
    asked = slack.say(ana, direct, "a question", deliver=False)
    stream = await client.chat_stream(channel=direct.id, thread_ts=asked.ts, buffer_size=1)
    await stream.append(markdown_text="half ")
    slack.expire_streams()
    assert await refused(stream.append(markdown_text="lost")) == "message_not_in_streaming_state"
    assert await refused(stream.stop()) == "message_not_in_streaming_state"
    assert stream.ts is not None
    await client.chat_update(channel=direct.id, ts=stream.ts, text="the whole")
    assert [reply.seen for reply in slack.replies(asked)] == ["the whole"]


async def test_a_stream_needs_a_thread_a_recipient_and_short_texts(
    slack: SlackServer, client: AsyncWebClient, ana: Person, asked: Message
) -> None:
    channel = asked.channel.id

    def start(**args: str) -> Awaitable[object]:
        return client.api_call("chat.startStream", json={"channel": channel, **args})

    assert await refused(start(recipient_user_id=ana.id)) == "invalid_arguments"
    assert await refused(start(thread_ts=asked.ts)) == "missing_recipient_team_id"
    named = {"thread_ts": asked.ts, "recipient_team_id": slack.home.id}
    assert await refused(start(**named)) == "missing_recipient_user_id"
    named["recipient_user_id"] = ana.id
    assert await refused(start(**named, markdown_text="x" * 12_001)) == "msg_too_long"
    await start(**named, markdown_text="x" * 12_000)
    [reply] = slack.replies(asked)
    grow = client.chat_appendStream(channel=channel, ts=reply.ts, markdown_text="x")
    assert await refused(grow) == "msg_too_long"
    ordinary = await client.chat_postMessage(channel=channel, text="x")
    append = client.chat_appendStream(channel=channel, ts=ordinary["ts"], markdown_text="x")
    assert await refused(append) == "message_not_in_streaming_state"


# ---------------------------------------------------------------- the agent container


async def test_a_status_lasts_until_the_reply(
    slack: SlackServer, client: AsyncWebClient, ana: Person
) -> None:
    direct = slack.direct(ana)
    asked = slack.say(ana, direct, "a question", deliver=False)
    place = {"channel_id": direct.id, "thread_ts": asked.ts}
    await client.assistant_threads_setStatus(**place, status="is thinking", loading_messages=["a"])
    assert slack.world.current_status(direct.id, asked.ts) == "is thinking"
    await client.assistant_threads_setTitle(**place, title="Holidays")
    prompts = [{"title": "t", "message": "m"}]
    await client.assistant_threads_setSuggestedPrompts(channel_id=direct.id, prompts=prompts)
    await client.chat_postMessage(channel=direct.id, thread_ts=asked.ts, text="here")
    assert slack.world.current_status(direct.id, asked.ts) == ""
    assert slack.world.titles == {(direct.id, asked.ts): "Holidays"}
    assert slack.world.prompts == {direct.id: prompts}
    loud = client.assistant_threads_setStatus(
        **place, status="x", loading_messages=[str(n) for n in range(11)]
    )
    assert await refused(loud) == "invalid_arguments"


# ---------------------------------------------------------------- people


async def test_guests_strangers_and_admins_can_be_told_apart(
    slack: SlackServer, client: AsyncWebClient
) -> None:
    people = [
        slack.add_person("Admin", admin=True),
        slack.add_person("Guest", guest=True),
        slack.add_person("Stranger", team_id="T0OTHER"),
        slack.add_person("Robot", bot=True),
    ]
    keys = ("is_admin", "is_restricted", "is_stranger", "is_bot")
    found = [(await client.users_info(user=person.id))["user"] for person in people]
    assert [[key for key in keys if user[key]] for user in found] == [[key] for key in keys]
    assert await refused(client.users_info(user="U1")) == "user_not_found"


# ---------------------------------------------------------------- views


def modal(**more: object) -> Json:
    element = {"type": "plain_text_input", "action_id": "text", "initial_value": "first"}
    block = {"type": "input", "block_id": "said", "label": plain("Say"), "element": element}
    return {
        "type": "modal",
        "callback_id": "form",
        "title": plain("Form"),
        "submit": plain("Send"),
        "blocks": [block],
        **more,
    }


async def test_a_trigger_opens_one_modal_within_three_seconds(
    slack: SlackServer,
    client: AsyncWebClient,
    ana: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trigger = slack.new_trigger(ana, slack.home)
    await client.views_open(trigger_id=trigger, view=modal())
    view = await slack.modal(ana, "form")
    again = client.views_open(trigger_id=trigger, view=modal())
    assert await refused(again) == "exchanged_trigger_id"
    assert await refused(client.views_open(trigger_id="x", view=modal())) == "invalid_trigger_id"
    late = slack.new_trigger(ana, slack.home)
    slack.world.triggers[late].expires_at = time.monotonic()
    assert await refused(client.views_open(trigger_id=late, view=modal())) == "expired_trigger_id"
    stale = client.views_update(view_id=view["id"], hash="old", view=modal())
    assert await refused(stale) == "hash_conflict"
    await client.views_update(view_id=view["id"], hash=view["hash"], view=modal(title=plain("2")))
    assert (await slack.modal(ana, "form"))["title"] == plain("2")


@pytest.mark.parametrize(
    "view",
    [
        modal(private_metadata="x" * 3001),
        modal(title=plain("x" * 25)),
        modal(title=mrkdwn("x")),
        modal(blocks=[{"type": "markdown", "text": "x"}]),
        modal(blocks=[SECTION] * 101),
        {key: value for key, value in modal().items() if key != "submit"},
        {"type": "dialog", "blocks": []},
    ],
)
async def test_views_beyond_a_limit_are_refused(
    slack: SlackServer, client: AsyncWebClient, ana: Person, view: Json
) -> None:
    trigger = slack.new_trigger(ana, slack.home)
    assert await refused(client.views_open(trigger_id=trigger, view=view)) == "invalid_arguments"


async def test_each_person_has_a_home(
    slack: SlackServer, client: AsyncWebClient, ana: Person
) -> None:
    await client.views_publish(user_id=ana.id, view={"type": "home", "blocks": [SECTION]})
    assert slack.world.homes[ana.id]["blocks"][0]["text"] == mrkdwn("x")
    assert await refused(client.views_publish(user_id=ana.id, view=modal())) == "invalid_arguments"


# ---------------------------------------------------------------- files


@pytest.fixture
async def http() -> Any:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_download_without_the_token_is_a_login_page(
    slack: SlackServer, client: AsyncWebClient, ana: Person, team: Channel, http: Any
) -> None:
    file, message = slack.share_file(ana, team, "a.txt", b"hello")
    assert message.body["files"][0]["id"] == file.id
    url = (await client.files_info(file=file.id))["file"]["url_private"]
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    async with http.get(url, headers=headers) as answer:
        assert await answer.read() == b"hello"
    slack.limit_scopes("chat:write")
    for sent in ({}, {"Authorization": "Bearer wrong"}, headers):
        async with http.get(url, headers=sent) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"


async def test_a_download_can_lead_elsewhere_or_never_end(
    slack: SlackServer, ana: Person, team: Channel, http: Any
) -> None:
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    moved, _ = slack.share_file(
        ana, team, "a", b"", served="redirect", redirect_to=f"{slack.stranger_root}/loot"
    )
    async with http.get(moved.url, headers=headers) as answer:
        assert await answer.text() == "from a stranger"
    assert [path for path, _ in slack.stranger.requests] == ["/loot"]
    endless, _ = slack.share_file(ana, team, "b", b"", served="endless")
    async with http.get(endless.url, headers=headers) as answer:
        assert len(await answer.content.readexactly(1 << 20)) == 1 << 20


async def test_a_file_is_uploaded_in_three_steps(
    slack: SlackServer, client: AsyncWebClient, asked: Message
) -> None:
    await client.files_upload_v2(
        channel=asked.channel.id, thread_ts=asked.ts, filename="a.png", content=b"pixels"
    )
    [reply] = slack.replies(asked)
    [file] = reply.body["files"]
    assert slack.world.files[file["id"]].content == b"pixels"


# ---------------------------------------------------------------- response_url


async def test_a_response_url_answers_five_times(
    slack: SlackServer, client: AsyncWebClient, ana: Person, asked: Message
) -> None:
    channel = asked.channel
    posted = await client.chat_postMessage(channel=channel.id, text="first")
    hook = AsyncWebhookClient(
        slack.response_url(channel, ana, channel.messages[posted["ts"]]), retry_handlers=[]
    )
    assert (await hook.send(text="only you")).status_code == 200
    assert [m.seen for m in slack.ephemerals(channel, ana)] == ["only you"]
    await hook.send(text="everybody", response_type="in_channel")
    await hook.send(text="second", replace_original=True)
    assert channel.messages[posted["ts"]].seen == "second"
    bad = await hook.send(text="x", blocks=[{"type": "sektion"}])
    assert json.loads(bad.body)["error"] == "invalid_blocks"
    await hook.send(delete_original=True)
    assert channel.messages[posted["ts"]].deleted
    assert (await hook.send(text="six")).status_code == 404


# ---------------------------------------------------------------- OAuth


# slack_sdk itself uses what aiohttp announces to remove.
@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")
async def test_a_workspace_installs_the_app_and_its_token_rotates(
    slack: SlackServer, ana: Person, http: Any
) -> None:
    other = slack.add_workspace("Other")
    slack.oauth.installing, slack.oauth.rotation_s = (other, ana.id), 43_200
    query = {"client_id": slack.client_id, "scope": "chat:write", "state": "s"}
    query["redirect_uri"] = "http://127.0.0.1:1/done"
    page = f"{slack.root}/oauth/v2/authorize"
    async with http.get(page, params=query, allow_redirects=False) as answer:
        back = answer.headers["Location"]
    code = back.partition("code=")[2].partition("&")[0]
    assert back.endswith("&state=s")
    anybody = AsyncWebClient(base_url=slack.base_url)
    app = {"client_id": slack.client_id, "client_secret": slack.client_secret}
    wrong = anybody.oauth_v2_access(client_id=slack.client_id, client_secret="x", code=code)
    assert await refused(wrong) == "bad_client_secret"
    given = await anybody.oauth_v2_access(**app, code=code)
    assert await refused(anybody.oauth_v2_access(**app, code=code)) == "invalid_code"
    first = AsyncWebClient(given["access_token"], base_url=slack.base_url)
    assert (await first.auth_test())["team_id"] == other.id
    slack.world.tokens[given["access_token"]].expires_at = time.monotonic()
    assert await refused(first.auth_test()) == "token_expired"
    renewed = await anybody.oauth_v2_access(
        **app, grant_type="refresh_token", refresh_token=given["refresh_token"]
    )
    second = AsyncWebClient(renewed["access_token"], base_url=slack.base_url)
    assert (await second.auth_test())["team_id"] == other.id
    slack.uninstall(other)
    assert await refused(second.auth_test()) == "token_revoked"


# ---------------------------------------------------------------- faults


async def test_faults_meet_the_calls_of_a_channel_or_token(
    slack: SlackServer, client: AsyncWebClient, team: Channel, ana: Person
) -> None:
    slack.fail("chat.postMessage", channel=team.id, error="ratelimited")
    calm = slack.add_channel("calm", ana)
    await client.chat_postMessage(channel=calm.id, text="x")
    post: Callable[[], Awaitable[object]] = lambda: client.chat_postMessage(  # noqa: E731
        channel=team.id, text="x"
    )
    assert await refused(post()) == "ratelimited"
    await post()
    fault = slack.fail(token=slack.bot_token, status=503, times=None)
    with pytest.raises(SlackApiError):
        await client.auth_test()
    fault.stop()
    await client.auth_test()


async def test_a_429_is_waited_for_by_the_sdk(slack: SlackServer, team: Channel) -> None:
    slack.fail("chat.postMessage", status=429, retry_after_s=1)
    patient = AsyncWebClient(
        slack.bot_token,
        base_url=slack.base_url,
        retry_handlers=[AsyncRateLimitErrorRetryHandler(max_retry_count=1)],
    )
    await patient.chat_postMessage(channel=team.id, text="x")
    first, second = slack.calls_of("chat.postMessage")
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 1


async def test_an_answer_can_be_lost_late_or_missing(
    slack: SlackServer, client: AsyncWebClient, team: Channel
) -> None:
    slack.fail("chat.postMessage", status=503, after=True)
    with pytest.raises(SlackApiError):
        await client.chat_postMessage(channel=team.id, text="took effect")
    assert [m.seen for m in team.messages.values()] == ["took effect"]
    slack.fail("chat.postMessage", delay_s=0.1)
    begun = time.monotonic()
    await client.chat_postMessage(channel=team.id, text="late")
    assert time.monotonic() - begun >= 0.1
    slack.fail("chat.postMessage", hang=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.chat_postMessage(channel=team.id, text="never"), 0.2)
