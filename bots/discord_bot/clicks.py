"""One registration for every button: found by its id, alive after a restart, rights checked."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Self

import discord

from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import Use, handle

Clicked = Callable[[Use, re.Match[str]], Awaitable[None]]
"""What a click does; the match holds what the button's id carries, which is not believed yet."""


def on_click(context: DiscordContext, template: str, work: Clicked) -> None:
    """Let `work` handle the clicks on buttons whose ids match `template` completely.

    Args:
        template: of `bots.discord_bot.custom_ids`.
    """

    class Pressed(
        discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=f"^{template}$"
    ):
        """A button that somebody pressed; discord.py makes one of the id alone."""

        def __init__(self, item: discord.ui.Button[Any], match: re.Match[str]) -> None:
            super().__init__(item)
            self.found = match

        @classmethod
        async def from_custom_id(
            cls,
            interaction: discord.Interaction[Any],
            item: discord.ui.Item[Any],
            match: re.Match[str],
            /,
        ) -> Self:
            """Keep what the id says."""
            if not isinstance(item, discord.ui.Button):
                raise TypeError("only buttons have these ids")
            return cls(item, match)

        async def callback(self, interaction: discord.Interaction[Any]) -> None:
            """Do it."""
            await handle(context, interaction, lambda use: work(use, self.found))

    context.client.add_dynamic_items(Pressed)
