"""The Discord process: checks its token, opens everything, answers until SIGTERM or SIGINT."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import discord
from discord.http import Route

from bots.discord_bot import guilds, notices
from bots.discord_bot.catch_up import CatchUp
from bots.discord_bot.client import Commands, build_client, build_commands
from bots.discord_bot.context import SURFACE, DiscordContext
from bots.discord_bot.delivery import discord_delivery
from bots.discord_bot.fetching import serve_files
from bots.discord_bot.gateway import LOGIN_REFUSED, stay_connected
from bots.discord_bot.intake import Intake
from bots.discord_bot.redaction import TOKENS
from bots.discord_bot.rest import DiscordCalls
from bots.discord_bot.sync import differing, sync
from bots.discord_bot.turn import prepared
from bots.errors import ServiceMissing
from bots.notices import tell_for_ever
from bots.redaction import redact_logs
from bots.removal import purge_for_ever
from bots.settings import DiscordSettings, Settings
from bots.turns import Turns
from bots.workplace import Workplace, open_workplace
from engine.errors import SettingsInvalid
from storage.jobs import until_stopped
from storage.notices import Notices
from storage.queue import end

logger = logging.getLogger(__name__)

START_ATTEMPTS = 4
START_PAUSE_S = 1.0
"""Before the second attempt to reach Discord; it doubles."""
LOGIN_S = 15.0
"""Of one attempt."""
CLOSE_S = 5.0
STOP_AGAIN_S = 4.0
"""Longer than a worker needs for a clean stop."""

_AWAY = (discord.DiscordServerError, aiohttp.ClientError, OSError, discord.RateLimited)
"""`OSError` includes a deadline that passed."""


async def run(settings: Settings) -> None:
    """Serve Discord until SIGTERM or SIGINT.

    Raises:
        SettingsInvalid: the token is missing, or Discord refuses it or an intent.
        ServiceMissing: Discord does not answer.
        StorageError: the database does not answer or is not of this version.
    """
    async with _opened(settings) as (context, tree):
        await until_stopped(_serve(context, tree))


async def sync_commands(settings: Settings) -> list[str]:
    """Make Discord's commands those of this version; the names of those that changed.

    Raises:
        SettingsInvalid, ServiceMissing, StorageError: as `run`.
    """
    async with _opened(settings) as (context, tree):
        try:
            async with asyncio.timeout(settings.discord.request_timeout_s):
                return await sync(context.client, tree)
        except _AWAY as error:
            raise ServiceMissing(_away(type(error).__name__)) from None


@asynccontextmanager
async def logged_in(settings: DiscordSettings) -> AsyncIterator[discord.Client]:
    """A client whose token Discord accepts; it is not connected to the gateway.

    Raises:
        SettingsInvalid: the token is missing, or Discord refuses it.
        ServiceMissing: Discord does not answer.
    """
    token = settings.token.get_secret_value().strip() if settings.token is not None else ""
    if not token:
        raise SettingsInvalid(
            "Discord needs PARLEY_DISCORD__TOKEN: the bot's token, from "
            "discord.com/developers/applications."
        )
    # discord.py knows of one Discord only, in all of its modules.
    Route.BASE = settings.api_root
    async with build_client(settings) as client:
        await _log_in(client, token, settings)
        try:
            yield client
        finally:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await client.close()
            except TimeoutError:  # the gateway does not say goodbye
                await client.http.close()


async def _log_in(client: discord.Client, token: str, settings: DiscordSettings) -> None:
    pause_s, trouble = START_PAUSE_S, ""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            async with asyncio.timeout(LOGIN_S):
                await client.login(token)
            return
        except discord.LoginFailure:
            raise SettingsInvalid(LOGIN_REFUSED) from None
        except _AWAY as error:
            trouble = type(error).__name__
        except discord.HTTPException as error:
            raise ServiceMissing(_away(f"status {error.status}")) from None
        if attempt < START_ATTEMPTS:
            await asyncio.sleep(pause_s)
            pause_s *= 2
    raise ServiceMissing(_away(trouble))


def _away(trouble: str) -> str:
    return f"Discord does not answer ({trouble}); is the network up, is discord.api_url right?"


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[DiscordContext, Commands]]:
    redact_logs(TOKENS, settings.discord)
    # At DEBUG discord.py writes whole events, messages and tokens.
    logging.getLogger("discord").setLevel(max(logging.INFO, logging.getLogger().level))
    async with logged_in(settings.discord) as client, open_workplace(settings) as workplace:
        context = _context(settings.discord, client, workplace)
        yield context, await build_commands(client, context)


def _context(
    settings: DiscordSettings, client: discord.Client, workplace: Workplace
) -> DiscordContext:
    turns = Turns(
        workplace=workplace, surface=SURFACE, max_concurrent=settings.max_concurrent_turns
    )
    return DiscordContext(
        settings=settings,
        workplace=workplace,
        turns=turns,
        administration=workplace.administration,
        client=client,
        rest=DiscordCalls(client, timeout_s=settings.request_timeout_s),
    )


async def _serve(context: DiscordContext, tree: Commands) -> None:
    settings = context.settings
    intake = Intake(context)
    catch_up = CatchUp(context, intake)
    await catch_up.load()
    listen(context, intake, catch_up)
    work: list[Coroutine[Any, Any, None]] = [
        stay_connected(context.client, settings),
        context.turns.run(prepared(context, discord_delivery(context).deliver)),
        serve_files(context),
        catch_up.note_for_ever(),
        tell_for_ever(
            Notices(context.workplace.pool), platform=SURFACE, post=partial(notices.post, context)
        ),
        purge_for_ever(context.workplace, platform=SURFACE, grace_days=settings.removal_grace_days),
        _warn_of_commands(context, tree),
    ]
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await catch_up.end()
        await end(tasks, again_after_s=STOP_AGAIN_S)


def listen(context: DiscordContext, intake: Intake, catch_up: CatchUp) -> None:
    """What the gateway tells of; commands and clicks go to the tree's modules by themselves."""
    client = context.client

    async def on_message(message: discord.Message) -> None:
        await intake.hear(message)

    async def on_ready() -> None:
        catch_up.begun()
        await guilds.compare(context)

    async def on_resumed() -> None:
        catch_up.resumed()

    async def on_disconnect() -> None:
        catch_up.disconnected()

    async def on_guild_join(guild: discord.Guild) -> None:
        await guilds.added(context, guild)

    async def on_guild_remove(guild: discord.Guild) -> None:
        await guilds.removed(context, guild)

    listeners = (on_message, on_ready, on_resumed, on_disconnect, on_guild_join, on_guild_remove)
    for listener in listeners:
        client.event(listener)


async def _warn_of_commands(context: DiscordContext, tree: Commands) -> None:
    """Say in the log where Discord's commands are not those of this version."""
    try:
        async with asyncio.timeout(context.settings.request_timeout_s):
            names = await differing(context.client, tree)
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        logger.info(
            "commands are not compared: %s",
            type(error).__name__,
            extra={"action": "commands_unknown"},
        )
        return
    if names:
        logger.warning(
            "commands differ from Discord's (%s): run `parley discord sync`",
            ", ".join(names),
            extra={"action": "commands_differ"},
        )
