"""The Slack process: checks its tokens, opens everything, answers until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import aiohttp
from pydantic import SecretStr
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.errors import ServiceMissing
from bots.notices import tell_for_ever
from bots.redaction import redact_logs
from bots.removal import purge_for_ever
from bots.settings import Settings, SlackSettings
from bots.slack_bot import notices
from bots.slack_bot.app import build_app
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.delivery import slack_delivery
from bots.slack_bot.fetching import serve_files
from bots.slack_bot.http import serving
from bots.slack_bot.oauth import Token, Workspaces
from bots.slack_bot.people import People
from bots.slack_bot.redaction import TOKENS
from bots.slack_bot.socket import Watchdog, socket_url
from bots.slack_bot.turn import prepared
from bots.slack_bot.web_api import code_of
from bots.turns import Turns
from bots.workplace import Workplace, open_workplace
from engine.errors import SettingsInvalid
from storage.jobs import until_stopped
from storage.notices import Notices
from storage.queue import end

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_AGAIN_S = 4.0
"""Longer than a worker needs for a clean stop."""
START_ATTEMPTS = 4
START_PAUSE_S = 1.0
"""Before the second attempt to reach Slack; it doubles."""


@dataclass(frozen=True, kw_only=True)
class _Opened:
    context: SlackContext
    workspaces: Workspaces


async def run(settings: Settings) -> None:
    """Serve Slack until SIGTERM or SIGINT.

    Raises:
        SettingsInvalid: a token or secret is missing, or Slack refuses it.
        ServiceMissing: Slack does not answer.
        PortTaken: another program listens on `slack.port`.
        StorageError: the database does not answer or is not of this version.
    """
    require_way_in(settings.slack)
    redact_logs(TOKENS, settings.slack)
    async with web_client(settings.slack) as client:
        own, url = await verify(settings.slack, client)
        async with open_workplace(settings) as workplace:
            opened = _open(settings, workplace, client, own)
            if own is not None:
                # Its token works, so the app is (again) installed there.
                await opened.context.workplace.places.restore_workspace(SURFACE, own.team)
            await until_stopped(_serve(settings, opened, url))


async def _serve(settings: Settings, opened: _Opened, url: str | None) -> None:
    context, slack = opened.context, settings.slack
    app = build_app(context, opened.workspaces)
    delivery = slack_delivery(context)
    async with contextlib.AsyncExitStack() as stack:
        if slack.mode == "http" or slack.oauth:
            await stack.enter_async_context(serving(app, opened.workspaces, slack))
        work: list[Coroutine[Any, Any, None]] = [
            context.turns.run(prepared(context, delivery.deliver)),
            serve_files(context),
            tell_for_ever(
                Notices(context.workplace.pool),
                platform=SURFACE,
                post=partial(notices.post, context),
            ),
            purge_for_ever(
                context.workplace, platform=SURFACE, grace_days=slack.uninstall_grace_days
            ),
        ]
        if slack.mode == "socket":
            watchdog = Watchdog(
                app=app,
                app_token=_value(slack.app_token),
                web_client=opened.workspaces.client,
                settings=slack,
            )
            work.append(watchdog.run(url))
        tasks = [asyncio.create_task(each) for each in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(tasks, again_after_s=STOP_AGAIN_S)


def _open(
    settings: Settings, workplace: Workplace, client: AsyncWebClient, own: Token | None
) -> _Opened:
    workspaces = Workspaces(
        settings=settings.slack,
        client=client,
        installations=workplace.installations,
        places=workplace.places,
        own=own,
    )
    context = SlackContext(
        settings=settings.slack,
        workplace=workplace,
        turns=Turns(
            workplace=workplace,
            surface=SURFACE,
            max_concurrent=settings.slack.max_concurrent_turns,
        ),
        people=People(admins=frozenset(settings.slack.admins), calls=workspaces.calls),
        calls=workspaces.calls,
        client_for=workspaces.client_for,
    )
    return _Opened(context=context, workspaces=workspaces)


@asynccontextmanager
async def web_client(settings: SlackSettings) -> AsyncIterator[AsyncWebClient]:
    """A client without a token, over one session: connections to Slack are kept open."""
    timeout = aiohttp.ClientTimeout(total=settings.request_timeout_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield AsyncWebClient(
            base_url=settings.api_url,
            timeout=max(1, round(settings.request_timeout_s)),
            session=session,
            retry_handlers=[],
        )


# -- Tokens ---------------------------------------------------------------------------------------


def require_way_in(settings: SlackSettings) -> None:
    """Refuse to start without what the mode needs.

    Raises:
        SettingsInvalid: names the variable that is missing.
    """
    if settings.bot_token is None and not settings.oauth:
        raise SettingsInvalid(
            "Slack needs PARLEY_SLACK__BOT_TOKEN (xoxb-…), or PARLEY_SLACK__CLIENT_ID and "
            "PARLEY_SLACK__CLIENT_SECRET for installation by OAuth."
        )
    if settings.mode == "http" and not _value(settings.signing_secret).strip():
        raise SettingsInvalid(
            "Slack over HTTP needs PARLEY_SLACK__SIGNING_SECRET: without it anybody could post "
            "events."
        )
    if settings.mode == "socket" and settings.app_token is None:
        raise SettingsInvalid("Slack over Socket Mode needs PARLEY_SLACK__APP_TOKEN (xapp-…).")


async def verify(
    settings: SlackSettings, client: AsyncWebClient
) -> tuple[Token | None, str | None]:
    """Ask Slack whether the tokens are good.

    Returns:
        The settings' bot token with its workspace, and an address for the first socket; None where
        there is no such token.

    Raises:
        SettingsInvalid: Slack refuses one of them.
        ServiceMissing: Slack does not answer.
    """
    own = url = None
    if settings.bot_token is not None:
        value = _value(settings.bot_token)
        tested = await _ask(lambda: client.auth_test(token=value), "PARLEY_SLACK__BOT_TOKEN")
        own = Token(
            token=value,
            team=str(tested["team_id"]),
            bot_user_id=str(tested["user_id"]),
            bot_id=str(tested.get("bot_id") or ""),
        )
    if settings.mode == "socket":
        app_token = _value(settings.app_token)
        url = await _ask(lambda: socket_url(client, app_token), "PARLEY_SLACK__APP_TOKEN")
    return own, url


async def _ask(call: Callable[[], Awaitable[T]], variable: str) -> T:
    pause_s = START_PAUSE_S
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return await call()
        except SlackApiError as error:
            code = code_of(error)
            if code is not None and code not in _PASSING:
                raise SettingsInvalid(
                    f"Slack refuses the token in {variable} ({code}); see the app's page at "
                    "api.slack.com/apps."
                ) from None
            trouble = str(code or "an answer that is no answer")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            trouble = type(error).__name__
        if attempt < START_ATTEMPTS:
            await asyncio.sleep(pause_s)
            pause_s *= 2
    raise ServiceMissing(f"Slack does not answer ({trouble}); is the network up?")


_PASSING = (
    *("ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"),
)


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
