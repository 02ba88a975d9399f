"""What becomes of a document that somebody has just added: for any surface, in plain words."""

import asyncio
from collections.abc import AsyncGenerator

from storage.documents import Document, Documents
from storage.identity import Audience, DocumentId

SETTLED = ("ready", "failed")
FIRST_INTERVAL_S = 0.25
"""Between two looks at the database: a short text is ready within a second."""
LONGEST_INTERVAL_S = 2.0
PROGRESS_STEPS = 4
"""How often progress alone counts as a change: a surface edits a message for each."""


async def follow(
    document_id: DocumentId, *, documents: Documents, audience: Audience, deadline_s: float
) -> AsyncGenerator[Document, None]:
    """Yield the document now and whenever its status has changed, until it is ready or failed.

    The last one that is yielded is not settled where `deadline_s` seconds were not enough.

    Raises:
        DocumentNotFound: it was removed meanwhile, or was never one of the audience's.
        StorageUnavailable: safe to follow again.
    """
    ends_at = asyncio.get_running_loop().time() + deadline_s
    interval_s = FIRST_INTERVAL_S
    shown: tuple[str, str | None, int] | None = None
    while True:
        document = await documents.get(document_id, audience=audience)
        step = int(document.progress * PROGRESS_STEPS)
        if (document.status, document.reason, step) != shown:
            shown = (document.status, document.reason, step)
            interval_s = FIRST_INTERVAL_S
            yield document
        if document.status in SETTLED:
            return
        if asyncio.get_running_loop().time() + interval_s > ends_at:
            return
        await asyncio.sleep(interval_s)
        interval_s = min(2 * interval_s, LONGEST_INTERVAL_S)


def describe(document: Document) -> str:
    """One line for a person: queued, reading, ready or failed, and why; plain text."""
    match document.status:
        case "ready":
            passages = _count(document.chunks, "passage")
            if document.pages is None:
                return f"Ready: {passages}"
            return f"Ready: {_count(document.pages, 'page')}, {passages}"
        case "failed":
            said = f"Failed: {document.reason or 'it cannot be read.'}"
        case "queued":
            said = "Queued" if document.reason is None else f"Queued. {document.reason}"
        case _:
            percent = f" ({document.progress:.0%})" if document.progress > 0 else ""
            said = f"Reading{percent}"
    return f"{said} (the version before it stays searchable)" if document.searchable else said


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
