"""Fetches what people shared in a chat: downloads it, stores it, and shows what becomes of it.

Every file is a job of its surface's queue of files, so a process that dies loses none: the next one
goes on with the same status message.

Who may add is who may ask (`bots.gate`). A file of somebody who may not is left alone without a
word, for they had only shared it; whoever asked for it is told.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from bots import replies
from bots.file_status import FileNote, FileStatus
from bots.ingest_status import SETTLED, describe, follow
from bots.workplace import Workplace
from storage.documents import Owner
from storage.errors import DocumentNotFound, DocumentRejected
from storage.identity import Audience, DocumentId
from storage.jobs import RetryLater
from storage.outages import outlive_outages
from storage.queue import OUTAGES
from storage.shared_files import FileJob, SharedFile, SharedFiles, run_files

logger = logging.getLogger(__name__)

FOLLOWED = 16
"""Files that are followed at once; following one is a small query now and then."""
DOWNLOADS = 2
"""Files that are downloaded at once."""
FOLLOW_S = 3 * 3600.0
"""An hour is the most that reading one document may take, and others may stand before it."""
GIVE_UP_S = 3600.0
"""After a platform did not hand out a file for so long, it is given up."""

GAVE_UP = "Failed: something went wrong on our side; it was logged. Please share the file again."
NEVER_CAME = "{platform} did not hand it out for an hour. Please share it again."
NOT_YET = "Queued: {platform} does not hand it out yet."
LONG = "This takes long; the list of documents shows how it goes on."


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        pieces: the bytes, at once or as they come.
        origin: where it can be opened, such as {"permalink": …}.
    """

    pieces: bytes | AsyncGenerator[bytes, None]
    origin: Mapping[str, str] = field(default_factory=dict)


class FoundFile(Protocol):
    """A shared file where it was shared, on its platform."""

    @property
    def status(self) -> FileStatus:
        """Where it is said what becomes of it."""

    async def audience(self) -> Audience:
        """Whose document it will be, and who shared it."""

    async def admitted(self, audience: Audience) -> bool:
        """Whether that person may add documents here; who asked for it is told if not.

        Raises:
            RetryLater: the platform does not say now.
        """

    async def contents(self) -> Contents:
        """What it holds; called where it is not stored yet.

        Raises:
            DocumentRejected: it cannot be had, and why.
            RetryLater: not now.
        """


Find = Callable[[SharedFile, FileJob], Awaitable[FoundFile | None]]
"""Gives what a job is about; None where its place is gone."""


async def serve_files(workplace: Workplace, *, surface: str, platform: str, find: Find) -> None:
    """Fetch and follow what was noted, until cancelled; outlives outages of the database.

    Args:
        surface: whose files.
        platform: what people call it.
    """
    fetcher = _Fetcher(workplace, platform, find)
    await outlive_outages(
        lambda: run_files(
            workplace.pool,
            surface=surface,
            run=fetcher.run,
            gave_up=fetcher.gave_up,
            concurrency=FOLLOWED,
        ),
        action="files_database_lost",
    )


class _Fetcher:
    """Works on noted files."""

    def __init__(self, workplace: Workplace, platform: str, find: Find) -> None:
        self._workplace = workplace
        self._platform = platform
        self._find = find
        self._files = SharedFiles(workplace.pool)
        self._downloads = asyncio.Semaphore(DOWNLOADS)

    async def run(self, job: FileJob) -> None:
        """Bring a file in and show what becomes of it; may run again after a crash."""
        file = await self._files.get(job.file_id)
        if file is None or not (file.source or file.document_id):
            return  # forgotten, given up, or removed
        found = await self._find(file, job)
        if found is None:
            logger.info("a file's place is gone", extra={"action": "file_dropped"})
            return
        audience = await found.audience()
        if file.document_id is None and not await found.admitted(audience):
            await self._files.settle(file.id, None)
            return
        status = found.status
        name = str(file.source.get("name") or "")
        try:
            document_id = file.document_id
            if document_id is None:
                document_id = await self._bring(found, file, audience, name)
            await self._follow(document_id, audience, status)
        except DocumentRejected as error:
            await status.show(FileNote(name=name, text=f"Failed: {error.reason}"), final=True)
            await self._files.settle(file.id, None, reason=error.reason)
        except OUTAGES as error:
            if name and not isinstance(error, RetryLater):
                waiting = f"Waiting: {replies.reply_to(error).text}"
                await status.show(FileNote(name=name, text=waiting))
            raise

    async def gave_up(self, job: FileJob) -> None:
        """Say that a file is not tried again."""
        file = await self._files.get(job.file_id)
        if file is None or file.document_id is not None:
            return
        found = await self._find(file, job)
        if found is not None:
            name = str(file.source.get("name") or "File")
            await found.status.show(FileNote(name=name, text=GAVE_UP), final=True)
        await self._files.settle(file.id, None)

    async def _bring(
        self, found: FoundFile, file: SharedFile, audience: Audience, name: str
    ) -> DocumentId:
        if file.status_ref is None:  # else it says already why it waits
            await found.status.show(FileNote(name=name, text="Queued"))
        owner: Owner = "member" if audience.channel_id is None else "channel"
        try:
            async with self._downloads:
                contents = await found.contents()
                pieces = contents.pieces
                closing = nullcontext() if isinstance(pieces, bytes) else aclosing(pieces)
                async with closing:
                    document = await self._workplace.documents.add(
                        name, pieces, audience=audience, owner=owner, origin=contents.origin
                    )
        except RetryLater as error:
            if datetime.now(UTC) - file.created_at > timedelta(seconds=GIVE_UP_S):
                raise DocumentRejected(NEVER_CAME.format(platform=self._platform)) from error
            waiting = NOT_YET.format(platform=self._platform)
            await found.status.show(FileNote(name=name, text=waiting))
            raise
        await self._files.settle(file.id, document.id)
        logger.info("a shared file is stored", extra={"action": "file_stored"})
        return document.id

    async def _follow(
        self, document_id: DocumentId, audience: Audience, status: FileStatus
    ) -> None:
        """Show how the ingest goes on, until it ends or somebody removes the document."""
        changes = follow(
            document_id,
            documents=self._workplace.documents,
            audience=audience,
            deadline_s=FOLLOW_S,
        )
        document = None
        try:
            async with aclosing(changes):
                async for document in changes:
                    note = FileNote(
                        name=document.name, text=describe(document), document_id=document.id
                    )
                    await status.show(note, final=document.status in SETTLED)
        except DocumentNotFound:
            if document is not None:  # what was shown last may have come after "removed"
                await status.show(FileNote(name=document.name, text="Removed"), final=True)
            return
        if document is not None and document.status not in SETTLED:
            said = f"{describe(document)}. {LONG}"
            note = FileNote(name=document.name, text=said, document_id=document.id)
            await status.show(note, final=True)
