"""Documents in Discord: `/documents`, and the buttons that remove and replace one."""

import contextlib
import re
from uuid import UUID

import discord
from discord.app_commands import Choice, CommandTree, describe, locale_str

from bots.discord_bot import custom_ids
from bots.discord_bot.clicks import on_click
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.downloads import Attached
from bots.discord_bot.files import accept_all
from bots.discord_bot.interactions import Use, handle, suggest
from bots.discord_bot.markdown import MARKDOWN, units
from bots.discord_bot.messages import MAX_CHARACTERS
from bots.discord_bot.modals import Values, modal, on_submit
from bots.discord_bot.rest import DiscordTrouble
from bots.discord_bot.status_message import document_view
from bots.discord_bot.ways import Ref
from bots.document_list import (
    LISTED,
    NO_FILE,
    NOT_YOURS,
    REMOVED,
    document_line,
    empty_list,
    find_documents,
    list_more,
    list_title,
    may_remove,
    objection,
    remove,
    shown_name,
)
from storage.documents import Document
from storage.errors import DocumentNotFound
from storage.identity import Audience, DocumentId

MORE_CHARACTERS = 200
"""Kept free for what stands below a list."""
NAME_CHARACTERS = 80
"""Of a document's name in a form, whose descriptions have 100."""


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add the command and handle the buttons."""

    @tree.command(
        name=locale_str("documents"),
        description=locale_str("What is known here; choose a document to replace or remove it"),
    )
    @describe(name=locale_str("A part of a document's name"))
    async def documents(interaction: discord.Interaction, name: str = "") -> None:
        await handle(context, interaction, lambda use: _show(use, name))

    @documents.autocomplete("name")
    async def names(interaction: discord.Interaction, current: str) -> list[Choice[str]]:
        async def find(audience: Audience) -> list[tuple[str, str]]:
            found = await find_documents(context.workplace, audience, wanted=current)
            return [(shown_name(each.name), str(each.id)) for each in found]

        return await suggest(context, interaction, find)

    on_click(context, custom_ids.REMOVE_TEMPLATE, _ask_to_remove)
    on_click(context, custom_ids.DELETE_TEMPLATE, _remove)
    on_click(context, custom_ids.REPLACE_TEMPLATE, _open_form)
    on_submit(context, custom_ids.REPLACEMENT_TEMPLATE, _replace)


async def _show(use: Use, name: str) -> None:
    """The one document that was chosen, with its buttons; else all that have the name."""
    with contextlib.suppress(ValueError, DocumentNotFound):
        await _show_one(use, await _document(use, name))
        return
    found = await find_documents(use.context.workplace, use.audience, wanted=name)
    if not found:
        await use.tell(empty_list(name, MARKDOWN))
    elif len(found) == 1:
        await _show_one(use, found[0])
    else:
        await use.tell(_listed(found))


async def _show_one(use: Use, document: Document) -> None:
    await use.tell(document_line(document, MARKDOWN), view=document_view(document.id))


def _listed(documents: list[Document]) -> str:
    """As many as a message holds."""
    text, shown = list_title(documents, MARKDOWN), 0
    for document in documents[:LISTED]:
        line = f"\n• {document_line(document, MARKDOWN)}"
        if units(text + line) > MAX_CHARACTERS - MORE_CHARACTERS:
            break
        text, shown = text + line, shown + 1
    return f"{text}\n{list_more(documents, shown, MARKDOWN)}".strip()


async def _document(use: Use, id_: str) -> Document:
    """The document of an id, if this audience may read it.

    Raises:
        ValueError: it is no id.
        DocumentNotFound: it is none of theirs.
    """
    documents = use.context.workplace.documents
    return await documents.get(DocumentId(UUID(id_)), audience=use.audience)


# -- Removing -------------------------------------------------------------------------------------


async def _ask_to_remove(use: Use, found: re.Match[str]) -> None:
    """Ask once more: what is removed is gone."""
    document = await _document(use, found["id"])
    if not await _may_remove(use, document):
        await use.tell(MARKDOWN.plain(NOT_YOURS))
        return
    sure = discord.ui.Button[discord.ui.View](
        label="Remove",
        style=discord.ButtonStyle.danger,
        custom_id=custom_ids.delete_document(document.id),
    )
    view = discord.ui.View(timeout=None)
    view.add_item(sure)
    asked = f"Remove {MARKDOWN.bold(shown_name(document.name))}? {MARKDOWN.plain(REMOVED)}"
    await use.tell(asked, view=view)


async def _remove(use: Use, found: re.Match[str]) -> None:
    document = await _document(use, found["id"])
    if not await _may_remove(use, document):
        await use.tell(MARKDOWN.plain(NOT_YOURS))
        return
    shown_in = await remove(use.context.workplace, use.audience, document.id)
    await use.done()
    name = MARKDOWN.bold(shown_name(document.name))
    said = f"{name}: Removed by {MARKDOWN.person(str(use.interaction.user.id))}."
    for ref in map(Ref.parse, shown_in):
        with contextlib.suppress(DiscordTrouble):  # the document is what counts
            await use.context.rest.edit(ref.channel, ref.message, content=said, view=None)
    await use.tell(f"{name} is removed, with all quotes from it.")


async def _may_remove(use: Use, document: Document) -> bool:
    async def administers() -> bool:
        return use.administers

    return await may_remove(use.context.workplace, use.audience, document, administers)


# -- Replacing ------------------------------------------------------------------------------------


async def _open_form(use: Use, found: re.Match[str]) -> None:
    document = await _document(use, found["id"])
    name = shown_name(document.name)[:NAME_CHARACTERS]
    upload = discord.ui.FileUpload[discord.ui.Modal](custom_id="file", min_values=1, max_values=1)
    label = discord.ui.Label[discord.ui.Modal](
        text="New file", description=f"It replaces {name}", component=upload
    )
    form = modal("Replace a document", custom_ids.replacement(document.id), label)
    await use.open(form)


async def _replace(use: Use, found: re.Match[str], values: Values) -> None:
    """Note the new file; who submits the form is checked once more."""
    document = await _document(use, found["id"])
    chosen = "".join(values.get("file", ()))
    file = Attached.uploaded(use.interaction, chosen)
    wrong = objection(file.name if file is not None else None, document)
    if file is None or wrong is not None:
        await use.tell(MARKDOWN.plain(wrong or NO_FILE))
        return
    # Under the document's own name, which makes it the same document.
    await accept_all(use, [file], place={"via": "replacement"}, name=document.name)
