"""Comparisons: two answers side by side, blind, and whoever votes learns the models afterwards.

Why the order comes from the question's id: it is random, nobody chose it, and it is stored before
anything is shown. So a restart in the middle shows the same answer on the same side, and the votes
that come in mean the same thing.
"""

import hashlib
from collections.abc import Mapping
from typing import Final, Literal

from slack_bolt.async_app import AsyncApp

from bots.slack_bot.blocks import COMPARE_ACTIONS, Block, button
from bots.slack_bot.clicks import Click, Work, on_click
from bots.slack_bot.commands import Command, ask_by_command
from bots.slack_bot.context import SlackContext
from bots.slack_bot.mrkdwn import escape
from feedback import ComparisonId, Winner
from storage.identity import AnswerId, Audience, MessageId

USAGE = "Ask like this: `/parley compare How many days of leave do we have?`"

_LABELS: Final[Mapping[Winner, str]] = {
    "left": "A is better",
    "right": "B is better",
    "tie": "Tie",
    "both_bad": "Both bad",
}
_CHOSEN: Final[Mapping[Winner, str]] = {
    "left": "You chose *A*",
    "right": "You chose *B*",
    "tie": "You called it a *tie*",
    "both_bad": "You called *both bad*",
}


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the four buttons under a comparison."""
    for winner in _LABELS:
        on_click(app, context, COMPARE_ACTIONS[winner], _vote_for(winner))


def kind_for(share: float, message_ref: str) -> Literal["answer", "compare"]:
    """Whether a question becomes a comparison, given a channel's share of them, 0 to 1.

    The message's name decides, so that a redelivered question is decided the same way.
    """
    number = int.from_bytes(hashlib.sha256(message_ref.encode()).digest()[:8])
    return "compare" if number < share * 2**64 else "answer"


def order_of(message_id: MessageId) -> tuple[int, int]:
    """Which of the two answers stands left, and which right."""
    return (0, 1) if message_id.int % 2 == 0 else (1, 0)


async def ask_to_compare(command: Command) -> None:
    """`/parley compare QUESTION`; the question is stored before the ack."""
    if command.rest:
        await ask_by_command(command, "compare")
    else:
        await command.ack()
        await command.reply(USAGE)


async def open_shown(
    context: SlackContext,
    *,
    message_id: MessageId,
    audience: Audience,
    answers: tuple[AnswerId, AnswerId],
) -> ComparisonId:
    """Store a comparison as it is shown, before anybody can vote; storing it again is no change.

    Args:
        answers: in the order of the models, not of the sides.
    """
    left, right = order_of(message_id)
    return await context.feedback.open_comparison(
        message_id=message_id,
        audience=audience,
        answers=answers,
        shown_order=(left, right),
    )


def comparison_blocks(comparison_id: ComparisonId) -> list[Block]:
    """What stands under both answers: the vote. It names no models."""
    buttons = [
        button(label, COMPARE_ACTIONS[winner], str(comparison_id))
        for winner, label in _LABELS.items()
    ]
    return [{"type": "actions", "elements": buttons}]


def _vote_for(winner: Winner) -> Work:
    async def vote(click: Click) -> None:
        outcome = await click.context.feedback.compare(
            comparison_id=ComparisonId(click.id()), audience=click.audience, winner=winner
        )
        await click.done()
        left, right = (f"`{escape(model)}`" for model in outcome.models)
        changed = " (changed)" if outcome.changed else ""
        await click.tell(f"{_CHOSEN[winner]}{changed}. A was {left}, B was {right}.")

    return vote
