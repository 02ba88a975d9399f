"""How documents look in Slack: the status of one, the list of many, the form that replaces one."""

from collections.abc import Sequence
from dataclasses import dataclass

from bots.document_list import (
    LISTED,
    REMOVED,
    document_line,
    empty_list,
    list_more,
    list_title,
    shown_name,
    suffix_of,
)
from bots.file_status import FileNote
from bots.slack_bot.blocks import Block, Post, button, section, shortened
from bots.slack_bot.modals import Origin, View
from bots.slack_bot.mrkdwn import MRKDWN, escape
from storage.documents import Document
from storage.identity import DocumentId

REMOVE_ACTION = "parley_document_remove"
REPLACE_ACTION = "parley_document_replace"
REPLACE_MODAL = "parley_replace"
FILE_INPUT = "file"


@dataclass(frozen=True, kw_only=True)
class Replacement(Origin):
    """Where the form that replaces a document was opened, and for which one."""

    document_id: str


def status_post(note: FileNote) -> Post:
    """What becomes of a file; with buttons once it is a document."""
    said = shortened(f"*{_shown(note.name)}*: {escape(note.text)}")
    if note.document_id is None:
        return Post(text=said)
    return Post(text=said, blocks=[section(said), _buttons(note.document_id)])


def removed_post(name: str, user: str) -> Post:
    """What stands in the place of a removed document's status."""
    return Post(text=f"*{_shown(name)}*: Removed by <@{user}>.")


def list_post(documents: Sequence[Document], *, wanted: str) -> Post:
    """The documents, as many as a message holds.

    Args:
        wanted: what was searched for in their names; empty for all.
    """
    if not documents:
        return Post(text=empty_list(wanted, MRKDWN))
    shown = documents[:LISTED]  # two blocks each, of the 50 that a message takes
    title = list_title(documents, MRKDWN)
    blocks = [section(title)]
    for document in shown:
        blocks += [section(document_line(document, MRKDWN)), _buttons(document.id)]
    if more := list_more(documents, len(shown), MRKDWN):
        blocks.append(section(more))
    text = "\n".join([title, *(f"• {document_line(document, MRKDWN)}" for document in shown)])
    return Post(text=shortened(text), blocks=blocks)


def replace_view(origin: Replacement, document: Document) -> View:
    """The form that takes a document's new file."""
    suffix = suffix_of(document.name)
    element: Block = {"type": "file_input", "action_id": FILE_INPUT, "max_files": 1}
    if suffix:
        element["filetypes"] = [suffix]
    name = _shown(document.name)
    return {
        "type": "modal",
        "callback_id": REPLACE_MODAL,
        "private_metadata": origin.dump(),
        "title": _plain("Replace a document"),
        "submit": _plain("Replace"),
        "close": _plain("Cancel"),
        "blocks": [
            section(f"The new file replaces *{name}* as soon as it is read."),
            {
                "type": "input",
                "block_id": FILE_INPUT,
                "label": _plain("New file"),
                "element": element,
            },
        ],
    }


def _buttons(document_id: DocumentId) -> Block:
    confirm = {
        "title": _plain("Remove it?"),
        "text": _plain(REMOVED),
        "confirm": _plain("Remove"),
        "deny": _plain("Keep"),
    }
    remove = button("Remove", REMOVE_ACTION, str(document_id), style="danger")
    replace = button("Replace", REPLACE_ACTION, str(document_id))
    return {"type": "actions", "elements": [replace, {**remove, "confirm": confirm}]}


def _shown(name: str) -> str:
    return escape(shown_name(name))


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}
