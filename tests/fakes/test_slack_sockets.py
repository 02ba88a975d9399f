"""The fake Slack's Socket Mode and HTTP mode, driven by the real Bolt and SDK."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Person

Json = dict[str, Any]
PING_S = 0.05
"""Ping interval of the client: it calls a socket stale after four (and a whole second)."""


class Listener:
    """A Socket Mode client that keeps what it is sent and acknowledges it."""

    def __init__(self, slack: SlackServer, client: AsyncWebClient) -> None:
        self.slack = slack
        self.requests: list[SocketModeRequest] = []
        self.acks = True
        self.client = SocketModeClient(
            slack.app_token, web_client=client, ping_interval=PING_S, trace_enabled=True
        )
        self.client.socket_mode_request_listeners.append(self._take)

    async def _take(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        self.requests.append(request)
        if self.acks:
            await client.send_socket_mode_response(SocketModeResponse(request.envelope_id))
        self.slack.world.changes.note()

    @property
    def said(self) -> list[str]:
        """Texts of the messages it was told of."""
        return [request.payload["event"]["text"] for request in self.requests]


@pytest.fixture
async def listener(slack: SlackServer, client: AsyncWebClient) -> AsyncIterator[Listener]:
    listener = Listener(slack, client)
    await listener.client.connect()  # type: ignore[no-untyped-call]
    await slack.sockets.connected()
    yield listener
    await listener.client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
def team(slack: SlackServer, ana: Person) -> Channel:
    return slack.add_channel("team", ana)


async def test_a_mention_is_a_pair_of_events_with_one_message_identity(
    slack: SlackServer, ana: Person, team: Channel, listener: Listener
) -> None:
    asked = slack.say(ana, team, f"{slack.mention} hello")
    await slack.until(lambda: len(listener.requests) == 2, "both events")
    events = {request.payload["event"]["type"]: request.payload for request in listener.requests}
    assert sorted(events) == ["app_mention", "message"]
    assert len({payload["event_id"] for payload in events.values()}) == 2
    assert {payload["event"]["ts"] for payload in events.values()} == {asked.ts}
    assert {payload["event"]["channel"] for payload in events.values()} == {team.id}
    slack.say(ana, slack.direct(ana), f"{slack.mention} here too")
    await slack.until(lambda: len(listener.requests) == 3, "the direct message")
    assert listener.requests[-1].payload["event"]["channel_type"] == "im"


async def test_acks_are_kept_with_their_times(
    slack: SlackServer, ana: Person, team: Channel, listener: Listener
) -> None:
    slack.say(ana, team, "hello")
    [delivery] = slack.sockets.deliveries
    [attempt] = (await delivery.acknowledged()).attempts
    assert attempt.ack_s is not None
    assert 0 < attempt.ack_s < 3
    assert attempt.envelope_id == listener.requests[0].envelope_id


async def test_an_event_without_ack_comes_again_in_another_envelope(
    slack: SlackServer, ana: Person, team: Channel, listener: Listener
) -> None:
    slack.sockets.ack_within_s, slack.sockets.retry_after_s = 0.1, (0.0, 0.1)
    listener.acks = False
    slack.say(ana, team, "hello")
    await slack.until(lambda: len(listener.requests) == 3, "three attempts")
    assert [request.retry_attempt for request in listener.requests] == [0, 1, 2]
    assert listener.requests[1].retry_reason == "timeout"
    assert len({request.envelope_id for request in listener.requests}) == 3
    assert len({request.payload["event_id"] for request in listener.requests}) == 1
    [delivery] = slack.sockets.deliveries
    await delivery.finished.wait()
    assert not delivery.acked
    listener.acks = True
    await slack.redeliver(delivery).acknowledged()
    assert listener.requests[-1].retry_attempt == 1


async def test_a_click_without_ack_is_lost(
    slack: SlackServer, ana: Person, client: AsyncWebClient, team: Channel, listener: Listener
) -> None:
    slack.sockets.ack_within_s = 0.1
    listener.acks = slack.echoes = False
    delivery = slack.command(ana, team, "/parley", "status")
    await delivery.finished.wait()
    assert [attempt.acked_at for attempt in delivery.attempts] == [None]
    assert len(listener.requests) == 1


async def test_a_ticket_opens_one_socket_and_expires(
    slack: SlackServer, client: AsyncWebClient
) -> None:
    opener = AsyncWebClient(slack.app_token, base_url=slack.base_url)
    first = str((await opener.apps_connections_open(app_token=slack.app_token))["url"])
    second = str((await opener.apps_connections_open(app_token=slack.app_token))["url"])
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(first) as socket:
            hello = json.loads((await socket.receive()).data)
            assert (hello["type"], hello["num_connections"]) == ("hello", 1)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(first)
        slack.sockets.expire_tickets()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(second)


async def test_payloads_go_to_the_sockets_in_turn(
    slack: SlackServer, ana: Person, team: Channel, client: AsyncWebClient, listener: Listener
) -> None:
    other = Listener(slack, client)
    await other.client.connect()  # type: ignore[no-untyped-call]
    await slack.sockets.connected(2)
    for number in range(4):
        slack.say(ana, team, str(number))
    await slack.until(lambda: len(listener.said + other.said) == 4, "all events")
    assert len(listener.said) == len(other.said) == 2
    await other.client.close()  # type: ignore[no-untyped-call]


async def test_the_client_answers_pings_and_comes_back_after_a_cut_or_a_warning(
    slack: SlackServer, ana: Person, team: Channel, listener: Listener
) -> None:
    [first] = await slack.sockets.connected()
    await first.ping()
    await first.cut()
    [second] = await slack.sockets.connected()
    assert second is not first
    await second.warn("refresh_requested")
    third = await slack.until(
        lambda: [c for c in slack.sockets.connections if c.number > second.number], "a third"
    )
    slack.say(ana, team, "still there")
    await slack.until(lambda: listener.said == ["still there"], "the event")
    assert third


async def test_a_deaf_socket_stays_open_and_swallows_what_it_is_sent(
    slack: SlackServer, ana: Person, team: Channel, client: AsyncWebClient
) -> None:
    slack.sockets.ack_within_s, slack.sockets.retry_after_s = 0.1, ()
    opener = AsyncWebClient(slack.app_token, base_url=slack.base_url)
    url = str((await opener.apps_connections_open(app_token=slack.app_token))["url"])
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.receive()
        [connection] = await slack.sockets.connected()
        connection.go_deaf()
        await socket.ping(b"anybody?")
        slack.say(ana, team, "hello")
        await slack.sockets.deliveries[0].finished.wait()
        assert not slack.sockets.deliveries[0].acked
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.1)
        assert slack.sockets.connections == [connection]


async def test_the_app_hears_itself_and_only_what_it_subscribed_to(
    slack: SlackServer, ana: Person, team: Channel, client: AsyncWebClient, listener: Listener
) -> None:
    posted = await client.chat_postMessage(channel=team.id, text="mine")
    await client.chat_update(channel=team.id, ts=posted["ts"], text="changed")
    await slack.until(lambda: len(listener.requests) == 2, "both echoes")
    events = [request.payload["event"] for request in listener.requests]
    assert events[0]["bot_id"] == slack.home.bot_id
    assert events[1]["subtype"] == "message_changed"
    slack.subscriptions = frozenset({"app_mention", "message.im"})
    slack.say(ana, team, f"{slack.mention} hello")
    slack.say(ana, slack.direct(ana), "hello")
    await slack.until(lambda: len(listener.requests) == 4, "what was subscribed to")
    assert {r.payload["event"]["type"] for r in listener.requests[2:]} == {"app_mention", "message"}
    outside = slack.add_channel("outside", ana, app_is_in=False)
    count = len(slack.sockets.deliveries)
    slack.say(ana, outside, f"{slack.mention} hello")
    assert len(slack.sockets.deliveries) == count


# ---------------------------------------------------------------- Bolt


@pytest.fixture
async def app(slack: SlackServer, client: AsyncWebClient) -> AsyncIterator[AsyncApp]:
    """A Bolt app over Socket Mode; tests add their listeners."""
    app = AsyncApp(client=client)
    handler = AsyncSocketModeHandler(app, slack.app_token)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    await slack.sockets.connected()
    yield app
    await handler.close_async()  # type: ignore[no-untyped-call]


Ack = Callable[..., Awaitable[None]]


async def test_clicks_choices_and_forms_reach_bolt_as_from_slack(
    slack: SlackServer, ana: Person, team: Channel, client: AsyncWebClient, app: AsyncApp
) -> None:
    slack.echoes = False
    taken: list[Any] = []
    options = [{"text": {"type": "plain_text", "text": n}, "value": n} for n in ("a", "b")]

    @app.action("rate")
    async def rate(ack: Ack, action: Json, respond: Ack) -> None:
        await ack()
        taken.append(action["value"])
        await respond("thanks", replace_original=False)

    @app.action("choose")
    async def choose(ack: Ack, action: Json) -> None:
        await ack()
        taken.append(action["selected_option"]["value"])

    @app.shortcut("keep")
    async def keep(ack: Ack, body: Json, client: AsyncWebClient) -> None:
        await ack()
        block = {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why"},
            "element": {"type": "checkboxes", "action_id": "reasons", "options": options},
        }
        view = {
            "type": "modal",
            "callback_id": "form",
            "title": {"type": "plain_text", "text": "Form"},
            "submit": {"type": "plain_text", "text": "Send"},
            "blocks": [block],
        }
        await client.views_open(trigger_id=body["trigger_id"], view=view)

    @app.view("form")
    async def form(ack: Ack, view: Json) -> None:
        chosen = view["state"]["values"]["why"]["reasons"]["selected_options"]
        taken.append([option["value"] for option in chosen])
        await ack(response_action="errors", errors={"why": "think again"})

    elements: list[Json] = [
        {
            "type": "static_select",
            "action_id": "choose",
            "options": options,
        }
    ]
    buttons = {
        side: {"text": {"type": "plain_text", "text": side}, "value": f"{side}:1"}
        for side in ("positive_button", "negative_button")
    }
    rating = {"type": "feedback_buttons", "action_id": "rate", **buttons}
    blocks = [
        {"type": "actions", "elements": elements},
        {"type": "context_actions", "elements": [rating]},
    ]
    posted = await client.chat_postMessage(channel=team.id, text="x", blocks=blocks)
    message = team.messages[posted["ts"]]
    await slack.click(ana, message, "rate", side="negative").acknowledged()
    await slack.until(lambda: slack.ephemerals(team, ana), "the thanks")
    await slack.click(ana, message, "rate", side="positive", value="forged").acknowledged()
    await slack.click(ana, message, "choose", chosen="b").acknowledged()
    await slack.shortcut(ana, message, "keep").acknowledged()
    view = await slack.modal(ana, "form")
    sent = await slack.submit(ana, view, {"reasons": ["a", "b"]}).acknowledged()
    assert sent.response == {"response_action": "errors", "errors": {"why": "think again"}}
    assert taken == ["negative_button:1", "forged", "b", ["a", "b"]]


async def test_a_command_is_answered_in_its_ack_or_later(
    slack: SlackServer, ana: Person, team: Channel, app: AsyncApp
) -> None:
    @app.command("/parley")
    async def parley(ack: Ack, command: Json, respond: Ack) -> None:
        await ack(f"you said {command['text']}")
        await respond("and later")

    delivery = await slack.command(ana, team, "/parley", "status").acknowledged()
    assert delivery.response == {"text": "you said status"}
    said = {"you said status", "and later"}
    await slack.until(lambda: {m.seen for m in slack.ephemerals(team, ana)} == said, "both")


# ---------------------------------------------------------------- HTTP mode


async def test_http_mode_signs_and_tries_again(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    slack.sockets.retry_after_s = (0.0,)
    taken: list[tuple[bool, str | None, Json]] = []

    async def events(request: web.Request) -> web.Response:
        body = await request.read()
        good = SignatureVerifier(slack.signing_secret).is_valid_request(body, dict(request.headers))
        taken.append((good, request.headers.get("X-Slack-Retry-Num"), json.loads(body)))
        return web.Response(status=500 if len(taken) == 1 else 200)

    app = web.Application()
    app.router.add_post("/slack/events", events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    slack.sockets.request_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    slack.say(ana, team, "hello")
    [delivery] = slack.sockets.deliveries
    await delivery.acknowledged()
    assert [(good, retry) for good, retry, _ in taken] == [(True, None), (True, "1")]
    assert taken[0][2]["event"]["text"] == "hello"
    old = slack.sockets.sign(b"x", at=0)
    assert not SignatureVerifier(slack.signing_secret).is_valid_request(b"x", old)
    await runner.cleanup()


async def test_waiting_for_what_does_not_happen_fails_in_time(slack: SlackServer) -> None:
    asyncio.get_running_loop().call_later(0.01, slack.world.changes.note)
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: a miracle"):
        await slack.until(lambda: False, "a miracle", within_s=0.05)
