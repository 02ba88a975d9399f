"""`/home`: what one person has said, agreed to and can ask about, for their eyes alone."""

import re

import discord
from discord.app_commands import CommandTree, locale_str

from bots.discord_bot import custom_ids
from bots.discord_bot.clicks import on_click
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import Use, handle
from bots.discord_bot.markdown import MARKDOWN, units
from bots.discord_bot.messages import Button, Post
from bots.home import Home, consent_change, consent_text, listed, load_home, parts, person_of

PART_CHARACTERS = 540
"""Of each of the home's three lists; a message holds 2,000."""


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add the command and handle its button."""

    @tree.command(
        name=locale_str("home"),
        description=locale_str("Your votes, your consent to training, what is known here"),
    )
    async def home(interaction: discord.Interaction) -> None:
        await handle(context, interaction, _show)

    on_click(context, custom_ids.CONSENT_TEMPLATE, _change_consent)


async def _show(use: Use) -> None:
    post = home_post(await load_home(use.context.workplace, use.audience))
    await use.tell(post.content, view=post.view())


async def _change_consent(use: Use, match: re.Match[str]) -> None:
    members = use.context.workplace.members
    await members.set_consent(person_of(use.audience), match["to"] == "yes")
    await use.done()
    await _show(use)


def home_post(home: Home) -> Post:
    """The home as one message."""
    label, to = consent_change(home)
    lists = [
        f"{MARKDOWN.bold(part.title)}\n{listed(part, limit=PART_CHARACTERS, length=units)}"
        for part in parts(home, MARKDOWN)
    ]
    text = "\n".join([consent_text(home, MARKDOWN), *lists])
    return Post(content=text, buttons=(Button(label=label, custom_id=custom_ids.consent(to)),))
