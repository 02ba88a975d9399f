"""The Discord app against a Discord of our own: `python -m tests.benchmarks discord [--short]`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tests.benchmarks import Row
from tests.benchmarks.chat import (
    CHANNELS,
    IN_FLIGHT,
    STORM_DEADLINE_S,
    Chat,
    Ground,
    ground,
    measure,
)
from tests.bots.discord_bot.discord_process import DiscordProcess
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_server import DiscordServer, is_rated
from tests.fakes.discord_world import Channel, Message
from tests.fakes.scripted_model import ScriptedModel

COMMAND_EVERY = 4
"""In the storm every fourth question is a command, the others are mentions."""
PATIENCE_S = 15.0
"""Until a command that was not even deferred is used again."""
Asked = Message | Interaction


def run(*, short: bool) -> list[Row]:
    """Everything that `chat` measures, at Discord."""
    return asyncio.run(measure(_site, acked="slash to deferred", short=short))


@asynccontextmanager
async def _site(scripted: ScriptedModel | None) -> AsyncIterator["Site"]:
    """Discord with the app beside it."""
    async with (
        DiscordServer() as discord,
        ground("discord", discord.home.id, scripted=scripted) as below,
        DiscordProcess(
            discord,
            home=below.home,
            database_url=below.database_url,
            engine_url=below.engine_url,
            fresh=True,
        ) as app,
    ):
        yield Site(discord, app, below, mixes=scripted is not None)


class Site(Chat[Asked, Message]):
    """A Discord with channels, and the app.

    Attributes:
        mixes: Whether some questions are commands (not where the first words of mentions count).
    """

    surface = "discord"

    def __init__(
        self, discord: DiscordServer, app: DiscordProcess, below: Ground, *, mixes: bool
    ) -> None:
        self.mixes = mixes
        self.discord = discord
        self.app = app
        self.ground = below
        self.asker = discord.add_person("Ana")
        self._again: dict[str, Interaction] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.channels: list[Channel] = [
            discord.add_channel(f"team-{number}") for number in range(CHANNELS)
        ]

    def ask(self, number: int) -> Asked:
        channel, question = self.channels[number % CHANNELS], self.question(number)
        # While nobody listens Discord refuses a command at once, and its person asks again.
        heard = bool(self.discord.gateway.connections)
        if self.mixes and heard and number % COMMAND_EVERY == 0:
            return self._command(channel, question)
        return self.discord.say(self.asker, channel, f"{self.discord.mention} {question}")

    def _command(self, channel: Channel, question: str) -> Interaction:
        """A command; its person uses it again where Discord says that the app did not respond."""
        used = self.discord.slash(self.asker, channel, "ask", question=question)

        async def again_if_lost() -> None:
            await asyncio.sleep(PATIENCE_S)
            if used.acked_at is None and not self.replies(used):
                await self.connected()
                self._again[used.id] = self._command(channel, question)

        task = asyncio.create_task(again_if_lost())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return used

    def repeat(self, asked: Asked) -> None:
        self.discord.repeat(asked)

    def asked_at(self, asked: Asked) -> float:
        return asked.sent_at if isinstance(asked, Interaction) else asked.times[0]

    def replies(self, asked: Asked) -> Sequence[Message]:
        again = self._again.get(asked.id)
        return [*self.discord.replies(asked), *(self.replies(again) if again is not None else ())]

    def answers(self, asked: Asked) -> Sequence[Message]:
        return [reply for reply in self.replies(asked) if is_rated(reply)]

    async def acks_ms(self, numbers: Sequence[int]) -> list[float]:
        used = [
            self.discord.slash(
                self.asker, self.channels[n % CHANNELS], "ask", question=self.question(n)
            )
            for n in numbers
        ]
        found = []
        for interaction in used:
            await self.discord.acknowledged(interaction)
            assert interaction.deferred
            found.append(1000 * (interaction.ack_s or 0.0))
        return found

    async def vote(self, answer: Message, *, positive: bool) -> bool:
        clicked = self.discord.click(self.asker, answer, f"parley:{'up' if positive else 'down'}:")
        try:
            await self.discord.acknowledged(clicked)
        except AssertionError:  # "This interaction failed"
            return False
        return True

    async def connected(self) -> None:
        await self.discord.gateway.connected()

    async def cut(self, number: int) -> None:
        connection = await self.discord.gateway.connected()
        if number == 0:
            await connection.cut()
        elif number == 1:
            await connection.close(4000)
        else:
            connection.invalidate()

    async def room(self, asked: Sequence[Asked]) -> None:
        latest = asked[-2 * IN_FLIGHT :]

        def waiting() -> int:
            return sum(not self.answers(question) for question in latest)

        await self.until(lambda: waiting() < IN_FLIGHT, "room")

    async def until(self, check: Callable[[], object], what: str) -> None:
        await self.discord.until(check, what, within_s=STORM_DEADLINE_S)
