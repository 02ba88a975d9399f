"""The client that listens to Discord."""

from bots.discord_bot.client import build_client
from bots.settings import DiscordSettings


async def test_what_happens_after_the_end_reaches_nobody() -> None:
    heard: list[str] = []

    async def on_ready() -> None:
        heard.append("ready")

    async with build_client(DiscordSettings()) as client:
        client.event(on_ready)
    client.dispatch("ready")  # as discord.py does, a moment after the last server was named
    assert heard == []
