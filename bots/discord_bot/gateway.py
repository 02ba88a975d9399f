"""Keeps the connection to Discord's gateway, whatever ends it.

Why not `discord.Client.connect`: it gives up with an AttributeError where the very first connection
fails, waits up to 17 minutes between attempts after a long outage, tries again without any pause
where a server closes at once, and always begins at Discord's own address.
"""

import asyncio
import logging
import random
from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from discord.http import Route

from bots.errors import ServiceMissing
from bots.settings import DiscordSettings
from engine.errors import SettingsInvalid

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
CLOSE_S = 2.0
RESUMABLE = 4000
BAD_TOKEN = 4004
BAD_INTENTS = (4013, 4014)
NOT_OURS = (4010, 4011, 4012)
"""Sharding and versions, which another try does not change.
https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes
"""
LOGIN_REFUSED = (
    "Discord refuses the token in PARLEY_DISCORD__TOKEN (401); see the app's page at "
    "discord.com/developers/applications, “Bot”."
)


async def stay_connected(client: discord.Client, settings: DiscordSettings) -> None:
    """Receive events until cancelled: resume where that is possible, else begin a new session.

    Raises:
        SettingsInvalid: Discord refuses the token or an intent.
        ServiceMissing: Discord will not serve this app so.
    """
    url: yarl.URL | None = None
    session: dict[str, Any] = {}
    pause_s = FIRST_PAUSE_S
    while True:
        lived = False
        try:
            url = url or await gateway_url(client, settings)
            async with asyncio.timeout(settings.hello_timeout_s):
                arguments = {"gateway": url, "initial": True, **session}
                client.ws = await DiscordWebSocket.from_client(client, **arguments)
            while True:
                await client.ws.poll_event()
                lived = True
        except ReconnectWebSocket as end:
            session = _session(client) if end.resume else {}
            logger.info("the gateway wants a new connection", extra={"action": "gateway_again"})
        except discord.ConnectionClosed as error:
            _raise_if_final(error.code)
            session = _session(client)
            logger.warning("the gateway closed (%s)", error.code, extra={"action": "gateway_lost"})
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            # `OSError` includes a hello that did not come in time.
            session = _session(client)
            logger.warning("no gateway: %s", type(error).__name__, extra={"action": "gateway_lost"})
        except Exception:  # an event that discord.py cannot read must not end the process
            session = _session(client)
            logger.exception("an event was not understood", extra={"action": "event_unread"})
        client.dispatch("disconnect")
        await _let_go(client)
        if lived:
            pause_s = FIRST_PAUSE_S
            continue
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def gateway_url(client: discord.Client, settings: DiscordSettings) -> yarl.URL:
    """Where sessions begin: the setting, else what the REST API names.

    Raises:
        discord.HTTPException, aiohttp.ClientError, OSError: it names none now.
    """
    if settings.gateway_url is not None:
        return yarl.URL(settings.gateway_url)
    async with asyncio.timeout(settings.request_timeout_s):
        found: dict[str, str] = await client.http.request(Route("GET", "/gateway"))
    return yarl.URL(found["url"])


async def _let_go(client: discord.Client) -> None:
    """Close what is left of a connection, so that its heartbeat ends, too."""
    ws: DiscordWebSocket | None = client.ws
    if ws is None or not ws.open:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await ws.close(code=RESUMABLE)
    except (aiohttp.ClientError, OSError, RuntimeError) as error:
        logger.info("no goodbye: %s", type(error).__name__, extra={"action": "gateway_unclosed"})


def _session(client: discord.Client) -> dict[str, Any]:
    """How to go on with the session there was; empty without one."""
    ws: DiscordWebSocket | None = client.ws
    if ws is None or ws.session_id is None:
        return {}
    return {
        "gateway": ws.gateway,
        "initial": False,
        "resume": True,
        "session": ws.session_id,
        "sequence": ws.sequence,
    }


def _raise_if_final(code: int) -> None:
    if code == BAD_TOKEN:
        raise SettingsInvalid(LOGIN_REFUSED)
    if code in BAD_INTENTS:
        raise SettingsInvalid(
            f"Discord refuses the message content intent ({code}): switch it on at "
            "discord.com/developers/applications, “Bot”, or set discord.message_content to false."
        )
    if code in NOT_OURS:
        raise ServiceMissing(f"Discord closed the connection for good ({code}).")
