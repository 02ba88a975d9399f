"""The buttons of an answer: stop, answer again, share with the channel, call people.

Stopping, answering again and sharing belong to whoever asked: they change what that person gets.
Everybody in a channel may call for people, once per answer.
"""

import asyncio
import logging
from typing import Any
from weakref import WeakValueDictionary

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackClientError

from bots.channel_settings import load
from bots.delivery import current_answer, links_of
from bots.messages import Answer
from bots.screens import Reach
from bots.slack_bot.blocks import (
    NEED_HUMAN_ACTION,
    REGENERATE_ACTION,
    SHARE_ACTION,
    STOP_ACTION,
    answer_posts,
)
from bots.slack_bot.clicks import Click, on_click
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.mrkdwn import MRKDWN, escape
from storage.conversations import StoredTurn
from storage.identity import AnswerId, MessageId

logger = logging.getLogger(__name__)

ONLY_THE_ASKER = "Only the person who asked can do that."
COMPLETE = "This answer was complete already."
ANSWERING = "I am answering again already."
NO_HUMANS = (
    "No people are named for this channel yet; an administrator can name them with "
    "`/parley settings`."
)
NO_CHANNEL = "There is nobody else here; ask in a channel to reach its people."
SHARED_BEFORE = "This answer was shared already."
NEWER = "There is a newer answer to this question; that one can be shared."
SHARED_PART = 1000
"""From here on a question's deliveries are those of its shared answer, behind every private one."""
CALLED_BEFORE = "People were called for this answer already; mention them yourself if nobody comes."
NOT_CALLED = "I could not write here to call people; please mention them yourself."

_sharing: WeakValueDictionary[AnswerId, asyncio.Lock] = WeakValueDictionary()
"""A double click waits here for the first one."""


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the buttons."""
    on_click(app, context, STOP_ACTION, _stop)
    on_click(app, context, REGENERATE_ACTION, _regenerate)
    on_click(app, context, SHARE_ACTION, _share)
    on_click(app, context, NEED_HUMAN_ACTION, _need_human)


async def _stop(click: Click) -> None:
    turn = await _asked_by_clicker(click, MessageId(click.id()))
    if turn is None:
        return
    stopped = await click.context.turns.stop(turn.message_id)
    await click.done()
    if not stopped:
        await click.tell(COMPLETE)


async def _regenerate(click: Click) -> None:
    turn = await _asked_by_clicker(click, MessageId(click.id()))
    if turn is None:
        return
    new = await click.context.turns.again(
        turn.message_id, audience=click.audience, place=_place(click)
    )
    await click.done()
    if not new:
        await click.tell(ANSWERING)


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


async def _share(click: Click) -> None:
    """Post an answer that only the asker saw for everybody in its thread, once."""
    answer_id = AnswerId(click.id())
    conversations = click.context.workplace.conversations
    stored = await conversations.answer(answer_id, audience=click.audience)
    turn = await _asked_by_clicker(click, stored.message_id)
    if turn is None:
        return
    await click.done()
    async with _sharing.setdefault(answer_id, asyncio.Lock()):
        posted = await click.context.deliveries.get(turn.message_id)
        if any(each.part >= SHARED_PART for each in posted):
            await click.tell(SHARED_BEFORE)
            return
        answer = await current_answer(
            click.context.workplace, message_id=turn.message_id, audience=click.audience
        )
        if answer is None or answer.id != answer_id:
            await click.tell(NEWER)
            return
        await _post_shared(click, answer)
    await click.remove()


async def _post_shared(click: Click, answer: Answer) -> None:
    links = await links_of(click.context.workplace, click.audience, answer)
    posts = answer_posts(answer, links=links, reach=Reach.SHARED)
    here = click.origin
    thread: dict[str, Any] = {"thread_ts": here.thread_ts} if here.thread_ts else {}
    for part, post in enumerate(posts, start=SHARED_PART):
        ts = await click.context.calls(click.client).post_message(
            channel=here.channel, **thread, **post.arguments()
        )
        await click.context.deliveries.put(answer.message_id, part=part, ref=f"{here.channel}:{ts}")
    await click.context.deliveries.finish(answer.message_id)


async def _need_human(click: Click) -> None:
    """Call the people whom the channel's settings name, and nobody else."""
    answer_id = AnswerId(click.id())
    await click.context.workplace.conversations.answer(answer_id, audience=click.audience)
    settings = await load(click.context.places, click.audience.channel_id)
    if click.audience.channel_id is None or not settings.humans:
        await click.done()
        await click.tell(NO_CHANNEL if click.audience.channel_id is None else NO_HUMANS)
        return
    new = await click.context.feedback.need_human(answer_id=answer_id, audience=click.audience)
    await click.done()
    if not new:
        await click.tell(CALLED_BEFORE)
        return
    called = " ".join(MRKDWN.person(human) for human in settings.humans)
    here = click.origin
    try:
        await click.context.calls(click.client).post_message(
            channel=here.channel,
            thread_ts=here.thread_ts or here.message_ts,
            text=f"{called}: {escape(click.name)} needs a person's help with this answer.",
        )
    except SlackClientError as error:
        logger.warning("people were not called: %s", error, extra={"action": "help_lost"})
        await click.tell(NOT_CALLED)


async def _asked_by_clicker(click: Click, message_id: MessageId) -> StoredTurn | None:
    """The question, if the clicker asked it; else they are told that it is not theirs.

    Raises:
        MessageNotFound: it was not asked here.
    """
    turn = await click.context.workplace.conversations.question(message_id, audience=click.audience)
    if turn.author_id is not None and turn.author_id == click.audience.member_id:
        return turn
    await click.done()
    await click.tell(ONLY_THE_ASKER)
    return None
