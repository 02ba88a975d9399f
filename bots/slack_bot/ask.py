"""Questions: mentions, direct messages, follow-ups in threads, `/parley ask`.

An event becomes a stored question and a queued job before Slack gets its ack: without a call to
Slack or the engine, in one transaction, and never if the database does not answer, so that Slack
delivers the event again. Bolt acknowledges events before their listeners run, so the claim is a
listener's middleware, which comes before that; the listener itself only says what needs no storing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from slack_bolt.async_app import AsyncApp, AsyncBoltContext
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.channel_settings import ChannelSettings, load
from bots.comparisons import kind_for
from bots.listening import EMPTY, NOT_NOW, addressed
from bots.messages import Question
from bots.slack_bot.commands import ASK_USAGE, Command, ask_by_command, question_of
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.files import accept_files
from bots.slack_bot.gate import judged
from bots.slack_bot.heard import Heard, heard_in
from bots.slack_bot.identity import audience_for
from storage.errors import StorageError
from storage.identity import Audience

logger = logging.getLogger(__name__)

BEFORE_ACK_S = 2.5
"""For what is stored before the ack, which Slack wants within 3 s."""
LAST_ATTEMPT = 3
"""Slack delivers an event three more times; after that nobody would ever answer."""

_AFTER_ACK = "parley_after_ack"


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something to say after the ack, that only the person sees."""

    heard: Heard
    text: str


def register(app: AsyncApp, context: SlackContext) -> None:
    """Listen to what people say."""

    async def claim(
        body: dict[str, Any],
        context: AsyncBoltContext,  # bolt passes by name
        client: AsyncWebClient,
        request: Any,
        next: Callable[[], Awaitable[None]],
    ) -> None:
        heard = heard_in(body, bot_user_id=context.bot_user_id or "")
        if heard is not None:
            try:
                async with asyncio.timeout(BEFORE_ACK_S):
                    context[_AFTER_ACK] = await _take(slack, client, heard, body)
            except (StorageError, TimeoutError):
                if _attempt(request) >= LAST_ATTEMPT and heard.calling:
                    await remark(slack, client, Remark(heard=heard, text=NOT_NOW))
                raise
        await next()

    async def speak(context: AsyncBoltContext, client: AsyncWebClient) -> None:
        said = context.get(_AFTER_ACK)
        if said is not None:
            await remark(slack, client, said)

    slack = context
    for event in ("app_mention", "message"):
        app.event(event, middleware=[claim])(speak)


async def _take(
    context: SlackContext, client: AsyncWebClient, heard: Heard, body: dict[str, Any]
) -> Remark | None:
    """Store what is meant for us; what to say instead where it is not answered."""
    asker = heard.asker
    here = await audience_for(
        context,
        team=asker.team,
        channel=heard.channel,
        user=asker.user if heard.calling else None,
        channel_open=heard.channel_open,
    )
    if heard.files:
        await accept_files(context, body, body["event"])
    settings = await load(context.workplace.places, here.channel_id)
    ours = heard.thread_ts is not None and await _is_ours(context, heard, here)
    meant = addressed(
        settings,
        calling=heard.calling,
        bot=asker.bot,
        for_others=heard.for_others,
        threaded=heard.thread_ts is not None,
        ours=ours,
    )
    if not meant:
        return None
    refusal = judged(asker, settings, context.people.known(client, asker.user))
    if refusal is not None:
        # Who was not calling us need not hear that we would not have answered.
        return Remark(heard=heard, text=refusal.text) if refusal.text and heard.calling else None
    if not heard.text:
        return Remark(heard=heard, text=EMPTY) if heard.calling and not heard.files else None
    audience = here
    if not heard.calling:
        audience = await audience_for(
            context, team=asker.team, channel=heard.channel, user=asker.user
        )
    question = Question(
        text=heard.text,
        audience=audience,
        thread_ref=heard.thread,
        message_ref=heard.ref,
        author_id=audience.member_id,
    )
    place = place_of(heard) | _notes(heard, settings, ours=ours)
    kind = kind_for(settings.comparison_share, heard.ref)
    await context.turns.accept(question, place=place, kind=kind)
    return None


def _notes(heard: Heard, settings: ChannelSettings, *, ours: bool) -> dict[str, str]:
    """What the turn has to see to before and beside the answer."""
    notes = {}
    if settings.ephemeral and not heard.asker.direct:
        notes["via"] = "ephemeral"
    # Whether the thread is known does not say whether all of it is: without follow-ups we hear
    # only what calls us. In direct messages we hear everything.
    threaded = heard.thread_ts is not None and not heard.asker.direct
    if threaded and not (ours and settings.follow_ups):
        notes["gap"] = "yes"
    if heard.asker.direct and not ours:
        notes["untitled"] = "yes"
    return notes


async def _is_ours(context: SlackContext, heard: Heard, audience: Audience) -> bool:
    """Whether the assistant speaks in the thread, or its answer to a command began it."""
    conversations = context.workplace.conversations
    if await conversations.thread_is_ours(heard.thread, audience=audience):
        return True
    ref = f"{heard.channel}:{heard.thread}"
    return await context.workplace.deliveries.find_by_ref(ref, audience=audience) is not None


def place_of(heard: Heard) -> dict[str, str]:
    """Where the answer belongs, and what is known of who asked; ids only."""
    asker = heard.asker
    return {
        "platform": SURFACE,
        "workspace": asker.team,
        "channel": "" if asker.direct else heard.channel,
        "member": asker.user,
        "team": asker.team,
        "reply_to": heard.channel,
        "thread": heard.thread,
        "ts": heard.ts,
        "via": "event",
        "bot": "yes" if asker.bot else "",
        "outside": "yes" if asker.outside else "",
        "calling": "yes" if heard.calling else "",
    }


async def remark(context: SlackContext, client: AsyncWebClient, said: Remark) -> None:
    """Say it to the person alone; in direct messages there is nobody else."""
    heard, calls = said.heard, context.calls(client)
    thread: dict[str, Any] = (
        {"thread_ts": heard.thread} if heard.asker.direct or heard.thread_ts else {}
    )
    try:
        if heard.asker.direct:
            await calls.post_message(channel=heard.channel, text=said.text, **thread)
        else:
            await calls.post_ephemeral(
                channel=heard.channel, user=heard.asker.user, text=said.text, **thread
            )
    except SlackClientError as error:
        logger.warning("a remark was lost: %s", error, extra={"action": "remark_lost"})


def _attempt(request: Any) -> int:
    """How often Slack delivered the event before."""
    number = (request.headers.get("x-slack-retry-num") or ["0"])[0]
    return int(number) if str(number).isdigit() else 0


async def ask(command: Command) -> None:
    """`/parley ask QUESTION`; the question is stored before the ack."""
    if not command.rest:
        await command.ack(text=ASK_USAGE)
        return
    settings = await load(command.context.workplace.places, command.audience.channel_id)
    question, _ = question_of(command)
    await ask_by_command(command, kind_for(settings.comparison_share, question.message_ref))
