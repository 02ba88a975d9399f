"""What Discord is told of runs."""

import io

import discord

from bots.discord_bot.context import DiscordContext
from bots.discord_bot.markdown import MARKDOWN
from bots.notices import worded
from storage.notices import Notice

PICTURE_NAME = "parley.png"
NONCE_CHARACTERS = 25
"""Discord's limit."""


async def post(context: DiscordContext, notice: Notice) -> None:
    """Post a notice into its thread, or its channel: one message, with its picture.

    Raises:
        DiscordTrouble: it could not be posted.
    """
    file = None
    if notice.picture is not None:
        file = discord.File(io.BytesIO(notice.picture), PICTURE_NAME)
    await context.rest.send(
        notice.place.get("thread") or notice.place["channel"],
        content=worded(notice, MARKDOWN),
        nonce=notice.id.hex[:NONCE_CHARACTERS],  # a repeated post is the first one
        file=file,
    )
