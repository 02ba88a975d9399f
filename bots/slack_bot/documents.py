"""Documents in Slack: `/parley documents`, and the buttons that remove and replace one."""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots.document_list import NOT_YOURS, find_documents, may_remove, objection, remove
from bots.slack_bot.admin import administers
from bots.slack_bot.clicks import (
    ACK_S,
    Click,
    audience_of_submission,
    on_click,
    refuse_submission,
    tell,
)
from bots.slack_bot.context import SlackContext
from bots.slack_bot.document_blocks import (
    FILE_INPUT,
    REMOVE_ACTION,
    REPLACE_ACTION,
    REPLACE_MODAL,
    Replacement,
    list_post,
    removed_post,
    replace_view,
)
from bots.slack_bot.downloads import SlackFile
from bots.slack_bot.files import accept_replacement
from bots.slack_bot.mrkdwn import escape
from bots.slack_bot.said import plain_text
from storage.errors import StorageError
from storage.identity import DocumentId

if TYPE_CHECKING:
    from bots.slack_bot.commands import Command  # which dispatches to this module

logger = logging.getLogger(__name__)


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the buttons under a document, and the form that replaces one."""
    on_click(app, context, REMOVE_ACTION, _remove)
    on_click(app, context, REPLACE_ACTION, _open_form)

    @app.view(REPLACE_MODAL)
    async def submitted(
        ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient
    ) -> None:
        await _submitted(context, ack, body, view, client)


async def list_documents(command: "Command") -> None:
    """`/parley documents [WORD]`: what may be read here, with its status."""
    await command.ack()
    wanted = plain_text(command.rest)
    found = await find_documents(command.context.workplace, command.audience, wanted=wanted)
    post = list_post(found, wanted=wanted)
    await command.reply(post.text, post.blocks)


async def _remove(click: Click) -> None:
    workplace, here = click.context.workplace, click.origin
    document = await workplace.documents.get(DocumentId(click.id()), audience=click.audience)

    async def admin() -> bool:
        return await administers(click.context, click.client, team=here.team, user=here.user)

    if not await may_remove(workplace, click.audience, document, admin):
        await click.done()
        await click.tell(NOT_YOURS)
        return
    shown_in = await remove(workplace, click.audience, document.id)
    await click.done()
    calls = click.context.calls(click.client)
    post = removed_post(document.name, here.user)
    for ref in shown_in:
        channel, _, ts = ref.rpartition(":")
        try:
            await calls.update_message(channel=channel, ts=ts, **post.arguments())
        except SlackClientError as error:
            logger.info("a status stays: %s", error, extra={"action": "status_stays"})
    await click.tell(f"*{escape(document.name)}* is removed, with all quotes from it.")


async def _open_form(click: Click) -> None:
    document = await click.context.workplace.documents.get(
        DocumentId(click.id()), audience=click.audience
    )
    await click.done()
    here = click.origin
    origin = Replacement(
        team=here.team,
        channel=here.channel,
        user=here.user,
        thread_ts=here.thread_ts,
        document_id=str(document.id),
    )
    try:
        await click.context.calls(click.client).open_view(
            trigger_id=click.body["trigger_id"], view=replace_view(origin, document)
        )
    except SlackClientError as error:
        logger.warning("no form: %s", error, extra={"action": "modal_failed"})
        await click.tell(
            f"The form did not open. Share a file named *{escape(document.name)}* here instead: it"
            " replaces this one."
        )


async def _submitted(
    context: SlackContext,
    ack: AsyncAck,
    body: Mapping[str, Any],
    view: Mapping[str, Any],
    client: AsyncWebClient,
) -> None:
    """Note the new file before the form closes; its ids are checked once more."""
    try:
        async with asyncio.timeout(ACK_S):
            origin = Replacement.load(view["private_metadata"])
            audience = await audience_of_submission(context, origin, body)
            document = await context.workplace.documents.get(
                DocumentId(UUID(origin.document_id)), audience=audience
            )
            file = _submitted_file(view)
            wrong = objection(file.name if file is not None else None, document)
            if file is not None and wrong is None:
                # Under the document's own name, which makes it the same document.
                ref = f"{view['id']}:{file.id}"
                await accept_replacement(
                    context, audience, origin, file, name=document.name, ref=ref
                )
    except (KeyError, TypeError, ValueError, StorageError, TimeoutError) as error:
        await refuse_submission(ack, error, block_id=FILE_INPUT)
        return
    if wrong is not None:
        await ack(response_action="errors", errors={FILE_INPUT: wrong})
        return
    await ack()
    await tell(context, client, origin, f"The new *{escape(document.name)}* is being read.")


def _submitted_file(view: Mapping[str, Any]) -> SlackFile | None:
    state = view["state"]["values"][FILE_INPUT][FILE_INPUT]
    files = [SlackFile.read(file) for file in state.get("files") or ()]
    return files[0] if files and files[0].id else None
