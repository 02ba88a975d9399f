"""The documents of a place: how they are listed, who may remove one, what may replace it.

Who may remove a document: whoever shared it (or an earlier version of it), its owner in direct
messages, and the workspace's administrators. Why not everybody in the channel: a removal is for
good, and takes the quotes in stored answers with it. Why no setting for it: sharing a file of the
same name, which everybody may, already corrects what is wrong. Replacing is such a sharing.
"""

from collections.abc import Awaitable, Callable, Sequence

from bots.dialect import Dialect
from bots.ingest_status import describe
from bots.workplace import Workplace
from storage.documents import Document
from storage.identity import Audience, DocumentId
from storage.shared_files import SharedFiles

LISTED = 20
"""Documents of one list."""
MAX_NAME_CHARACTERS = 150
"""Of a name where it is shown."""
STATUS_MESSAGES = 20
"""Messages that show a document's status and are corrected when it is removed."""

NOT_YOURS = "Only whoever shared this document, or an administrator, can remove it."
NO_FILE = "Please choose the new file."
REMOVED = "The document and all quotes from it are deleted for good."


async def find_documents(
    workplace: Workplace, audience: Audience, *, wanted: str = ""
) -> list[Document]:
    """What the audience may read and has `wanted` in its name.

    Raises:
        StorageUnavailable: safe to retry.
    """
    documents = await workplace.documents.list(audience=audience)
    return [each for each in documents if wanted.casefold() in each.name.casefold()]


def shown_name(name: str) -> str:
    """A document's name in one line."""
    return " ".join(name.split())[:MAX_NAME_CHARACTERS]


def document_line(document: Document, dialect: Dialect) -> str:
    """A document with its status; a link where it has an address."""
    name, url = shown_name(document.name), document.origin.get("permalink")
    named = dialect.link(url, name) if url else dialect.bold(name)
    return f"{named}: {dialect.plain(describe(document))}"


def list_title(documents: Sequence[Document], dialect: Dialect) -> str:
    """What stands above a list that is not empty."""
    return f"{dialect.bold('Documents here')} ({len(documents)})"


def list_more(documents: Sequence[Document], shown: int, dialect: Dialect) -> str:
    """What stands below a list that shows only the first ones; empty where it shows all."""
    if len(documents) <= shown:
        return ""
    command = dialect.command("documents WORD")
    return f"And {len(documents) - shown} more: {command} finds them by name."


def empty_list(wanted: str, dialect: Dialect) -> str:
    """What stands in the place of a list of nothing."""
    if wanted:
        return f"No document here has “{dialect.plain(wanted)}” in its name."
    return (
        f"I know no documents here yet. {dialect.adding}, or use {dialect.bold('Add to knowledge')}"
        " on a message."
    )


# -- Removing and replacing -----------------------------------------------------------------------


async def may_remove(
    workplace: Workplace,
    audience: Audience,
    document: Document,
    administers: Callable[[], Awaitable[bool]],
) -> bool:
    """Whether the acting person may remove a document that they may read.

    Args:
        administers: asked only where nothing else allows it.
    """
    member_id = audience.member_id
    if member_id is None:
        return False
    if document.scope_id == member_id:
        return True
    if await SharedFiles(workplace.pool).shared_by(document.id, member_id):
        return True
    return await administers()


async def remove(workplace: Workplace, audience: Audience, document_id: DocumentId) -> list[str]:
    """Remove a document.

    Returns:
        The platform's names of the messages that showed its status, the newest first.

    Raises:
        DocumentNotFound: it is none of the audience's.
        StorageUnavailable: nothing was removed; safe to retry.
    """
    shown_in = await SharedFiles(workplace.pool).status_refs(document_id, limit=STATUS_MESSAGES)
    await workplace.documents.delete(document_id, audience=audience)
    return shown_in


def objection(name: str | None, document: Document) -> str | None:
    """Why a file cannot take the document's place: its name says what it is, and stays.

    Args:
        name: of the file; None where there is none.
    """
    if name is None:
        return NO_FILE
    suffix = suffix_of(document.name)
    if suffix and suffix_of(name) != suffix:
        return f"Please choose a .{suffix} file; another kind is a document of its own."
    return None


def suffix_of(name: str) -> str:
    """A name's extension without its dot, lower case."""
    stem, dot, suffix = name.rpartition(".")
    return suffix.lower() if stem and dot else ""
