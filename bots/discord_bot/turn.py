"""What comes before an answer and needs Discord: may the asker still read here, and the thread.

All of it happens in the turn, after the question was stored, so a Discord that is slow delays
nothing but the answer; and it may happen again after a crash.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

import discord

from bots.discord_bot.audience import member_of, reads
from bots.discord_bot.context import DIRECT, DiscordContext
from bots.discord_bot.files import read_first
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.rest import DiscordAway, DiscordRefused, DiscordTrouble, RateLimited
from bots.listening import title_of
from bots.turns import Deliver, PendingTurn
from storage.jobs import RetryLater

logger = logging.getLogger(__name__)

FRESH_S = 5.0
"""For so long the roles that came with a question are those of its asker now."""
READY_S = 30.0
THREAD_NAME_CHARACTERS = 100
QUESTION_CHARACTERS = 900
"""Of a question that stands over its thread; escaped it may be twice as long."""
NO_MEMBER: Final = frozenset({10004, 10007, 10013})
UNKNOWN_YET = "interaction:"
"""How the thread of a command's question is called until it has one."""


def prepared(context: DiscordContext, deliver: Deliver) -> Deliver:
    """A deliverer that first sees to the rest, then calls `deliver`."""

    async def prepare_and_deliver(pending: PendingTurn) -> None:
        await context.deferrals.ended(pending.place.get("interaction", ""))
        try:
            may = await still_reads(context, pending.place)
            if may and pending.place.get("thread") == "open":
                pending.place = await _threaded(context, pending)
        except (DiscordAway, RateLimited) as error:
            raise RetryLater from error
        if may:
            if pending.place.get("files"):
                pending.preparation = read_first(context, pending)
            await deliver(pending)
        else:
            await _refuse(context, pending.place)

    return prepare_and_deliver


async def still_reads(context: DiscordContext, place: Mapping[str, str]) -> bool:
    """Whether the asker may read the place of a turn now; roles are asked for unless just seen.

    Raises:
        DiscordAway, RateLimited, RetryLater: it cannot be known now.
    """
    if place["workspace"] == DIRECT or place.get("bot"):
        return True
    guild = await _guild(context.client, int(place["workspace"]))
    if guild is None:
        return False
    fresh = time.time() - float(place.get("asked") or 0) < FRESH_S
    roles = place.get("roles", "").split()
    if not fresh:
        try:
            roles = await context.rest.roles(place["workspace"], place["member"])
        except DiscordRefused as error:
            if error.code in NO_MEMBER:
                return False
            logger.warning("roles are not told: %s", error, extra={"action": "roles_unknown"})
    member = member_of(context.client, guild, place["member"], roles)
    secret = place.get("also", "").split() if _is_private(place) else []
    channel = guild.get_channel_or_thread(int(secret[0] if secret else place["channel"]))
    if channel is None:
        return fresh  # hidden from us: what Discord said with the question counts, then nothing
    if not reads(channel, member):
        return False
    if not secret or fresh or channel.permissions_for(member).manage_threads:
        return True
    return await context.rest.in_thread(place["channel"], place["member"])


def _is_private(place: Mapping[str, str]) -> bool:
    """Whether the place is a private thread, which "also" names the channel of."""
    return place.get("also", "").split(" ")[0].isdecimal()


async def _guild(client: discord.Client, id_: int) -> discord.Guild | None:
    """The server, once the gateway has told which ones there are; None where the app is gone.

    Raises:
        RetryLater: it is not told yet, or Discord has lost sight of the server.
    """
    guild = client.get_guild(id_)
    if guild is not None and not guild.unavailable:
        return guild
    try:
        async with asyncio.timeout(READY_S):
            await client.wait_until_ready()
    except TimeoutError as error:
        raise RetryLater from error
    guild = client.get_guild(id_)
    if guild is not None and guild.unavailable:
        raise RetryLater
    return guild


async def _refuse(context: DiscordContext, place: Mapping[str, str]) -> None:
    """Take "thinking…" away; who may not read a place has no use for a sentence in it."""
    logger.info("an asker may not read here any more", extra={"action": "turn_refused"})
    if place.get("via") in ("interaction", "ephemeral") and place.get("token"):
        try:
            await context.rest.delete_response(place["application"], place["token"])
        except DiscordTrouble as error:
            logger.info("a response stays: %s", error, extra={"action": "response_stays"})


# -- Threads --------------------------------------------------------------------------------------


async def _threaded(context: DiscordContext, pending: PendingTurn) -> dict[str, str]:
    """The turn's place in a thread of its own; as it was where none can be opened."""
    place, conversations = dict(pending.place), context.workplace.conversations
    question = await conversations.question(pending.message_id, audience=pending.audience)
    name = title_of(question.text, characters=THREAD_NAME_CHARACTERS) or "…"
    try:
        if place["via"] == "message":
            thread = await context.rest.open_thread(place["reply_to"], place["message"], name)
            return place | {"reply_to": thread, "thread": ""}
        known = await conversations.thread_of(pending.message_id, audience=pending.audience)
        if known is None or known.startswith(UNKNOWN_YET):
            channel, message = await _shown_question(context, place, question.text)
            known = await context.rest.open_thread(channel, message, name)
            await conversations.name_thread(pending.message_id, known, audience=pending.audience)
        return place | {"reply_to": known, "thread": "", "via": "message", "message": ""}
    except DiscordRefused as error:
        logger.info("no thread: %s", error, extra={"action": "thread_not_opened"})
        return place


async def _shown_question(
    context: DiscordContext, place: Mapping[str, str], text: str
) -> tuple[str, str]:
    """Say what was asked by a command, where its thread is to hang; channel and message."""
    asked = title_of(text, characters=QUESTION_CHARACTERS)
    content = f"{MARKDOWN.person(place['member'])}: {MARKDOWN.plain(asked)}"
    try:
        return await context.rest.edit_response(
            place["application"], place["token"], content=content
        )
    except DiscordRefused:
        # Its 15 minutes are over, or the ack never came: the question stands by itself.
        nonce = f"q{place['interaction']}"
        channel = place["reply_to"]
        return channel, await context.rest.send(channel, content=content, nonce=nonce)
