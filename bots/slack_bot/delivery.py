"""Turns as `bots.delivery` shows them, in Slack."""

from collections.abc import Callable
from functools import partial

from slack_sdk.errors import SlackClientError

from bots.delivery import Delivery, Trouble
from bots.screens import Screen
from bots.slack_bot.board import GONE, Board, Place, PrivateBoard
from bots.slack_bot.context import SlackContext
from bots.slack_bot.screens import EditedScreen, PrivateScreen, SlackPair, StreamedScreen
from bots.slack_bot.web_api import SlackRefused
from bots.turns import PendingTurn

STATUS_REFRESH_S = 90.0
"""Slack forgets a status after 2 minutes."""


def slack_delivery(
    context: SlackContext, *, status_refresh_s: float = STATUS_REFRESH_S
) -> Delivery:
    """Shows pending turns in Slack.

    Args:
        status_refresh_s: how often a status is set again while nothing else is shown.
    """
    return Delivery(
        workplace=context.workplace,
        shown=partial(_shown, context),
        trouble=_trouble,
        edit_interval_s=context.settings.edit_interval_s,
        refresh_s=status_refresh_s,
    )


class SlackTurn:
    """The messages of one turn; see `bots.screens.ShownTurn`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.finished = board.finished
        self.screen = _screen(board)
        self.pair = SlackPair(board)

    async def tell(self, text: str) -> None:
        """Tell the asker alone."""
        await self._board.tell(text)

    async def finish(self) -> None:
        """Note that everything stands where it should."""
        await self._board.finish()


async def _shown(context: SlackContext, turn: PendingTurn) -> SlackTurn:
    place = Place.of(turn.place)
    kind: Callable[..., Board] = Board
    if place.private:
        kind = partial(PrivateBoard, anew=turn.kind == "regenerate")
    board = kind(
        calls=context.calls(await context.client_for(place.workspace)),
        deliveries=context.workplace.deliveries,
        place=place,
        message_id=turn.message_id,
    )
    await board.load(again=turn.attempt > 0)
    return SlackTurn(board)


def _screen(board: Board) -> Screen:
    place = board.place
    if isinstance(board, PrivateBoard):
        return PrivateScreen(board)
    if place.one_reader and place.thread_ts and board.empty:
        return StreamedScreen(board)
    return EditedScreen(board)


def _trouble(error: Exception) -> Trouble:
    if isinstance(error, SlackRefused) and error.code != "token_expired":
        return Trouble.GONE if error.code in GONE else Trouble.OURS
    # A token that ran out is another one at the next attempt.
    away = isinstance(error, (SlackClientError, TimeoutError))
    return Trouble.AWAY if away else Trouble.OURS
