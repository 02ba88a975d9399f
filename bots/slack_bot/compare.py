"""`/parley compare`, and the buttons under two answers: the vote names the models."""

from slack_bolt.async_app import AsyncApp

from bots.slack_bot.blocks import COMPARE_ACTIONS
from bots.slack_bot.clicks import Click, Work, on_click
from bots.slack_bot.commands import Command, ask_by_command
from bots.slack_bot.context import SlackContext
from bots.slack_bot.mrkdwn import MRKDWN
from bots.voting import choose
from bots.wording import CHOICES
from feedback import ComparisonId, Winner

USAGE = "Ask like this: `/parley compare How many days of leave do we have?`"


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the four buttons under a comparison."""
    for winner in CHOICES:
        on_click(app, context, COMPARE_ACTIONS[winner], _vote_for(winner))


async def ask_to_compare(command: Command) -> None:
    """`/parley compare QUESTION`; the question is stored before the ack."""
    if command.rest:
        await ask_by_command(command, "compare")
    else:
        await command.ack()
        await command.reply(USAGE)


def _vote_for(winner: Winner) -> Work:
    async def vote(click: Click) -> None:
        said = await choose(
            click.context.workplace.feedback,
            ComparisonId(click.id()),
            audience=click.audience,
            winner=winner,
            dialect=MRKDWN,
        )
        await click.done()
        await click.tell(said)

    return vote
