"""What Discord is told of runs."""

import io
import logging

import discord

from bots.discord_bot.context import DiscordContext
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.rest import DiscordRefused
from bots.notices import worded
from storage.notices import Notice

logger = logging.getLogger(__name__)

PICTURE_NAME = "parley.png"
NONCE_CHARACTERS = 25
"""Discord's limit; a post that is repeated with its nonce is the first one."""


async def post(context: DiscordContext, notice: Notice) -> None:
    """Post a notice into its thread, or its channel: one message, with its picture.

    Raises:
        DiscordTrouble: it could not be posted.
    """
    where = notice.place.get("thread") or notice.place["channel"]
    content, nonce = worded(notice, MARKDOWN), notice.id.hex[:NONCE_CHARACTERS]
    if notice.picture is None:
        await context.rest.send(where, content=content, nonce=nonce)
        return
    try:
        file = discord.File(io.BytesIO(notice.picture), PICTURE_NAME)
        await context.rest.send(where, content=content, nonce=nonce, file=file)
    except DiscordRefused as error:  # such as a channel where nobody may attach files
        logger.info("no picture: %s", error, extra={"action": "picture_refused"})
        await context.rest.send(where, content=content, nonce=nonce)
