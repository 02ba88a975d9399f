"""What the channel knows: documents come, become searchable and go, and every page sees it."""

import asyncio
import logging
from collections import deque
from pathlib import Path
from uuid import UUID

from bots import replies
from bots.web import render
from bots.web.entries import Refusal
from bots.web.live import Event, Hub
from storage.documents import Document, Documents
from storage.errors import DocumentNotFound, DocumentRejected, StorageError
from storage.identity import Audience, DocumentId

logger = logging.getLogger(__name__)

BUSY_INTERVAL_S = 0.3
"""Between two looks at the database while a document is on its way: a progress bar that moves."""
IDLE_INTERVAL_S = 2.0
"""Otherwise; documents also come from the terminal and other surfaces."""
SHOWN_REFUSALS = 5

_UNSETTLED = ("queued", "parsing", "embedding")


class Shelf:
    """The documents of one channel.

    Args:
        documents: the store.
        audience: the channel; its members read, add and remove.
        hub: the open pages.
    """

    def __init__(self, *, documents: Documents, audience: Audience, hub: Hub) -> None:
        self._documents = documents
        self._audience = audience
        self._hub = hub
        self._refusals: deque[Refusal] = deque(maxlen=SHOWN_REFUSALS)
        self._list: list[Document] | None = None
        self._problem: str | None = None
        self._shown = ""
        self._changed = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether the channel knows nothing."""
        return not self._list

    async def event(self) -> Event:
        """The list for a page that has just opened; news follow, if any."""
        if self._list is None and self._problem is None:
            await self._refresh()
        self._changed.set()
        return self._event()

    async def add(self, name: str, path: Path) -> None:
        """Store an upload and queue it; a refusal is shown to everybody."""
        try:
            await self._documents.add(name, path, audience=self._audience, owner="channel")
            self.dismiss(name)
        except DocumentRejected as error:
            self._refuse(name, error.reason)
        except StorageError as error:
            self._refuse(name, replies.reply_to(error).text)
        self._changed.set()

    async def remove(self, document_id: str) -> None:
        """Delete a document for good; one that is gone already is no error."""
        try:
            await self._documents.delete(DocumentId(UUID(document_id)), audience=self._audience)
        except (DocumentNotFound, ValueError):
            pass
        except StorageError as error:
            self._problem = replies.reply_to(error).text
        self._changed.set()

    def dismiss(self, name: str) -> None:
        """Show the refusals of a file no longer."""
        kept = [refusal for refusal in self._refusals if refusal.name != name]
        self._refusals = deque(kept, maxlen=SHOWN_REFUSALS)
        self._changed.set()

    async def watch(self) -> None:
        """Keep every page's list up to date, until cancelled."""
        while True:
            self._changed.clear()
            if self._hub.pages:
                try:
                    await self._refresh()
                except Exception:  # a bug must not freeze every page's list
                    logger.exception("documents unread", extra={"action": "web_documents_crashed"})
            busy = any(document.status in _UNSETTLED for document in self._list or ())
            try:
                interval_s = BUSY_INTERVAL_S if busy else IDLE_INTERVAL_S
                await asyncio.wait_for(self._changed.wait(), interval_s)
            except TimeoutError:
                continue

    async def _refresh(self) -> None:
        """Read the list now and show it where it changed."""
        try:
            self._list = await self._documents.list(audience=self._audience)
            if self._problem is not None:
                self._hub.publish({"kind": "recovered"})
            self._problem = None
        except StorageError as error:
            if self._problem is None:
                logger.warning("documents: %s", error, extra={"action": "web_documents_unread"})
            self._problem = replies.reply_to(error).text
        event = self._event()
        if event["html"] != self._shown:
            self._shown = event["html"]
            self._hub.publish(event)

    def _event(self) -> Event:
        refusals = list(self._refusals)
        html = render.documents(self._list or [], refusals=refusals, problem=self._problem)
        return {"kind": "documents", "html": html}

    def _refuse(self, name: str, reason: str) -> None:
        self._refusals.appendleft(Refusal(name=name, reason=reason))
