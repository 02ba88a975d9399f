"""Servers that add and remove the app: what belongs to a removed one goes after a time of grace."""

from collections.abc import Awaitable, Callable

import discord

from bots.discord_bot.context import DIRECT, SURFACE, DiscordContext
from storage.outages import outlive_outages


async def added(context: DiscordContext, guild: discord.Guild) -> None:
    """Note that a server has the app (again): its data stays."""
    places = context.workplace.places
    await _surely(lambda: places.restore_workspace(SURFACE, str(guild.id)))


async def removed(context: DiscordContext, guild: discord.Guild) -> None:
    """Note that a server removed the app; `bots.removal` deletes its data later.

    A server that is away for a while is not removed: discord.py tells the two apart.
    """
    places = context.workplace.places
    await _surely(lambda: places.remove_workspace(SURFACE, str(guild.id)))


async def compare(context: DiscordContext) -> None:
    """Note what was added and removed while the app was away."""
    places = context.workplace.places

    async def note() -> None:
        known = set(await places.workspaces(SURFACE)) - {DIRECT}
        present = {str(guild.id) for guild in context.client.guilds}
        for gone in known - present:
            await places.remove_workspace(SURFACE, gone)
        for there in present - known:
            await places.restore_workspace(SURFACE, there)

    await _surely(note)


async def _surely(note: Callable[[], Awaitable[None]]) -> None:
    await outlive_outages(note, action="guild_database_lost")
