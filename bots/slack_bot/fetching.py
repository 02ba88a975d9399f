"""Shared files as Slack has them; `bots.fetching` does the rest."""

import logging
from collections.abc import Mapping

from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bots import fetching
from bots.channel_settings import load
from bots.fetching import Contents
from bots.file_status import FileStatus
from bots.slack_bot.clicks import tell
from bots.slack_bot.context import SURFACE, SlackContext
from bots.slack_bot.downloads import GONE, SlackFile, download
from bots.slack_bot.gate import Asker, admitted
from bots.slack_bot.identity import audience_for
from bots.slack_bot.modals import Origin
from bots.slack_bot.oauth import NotInstalled
from bots.slack_bot.status_message import SlackStatusMessage
from bots.slack_bot.web_api import SlackRefused
from storage.errors import DocumentRejected
from storage.identity import Audience
from storage.jobs import RetryLater
from storage.shared_files import FileJob, SharedFile, SharedFiles

logger = logging.getLogger(__name__)

NO_SOUND = "I read no sound and no video."


async def serve_files(context: SlackContext) -> None:
    """Fetch and follow what was noted, until cancelled; outlives outages of the database."""

    async def find(file: SharedFile, job: FileJob) -> _SlackFoundFile | None:
        try:
            client = await context.client_for(job.place["workspace"])
        except NotInstalled:
            return None
        except SlackClientError as error:
            raise RetryLater from error
        return _SlackFoundFile(context, client, file, job)

    await fetching.serve_files(context.workplace, surface=SURFACE, platform="Slack", find=find)


class _SlackFoundFile:
    """See `bots.fetching.FoundFile`."""

    def __init__(
        self, context: SlackContext, client: AsyncWebClient, file: SharedFile, job: FileJob
    ) -> None:
        self._context = context
        self._client = client
        self._file = file
        self._place: Mapping[str, str] = job.place
        message = SlackStatusMessage(
            calls=context.calls(client),
            shared_files=SharedFiles(context.workplace.pool),
            file=file,
            place=job.place,
            again=job.attempt > 0,
        )
        self.status = FileStatus(message, refused=SlackRefused, away=(SlackClientError,))

    async def audience(self) -> Audience:
        """Of the channel, or of the person in direct messages."""
        return await audience_for(
            self._context,
            team=self._place["workspace"],
            channel=self._place["channel"] or None,
            user=self._place["member"],
        )

    async def admitted(self, audience: Audience) -> bool:
        """Whether the person may ask here."""
        place = self._place
        asker = Asker(
            user=place["member"],
            team=place["workspace"],
            bot=bool(place["bot"]),
            outside=bool(place["outside"]),
            direct=place["channel"] == "",
        )
        settings = await load(self._context.workplace.places, audience.channel_id)
        refusal = await admitted(asker, settings, people=self._context.people, client=self._client)
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
                await tell(self._context, self._client, origin, refusal.text)
            except SlackClientError as error:
                logger.warning("a refusal was lost: %s", error, extra={"action": "refusal_lost"})
        return False

    async def contents(self) -> Contents:
        """A message's text, or the file's bytes."""
        source = self._file.source
        if "text" in source:
            origin = await self._permalink(source["ts"])
            return Contents(pieces=str(source["text"]).encode(), origin=origin)
        shared = await self._described(SlackFile(**source["file"]))
        if shared.media_type.startswith(("audio/", "video/")):
            raise DocumentRejected(NO_SOUND)
        pieces = download(
            shared,
            token=self._client.token or "",
            settings=self._context.settings,
            limit_bytes=self._context.workplace.documents.max_bytes,
            proxy=self._client.proxy,
        )
        origin = {"permalink": shared.permalink} if shared.permalink else {}
        return Contents(pieces=pieces, origin=origin)

    async def _described(self, file: SlackFile) -> SlackFile:
        """The file with its address, which Slack leaves out of events of shared channels."""
        if file.url:
            return file
        try:
            return SlackFile.read(await self._context.calls(self._client).file(file.id))
        except SlackRefused as error:
            raise DocumentRejected(GONE) from error
        except SlackClientError as error:
            raise RetryLater from error

    async def _permalink(self, ts: str) -> dict[str, str]:
        """Where a message can be opened; the document does without where Slack does not say."""
        try:
            calls = self._context.calls(self._client)
            return {"permalink": await calls.permalink(channel=self._place["reply_to"], ts=ts)}
        except SlackClientError as error:
            logger.info("no permalink: %s", error, extra={"action": "permalink_missing"})
            return {}
