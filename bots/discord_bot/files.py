"""Files: `/upload` and "Add to knowledge" make documents, a question's attachments are read for it.

A file is noted in the database before anybody is told so; `bots.discord_bot.fetching` does the
rest. A file of the same name replaces the one before it, whoever adds it: it is the channel's
document. What is attached to a question belongs to its thread alone, in a scope of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC

import discord
from discord.app_commands import CommandTree, ContextMenu, describe, locale_str

from bots.discord_bot.context import SURFACE, DiscordContext
from bots.discord_bot.downloads import Attached
from bots.discord_bot.interactions import ACK_S, Use, handle
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.said import plain_text
from bots.document_list import shown_name
from bots.ingest_status import describe as described
from bots.ingest_status import follow
from bots.messages import Preparing, Remark
from bots.turns import PendingTurn
from storage.documents import Document
from storage.errors import DocumentNotFound
from storage.identity import Audience
from storage.shared_files import SharedFile, SharedFiles

READ_S = 600.0
"""How long an answer waits for its question's files; then it comes without what is missing."""
LOOK_S = 0.25
"""Between two looks at whether a file was fetched."""
NOTHING = "There is nothing in this message that I could read: no file and no text."
NO_QUESTION = (
    "What do you want to know about it? Ask in the same message; or keep the file for everybody"
    " here with /upload."
)
NOTED = "I am reading it; a message here shows what becomes of it."


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add the command and the context menu."""

    @tree.command(
        name=locale_str("upload"),
        description=locale_str("Add files to what is known here; the same name replaces"),
    )
    @describe(
        file=locale_str("A document"),
        second=locale_str("Another document"),
        third=locale_str("A third document"),
    )
    async def upload(
        interaction: discord.Interaction,
        file: discord.Attachment,
        second: discord.Attachment | None = None,
        third: discord.Attachment | None = None,
    ) -> None:
        files = [each for each in (file, second, third) if each is not None]
        await handle(context, interaction, lambda use: _upload(use, files))

    async def add(interaction: discord.Interaction, message: discord.Message) -> None:
        await handle(context, interaction, lambda use: _add_message(use, message))

    tree.add_command(ContextMenu(name=locale_str("Add to knowledge"), callback=add))


async def _upload(use: Use, attachments: Sequence[discord.Attachment]) -> None:
    """Note the files; the response shows what becomes of them.

    Raises:
        StorageError, TimeoutError: some may not be noted.
    """
    files = [Attached.of(attachment) for attachment in attachments]
    await accept_all(use, files, place={"via": "upload"})


async def _add_message(use: Use, message: discord.Message) -> None:
    """Note what a message holds: its files, else its text. Whoever uses the menu adds it."""
    files = [Attached.of(attachment) for attachment in message.attachments]
    text = plain_text(message, without=()).replace("\0", " ")
    # Where the app is no member, the response to the menu is the only place for the status.
    place = {"via": "menu", "message": str(message.id)} | (
        {} if use.spot.foreign else {"token": ""}
    )
    if files:
        await accept_all(use, files, place=place)
    elif text:
        said_at = message.created_at.astimezone(UTC)
        name = f"Message of {said_at:%Y-%m-%d %H.%M} UTC ({message.id}).txt"
        await accept_all(use, [{"name": name, "text": text}], place=place)
    else:
        await use.tell(MARKDOWN.plain(NOTHING))


async def accept_all(
    use: Use,
    sources: Sequence[Attached | Mapping[str, str]],
    *,
    place: Mapping[str, str],
    name: str | None = None,
) -> None:
    """Note what a command, menu or form brought, then acknowledge it.

    Args:
        sources: attachments, or a text with its name.
        place: what the place of the files says besides who brought them where; without a "token"
            their status is a message of its own, and the person is told so.
        name: of the document that they become; None = their own.

    Raises:
        StorageError, TimeoutError: some may not be noted.
    """
    interaction = use.interaction
    with use.context.deferrals.begun(str(interaction.id)):
        async with asyncio.timeout(ACK_S):
            for index, source in enumerate(sources):
                # The first status fills the response; another one could take that place from it.
                further = {"further": "yes", "token": ""} if index else {}
                await accept(
                    use.context,
                    use.audience,
                    {**use.place, "interaction": str(interaction.id), **further, **place},
                    source,
                    # Every use counts: what was removed meanwhile is added again.
                    ref=f"{interaction.application_id}:interaction:{interaction.id}:{index}",
                    name=name,
                )
        if "token" in place:
            await use.tell(MARKDOWN.plain(NOTED))
        else:
            await use.hand_over(private=use.spot.foreign)


async def accept(
    context: DiscordContext,
    audience: Audience,
    place: Mapping[str, str],
    source: Attached | Mapping[str, str],
    *,
    ref: str,
    name: str | None = None,
) -> None:
    """Note a file, or a text.

    Args:
        ref: names it, however often it is noted.
        name: of the document that it becomes; None = its own.

    Raises:
        StorageUnavailable: it may not be noted.
    """
    noted: Mapping[str, object] = (
        source
        if not isinstance(source, Attached)
        else {
            "name": name or source.name,
            "file": asdict(source),
        }
    )
    await SharedFiles(context.workplace.pool).accept(
        audience=audience, ref=ref, source=noted, surface=SURFACE, place=place
    )


# -- Files of a question --------------------------------------------------------------------------


async def accept_attached(
    context: DiscordContext,
    message: discord.Message,
    place: Mapping[str, str],
    *,
    scope: str,
    message_ref: str,
) -> None:
    """Note the attachments of a question, before the question itself is stored.

    Args:
        place: of the question's turn.
        scope: whose documents they will be: those of the question's thread.

    Raises:
        StorageUnavailable: some may not be noted.
    """
    audience = await context.workplace.identities.resolve(
        platform=SURFACE,
        workspace=place["workspace"],
        channel=scope,
        member=place["member"],
    )
    for attachment in message.attachments:
        file = Attached.of(attachment)
        await accept(
            context, audience, {**place, "scope": scope}, file, ref=f"{message_ref}:{file.id}"
        )


async def read_first(
    context: DiscordContext, pending: PendingTurn
) -> AsyncGenerator[Preparing | Remark, None]:
    """Wait until the attachments of a question are read, and tell of those that cannot be."""
    question = await context.workplace.conversations.question(
        pending.message_id, audience=pending.audience
    )
    ends_at = asyncio.get_running_loop().time() + READ_S
    for noted in await SharedFiles(context.workplace.pool).of_message(
        pending.audience.workspace_id, question.message_ref or ""
    ):
        name = shown_name(noted.name or "The file")
        yield Preparing(note=f"Reading {name}…")
        file = await _fetched(context, noted, until=ends_at)
        document = None
        if file is not None and file.document_id is not None:
            changes = follow(
                file.document_id,
                documents=context.workplace.documents,
                audience=pending.audience,
                deadline_s=ends_at - asyncio.get_running_loop().time(),
            )
            with contextlib.suppress(DocumentNotFound):
                async with contextlib.aclosing(changes):
                    async for document in changes:
                        yield Preparing(note=f"{name}: {described(document)}")
        if document is None or document.status != "ready":
            yield Remark(text=_not_read(name, file, document))


async def _fetched(context: DiscordContext, file: SharedFile, *, until: float) -> SharedFile | None:
    """The file once it is a document or given up; None where it was forgotten, or takes long."""
    files = SharedFiles(context.workplace.pool)
    while asyncio.get_running_loop().time() < until:
        found = await files.get(file.id)
        if found is None or found.document_id is not None or not found.source:
            return found
        await asyncio.sleep(LOOK_S)
    return None


def _not_read(name: str, file: SharedFile | None, document: Document | None) -> str:
    if document is not None and document.status == "failed":
        return f"{name}: {described(document)}"
    if file is not None and file.document_id is None and not file.source:
        return f"{name}: Failed: {file.reason or 'it cannot be read.'}"
    return f"{name} is still being read; ask again in a while."
