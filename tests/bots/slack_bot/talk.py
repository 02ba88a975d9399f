"""A turn in Slack whose events a test writes, delivered to the fake as often as it likes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bots.settings import SlackSettings
from bots.slack_bot.delivery import slack_delivery
from bots.slack_bot.web_api import SlackCalls
from storage.jobs import TurnKind
from storage.pool import Pool
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.bots.turn_script import Step, Talk
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

EVERY_S = 0.02


class SlackTalk(Talk):
    """One question in one place, delivered as often as a test likes."""

    def __init__(self, stage: Stage, person: Person, channel: Channel) -> None:
        self.stage, self.person, self.channel = stage, person, channel
        self.slack, self.stored_turns = stage.slack, stage.stored
        self.asked: Message
        self.delivery = slack_delivery(stage.context, status_refresh_s=EVERY_S)

    async def ask(self) -> None:
        """Say something in Slack, as the listener stores it."""
        self.audience = await self.stage.audience(self.person, self.channel)
        self.asked, self.message_id = await self.stage.ask(
            self.person, self.channel, "How many days?"
        )

    async def deliver(
        self, *steps: Step, attempt: int = 0, kind: TurnKind = "answer", **place: str
    ) -> None:
        """Deliver the turn once."""
        where = {
            "platform": "slack",
            "workspace": self.channel.team_id,
            "channel": "" if self.channel.kind == "im" else self.channel.id,
            "member": self.person.id,
            "team": self.person.team_id,
            "reply_to": self.channel.id,
            "thread": self.asked.ts,
            "ts": self.asked.ts,
            "via": "event",
            **place,
        }
        turn = self.turn(steps, place=where, attempt=attempt, kind=kind)
        async with asyncio.timeout(30):
            await self.delivery.deliver(turn)

    @property
    def replies(self) -> list[Message]:
        """What stands below the question."""
        return [message for message in self.slack.replies(self.asked) if not message.deleted]

    def shows(self, part: str) -> Callable[[], Any]:
        """A step that waits until a reply says `part`."""
        return lambda: self.slack.until(
            lambda: any(part in reply.seen for reply in self.replies), f"{part!r}", within_s=10
        )


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        settings = SlackSettings(base_url=slack.base_url, edit_interval_s=EVERY_S)
        calls = SlackCalls(stage.client, preview_pace_s=EVERY_S)
        stage.context = replace(stage.context, settings=settings, calls=lambda _: calls)
        yield stage


@pytest.fixture
async def team(stage: Stage) -> SlackTalk:
    ana = stage.slack.add_person("Ana")
    talk = SlackTalk(stage, ana, stage.slack.add_channel("team", ana))
    await talk.ask()
    return talk


@pytest.fixture
async def alone(stage: Stage) -> SlackTalk:
    ana = stage.slack.add_person("Ana")
    talk = SlackTalk(stage, ana, stage.slack.direct(ana))
    await talk.ask()
    return talk
