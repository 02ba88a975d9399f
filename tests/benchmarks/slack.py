"""The Slack app against a Slack of our own: `python -m tests.benchmarks slack [--short]`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tests.benchmarks import Row
from tests.benchmarks.chat import (
    ACK_DEADLINE_S,
    CHANNELS,
    IN_FLIGHT,
    STORM_DEADLINE_S,
    Chat,
    Ground,
    ground,
    measure,
)
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message


def run(*, short: bool) -> list[Row]:
    """Everything that `chat` measures, at Slack."""
    return asyncio.run(measure(_site, acked="event to ack", short=short))


@asynccontextmanager
async def _site(scripted: ScriptedModel | None) -> AsyncIterator["Site"]:
    """Slack with the app beside it."""
    async with (
        SlackServer() as slack,
        ground("slack", slack.home.id, scripted=scripted) as below,
        SlackProcess(
            slack,
            home=below.home,
            database_url=below.database_url,
            engine_url=below.engine_url,
            fresh=True,
        ) as app,
    ):
        yield Site(slack, app, below)


class Site(Chat[Message, Message]):
    """A Slack with channels, and the app."""

    surface = "slack"

    def __init__(self, slack: SlackServer, app: SlackProcess, below: Ground) -> None:
        self.slack = slack
        self.app = app
        self.ground = below
        self.asker = slack.add_person("Ana")
        self.channels: list[Channel] = [
            slack.add_channel(f"team-{number}", self.asker) for number in range(CHANNELS)
        ]

    def ask(self, number: int) -> Message:
        text = f"{self.slack.mention} {self.question(number)}"
        return self.slack.say(self.asker, self.channels[number % CHANNELS], text)

    def repeat(self, asked: Message) -> None:
        deliveries = reversed(self.slack.sockets.deliveries)
        self.slack.redeliver(next(d for d in deliveries if asked.ts in str(d.payload)))

    def asked_at(self, asked: Message) -> float:
        return asked.times[0]

    def replies(self, asked: Message) -> Sequence[Message]:
        return self.slack.replies(asked)

    def answers(self, asked: Message) -> Sequence[Message]:
        return [reply for reply in self.slack.replies(asked) if "parley_feedback" in reply.elements]

    async def acks_ms(self, numbers: Sequence[int]) -> list[float]:
        before = len(self.slack.sockets.deliveries)
        for number in numbers:
            text = f"{self.slack.mention} {self.question(number)}"
            channel = self.channels[number % CHANNELS]
            self.slack.say(self.asker, channel, text, only="app_mention")
        sent = self.slack.sockets.deliveries[before : before + len(numbers)]
        for delivery in sent:
            await delivery.acknowledged(ACK_DEADLINE_S)
        return [1000 * a.ack_s for d in sent for a in d.attempts if a.ack_s is not None]

    async def vote(self, answer: Message, *, positive: bool) -> bool:
        side = "positive" if positive else "negative"
        click = self.slack.click(self.asker, answer, "parley_feedback", side=side)  # type: ignore[arg-type]
        await click.finished.wait()
        return click.acked

    async def connected(self) -> None:
        await self.slack.sockets.connected()

    async def cut(self, number: int) -> None:
        await (await self.slack.sockets.connected())[0].cut()

    async def room(self, asked: Sequence[Message]) -> None:
        sockets = self.slack.sockets
        await self.until(lambda: len(sockets.pending) < IN_FLIGHT, "room")

    async def until(self, check: Callable[[], object], what: str) -> None:
        await self.slack.until(check, what, within_s=STORM_DEADLINE_S)
