"""The buttons of an answer: stop, answer again, share with the channel, call people."""

from collections.abc import Sequence

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackClientError

from bots.answer_actions import again, call_people, called, share, stop
from bots.messages import Answer
from bots.screens import Links, Reach
from bots.slack_bot.blocks import (
    NEED_HUMAN_ACTION,
    REGENERATE_ACTION,
    SHARE_ACTION,
    STOP_ACTION,
    Post,
    answer_posts,
)
from bots.slack_bot.board import Board, Place
from bots.slack_bot.clicks import Click, on_click
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.lanes import Priority
from bots.slack_bot.mrkdwn import MRKDWN, escape
from storage.identity import AnswerId, MessageId


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the buttons."""
    on_click(app, context, STOP_ACTION, _stop)
    on_click(app, context, REGENERATE_ACTION, _regenerate)
    on_click(app, context, SHARE_ACTION, _share)
    on_click(app, context, NEED_HUMAN_ACTION, _need_human)


async def _stop(click: Click) -> None:
    await _end(
        click,
        await stop(
            click.context.workplace,
            click.context.turns,
            MessageId(click.id()),
            audience=click.audience,
        ),
    )


async def _regenerate(click: Click) -> None:
    await _end(
        click,
        await again(
            click.context.workplace,
            click.context.turns,
            MessageId(click.id()),
            audience=click.audience,
            place=_place(click),
        ),
    )


async def _share(click: Click) -> None:
    answer_id = AnswerId(click.id())
    beside = await _beside(click, answer_id)
    refusal = await share(
        click.context.workplace, answer_id, audience=click.audience, beside=beside
    )
    await _end(click, refusal)
    if refusal is None:
        await click.remove()


async def _need_human(click: Click) -> None:
    answer_id = AnswerId(click.id())
    beside = await _beside(click, answer_id)
    workplace, audience = click.context.workplace, click.audience
    await _end(
        click,
        await call_people(workplace, answer_id, audience=audience, beside=beside, dialect=MRKDWN),
    )


async def _end(click: Click, sentence: str | None) -> None:
    """Acknowledge what is done by now: Slack tells who clicked where that does not come."""
    await click.done()
    if sentence is not None:
        await click.tell(sentence)


def _place(click: Click) -> dict[str, str]:
    """Where the answer stands: what a question's own event names."""
    here = click.origin
    private = bool((click.body.get("container") or {}).get("is_ephemeral"))
    return {
        "platform": SURFACE,
        "workspace": here.team,
        "channel": here.channel if click.audience.channel_id is not None else "",
        "member": here.user,
        "reply_to": here.channel,
        "thread": here.thread_ts,
        "ts": here.message_ts,
        "team": here.team,
        "via": "ephemeral" if private else "event",
    }


class SlackBeside:
    """What stands beside an answer; see `bots.answer_actions.Beside`."""

    trouble = SlackClientError

    def __init__(self, board: Board, *, name: str) -> None:
        self._board = board
        self._name = name
        self.knows = board.knows
        self.recover = board.recover

    async def post(self, part: int, post: Post) -> None:
        """Post it in the answer's thread."""
        await self._board.show(part, post, Priority.FINAL)

    def shared(self, answer: Answer, links: Links) -> list[Post]:
        """The answer, to be rated by all."""
        return answer_posts(answer, links=links, reach=Reach.SHARED)

    def call(self, humans: Sequence[str]) -> Post:
        """Mentions them."""
        people = [MRKDWN.person(human) for human in humans]
        return Post(text=called(people, escape(self._name)))


async def _beside(click: Click, answer_id: AnswerId) -> SlackBeside:
    """Where the clicked answer stands.

    Raises:
        MessageNotFound: no such answer here.
    """
    workplace = click.context.workplace
    stored = await workplace.conversations.answer(answer_id, audience=click.audience)
    place = _place(click)
    board = Board(
        calls=click.context.calls(click.client),
        deliveries=workplace.deliveries,
        place=Place.of({**place, "thread": place["thread"] or _thread_under(place)}),
        message_id=stored.message_id,
    )
    await board.load(again=False)
    return SlackBeside(board, name=click.name)


def _thread_under(place: dict[str, str]) -> str:
    """An answer outside of threads begins one, unless only its asker sees it."""
    return "" if place["via"] == "ephemeral" else place["ts"]
