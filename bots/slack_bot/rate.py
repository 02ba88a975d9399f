"""Votes under answers: stored before the ack, confirmed to the voter, explained in a modal.

Slack's feedback buttons fire on every click and cannot be released: a second click the other way
changes the vote, a second click the same way changes nothing, and the confirmation that only the
voter sees has a button that withdraws it.
"""

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
    Criticism,
    Origin,
    read_criticism,
    reasons_view,
)
from storage.errors import StorageError
from storage.identity import AnswerId, Audience

logger = logging.getLogger(__name__)

EXPLAIN_ACTION = "parley_explain"
WITHDRAW_ACTION = "parley_withdraw"

_VALUES: Final[Mapping[str, Literal[-1, 1]]] = {"up": 1, "down": -1}
_THUMBS = {1: ":+1:", -1: ":-1:"}
_OUTCOMES = {
    "recorded": "Your vote {thumb} is recorded. Thank you!",
    "changed": "Your vote is changed to {thumb}.",
    "unchanged": "Your vote was and stays {thumb}.",
    "withdrawn": "Your vote is withdrawn.",
}


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
    outcome = await click.context.feedback.vote(
        answer_id=answer_id, audience=click.audience, value=value
    )
    await click.done()
    said = _OUTCOMES[outcome].format(thumb=_THUMBS[value])
    confirmed = click.tell(said, _confirmation(said, answer_id, down=value < 0))
    if value < 0 and outcome != "unchanged":
        await asyncio.gather(_open_reasons(click, answer_id), confirmed)
    else:
        await confirmed


async def _withdraw(click: Click) -> None:
    outcome = await click.context.feedback.vote(
        answer_id=AnswerId(click.id()), audience=click.audience, value=None
    )
    await click.done()
    text = _OUTCOMES["withdrawn"] if outcome == "withdrawn" else "You have no vote on this answer."
    await click.tell(text)


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
            await _store(context, AnswerId(UUID(origin.answer_id)), audience, criticism)
    except (ValueError, StorageError, TimeoutError) as error:
        await refuse_submission(ack, error, block_id="better")
        return
    await ack()
    said = "Thank you: what you wrote is kept with the answer."
    if criticism == Criticism(reasons=(), comment=None, better=None):
        said = "Nothing was added; your vote stays."
    await tell(context, client, origin, said)


async def _store(
    context: SlackContext, answer_id: AnswerId, audience: Audience, criticism: Criticism
) -> None:
    if criticism.reasons or criticism.comment:
        await context.feedback.vote(
            answer_id=answer_id,
            audience=audience,
            value=-1,
            reasons=criticism.reasons,
            comment=criticism.comment,
        )
    if criticism.better:
        await context.feedback.correct(
            answer_id=answer_id, audience=audience, text=criticism.better
        )


def _confirmation(said: str, answer_id: AnswerId, *, down: bool) -> list[Block]:
    buttons = [button("Withdraw", WITHDRAW_ACTION, str(answer_id))]
    if down:
        explain = button("Say why or write the better answer", EXPLAIN_ACTION, str(answer_id))
        buttons.insert(0, explain)
    return [section(said), {"type": "actions", "elements": buttons}]
