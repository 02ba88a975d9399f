"""The watchdog over Socket Mode: whatever happens to a socket, events go on arriving, over one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bots.settings import SlackSettings
from bots.slack_bot.socket import Watchdog, socket_url
from tests.bots.app_process import eventually
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Person

PING_S = 0.3
"""Between pings; a socket that answers none is dead after four."""


class Listener:
    """An app that only listens, and its watchdog."""

    def __init__(self, slack: SlackServer, **settings: Any) -> None:
        self.slack = slack
        self.heard: list[str] = []
        self.slow = asyncio.Event()
        self.slow.set()
        client = AsyncWebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
        app = AsyncApp(client=client)

        async def hear(event: dict[str, Any], next: Any) -> None:
            await self.slow.wait()
            self.heard.append(event["text"])
            await next()

        @app.event("message", middleware=[hear])
        async def nothing() -> None:
            pass

        self.client = client
        self.watchdog = Watchdog(
            app=app,
            app_token=slack.app_token,
            web_client=client,
            settings=SlackSettings(
                **{"ping_interval_s": PING_S, "hello_timeout_s": 3.0, **settings}
            ),
        )

    async def hears(self, person: Person, channel: Channel, text: str) -> None:
        """Say something and wait until it was heard and acknowledged."""
        self.slack.say(person, channel, text)
        await self.slack.until(lambda: text in self.heard, f"{text!r} heard")
        delivery = next(
            each
            for each in self.slack.sockets.deliveries
            if each.payload.get("event", {}).get("text") == text
        )
        await delivery.acknowledged()

    async def one_socket(self) -> None:
        """Wait until there is exactly one socket."""
        connections = self.slack.sockets.connections
        await self.slack.until(lambda: len(connections) == 1, "exactly one socket", within_s=10.0)


@asynccontextmanager
async def listening(
    slack: SlackServer, url: str | None = None, **settings: Any
) -> AsyncIterator[Listener]:
    listener = Listener(slack, **settings)
    task = asyncio.create_task(listener.watchdog.run(url))
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
def team(slack: SlackServer, ana: Person) -> Channel:
    return slack.add_channel("team", ana)


async def test_events_arrive_over_one_socket(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    async with listening(slack) as listener:
        await listener.hears(ana, team, "hello")
        assert len(slack.sockets.connections) == 1
    await slack.until(lambda: not slack.sockets.connections, "socket closed at the end")


async def test_a_cut_socket_is_replaced(slack: SlackServer, ana: Person, team: Channel) -> None:
    async with listening(slack) as listener:
        await listener.hears(ana, team, "before")
        await slack.sockets.connections[0].cut()
        await listener.hears(ana, team, "after")
        await listener.one_socket()


@pytest.mark.parametrize("reason", ["warning", "refresh_requested"])
async def test_a_warned_socket_goes_on_until_the_next_one_is_up(
    slack: SlackServer, ana: Person, team: Channel, reason: str
) -> None:
    async with listening(slack) as listener:
        await listener.hears(ana, team, "before")
        old = slack.sockets.connections[0]
        closed_with = []

        async def watch() -> None:
            await old.closed.wait()
            closed_with.append(slack.sockets.opened)

        watching = asyncio.create_task(watch())
        await old.warn(reason)
        await slack.until(lambda: slack.sockets.opened == 2, "a second socket")
        await asyncio.wait_for(watching, 10.0)
        assert closed_with == [2], "the old socket was closed before the new one was open"
        await listener.hears(ana, team, "after")
        await listener.one_socket()


async def test_a_replaced_socket_still_sends_the_acks_that_it_owes(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    async with listening(slack) as listener:
        await slack.sockets.connected()
        listener.slow.clear()
        slack.say(ana, team, "slow one")
        await slack.until(lambda: slack.sockets.connections[0].sent >= 2, "event sent")
        await slack.sockets.connections[0].warn("refresh_requested")

        async def replaced() -> bool:
            return listener.watchdog.opened == 2

        await eventually(replaced, "the second socket said hello")
        listener.slow.set()
        delivery = slack.sockets.deliveries[0]
        await delivery.acknowledged()
        assert len(delivery.attempts) == 1


async def test_a_socket_that_still_says_connected_but_answers_no_ping_is_replaced(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    async with listening(slack) as listener:
        await listener.hears(ana, team, "before")
        slack.sockets.connections[0].go_deaf()
        await slack.until(lambda: slack.sockets.opened == 2, "a second socket", within_s=15.0)
        await listener.hears(ana, team, "after")
        await listener.one_socket()


async def test_an_address_that_expired_is_not_tried_twice(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    url = await socket_url(AsyncWebClient(base_url=slack.base_url), slack.app_token)
    slack.sockets.expire_tickets()
    async with listening(slack, url) as listener:
        await listener.hears(ana, team, "hello")
        assert len(slack.calls_of("apps.connections.open")) == 2


async def test_a_refused_first_socket_is_tried_again(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    slack.sockets.refuse = 2
    async with listening(slack) as listener:
        await listener.hears(ana, team, "hello")
        assert slack.sockets.refuse == 0


async def test_slack_being_away_when_a_socket_is_needed_only_delays_it(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    slack.fail("apps.connections.open", status=503, times=1)
    slack.fail("apps.connections.open", error="internal_error", times=1)
    async with listening(slack) as listener:
        await listener.hears(ana, team, "hello")


async def test_a_socket_without_hello_is_given_up(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    slack.fail("apps.connections.open", hang=True, times=1)
    async with listening(slack, hello_timeout_s=0.5) as listener:
        await listener.hears(ana, team, "hello")


async def test_no_address_and_no_token_reaches_the_log(
    slack: SlackServer, ana: Person, team: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slack.sockets.refuse = 1
    async with listening(slack) as listener:
        await listener.hears(ana, team, "a secret sentence")
    assert "no socket" in caplog.text
    for secret in (slack.app_token, slack.bot_token, "/link", "a secret sentence"):
        assert secret not in caplog.text
