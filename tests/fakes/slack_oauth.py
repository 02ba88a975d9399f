"""OAuth v2 of the fake Slack: the consent page, codes, tokens, rotation."""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from tests.fakes.slack_blocks import Json, SlackError
from tests.fakes.slack_world import Token, Workspace

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer


class OAuth:
    """Gives out tokens for codes and refresh tokens.

    Attributes:
        rotation_s: Life of an access token; None = tokens live for ever, without rotation.
        installing: The workspace whose member answers the consent page, and who that is.
    """

    def __init__(self, slack: "SlackServer") -> None:
        self.rotation_s: int | None = None
        self.installing: tuple[Workspace, str] | None = None
        self._slack = slack
        self._codes: dict[str, tuple[Workspace, str, frozenset[str], str]] = {}

    async def authorize(self, request: web.Request) -> web.Response:
        """The consent page: everybody consents at once."""
        query = request.query
        if query.get("client_id") != self._slack.client_id or self.installing is None:
            return web.Response(status=400, text="invalid_client_id")
        workspace, user = self.installing
        scopes = frozenset(filter(None, query.get("scope", "").split(",")))
        redirect = query.get("redirect_uri", "")
        code = f"code-{self._slack.world.number()}"
        self._codes[code] = (workspace, user, scopes, redirect)
        back = urlencode({"code": code, "state": query.get("state", "")})
        return web.Response(status=302, headers={"Location": f"{redirect}?{back}"})

    def access(self, args: Json) -> Json:
        """oauth.v2.access."""
        if args.get("client_id") != self._slack.client_id:
            raise SlackError("invalid_client_id")
        if args.get("client_secret") != self._slack.client_secret:
            raise SlackError("bad_client_secret")
        if args.get("grant_type") == "refresh_token":
            return self._refresh(str(args.get("refresh_token")))
        found = self._codes.pop(str(args.get("code")), None)
        if found is None:
            raise SlackError("invalid_code")
        workspace, user, scopes, redirect = found
        if args.get("redirect_uri") not in (None, redirect):
            raise SlackError("bad_redirect_uri")
        return self._grant(workspace, scopes) | {"authed_user": {"id": user}}

    def _refresh(self, refresh_token: str) -> Json:
        old = self._slack.world.tokens.get(refresh_token)
        if old is None or old.revoked or not old.refreshes or old.workspace is None:
            raise SlackError("invalid_refresh_token")
        old.revoked = True
        return self._grant(old.workspace, old.scopes) | {"authed_user": {"id": ""}}

    def _grant(self, workspace: Workspace, scopes: frozenset[str]) -> Json:
        number = self._slack.world.number()
        token = self._slack.give_token(f"xoxb-fake-{workspace.id}-{number}", workspace, scopes)
        answer: Json = {
            "access_token": token.value,
            "token_type": "bot",
            "scope": ",".join(sorted(scopes)),
            "bot_user_id": workspace.bot_user_id,
            "app_id": self._slack.app_id,
            "team": {"id": workspace.id, "name": workspace.name},
            "enterprise": None,
            "is_enterprise_install": False,
        }
        if self.rotation_s is not None:
            token.expires_at = time.monotonic() + self.rotation_s
            token.value = f"xoxe.{token.value}"
            refresh = Token(
                value=f"xoxe-1-fake-{number}", workspace=workspace, scopes=scopes, refreshes=True
            )
            self._slack.world.tokens |= {token.value: token, refresh.value: refresh}
            answer |= {
                "access_token": token.value,
                "refresh_token": refresh.value,
                "expires_in": self.rotation_s,
            }
        workspace.bot_token = token.value
        return answer
