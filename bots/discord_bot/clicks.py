"""One registration for every button: found by its id, alive after a restart, rights checked."""

import re
from collections.abc import Awaitable, Callable, Mapping
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


def refuse_forged(context: DiscordContext) -> None:
    """Refuse clicks on buttons that their message does not have; discord.py is silent about them.

    Call it once.
    """

    async def check(interaction: discord.Interaction) -> None:
        if interaction.type is discord.InteractionType.component and _forged(interaction):
            await handle(context, interaction, _refuse)

    also_hear(context, check)


def also_hear(
    context: DiscordContext, listener: Callable[[discord.Interaction], Awaitable[None]]
) -> None:
    """Let `listener` hear of every interaction, too: discord.py knows one listener of an event."""
    earlier = getattr(context.client, "on_interaction", None)

    async def on_interaction(interaction: discord.Interaction) -> None:
        if earlier is not None:
            await earlier(interaction)
        await listener(interaction)

    context.client.event(on_interaction)


async def _refuse(use: Use) -> None:
    raise ValueError("a click on a button that is not there")


def _forged(interaction: discord.Interaction) -> bool:
    data: Mapping[str, Any] = interaction.data or {}
    if interaction.message is None:
        return True
    newer = interaction.message.flags.components_v2
    view_of = discord.ui.LayoutView.from_message if newer else discord.ui.View.from_message
    view: discord.ui.View | discord.ui.LayoutView = view_of(interaction.message, timeout=None)
    return data.get("custom_id") not in [
        getattr(item, "custom_id", None) for item in view.walk_children()
    ]
