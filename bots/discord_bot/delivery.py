"""Turns as `bots.delivery` shows them, in Discord."""

from functools import partial
from typing import Final

from bots.delivery import Delivery, Trouble
from bots.discord_bot.board import Board
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.rest import DiscordAway, DiscordRefused, RateLimited
from bots.discord_bot.screens import DiscordPair, DiscordScreen
from bots.discord_bot.ways import Place
from bots.turns import PendingTurn

TYPING_REFRESH_S = 8.0
"""Discord shows typing for 10 s."""
_GONE: Final = frozenset({50001, 50007, 50013, 50278, 160005})
"""Missing access or permissions, somebody who takes no direct messages, a locked thread."""


def discord_delivery(
    context: DiscordContext, *, typing_refresh_s: float = TYPING_REFRESH_S
) -> Delivery:
    """Shows pending turns in Discord.

    Args:
        typing_refresh_s: how often typing is shown again.
    """
    return Delivery(
        workplace=context.workplace,
        shown=partial(_shown, context),
        trouble=_trouble,
        edit_interval_s=context.settings.edit_interval_s,
        refresh_s=typing_refresh_s,
    )


class DiscordTurn:
    """The messages of one turn; see `bots.screens.ShownTurn`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.finished = board.finished
        self.screen = DiscordScreen(board)
        self.pair = DiscordPair(board)

    async def tell(self, text: str) -> None:
        """Tell the asker alone."""
        await self._board.tell(text)

    async def finish(self) -> None:
        """Note that everything stands where it should."""
        await self._board.finish()


async def _shown(context: DiscordContext, turn: PendingTurn) -> DiscordTurn:
    place = Place.of(turn.place)
    board = Board(
        rest=context.rest,
        deliveries=context.workplace.deliveries,
        place=place,
        message_id=turn.message_id,
        audience=turn.audience,
        edit_interval_s=context.settings.edit_interval_s,
        anew=place.private and turn.kind == "regenerate",
    )
    await board.load(again=turn.attempt > 0)
    return DiscordTurn(board)


def _trouble(error: Exception) -> Trouble:
    match error:
        case DiscordRefused(status=401):
            return Trouble.AWAY  # a new token is on its way, or the job ends with its patience
        case DiscordRefused(status=status, code=code):
            return Trouble.GONE if status in (403, 404) or code in _GONE else Trouble.OURS
        case DiscordAway() | RateLimited():
            return Trouble.AWAY
    return Trouble.OURS
