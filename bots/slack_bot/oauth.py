"""Workspaces: the tokens of those that installed the app, how they come, and how they go.

One workspace by a token in the settings, or several by OAuth v2, whose tokens stand encrypted in
the database and are renewed before they expire. What a workspace removes is gone at once; its data
follows after a time of grace (`bots.removal`).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.oauth import AuthorizeUrlGenerator
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.settings import SlackSettings
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.contract import scopes
from bots.slack_bot.web_api import SlackCalls, code_of
from storage.installations import Installations
from storage.places import Places

logger = logging.getLogger(__name__)

STATE_S = 600.0
"""Between the begin of an installation and its end at Slack."""
RENEW_BEFORE_S = 7200.0
"""Before a token expires; Slack's live 12 hours."""
BELIEVED_S = 30.0
"""How long a token is used without a look into the database, where others may have changed it."""


class InstallRefused(Exception):
    """An installation cannot end well; the text is for the person who installs."""


class NotInstalled(SlackClientError):
    """The app has no token for this workspace (any more)."""

    def __init__(self, team: str) -> None:
        self.team = team
        super().__init__("the app is not installed in this workspace")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A workspace's bot token.

    Attributes:
        expires_at: seconds since the epoch; None for tokens that do not expire.
    """

    token: str = field(repr=False)
    team: str
    bot_user_id: str
    bot_id: str
    app_id: str = ""
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None

    def due(self, within_s: float) -> bool:
        """Whether it expires within that time."""
        return self.expires_at is not None and self.expires_at < time.time() + within_s


@dataclass(kw_only=True)
class Workspaces:
    """Knows the token of every workspace.

    Attributes:
        client: without a token, at the right address.
        own: the token of the settings, once `auth.test` has confirmed it.
    """

    settings: SlackSettings
    client: AsyncWebClient
    installations: Installations
    places: Places
    own: Token | None = None
    _known: dict[str, tuple[float, Token]] = field(default_factory=dict)
    _calls: dict[str, SlackCalls] = field(default_factory=dict)
    _renewing: dict[str, asyncio.Lock] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    async def authorize(
        self, *, enterprise_id: str | None, team_id: str | None, user_id: str | None
    ) -> AuthorizeResult | None:
        """Bolt's question for every request; asks Slack nothing, unless a token has expired.

        Raises:
            StorageUnavailable: nobody knows; Slack will deliver the request again.
        """
        try:
            token = await self.token(team_id or enterprise_id or "")
        except NotInstalled:
            return None
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=token.team,
            bot_token=token.token,
            bot_user_id=token.bot_user_id,
            bot_id=token.bot_id,
            user_id=user_id,
        )

    def calls(self, client: AsyncWebClient) -> SlackCalls:
        """The calls with a client's token; the same object for the same token."""
        token = client.token or ""
        if token not in self._calls:
            if len(self._calls) > 1000:
                self._calls.clear()
            self._calls[token] = SlackCalls(
                self.client_with(token), timeout_s=self.settings.request_timeout_s
            )
        return self._calls[token]

    async def client_for(self, team: str) -> AsyncWebClient:
        """A client for a workspace.

        Raises:
            NotInstalled: the workspace has removed the app.
            StorageUnavailable: safe to retry.
        """
        return self.calls(self.client_with((await self.token(team)).token)).client

    def client_with(self, token: str) -> AsyncWebClient:
        """A client like `client`, with a token."""
        return AsyncWebClient(
            token=token,
            base_url=self.client.base_url,
            timeout=self.client.timeout,
            session=self.client.session,
            retry_handlers=[],
        )

    async def token(self, team: str) -> Token:
        """The workspace's token, renewed where that is due.

        Raises:
            NotInstalled: there is none.
            StorageUnavailable: safe to retry.
        """
        if self.own is not None:
            return self.own
        believed_at, token = self._known.get(team, (0.0, None))
        if token is None or believed_at < time.monotonic() - BELIEVED_S:
            payload = await self.installations.find(SURFACE, team)
            if payload is None:
                self._known.pop(team, None)
                raise NotInstalled(team)
            token = Token(**payload)
            self._known[team] = (time.monotonic(), token)
        if (
            token.refresh_token is not None
            and token.due(RENEW_BEFORE_S)
            and self._not_before.get(team, 0.0) < time.monotonic()
        ):
            token = await self._renewed(team, token)
        return token

    async def _renewed(self, team: str, token: Token) -> Token:
        """Exchange the token; one that still lives is used on where Slack does not answer."""
        async with self._renewing.setdefault(team, asyncio.Lock()):
            stored = await self.installations.find(SURFACE, team)
            if stored is None:
                raise NotInstalled(team)
            latest = Token(**stored)
            if latest.token != token.token and not latest.due(60.0):
                self._known[team] = (time.monotonic(), latest)
                return latest
            try:
                async with asyncio.timeout(2.0 if latest.due(0.0) else 1.0):
                    answer = await self.client.oauth_v2_access(
                        client_id=self.settings.client_id or "",
                        client_secret=_secret(self.settings.client_secret),
                        grant_type="refresh_token",
                        refresh_token=latest.refresh_token or "",
                    )
            except (SlackApiError, TimeoutError, OSError) as error:
                logger.warning(
                    "a token was not renewed: %s",
                    type(error).__name__,
                    extra={"action": "token_not_renewed"},
                )
                self._not_before[team] = time.monotonic() + BELIEVED_S
                return latest
            return await self._keep(_token_of(_body(answer), bot_id=latest.bot_id))

    async def _keep(self, token: Token) -> Token:
        await self.installations.save(SURFACE, token.team, vars(token), workspace=token.team)
        self._known[token.team] = (time.monotonic(), token)
        logger.info("a token was stored", extra={"action": "token_stored"})
        return token

    # -- Installing -------------------------------------------------------------------------------

    async def authorize_url(self) -> tuple[str, str]:
        """Where to send somebody who installs, and the state that must come back."""
        state = await self.installations.issue_state(STATE_S)
        root = urlsplit(self.settings.api_url)
        generator = AuthorizeUrlGenerator(
            client_id=self.settings.client_id or "",
            redirect_uri=self.settings.redirect_url,
            scopes=scopes(),
            authorization_url=f"{root.scheme}://{root.netloc}/oauth/v2/authorize",
        )
        return generator.generate(state=state), state

    async def install(self, *, code: str, state: str) -> str:
        """End an installation; returns the workspace's name.

        Raises:
            InstallRefused: the state is not ours or Slack does not know the code.
        """
        if not await self.installations.consume_state(state):
            raise InstallRefused("This installation has expired or was not begun here.")
        try:
            async with asyncio.timeout(self.settings.request_timeout_s):
                answer = await self.client.oauth_v2_access(
                    client_id=self.settings.client_id or "",
                    client_secret=_secret(self.settings.client_secret),
                    code=code,
                    redirect_uri=self.settings.redirect_url,
                )
                tested = await self.client.auth_test(token=answer["access_token"])
        except SlackApiError as error:
            why = code_of(error)
            said = f"Slack refuses this: {why}." if why else "Slack did not answer sensibly."
            raise InstallRefused(said) from None
        except (TimeoutError, OSError, KeyError) as error:
            raise InstallRefused("Slack did not answer; please try again.") from error
        data = _body(answer)
        token = await self._keep(_token_of(data, bot_id=str(tested.get("bot_id") or "")))
        await self.places.restore_workspace(SURFACE, token.team)
        return str((data.get("team") or data.get("enterprise") or {}).get("name") or token.team)

    async def remove(self, team: str) -> None:
        """Forget a workspace's tokens now, and note that its data goes after the time of grace."""
        await self.installations.delete(SURFACE, team)
        self._known.pop(team, None)
        await self.places.remove_workspace(SURFACE, team)
        logger.info("the app was removed from a workspace", extra={"action": "app_removed"})


def register(app: AsyncApp, context: SlackContext, workspaces: Workspaces) -> None:
    """Listen to removals; they are stored before the ack."""

    async def remove(body: dict[str, Any], next: Any) -> None:
        team = str(body.get("team_id") or "")
        await workspaces.remove(team)
        await next()

    async def revoke(body: dict[str, Any], next: Any) -> None:
        # Tokens of people are never asked for, so only those of bots are stored.
        if (body["event"].get("tokens") or {}).get("bot"):
            await workspaces.remove(str(body.get("team_id") or ""))
        await next()

    async def nothing_more() -> None:
        pass

    app.event("app_uninstalled", middleware=[remove])(nothing_more)
    app.event("tokens_revoked", middleware=[revoke])(nothing_more)


def _token_of(answer: Mapping[str, Any], *, bot_id: str) -> Token:
    lives_s = answer.get("expires_in")
    team = answer.get("team") or answer.get("enterprise") or {}
    return Token(
        token=str(answer["access_token"]),
        team=str(team["id"]),
        bot_user_id=str(answer.get("bot_user_id") or ""),
        bot_id=bot_id,
        app_id=str(answer.get("app_id") or ""),
        refresh_token=answer.get("refresh_token"),
        expires_at=time.time() + float(lives_s) if lives_s else None,
    )


def _body(answer: AsyncSlackResponse) -> dict[str, Any]:
    return answer.data if isinstance(answer.data, dict) else {}


def _secret(value: Any) -> str:
    return value.get_secret_value() if value is not None else ""
