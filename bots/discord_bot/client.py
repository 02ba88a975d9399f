"""The client and its commands: one module of features after the other, and what they share."""

import logging
from typing import Any

import discord
from discord import VoiceClient, app_commands

from bots.discord_bot import actions, administer, ask, documents, files, home, rate, settings_panel
from bots.discord_bot.clicks import refuse_forged
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import handle
from bots.discord_bot.localisation import Languages
from bots.errors import BotsError
from bots.failures import log_failure
from bots.settings import DiscordSettings

logger = logging.getLogger(__name__)

MODULES = (actions, administer, ask, documents, files, home, rate, settings_panel)
"""Every `register(tree, context)`."""

LONGEST_LIMIT_S = 30.0
"""A pause that Discord demands for longer is not waited for; discord.py takes no less than this."""
GUILDS_S = 1.0
"""The servers are known when Discord has named no further one for so long."""


class UnknownCommand(BotsError):
    """Discord knows a command that this version does not have, or has otherwise."""

    def __init__(self) -> None:
        super().__init__(
            "This command belongs to another version of me; please tell whoever runs Parley to "
            "use `parley discord sync`."
        )


class Client(discord.Client):
    """A client that is quiet once it is closed.

    discord.py's own tasks outlive it for a moment, such as the one that waits for the servers, and
    would start listeners on a loop that is not there any more.
    """

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell the listeners."""
        if not self.is_closed():
            super().dispatch(event, *args, **kwargs)


class Commands(app_commands.CommandTree[discord.Client]):
    """The app's commands; whatever goes wrong outside of their frame is said, too."""

    def __init__(self, client: discord.Client) -> None:
        super().__init__(
            client,
            allowed_contexts=app_commands.AppCommandContext(
                guild=True, dm_channel=True, private_channel=True
            ),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        )
        self.context: DiscordContext | None = None

    async def on_error(
        self, interaction: discord.Interaction, error: app_commands.AppCommandError, /
    ) -> None:
        """Tell the person; the frame of `handle` leaves only mismatches to us, and our mistakes."""
        mismatch = isinstance(
            error, app_commands.CommandNotFound | app_commands.CommandSignatureMismatch
        )
        log_failure(logger, "a command", error, expected=mismatch, action="command_failed")

        async def explain(_: Any) -> None:
            raise UnknownCommand if mismatch else error

        if self.context is not None and interaction.type is not _TYPING:
            await handle(self.context, interaction, explain)


_TYPING = discord.InteractionType.autocomplete


def build_client(settings: DiscordSettings) -> discord.Client:
    """A client that hears what it needs, keeps no messages and members, and cannot ping anybody."""
    VoiceClient.warn_nacl = VoiceClient.warn_dave = False  # nobody speaks here
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    intents.message_content = settings.message_content
    return Client(
        intents=intents,
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        member_cache_flags=discord.MemberCacheFlags.none(),
        chunk_guilds_at_startup=False,
        max_ratelimit_timeout=LONGEST_LIMIT_S,
        guild_ready_timeout=GUILDS_S,
    )


async def build_commands(client: discord.Client, context: DiscordContext) -> Commands:
    """The commands, with every feature registered, in all languages."""
    tree = Commands(client)
    tree.context = context
    for module in MODULES:
        module.register(tree, context)
    refuse_forged(context)
    await tree.set_translator(Languages())
    return tree
