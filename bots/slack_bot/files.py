"""Files: what people share where the app is becomes a document of that channel, or of that person.

A file is noted in the database before Slack gets its ack, and nothing else happens before it;
`bots.slack_bot.fetching` does the rest. A file of the same name replaces the one before it, whoever
shares it: it is the channel's document.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.context.respond.async_respond import AsyncRespond

from bots.slack_bot.clicks import ACK_S, origin_of
from bots.slack_bot.commands import sentence_for
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.downloads import SlackFile
from bots.slack_bot.gate import Asker
from bots.slack_bot.heard import heard_in
from bots.slack_bot.identity import audience_for, audience_of, is_direct
from bots.slack_bot.modals import Origin
from bots.slack_bot.said import plain_text
from storage.errors import StorageError
from storage.identity import Audience
from storage.shared_files import SharedFiles

logger = logging.getLogger(__name__)

ADD_SHORTCUT = "parley_add_knowledge"

NOTED = "I am reading it. Its thread shows what becomes of it, and so does `/parley documents`."
NOTHING = "There is nothing in this message that I could read: no file and no text."


def register(app: AsyncApp, context: SlackContext) -> None:
    """Handle the shortcut "Add to knowledge" on a message."""

    @app.shortcut(ADD_SHORTCUT)
    async def add_to_knowledge(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        try:
            async with asyncio.timeout(ACK_S):
                said = NOTED if await _accept_message(context, body) else NOTHING
        except (StorageError, TimeoutError, ValueError, KeyError) as error:
            logger.warning(
                "a shortcut failed: %s", type(error).__name__, extra={"action": "shortcut_failed"}
            )
            said = sentence_for(error, clicked=True)
        await ack()
        await respond(text=said, response_type="ephemeral", replace_original=False)


async def accept_files(
    context: SlackContext, body: Mapping[str, Any], event: Mapping[str, Any]
) -> bool:
    """Note the files of a message event, before its ack and without a call to Slack.

    The `app_mention` and the `message` of one message, and every redelivery, are one.

    Returns:
        Whether there were any, new or not.

    Raises:
        StorageUnavailable: some may not be noted; Slack delivers the event again.
    """
    heard = heard_in({**body, "event": event}, bot_user_id="")
    files = _files(event)
    if heard is None or not files:
        return False
    asker = heard.asker
    audience = await audience_for(context, team=asker.team, channel=heard.channel, user=asker.user)
    place = _place(asker, channel=heard.channel, thread=heard.thread, via="event")
    for file in files:
        await _note(context, audience, place, ref=f"{heard.ref}:{file.id}", file=file)
    return True


async def _accept_message(context: SlackContext, body: Mapping[str, Any]) -> bool:
    """Note what a message holds: its files, else its text. Whoever uses the shortcut adds it."""
    message, origin = body["message"], origin_of(body)
    audience = await audience_of(body, context)
    asker = asker_of(origin, outside=body["user"].get("team_id", origin.team) != origin.team)
    thread = origin.thread_ts or str(message["ts"])
    place = _place(asker, channel=origin.channel, thread=thread, via="shortcut")
    # Every use counts: what was removed meanwhile is added again.
    ref = f"{origin.channel}:{message['ts']}:{body['action_ts']}"
    files = _files(message)
    for file in files:
        await _note(context, audience, place, ref=f"{ref}:{file.id}", file=file)
    text = plain_text(str(message.get("text") or "")).replace("\0", " ")
    if not files and text:
        source = {"name": _name_of_message(message), "text": text, "ts": str(message["ts"])}
        await SharedFiles(context.workplace.pool).accept(
            audience=audience, ref=ref, source=source, surface=SURFACE, place=place
        )
    return bool(files or text)


async def accept_replacement(
    context: SlackContext,
    audience: Audience,
    origin: Origin,
    file: SlackFile,
    *,
    name: str,
    ref: str,
) -> None:
    """Note a file that replaces the document `name`, whatever its own name is."""
    place = _place(
        asker_of(origin), channel=origin.channel, thread=origin.thread_ts, via="replacement"
    )
    await _note(context, audience, place, ref=ref, file=file, name=name)


def asker_of(origin: Origin, *, outside: bool = False) -> Asker:
    """A person who clicked, for the gate."""
    return Asker(
        user=origin.user,
        team=origin.team,
        bot=False,
        outside=outside,
        direct=is_direct(origin.channel),
    )


async def _note(
    context: SlackContext,
    audience: Audience,
    place: Mapping[str, str],
    *,
    ref: str,
    file: SlackFile,
    name: str | None = None,
) -> None:
    await SharedFiles(context.workplace.pool).accept(
        audience=audience,
        ref=ref,
        source={"name": name or file.name, "file": asdict(file)},
        surface=SURFACE,
        place=place,
    )


def _files(message: Mapping[str, Any]) -> list[SlackFile]:
    found = [SlackFile.read(file) for file in message.get("files") or ()]
    return [file for file in found if file.id]


def _name_of_message(message: Mapping[str, Any]) -> str:
    said_at = datetime.fromtimestamp(float(message["ts"]), tz=UTC)
    return f"Message of {said_at:%Y-%m-%d %H.%M} UTC ({message['ts']}).txt"


def _place(asker: Asker, *, channel: str, thread: str, via: str) -> dict[str, str]:
    """What the job must know, in the words of a turn's place."""
    return {
        "platform": SURFACE,
        "workspace": asker.team,
        "channel": "" if asker.direct else channel,
        "member": asker.user,
        "reply_to": channel,
        "thread": thread,
        "via": via,
        "bot": "yes" if asker.bot else "",
        "outside": "yes" if asker.outside else "",
    }
