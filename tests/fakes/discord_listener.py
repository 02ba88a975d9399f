"""A client of the real discord.py, pointed at a fake Discord, that keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.fakes.discord_server import DiscordServer

PLAIN = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)


class Listener(discord.Client):
    """Keeps events; a test answers interactions itself, with what `last` is."""

    def __init__(self, server: DiscordServer, intents: discord.Intents = PLAIN) -> None:
        super().__init__(
            intents=intents,
            max_messages=None,
            allowed_mentions=discord.AllowedMentions.none(),
            guild_ready_timeout=0.0,
        )
        self.server = server
        self.heard: list[discord.Message] = []
        self.events: list[str] = []
        self.interactions: list[discord.Interaction] = []

    async def on_message(self, message: discord.Message) -> None:
        """Keep messages by others."""
        if message.author != self.user:
            self.heard.append(message)
            self.server.world.changes.note()

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Keep interactions."""
        self.interactions.append(interaction)
        self.server.world.changes.note()

    async def on_socket_event_type(self, event: str) -> None:
        """Keep the names of events."""
        self.events.append(event)
        self.server.world.changes.note()

    async def interaction(self, number: int = 1) -> discord.Interaction:
        """The interaction with this number."""
        await self.server.until(lambda: len(self.interactions) >= number, "an interaction")
        return self.interactions[number - 1]

    async def contents(self, number: int) -> list[str]:
        """The texts of the messages heard, when there are so many."""
        await self.server.until(lambda: len(self.heard) >= number, f"{number} messages")
        return [message.content for message in self.heard]

    def place(self, channel_id: str) -> discord.PartialMessageable:
        """A channel to write in."""
        return self.get_partial_messageable(int(channel_id))


def point_at(server: DiscordServer) -> None:
    """Let discord.py's classes speak to a fake; whoever calls it puts them back."""
    Route.BASE = server.api_url
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(server.gateway_url)


@asynccontextmanager
async def listening(
    server: DiscordServer, intents: discord.Intents = PLAIN
) -> AsyncIterator[Listener]:
    """A client that has logged in and is ready."""
    listener = Listener(server, intents)
    running = asyncio.create_task(listener.start(server.token))
    ready = asyncio.create_task(listener.wait_until_ready())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        if running.done():
            running.result()
        yield listener
    finally:
        ready.cancel()
        await listener.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
