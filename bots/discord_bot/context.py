"""What every Discord listener works with, opened once by `bots.discord_bot.process`."""

from collections import OrderedDict
from dataclasses import dataclass, field

import discord

from bots.administration import Administration
from bots.discord_bot.rest import DiscordCalls
from bots.settings import DiscordSettings
from bots.turns import Turns
from bots.workplace import Workplace

SURFACE = "discord"
"""Name of the platform in `Identities.resolve`, and of the queue of turns."""
DIRECT = "@me"
"""The workspace of everything outside servers that have the app: direct messages, foreign places.
Discord calls it so, too, in links to messages."""


MOST_RECENT = 10_000


class Recent:
    """Remembers what came lately: after a lost connection Discord may deliver it once more."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()

    def repeated(self, id_: int) -> bool:
        """Whether the id came before; it has come now."""
        known = id_ in self._seen
        self._seen[id_] = None
        if len(self._seen) > MOST_RECENT:
            self._seen.popitem(last=False)
        return known


@dataclass(frozen=True, kw_only=True)
class DiscordContext:
    """Everything below the listeners.

    Attributes:
        client: logged in; its cache holds servers, channels, roles and overwrites, and nobody's
            messages or membership.
        recent: the interactions of this process.
    """

    settings: DiscordSettings
    workplace: Workplace
    turns: Turns
    administration: Administration
    client: discord.Client
    rest: DiscordCalls
    recent: Recent = field(default_factory=Recent)
