"""Votes under answers in Slack: stored before the ack, confirmed, explained in a modal."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Literal
from uuid import UUID

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot.blocks import FEEDBACK_ACTION, Block, button, section
from bots.slack_bot.clicks import (
    ACK_S,
    Click,
    audience_of_submission,
    on_click,
    origin_of,
    refuse_submission,
    tell,
)
from bots.slack_bot.context import SlackContext
from bots.slack_bot.modals import (
    REASONS_MODAL,
    Origin,
    read_criticism,
    reasons_view,
)
from bots.voting import EXPLAIN, WITHDRAW, criticise, vote, withdraw
from storage.errors import StorageError
from storage.identity import AnswerId

logger = logging.getLogger(__name__)

EXPLAIN_ACTION = "parley_explain"
WITHDRAW_ACTION = "parley_withdraw"

_VALUES: Final[Mapping[str, Literal[-1, 1]]] = {"up": 1, "down": -1}


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle votes, their withdrawal, and the modal behind a down-vote."""
    on_click(app, context, FEEDBACK_ACTION, _vote)
    on_click(app, context, WITHDRAW_ACTION, _withdraw)
    on_click(app, context, EXPLAIN_ACTION, _explain)

    @app.view(REASONS_MODAL)
    async def submitted(
        ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient
    ) -> None:
        await _submitted(context, ack, body, view, client)


async def _vote(click: Click) -> None:
    thumb, _, text = click.value.partition(":")
    value, answer_id = _VALUES.get(thumb), AnswerId(UUID(text))
    if value is None:
        raise ValueError("a vote is up or down")
    voted = await vote(
        click.context.workplace.feedback, answer_id, audience=click.audience, value=value
    )
    await click.done()
    confirmed = click.tell(voted.text, _confirmation(voted.text, answer_id, down=value < 0))
    if value < 0 and voted.new:
        await asyncio.gather(_open_reasons(click, answer_id), confirmed)
    else:
        await confirmed


async def _withdraw(click: Click) -> None:
    said = await withdraw(
        click.context.workplace.feedback, AnswerId(click.id()), audience=click.audience
    )
    await click.done()
    await click.tell(said)


async def _explain(click: Click) -> None:
    """Open the modal again; the answer's id is checked here and when it comes back."""
    answer_id = AnswerId(click.id())
    await click.context.workplace.conversations.answer(answer_id, audience=click.audience)
    await click.done()
    await _open_reasons(click, answer_id)


async def _open_reasons(click: Click, answer_id: AnswerId) -> None:
    """Open the modal while the click's `trigger_id` lives, 3 s; its button can open it later."""
    origin = origin_of(click.body, answer_id=str(answer_id))
    try:
        await click.context.calls(click.client).open_view(
            trigger_id=click.body["trigger_id"], view=reasons_view(origin)
        )
    except (SlackClientError, TimeoutError) as error:
        logger.warning(
            "a modal did not open: %s", type(error).__name__, extra={"action": "modal_failed"}
        )


async def _submitted(
    context: SlackContext,
    ack: AsyncAck,
    body: Mapping[str, Any],
    view: Mapping[str, Any],
    client: AsyncWebClient,
) -> None:
    """Store what the modal says, before it closes: what was typed is lost otherwise."""
    try:
        async with asyncio.timeout(ACK_S):
            origin = Origin.load(view.get("private_metadata", ""))
            audience = await audience_of_submission(context, origin, body)
            criticism = read_criticism(view)
            said = await criticise(
                context.workplace.feedback,
                AnswerId(UUID(origin.answer_id)),
                audience=audience,
                criticism=criticism,
            )
    except (ValueError, StorageError, TimeoutError) as error:
        await refuse_submission(ack, error, block_id="better")
        return
    await ack()
    await tell(context, client, origin, said)


def _confirmation(said: str, answer_id: AnswerId, *, down: bool) -> list[Block]:
    buttons = [button(WITHDRAW, WITHDRAW_ACTION, str(answer_id))]
    if down:
        explain = button(EXPLAIN, EXPLAIN_ACTION, str(answer_id))
        buttons.insert(0, explain)
    return [section(said), {"type": "actions", "elements": buttons}]
