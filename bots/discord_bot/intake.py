"""Takes in what people say: a message becomes a stored question and a queued turn, or nothing.

The gateway delivers a message once, so it is held here until the database takes it. No call to
Discord or the engine comes before that, unless the gateway's event itself leaves something open.
"""

import asyncio
import logging
from typing import Any, Final

import aiohttp
import discord

from bots.channel_settings import ChannelSettings, load
from bots.comparisons import kind_for
from bots.discord_bot.audience import member_of, reads
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.files import NO_QUESTION, accept_attached
from bots.discord_bot.heard import Heard, heard_in
from bots.discord_bot.interactions import place_of, refused
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.rest import DiscordAway, DiscordRefused, DiscordTrouble, RateLimited
from bots.failures import log_failure
from bots.listening import EMPTY, addressed
from bots.messages import Question
from bots.replies import delayed
from storage.errors import DiskFull, StorageUnavailable
from storage.identity import Audience
from storage.shared_files import QUESTION_FILES

logger = logging.getLogger(__name__)

STORE_S = 10.0
"""For one attempt to take a message."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
MAX_WAITING = 1000
"""Messages that are held at once; later ones are read again when there is room."""
UNREAD = "I cannot read your message: Discord shows it to me only if you mention me in it."

_PASSING: Final = (StorageUnavailable, DiskFull, TimeoutError, DiscordAway, RateLimited)


class Intake:
    """Everything that is said where the app can hear it comes through here."""

    def __init__(self, context: DiscordContext) -> None:
        self._context = context
        self._waiting: set[int] = set()
        self._missed: int | None = None

    @property
    def oldest_open(self) -> int | None:
        """Id of the oldest message that came and is not settled; None where all are."""
        if self._missed is None:
            return min(self._waiting, default=None)
        return min(self._missed, *self._waiting)

    def missed(self) -> int | None:
        """Id of the oldest message for which there was no room, once there is; told once."""
        if self._missed is None or len(self._waiting) > MAX_WAITING // 2:
            return None
        missed, self._missed = self._missed, None
        return missed

    async def hear(self, message: discord.Message) -> None:
        """Take a message, as soon as that is possible; what came before is left alone."""
        if message.id in self._waiting:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._missed = min(self._missed or message.id, message.id)
            return
        self._waiting.add(message.id)
        try:
            remark = await self._take(message)
            if remark is not None and not self._context.recent.repeated(message.id):
                await self._say(message, remark)
        except Exception as error:  # nobody is there who could handle it
            expected = isinstance(error, DiscordTrouble)
            log_failure(
                logger, "taking a message", error, expected=expected, action="message_not_taken"
            )
        finally:
            self._waiting.discard(message.id)

    async def _take(self, message: discord.Message) -> str | None:
        """Store it if it is meant for us; what to say in place of an answer."""
        pause_s, told = FIRST_PAUSE_S, False
        while True:
            try:
                async with asyncio.timeout(STORE_S):
                    return await take(self._context, message)
            except _PASSING as error:
                logger.warning(
                    "a message waits: %s",
                    type(error).__name__,
                    extra={"action": "message_waits"},
                )
                calling = self._context.client.user in message.mentions or message.guild is None
                if calling and not told and pause_s > 2 * FIRST_PAUSE_S:
                    told = True
                    await self._say(message, MARKDOWN.plain(delayed(error).text))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _say(self, message: discord.Message, text: str) -> None:
        """Reply with a sentence, safe Markdown; a comfort that may fail."""
        try:
            await self._context.rest.send(
                str(message.channel.id),
                content=text,
                reference=str(message.id),
                nonce=f"r{message.id}",
            )
        except DiscordTrouble as error:
            logger.warning("a remark was lost: %s", error, extra={"action": "remark_lost"})


async def take(context: DiscordContext, message: discord.Message) -> str | None:
    """Store a message that is meant for us; what to say where it is not answered, as safe Markdown.

    Raises:
        StorageError, DiscordTrouble: nothing was stored.
    """
    channel = await _channel_of(context, message)
    heard = heard_in(message, channel, context.client) if channel is not None else None
    if heard is None or not (heard.calling or heard.text):
        return None
    roles = await _roles(context, heard)
    if roles is None:
        return None
    calling = heard.calling
    here = await heard.spot.audience(context.workplace, heard.user if calling else None)
    settings = await load(context.workplace.places, here.channel_id)
    thread, ours = await _thread_of(context, heard, here)
    meant = addressed(
        settings,
        calling=calling,
        bot=heard.bot,
        for_others=heard.for_others,
        threaded=heard.threaded,
        ours=ours,
    )
    if not meant:
        return None
    refusal = refused(settings, heard.spot, roles=roles, bot=heard.bot)
    if refusal is not None:
        # Who was not calling us need not hear that we would not have answered.
        return refusal.text if refusal.text and calling else None
    if not heard.text:
        return _silent(context, heard)
    audience = here if calling else await heard.spot.audience(context.workplace, heard.user)
    question = Question(
        text=heard.text,
        audience=audience,
        thread_ref=thread,
        message_ref=f"{context.client.application_id}:{channel.id}:{heard.id}",
        author_id=audience.member_id,
    )
    place = _place(context, heard, settings, thread=thread, ours=ours, roles=roles)
    kind = kind_for(settings.comparison_share, question.message_ref)
    if heard.files:
        await accept_attached(
            context, message, place, scope=files_of(thread), message_ref=question.message_ref
        )
    await context.turns.accept(question, place=place, kind=kind)
    return None


def _silent(context: DiscordContext, heard: Heard) -> str | None:
    """What to say to a call without words."""
    if heard.files:
        return MARKDOWN.plain(NO_QUESTION)
    withheld = not (heard.mentioned or heard.spot.direct or context.settings.message_content)
    return MARKDOWN.plain(UNREAD if withheld else EMPTY)


def _place(
    context: DiscordContext,
    heard: Heard,
    settings: ChannelSettings,
    *,
    thread: str,
    ours: bool,
    roles: list[str],
) -> dict[str, str]:
    opens = settings.answer_in == "thread" and not ours and may_open_thread(heard.channel)
    private = settings.ephemeral and not heard.spot.direct
    place = place_of(heard.spot, heard.user, roles)
    return place | {
        "also": f"{heard.spot.also} {files_of(thread)}".strip(),
        "reply_to": str(heard.channel.id),
        "message": heard.id,
        "thread": "open" if opens and not private else "",
        "via": "ephemeral" if private else "message",
        "files": "yes" if heard.files else "",
        "bot": "yes" if heard.bot else "",
        "application": str(context.client.application_id),
    }


def files_of(thread: str) -> str:
    """The scope of what was attached to the questions of a thread."""
    return f"{QUESTION_FILES}{thread}"


def may_open_thread(channel: Any) -> bool:
    """Whether the app can open threads on messages of a channel, as far as is known."""
    if not isinstance(channel, discord.TextChannel):
        return False
    guild: Any = channel.guild
    if guild.me is None:  # not told; Discord will say
        return True
    may = channel.permissions_for(guild.me)
    return may.create_public_threads and may.send_messages_in_threads


async def _thread_of(context: DiscordContext, heard: Heard, audience: Audience) -> tuple[str, bool]:
    """What the conversation is called that a message belongs to, and whether we speak in it."""
    workplace, here = context.workplace, str(heard.channel.id)
    if heard.spot.direct:
        return here, True
    if heard.threaded and await workplace.conversations.thread_is_ours(here, audience=audience):
        return here, True
    # A thread may hang on an answer of ours, and a reply may point to one.
    ref = f"{heard.channel.parent_id}:{here}" if heard.threaded else f"{here}:{heard.replies_to}"
    answered = await workplace.deliveries.find_by_ref(ref, audience=audience)
    if answered is not None:
        thread = await workplace.conversations.thread_of(answered, audience=audience)
        if thread is not None:
            return thread, True
    return (here if heard.threaded else heard.id), False


async def _roles(context: DiscordContext, heard: Heard) -> list[str] | None:
    """The author's roles; None where they may not read the channel (any more)."""
    guild = heard.message.guild
    if guild is None:
        return []
    roles = heard.roles
    if roles is None and heard.message.webhook_id is None:
        try:
            roles = await context.rest.roles(str(guild.id), heard.user)
        except DiscordRefused:
            return None
    if heard.message.webhook_id is not None:
        return []
    member = member_of(context.client, guild, heard.user, roles or [])
    return roles if reads(heard.channel, member) is not False else None


async def _channel_of(context: DiscordContext, message: discord.Message) -> Any:
    """The channel of a message; asked for where the gateway did not tell of it; None if hidden."""
    channel: Any = message.channel
    if type(channel) is not discord.PartialMessageable:
        return channel
    try:
        return await context.client.fetch_channel(channel.id)
    except discord.HTTPException as error:
        if error.status < 500:
            return None
        raise DiscordAway("tell of a channel", f"status {error.status}") from None
    except (discord.InvalidData, aiohttp.ClientError, OSError) as error:
        raise DiscordAway("tell of a channel", type(error).__name__) from None
