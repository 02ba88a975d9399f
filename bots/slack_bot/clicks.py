"""One registration for every button: whose click it is is settled before anything happens.

Slack does not send a click again, whatever happened to it. So a click's work is stored before its
ack, as long as Slack's 3 s allow, and whoever clicked is told how it ended: a person who sees
nothing clicks again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.request.internals import extract_team_id
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots.channel_settings import load
from bots.errors import BotsError
from bots.failures import log_failure
from bots.gate import outsiders
from bots.slack_bot import commands
from bots.slack_bot.blocks import Block
from bots.slack_bot.context import SlackContext
from bots.slack_bot.identity import audience_for, audience_of
from bots.slack_bot.modals import Origin, notice_view
from bots.slack_bot.mrkdwn import MRKDWN
from bots.slack_bot.web_api import SlackRefused
from storage.errors import DiskFull, StorageError, StorageUnavailable
from storage.identity import Audience

logger = logging.getLogger(__name__)

ACK_S = 2.0
"""Slack wants the ack within 3 s; what is not stored by now goes on after it."""
WORK_S = 30.0
"""Of one click, calls to Slack included."""
REMOVE_S = 5.0


class Outsider(BotsError):
    """Somebody of another company clicked where they may not."""

    def __init__(self) -> None:
        super().__init__(outsiders(MRKDWN))


@dataclass(frozen=True, kw_only=True)
class Click:
    """A click that is being handled.

    Attributes:
        value: what the clicked element carries; an id in it is checked against `audience` by
            whoever reads it.
        done: acknowledges; call it when everything that must not be lost is stored.
    """

    context: SlackContext
    client: AsyncWebClient
    body: Mapping[str, Any]
    audience: Audience
    value: str
    done: AsyncAck

    @property
    def origin(self) -> Origin:
        """Where it was, by Slack's ids."""
        return origin_of(self.body)

    @property
    def name(self) -> str:
        """What Slack calls the clicker; not escaped."""
        return str(self.body["user"].get("name") or "Somebody")

    def id(self) -> UUID:
        """The value as an id.

        Raises:
            ValueError: it is none.
        """
        return UUID(self.value)

    async def tell(self, text: str, blocks: Sequence[Block] | None = None) -> None:
        """Say something that only the clicker sees; `text` is mrkdwn, escaped."""
        await _tell_clicker(self.context, self.client, self.body, text, blocks)

    async def remove(self) -> None:
        """Take away the message that was clicked, which only the clicker sees.

        Slack lets go of such a message by this address alone; one that stays does no harm.
        """
        hook = AsyncWebhookClient(
            self.body["response_url"], session=self.client.session, retry_handlers=[]
        )
        with contextlib.suppress(SlackClientError, TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(REMOVE_S):
                await hook.send_dict({"delete_original": True})


Work = Callable[[Click], Awaitable[None]]


def on_click(app: AsyncApp, context: SlackContext, action_id: str, work: Work) -> None:
    """Let `work` handle the clicks on `action_id`.

    The value of a click is that of its button, the chosen option of a menu, or the conversation
    chosen in a conversations select. Errors that `work` raises become a sentence for the clicker.
    """

    @app.action(action_id)
    async def listener(
        ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient, action: dict[str, Any]
    ) -> None:
        late = asyncio.create_task(_ack_later(ack))
        try:
            async with asyncio.timeout(WORK_S):
                audience = await audience_of(body, context)
                await _refuse_outsiders(context, client, body, audience)
                click = Click(
                    context=context,
                    client=client,
                    body=body,
                    audience=audience,
                    value=_value(action),
                    done=ack,
                )
                await work(click)
        except Exception as error:
            await _tell_failure(context, client, body, error)
        finally:
            late.cancel()
            await ack()


async def tell(
    context: SlackContext,
    client: AsyncWebClient,
    origin: Origin,
    text: str,
    blocks: Sequence[Block] | None = None,
) -> None:
    """Say something that only `origin.user` sees, in the channel where they acted.

    Args:
        text: mrkdwn, escaped.
        blocks: in place of the text.
    """
    arguments: dict[str, Any] = {"channel": origin.channel, "user": origin.user, "text": text}
    if origin.thread_ts:
        arguments["thread_ts"] = origin.thread_ts
    if blocks:
        arguments["blocks"] = list(blocks)
    await context.calls(client).post_ephemeral(**arguments)


def origin_of(body: Mapping[str, Any], *, answer_id: str = "") -> Origin:
    """Where an interaction happened, by Slack's ids; the App Home has no channel."""
    container = body.get("container") or {}
    message = body.get("message") or {}
    return Origin(
        team=extract_team_id(dict(body)) or str(body["user"]["team_id"]),
        channel=str((body.get("channel") or {}).get("id") or container.get("channel_id") or ""),
        user=str(body["user"]["id"]),
        message_ts=str(container.get("message_ts") or message.get("ts") or ""),
        thread_ts=str(message.get("thread_ts") or container.get("thread_ts") or ""),
        answer_id=answer_id,
    )


async def audience_of_submission(
    context: SlackContext, origin: Origin, body: Mapping[str, Any]
) -> Audience:
    """Who submits a modal, and where; `origin` is what the modal carried.

    Raises:
        ValueError: it was opened by somebody else, or in another workspace.
    """
    here = origin_of(body)
    if (origin.team, origin.user) != (here.team, here.user):
        raise ValueError("a modal came back from somebody else")
    return await audience_for(
        context, team=origin.team, channel=origin.channel or None, user=origin.user
    )


async def refuse_submission(ack: AsyncAck, error: Exception, *, block_id: str) -> None:
    """Say why a modal was not accepted: in it where trying again may work, else in its place."""
    logger.warning(
        "a modal was refused: %s", type(error).__name__, extra={"action": "modal_refused"}
    )
    if isinstance(error, StorageUnavailable | DiskFull | TimeoutError):
        await ack(
            response_action="errors", errors={block_id: commands.sentence_for(error, clicked=True)}
        )
    else:
        await ack(
            response_action="update", view=notice_view(commands.sentence_for(error, clicked=True))
        )


async def _tell_failure(
    context: SlackContext, client: AsyncWebClient, body: Mapping[str, Any], error: Exception
) -> None:
    expected = isinstance(
        error,
        BotsError | SlackClientError | StorageError | TimeoutError | ValueError,
    )
    log_failure(logger, "a click", error, expected=expected, action="click_failed")
    with contextlib.suppress(KeyError, SlackClientError, TimeoutError, aiohttp.ClientError):
        await _tell_clicker(context, client, body, commands.sentence_for(error, clicked=True))


async def _tell_clicker(
    context: SlackContext,
    client: AsyncWebClient,
    body: Mapping[str, Any],
    text: str,
    blocks: Sequence[Block] | None = None,
) -> None:
    """In the channel; a click in the App Home, which has none, is answered by a modal.

    Where the app is no member of the channel, which a command may be used in, the click's own
    address takes the word.
    """
    origin = origin_of(body)
    if not origin.channel:
        await context.calls(client).open_view(trigger_id=body["trigger_id"], view=notice_view(text))
        return
    try:
        await tell(context, client, origin, text, blocks)
    except SlackRefused:
        await commands.respond(client, body["response_url"], text, blocks)


async def _refuse_outsiders(
    context: SlackContext, client: AsyncWebClient, body: Mapping[str, Any], audience: Audience
) -> None:
    """People of other companies act only where the channel's settings let them ask.

    Raises:
        Outsider: not here.
    """
    home, here = body["user"].get("team_id"), origin_of(body)
    if home in (None, here.team):
        return
    if (await load(context.workplace.places, audience.channel_id)).who == "everyone":
        return
    if (await context.people.info(client, here.user)).stranger_to(here.team):
        raise Outsider


async def _ack_later(ack: AsyncAck) -> None:
    await asyncio.sleep(ACK_S)
    await ack()


def _value(action: Mapping[str, Any]) -> str:
    chosen = action.get("selected_option") or {}
    return str(
        action.get("value") or chosen.get("value") or action.get("selected_conversation") or ""
    )
