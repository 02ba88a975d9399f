"""Modals that are found by their id when they come back, so a restart loses nothing typed.

discord.py keeps every open modal in memory, one for each id, and forgets them when it ends; these
here it does not know.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import discord

from bots.discord_bot.clicks import also_hear
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import Use, handle

MAX_INPUT_CHARACTERS = 4_000
"""Of a text input. https://docs.discord.com/developers/components/reference#text-input"""

Values = Mapping[str, tuple[str, ...]]
"""What was chosen or typed, by the input's id; nothing where it was left empty."""
Submitted = Callable[[Use, re.Match[str], Values], Awaitable[None]]
"""What a submission does; the match holds what the modal's id carries, not believed yet."""


def modal(title: str, custom_id: str, *inputs: discord.ui.Label[Any]) -> discord.ui.Modal:
    """A modal that only its id knows.

    Args:
        title: at most 45 characters.
    """
    made = discord.ui.Modal(title=title, timeout=None, custom_id=custom_id)
    for each in inputs:
        made.add_item(each)
    made.stop()  # so that discord.py does not keep it
    return made


def on_submit(context: DiscordContext, template: str, work: Submitted) -> None:
    """Let `work` handle the submissions of modals whose ids match `template` completely."""
    pattern = re.compile(template)

    async def submitted(interaction: discord.Interaction) -> None:
        if interaction.type is not discord.InteractionType.modal_submit:
            return
        data: Mapping[str, Any] = interaction.data or {}
        if match := pattern.fullmatch(str(data.get("custom_id"))):
            values = dict(_values(data.get("components") or ()))
            await handle(context, interaction, lambda use: work(use, match, values))

    also_hear(context, submitted)


def text_of(values: Values, name: str) -> str | None:
    """What was typed, without space around it; None for nothing."""
    return " ".join(values.get(name, ())).strip() or None


def _values(components: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for component in components:
        inner = component.get("component")
        yield from _values([inner] if inner else component.get("components") or ())
        if "custom_id" in component:
            chosen = component.get("values") or [component.get("value") or ""]
            yield str(component["custom_id"]), tuple(str(each) for each in chosen if each)
