"""Fetches what people shared: downloads it, stores it, and shows what becomes of it.

Every file is a job of the queue of files, so a process that dies loses none: the next one goes on
with the same status message.

Who may add is who may ask (`bots.slack_bot.gate`). A file of somebody who may not is left alone
without a word, for they had only shared it; whoever asked for it is told.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots import replies
from bots.channel_settings import load
from bots.ingest_status import SETTLED, describe, follow
from bots.outages import outlive_outages
from bots.slack_bot.clicks import tell
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.document_blocks import status_post
from bots.slack_bot.downloads import GONE, SlackFile, download
from bots.slack_bot.file_status import FileStatus
from bots.slack_bot.gate import Asker, admitted
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import Origin
from bots.slack_bot.oauth import NotInstalled
from bots.slack_bot.web_api import SlackRefused
from storage.documents import Document, Owner
from storage.errors import DocumentNotFound, DocumentRejected
from storage.identity import Audience, DocumentId
from storage.jobs import RetryLater
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
"""After Slack did not hand out a file for so long, it is given up."""

GAVE_UP = "Failed: something went wrong on our side; it was logged. Please share the file again."
NEVER_CAME = "Slack did not hand it out for an hour. Please share it again."
LONG = "This takes long; `/parley documents` shows how it goes on."
NO_SOUND = "I read no sound and no video."


async def serve_files(context: SlackContext) -> None:
    """Fetch and follow what was noted, until cancelled; outlives outages of the database."""
    fetcher = _Fetcher(context)
    await outlive_outages(
        lambda: run_files(
            context.workplace.pool,
            surface=SURFACE,
            run=fetcher.run,
            gave_up=fetcher.gave_up,
            concurrency=FOLLOWED,
        ),
        action="files_database_lost",
    )


class _Fetcher:
    """Works on noted files."""

    def __init__(self, context: SlackContext) -> None:
        self._context = context
        self._files = SharedFiles(context.workplace.pool)
        self._downloads = asyncio.Semaphore(DOWNLOADS)

    async def run(self, job: FileJob) -> None:
        """Bring a file in and show what becomes of it; may run again after a crash."""
        file = await self._files.get(job.file_id)
        if file is None or not (file.source or file.document_id):
            return  # forgotten, given up, or removed
        place = job.place
        try:
            client = await self._context.client_for(place["workspace"])
        except NotInstalled:
            logger.info("a file's workspace is gone", extra={"action": "file_dropped"})
            return
        except SlackClientError as error:
            raise RetryLater from error
        audience = await audience_for(
            self._context,
            team=place["workspace"],
            channel=place["channel"] or None,
            user=place["member"],
        )
        if file.document_id is None and not await self._admitted(client, place, audience):
            await self._files.settle(file.id, None)
            return
        status = self._status(client, file, job)
        name = str(file.source.get("name") or "")
        try:
            document_id = file.document_id
            if document_id is None:
                document_id = await self._bring(client, file, audience, status, name, place)
            await self._follow(document_id, audience, status)
        except DocumentRejected as error:
            await status.show(status_post(name, f"Failed: {error.reason}"), final=True)
            await self._files.settle(file.id, None)
        except OUTAGES as error:
            if name and not isinstance(error, RetryLater):
                waiting = f"Waiting: {replies.reply_to(error).text}"
                await status.show(status_post(name, waiting))
            raise

    async def gave_up(self, job: FileJob) -> None:
        """Say that a file is not tried again."""
        file = await self._files.get(job.file_id)
        if file is None or file.document_id is not None:
            return
        client = await self._context.client_for(job.place["workspace"])
        name = str(file.source.get("name") or "File")
        status = self._status(client, file, job)
        await status.show(status_post(name, GAVE_UP), final=True)
        await self._files.settle(file.id, None)

    def _status(self, client: AsyncWebClient, file: SharedFile, job: FileJob) -> FileStatus:
        return FileStatus(
            calls=self._context.calls(client),
            shared_files=self._files,
            file=file,
            place=job.place,
            again=job.attempt > 0,
        )

    async def _admitted(
        self, client: AsyncWebClient, place: Mapping[str, str], audience: Audience
    ) -> bool:
        """Whether the person may add documents here; who asked for it is told if not."""
        asker = Asker(
            user=place["member"],
            team=place["workspace"],
            bot=bool(place["bot"]),
            outside=bool(place["outside"]),
            direct=place["channel"] == "",
        )
        settings = await load(self._context.places, audience.channel_id)
        refusal = await admitted(asker, settings, people=self._context.people, client=client)
        if refusal is None:
            return True
        if refusal.text and (place["via"] != "event" or asker.direct):
            origin = Origin(
                team=asker.team,
                channel=place["reply_to"],
                user=asker.user,
                thread_ts=place["thread"],
            )
            try:
                await tell(self._context, client, origin, refusal.text)
            except SlackClientError as error:
                logger.warning("a refusal was lost: %s", error, extra={"action": "refusal_lost"})
        return False

    async def _bring(
        self,
        client: AsyncWebClient,
        file: SharedFile,
        audience: Audience,
        status: FileStatus,
        name: str,
        place: Mapping[str, str],
    ) -> DocumentId:
        if file.status_ref is None:  # else it says already why it waits
            await status.show(status_post(name, "Queued"))
        try:
            async with self._downloads:
                document = await self._store(client, file, audience, name, place)
        except RetryLater as error:
            if datetime.now(UTC) - file.created_at > timedelta(seconds=GIVE_UP_S):
                raise DocumentRejected(NEVER_CAME) from error
            await status.show(status_post(name, "Queued: Slack does not hand it out yet."))
            raise
        await self._files.settle(file.id, document.id)
        logger.info("a shared file is stored", extra={"action": "file_stored"})
        return document.id

    async def _store(
        self,
        client: AsyncWebClient,
        file: SharedFile,
        audience: Audience,
        name: str,
        place: Mapping[str, str],
    ) -> Document:
        documents = self._context.workplace.documents
        owner: Owner = "member" if audience.channel_id is None else "channel"
        if "text" in file.source:
            return await documents.add(
                name,
                str(file.source["text"]).encode(),
                audience=audience,
                owner=owner,
                origin=await self._origin(client, channel=place["reply_to"], ts=file.source["ts"]),
            )
        shared = await self._described(client, SlackFile(**file.source["file"]))
        if shared.media_type.startswith(("audio/", "video/")):
            raise DocumentRejected(NO_SOUND)
        pieces = download(
            shared,
            token=client.token or "",
            settings=self._context.settings,
            limit_bytes=documents.max_bytes,
            proxy=client.proxy,
        )
        async with aclosing(pieces):
            return await documents.add(
                name,
                pieces,
                audience=audience,
                owner=owner,
                origin={"permalink": shared.permalink} if shared.permalink else {},
            )

    async def _described(self, client: AsyncWebClient, file: SlackFile) -> SlackFile:
        """The file with its address, which Slack leaves out of events of shared channels."""
        if file.url:
            return file
        try:
            return SlackFile.read(await self._context.calls(client).file(file.id))
        except SlackRefused as error:
            raise DocumentRejected(GONE) from error
        except SlackClientError as error:
            raise RetryLater from error

    async def _origin(self, client: AsyncWebClient, *, channel: str, ts: str) -> dict[str, str]:
        """Where a message can be opened; the document does without where Slack does not say."""
        try:
            calls = self._context.calls(client)
            return {"permalink": await calls.permalink(channel=channel, ts=ts)}
        except SlackClientError as error:
            logger.info("no permalink: %s", error, extra={"action": "permalink_missing"})
            return {}

    async def _follow(
        self, document_id: DocumentId, audience: Audience, status: FileStatus
    ) -> None:
        """Show how the ingest goes on, until it ends or somebody removes the document."""
        changes = follow(
            document_id,
            documents=self._context.workplace.documents,
            audience=audience,
            deadline_s=FOLLOW_S,
        )
        document = None
        try:
            async with aclosing(changes):
                async for document in changes:
                    post = status_post(document.name, describe(document), document.id)
                    await status.show(post, final=document.status in SETTLED)
        except DocumentNotFound:
            if document is not None:  # what was shown last may have come after "removed"
                await status.show(status_post(document.name, "Removed"), final=True)
            return
        if document is not None and document.status not in SETTLED:
            said = f"{describe(document)}. {LONG}"
            await status.show(status_post(document.name, said, document.id), final=True)
