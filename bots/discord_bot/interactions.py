"""One frame for every command, button, menu and modal: rights first, an ack in time, never silence.

Discord delivers an interaction once and forgets it after 3 s without an ack. So what must not be
lost is stored before the ack as long as that lasts, and whoever acts is told how it ended.
https://docs.discord.com/developers/interactions/receiving-and-responding
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import discord
from discord.app_commands import Choice

from bots.channel_settings import ChannelSettings
from bots.discord_bot.audience import NotReadable, Spot, reads, spot_of_interaction
from bots.discord_bot.context import SURFACE, DiscordContext
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.rest import NOBODY, DiscordTrouble
from bots.errors import BotsError
from bots.failures import log_failure
from bots.gate import Asker, Refusal, judged
from bots.replies import sentence_for
from engine.errors import EngineError
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

ACK_S = 2.0
"""Discord wants the ack within 3 s; what is not stored by now goes on after it."""
ACK_CALL_S = 5.0
WORK_S = 60.0
"""Of one interaction, calls to Discord included."""
TOKEN_S = 870.0
"""How long a token is used; Discord's live 15 minutes."""
MAX_CHOICES = 25
MAX_CHOICE_CHARACTERS = 100
TOO_SLOW = "That took too long; please try again."


class Voice:
    """What is said to whoever acts; acknowledges, once, however it is used."""

    def __init__(self, context: DiscordContext, interaction: discord.Interaction) -> None:
        self._rest = context.rest
        self._interaction = interaction
        self._lock = asyncio.Lock()
        self._thinking = False

    @property
    def clicked(self) -> bool:
        """Whether it came from a button, menu or modal, whose ids may be old or forged."""
        return self._interaction.type is not discord.InteractionType.application_command

    async def done(self) -> None:
        """Acknowledge; see `Use.done`."""
        async with self._lock:
            response = self._interaction.response
            if not response.is_done():
                click = self._interaction.type is discord.InteractionType.component
                acked = await _acked(response.defer(ephemeral=True, thinking=not click))
                # where another process was first, "thinking…" is not ours to take away
                self._thinking = acked and not click

    async def hand_over(self, *, private: bool) -> None:
        """Acknowledge for a turn; see `Use.hand_over`."""
        async with self._lock:
            self._thinking = False
            response = self._interaction.response
            if not response.is_done():
                await _acked(response.defer(ephemeral=private, thinking=True))

    async def tell(self, text: str, view: discord.ui.View | None) -> None:
        """Say something that only the person sees; see `Use.tell`."""
        if view is None and await self._respond(text):
            return
        await self.done()
        application, token = str(self._interaction.application_id), self._interaction.token
        if self._thinking:
            self._thinking = False
            await self._rest.edit_response(application, token, content=text, view=view)
        else:
            await self._rest.follow_up(application, token, content=text, view=view, ephemeral=True)

    async def open(self, modal: discord.ui.Modal) -> bool:
        """Show a modal, which only the first response to an interaction can do."""
        async with self._lock:
            response = self._interaction.response
            return not response.is_done() and await _acked(response.send_modal(modal))

    async def end(self) -> None:
        """Acknowledge at last, and take "thinking…" away where nothing was to be said."""
        await self.done()
        if self._thinking:
            self._thinking = False
            await self._rest.delete_response(
                str(self._interaction.application_id), self._interaction.token
            )

    async def _respond(self, text: str) -> bool:
        """Make the text the response itself, if it is not too late for that."""
        async with self._lock:
            response = self._interaction.response
            return not response.is_done() and await _acked(
                response.send_message(
                    text, ephemeral=True, suppress_embeds=True, allowed_mentions=NOBODY
                )
            )


@dataclass(frozen=True, kw_only=True)
class Use:
    """An interaction that is being handled; its person may read where it happens.

    Attributes:
        spot: where it happened, by Discord's ids.
    """

    context: DiscordContext
    interaction: discord.Interaction
    audience: Audience
    spot: Spot
    voice: Voice

    @property
    def administers(self) -> bool:
        """Whether the person administers the server, as this interaction itself tells."""
        if self.spot.direct:
            return False
        may = self.interaction.permissions
        roles = roles_of(self.interaction.user)
        named = any(role in self.context.settings.admin_roles for role in roles)
        return may.manage_guild or may.administrator or named

    @property
    def place(self) -> dict[str, str]:
        """The place of a turn that this interaction asks for; "via" and "reply_to" may be added."""
        interaction = self.interaction
        return place_of(self.spot, str(interaction.user.id), roles_of(interaction.user)) | {
            "reply_to": str(interaction.channel_id or ""),
            "application": str(interaction.application_id),
            "token": interaction.token,
            "expires": str(int(time.time() + TOKEN_S)),
        }

    async def done(self) -> None:
        """Acknowledge, when everything that must not be lost is stored; more than once is once.

        A click leaves its message as it is; a command or modal shows "thinking…" to its person
        until `tell`, or until the work ends.
        """
        await self.voice.done()

    async def hand_over(self, *, private: bool) -> None:
        """Acknowledge a command whose answer a turn puts in the place of "thinking…"."""
        await self.voice.hand_over(private=private)

    async def tell(self, text: str, *, view: discord.ui.View | None = None) -> None:
        """Say something that only the person sees.

        Args:
            text: safe Markdown of Discord's, at most 2,000 characters.
            view: buttons that are found by their custom id.

        Raises:
            DiscordTrouble: it could not be said.
        """
        await self.voice.tell(text, view)

    async def open(self, modal: discord.ui.Modal) -> None:
        """Show a modal; where it is too late for one, ask for another try."""
        if not await self.voice.open(modal):
            await self.tell(TOO_SLOW)


Work = Callable[[Use], Awaitable[None]]


async def handle(context: DiscordContext, interaction: discord.Interaction, work: Work) -> None:
    """Let `work` handle an interaction; errors that it raises become a sentence for the person.

    The person's rights are those that the interaction itself carries, checked against the channel's
    overwrites. An interaction that Discord delivers again is dropped.
    """
    if context.recent.repeated(interaction.id):
        return
    voice = Voice(context, interaction)
    late = asyncio.create_task(_ack_late(voice, interaction))
    try:
        async with asyncio.timeout(WORK_S):
            async with asyncio.timeout(ACK_S):
                use = await _use_of(context, interaction, voice)
            await work(use)
            await voice.end()
    except Exception as error:
        await _tell_failure(voice, error)
    finally:
        late.cancel()


async def suggest(
    context: DiscordContext,
    interaction: discord.Interaction,
    find: Callable[[Audience], Awaitable[Sequence[tuple[str, str]]]],
) -> list[Choice[str]]:
    """Choices for somebody who is typing: what `find` gives for their audience, or nothing.

    Args:
        find: pairs of name and value, the best first; those beyond Discord's 25 are dropped.
    """
    try:
        async with asyncio.timeout(ACK_S):
            spot = _spot_read_by(interaction)
            audience = await spot.audience(context.workplace, str(interaction.user.id))
            found = await find(audience)
    except (BotsError, EngineError, StorageError, TimeoutError) as error:
        logger.info("no suggestions: %s", type(error).__name__, extra={"action": "no_suggestions"})
        return []
    return [
        Choice(name=name[:MAX_CHOICE_CHARACTERS], value=value)
        for name, value in found[:MAX_CHOICES]
        if name and len(value) <= MAX_CHOICE_CHARACTERS
    ]


def place_of(spot: Spot, member: str, roles: Sequence[str]) -> dict[str, str]:
    """The part of a turn's place that says who asked where; ids only."""
    return {
        "platform": SURFACE,
        "workspace": spot.workspace,
        "channel": spot.channel,
        "also": spot.also,
        "member": member,
        "roles": " ".join(roles),
        "asked": str(int(time.time())),
        "foreign": "yes" if spot.foreign else "",
    }


def refused(
    settings: ChannelSettings, spot: Spot, *, roles: Sequence[str], bot: bool
) -> Refusal | None:
    """Why somebody may not ask here, as safe Markdown; None where they may.

    Everybody who can read a channel belongs to its server: Discord knows no guests.
    """
    asker = Asker(bot=bot, outside=False, direct=spot.direct, roles=roles)
    return judged(asker, settings, None, MARKDOWN)


def roles_of(user: discord.User | discord.Member) -> list[str]:
    """Ids of the roles that an event says somebody has; none outside of servers."""
    return [str(role) for role in user._roles] if isinstance(user, discord.Member) else []


async def _use_of(context: DiscordContext, interaction: discord.Interaction, voice: Voice) -> Use:
    spot = _spot_read_by(interaction)
    audience = await spot.audience(context.workplace, str(interaction.user.id))
    return Use(context=context, interaction=interaction, audience=audience, spot=spot, voice=voice)


def _spot_read_by(interaction: discord.Interaction) -> Spot:
    """Where it happened.

    Raises:
        NotReadable: the person cannot see that channel.
    """
    spot = spot_of_interaction(interaction)
    if not spot.direct:
        user = interaction.user
        may = reads(interaction.channel, user) if isinstance(user, discord.Member) else False
        if may is None:  # a channel that the app itself cannot see: Discord's own word counts
            may = interaction.permissions.view_channel
        if not may:
            raise NotReadable
    return spot


async def _ack_late(voice: Voice, interaction: discord.Interaction) -> None:
    await asyncio.sleep(ACK_S)
    await voice.done()


async def _acked(response: Awaitable[object]) -> bool:
    """Whether the first response reached Discord; it may be too late for one."""
    try:
        async with asyncio.timeout(ACK_CALL_S):
            await response
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        logger.warning("an ack was lost: %s", type(error).__name__, extra={"action": "ack_lost"})
        return False
    return True


async def _tell_failure(voice: Voice, error: Exception) -> None:
    expected = isinstance(error, BotsError | DiscordTrouble | StorageError | EngineError)
    expected = expected or isinstance(error, TimeoutError | ValueError)
    log_failure(logger, "an interaction", error, expected=expected, action="interaction_failed")
    try:
        text = "Discord did not let me do that here."
        if not isinstance(error, DiscordTrouble):
            text = sentence_for(error, clicked=voice.clicked)
        await voice.tell(MARKDOWN.plain(text), None)
    except DiscordTrouble as trouble:
        logger.warning("a reply was lost: %s", trouble, extra={"action": "reply_lost"})
