"""People of Slack: who is a guest, a stranger, a bot, an administrator."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot.web_api import SlackCalls

KNOWN_S = 600.0
"""How long a person's standing is believed; rights of administrators are never remembered."""
MOST_KNOWN = 10_000


@dataclass(frozen=True, kw_only=True)
class Person:
    """What Slack says of a user.

    Attributes:
        teams: workspaces that the user belongs to; several within one Enterprise Grid.
        guest: single-channel or multi-channel guest.
        admin: administrator or owner of the workspace.
    """

    teams: frozenset[str]
    bot: bool
    guest: bool
    admin: bool

    def stranger_to(self, team: str) -> bool:
        """Whether the user comes from another company, through Slack Connect."""
        return team not in self.teams


@dataclass(kw_only=True)
class People:
    """Looks people up.

    Attributes:
        admins: user ids that count as administrators whatever Slack says.
        calls: wraps a client, as `SlackContext.calls` does.
    """

    admins: frozenset[str]
    calls: Callable[[AsyncWebClient], SlackCalls]
    _known: OrderedDict[tuple[str | None, str], tuple[float, Person]] = field(
        default_factory=OrderedDict
    )

    def known(self, client: AsyncWebClient, user: str) -> Person | None:
        """What was learnt of a user lately, without asking."""
        found = self._known.get((client.token, user))
        if found is None or found[0] < time.monotonic() - KNOWN_S:
            return None
        return found[1]

    async def info(self, client: AsyncWebClient, user: str) -> Person:
        """What Slack says, or said within the last ten minutes.

        Raises:
            SlackClientError: Slack does not say.
        """
        return self.known(client, user) or await self._ask(client, user)

    async def is_admin(self, client: AsyncWebClient, user: str) -> bool:
        """Whether the user administers the workspace now; asked anew every time.

        Raises:
            SlackClientError: Slack does not say.
        """
        return user in self.admins or (await self._ask(client, user)).admin

    async def _ask(self, client: AsyncWebClient, user: str) -> Person:
        person = _person(await self.calls(client).user(user))
        self._known[client.token, user] = (time.monotonic(), person)
        self._known.move_to_end((client.token, user))
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return person


def _person(user: Mapping[str, Any]) -> Person:
    organisation = user.get("enterprise_user") or {}
    teams = {user.get("team_id"), *(organisation.get("teams") or ())}
    if user.get("is_stranger"):
        teams = set()
    return Person(
        teams=frozenset(str(team) for team in teams if team),
        bot=bool(user.get("is_bot")) or user.get("id") == "USLACKBOT",
        guest=bool(user.get("is_restricted") or user.get("is_ultra_restricted")),
        admin=bool(
            not user.get("deleted")
            and (user.get("is_admin") or user.get("is_owner") or user.get("is_primary_owner"))
        ),
    )
