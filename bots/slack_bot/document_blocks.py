"""How documents look in Slack: the status of one, the list of many, the form that replaces one."""

from collections.abc import Sequence
from dataclasses import dataclass

from bots.file_status import FileNote
from bots.ingest_status import describe
from bots.slack_bot.blocks import Block, Post, button, section, shortened
from bots.slack_bot.modals import Origin, View
from bots.slack_bot.mrkdwn import escape, link
from storage.documents import Document
from storage.identity import DocumentId

REMOVE_ACTION = "parley_document_remove"
REPLACE_ACTION = "parley_document_replace"
REPLACE_MODAL = "parley_replace"
FILE_INPUT = "file"

LISTED = 20
"""Documents of one list: two blocks each, of the 50 that a message takes."""
MAX_NAME_CHARACTERS = 150
"""Of a name where it is shown."""
EMPTY_LIST = (
    "I know no documents here yet. Share a file where I am, or use *Add to knowledge* on a message."
)


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
        none = f"No document here has “{escape(wanted)}” in its name." if wanted else EMPTY_LIST
        return Post(text=none)
    shown = documents[:LISTED]
    title = f"*Documents here* ({len(documents)})"
    blocks = [section(title)]
    for document in shown:
        blocks += [section(_line(document)), _buttons(document.id)]
    if len(documents) > len(shown):
        more = (
            f"And {len(documents) - len(shown)} more: `/parley documents WORD` finds them by name."
        )
        blocks.append(section(more))
    text = "\n".join([title, *(f"• {_line(document)}" for document in shown)])
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


def suffix_of(name: str) -> str:
    """A name's extension without its dot, lower case."""
    stem, dot, suffix = name.rpartition(".")
    return suffix.lower() if stem and dot else ""


def _line(document: Document) -> str:
    name = " ".join(document.name.split())[:MAX_NAME_CHARACTERS]
    url = document.origin.get("permalink")
    return f"{link(url, name) if url else f'*{escape(name)}*'}: {escape(describe(document))}"


def _buttons(document_id: DocumentId) -> Block:
    confirm = {
        "title": _plain("Remove it?"),
        "text": _plain("The document and all quotes from it are deleted for good."),
        "confirm": _plain("Remove"),
        "deny": _plain("Keep"),
    }
    remove = button("Remove", REMOVE_ACTION, str(document_id), style="danger")
    replace = button("Replace", REPLACE_ACTION, str(document_id))
    return {"type": "actions", "elements": [replace, {**remove, "confirm": confirm}]}


def _shown(name: str) -> str:
    return escape(" ".join(name.split())[:MAX_NAME_CHARACTERS])


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}
