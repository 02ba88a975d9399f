"""What comes before an answer and needs Slack: may this person ask, what was said before.

All of it happens in the turn, after the ack, so a Slack that is slow delays nothing but the answer.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.channel_settings import load
from bots.gate import Refusal
from bots.listening import title_of
from bots.slack_bot.commands import respond
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.gate import Asker, admitted
from bots.slack_bot.oauth import NotInstalled
from bots.slack_bot.said import plain_text
from bots.slack_bot.web_api import SlackCalls
from bots.turns import Deliver, PendingTurn
from storage.errors import StorageError
from storage.identity import ThreadId

logger = logging.getLogger(__name__)

EARLIER_MESSAGES = 20
"""Of a foreign thread that are read; the prompt holds far fewer."""
GAP_S = 10.0
"""For reading what was said before; beyond it the question is answered without."""
NOT_HERE = "I cannot write in this channel; invite me with `/invite`, then ask again."
TITLE_CHARACTERS = 60
TITLE_S = 2.0
"""That a title may take longer than its answer."""


def prepared(context: SlackContext, deliver: Deliver) -> Deliver:
    """A deliverer that first sees to the rest, then calls `deliver`."""

    async def prepare_and_deliver(pending: PendingTurn) -> None:
        place = pending.place
        try:
            client = await context.client_for(place["workspace"])
        except NotInstalled:
            logger.info("a question's workspace is gone", extra={"action": "turn_dropped"})
            return
        if pending.kind != "regenerate":
            refusal = await _refusal(context, client, pending)
            if refusal is not None:
                await _refuse(context.calls(client), place, refusal)
                return
            if place.get("gap"):
                await _fill_gap(context, client, pending)
        naming = None
        if place.get("untitled"):
            naming = asyncio.create_task(_name_thread(context, client, pending), name="title")
        try:
            await deliver(pending)
            await _excuse(context, client, pending)
        finally:
            if naming is not None:
                await asyncio.wait({naming}, timeout=TITLE_S)
                naming.cancel()

    return prepare_and_deliver


async def _excuse(context: SlackContext, client: AsyncWebClient, pending: PendingTurn) -> None:
    """Where a command was used in a channel without us, its person learns why nothing came."""
    place = pending.place
    if "response_url" not in place or await context.workplace.deliveries.get(pending.message_id):
        return
    try:
        await respond(client, place["response_url"], NOT_HERE)
    except (SlackClientError, TimeoutError, OSError) as error:
        logger.warning(
            "an excuse was lost: %s", type(error).__name__, extra={"action": "excuse_lost"}
        )


async def _refusal(
    context: SlackContext, client: AsyncWebClient, pending: PendingTurn
) -> Refusal | None:
    place = pending.place
    asker = Asker(
        user=place["member"],
        team=place["workspace"],
        bot=bool(place.get("bot")),
        outside=bool(place.get("outside")),
        direct=place["channel"] == "",
    )
    settings = await load(context.workplace.places, pending.audience.channel_id)
    return await admitted(asker, settings, people=context.people, client=client)


async def _refuse(calls: SlackCalls, place: Mapping[str, str], refusal: Refusal) -> None:
    if not refusal.text or not place.get("calling"):
        return
    thread = {"thread_ts": place["thread"]} if place["thread"] != place["ts"] else {}
    try:
        if place["channel"] == "":
            await calls.post_message(
                channel=place["reply_to"], text=refusal.text, thread_ts=place["thread"] or None
            )
        else:
            await calls.post_ephemeral(
                channel=place["channel"], user=place["member"], text=refusal.text, **thread
            )
    except SlackClientError as error:
        logger.warning("a refusal was lost: %s", error, extra={"action": "refusal_lost"})


# -- What was said before -------------------------------------------------------------------------


async def _fill_gap(context: SlackContext, client: AsyncWebClient, pending: PendingTurn) -> None:
    """Read what was said in the thread before the question and is not stored yet."""
    place = pending.place
    try:
        async with asyncio.timeout(GAP_S):
            said = await context.calls(client).thread(channel=place["reply_to"], ts=place["thread"])
    except (SlackClientError, TimeoutError) as error:
        # An answer without the thread is better than none; what the question itself says stays.
        logger.warning("a thread was not read: %s", error, extra={"action": "thread_unread"})
        return
    conversations, audience = context.workplace.conversations, pending.audience
    stored = await conversations.question(pending.message_id, audience=audience)
    if stored.message_ref is None:
        return
    prefix = stored.message_ref.rpartition(":")[0]
    filled = await conversations.filled_until(place["thread"], audience=audience)
    since, until = filled.timestamp() if filled else 0.0, float(place["ts"])
    before = [message for message in said if since < float(message["ts"]) < until]
    for message in before[-EARLIER_MESSAGES:]:
        ref = f"{prefix}:{message['ts']}"
        await _import(context, pending, message, ref=ref, thread_id=stored.thread_id)


async def _import(
    context: SlackContext,
    pending: PendingTurn,
    message: Mapping[str, Any],
    *,
    ref: str,
    thread_id: ThreadId,
) -> None:
    text = plain_text(str(message.get("text") or ""))
    if not text or message.get("subtype") not in (None, "thread_broadcast", "file_share"):
        return
    conversations = context.workplace.conversations
    answer = None
    posted = f"{pending.place['reply_to']}:{message['ts']}"
    answered = await context.workplace.deliveries.find_by_ref(posted, audience=pending.audience)
    if answered is not None:
        # One of ours, posted for a command: the store has the question and the exact answer.
        turn = await conversations.question(answered, audience=pending.audience)
        if turn.thread_id == thread_id:
            return
        text, answer = turn.text, turn.answer.text if turn.answer is not None else None
    elif message.get("app_id") and ref.startswith(f"{message['app_id']}:"):
        return  # notices of ours, not part of the conversation
    author_id = None
    if message.get("user") and answered is None:
        author = await context.workplace.identities.resolve(
            platform=SURFACE, workspace=pending.place["workspace"], member=str(message["user"])
        )
        author_id = author.member_id
    await conversations.import_turn(
        audience=pending.audience,
        thread_ref=pending.place["thread"],
        message_ref=ref,
        text=text,
        author_id=author_id,
        answer_text=answer,
        asked_at=datetime.fromtimestamp(float(message["ts"]), tz=UTC),
    )


# -- The thread's title ---------------------------------------------------------------------------


async def _name_thread(context: SlackContext, client: AsyncWebClient, pending: PendingTurn) -> None:
    """Call the thread by its first question; an ornament, so whatever fails is let go."""
    try:
        turn = await context.workplace.conversations.question(
            pending.message_id, audience=pending.audience
        )
        await context.calls(client).set_title(
            channel=pending.place["reply_to"],
            thread_ts=pending.place["thread"],
            title=title_of(turn.text, characters=TITLE_CHARACTERS),
        )
    except (SlackClientError, StorageError) as error:
        logger.debug("a thread has no title: %s", error, extra={"action": "title_failed"})
