"""What every Discord listener works with, opened once by `bots.discord_bot.process`."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
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
DEFERRED_S = 10.0
"""Longer than an ack is tried for."""


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


class Deferrals:
    """Commands whose response a turn fills: not before Discord has its deferral.

    The turn begins as soon as the question is stored, which comes before the deferral. An edit that
    overtook that would be refused, and "thinking…" would stay.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Event] = {}

    @contextlib.contextmanager
    def begun(self, interaction_id: str) -> Iterator[None]:
        """Store the question and defer in here."""
        done = self._under_way[interaction_id] = asyncio.Event()
        try:
            yield
        finally:
            done.set()
            del self._under_way[interaction_id]

    async def ended(self, interaction_id: str) -> None:
        """Wait for that; what another process began is over."""
        if (done := self._under_way.get(interaction_id)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEFERRED_S):
                    await done.wait()


@dataclass(frozen=True, kw_only=True)
class DiscordContext:
    """Everything below the listeners.

    Attributes:
        client: logged in; its cache holds servers, channels, roles and overwrites, and nobody's
            messages or membership.
        recent: the interactions of this process.
        deferrals: those of them that are not acknowledged yet.
    """

    settings: DiscordSettings
    workplace: Workplace
    turns: Turns
    administration: Administration
    client: discord.Client
    rest: DiscordCalls
    recent: Recent = field(default_factory=Recent)
    deferrals: Deferrals = field(default_factory=Deferrals)
