"""Shared files as Discord has them; `bots.fetching` does the rest."""

from collections.abc import Mapping

from bots import fetching
from bots.discord_bot.context import SURFACE, DiscordContext
from bots.discord_bot.downloads import Attached, download
from bots.discord_bot.rest import DiscordAway, DiscordRefused, DiscordTrouble, RateLimited
from bots.discord_bot.status_message import DiscordStatusMessage, NoStatusMessage
from bots.discord_bot.turn import still_reads
from bots.fetching import Contents
from bots.file_status import FileStatus
from storage.errors import DocumentRejected
from storage.identity import Audience
from storage.jobs import RetryLater
from storage.shared_files import FileJob, SharedFile, SharedFiles

NO_SOUND = "I read no sound and no video."


async def serve_files(context: DiscordContext) -> None:
    """Fetch and follow what was noted, until cancelled; outlives outages of the database."""

    async def find(file: SharedFile, job: FileJob) -> _DiscordFoundFile:
        await context.deferrals.ended(job.place.get("interaction", ""))
        return _DiscordFoundFile(context, file, job)

    await fetching.serve_files(context.workplace, surface=SURFACE, platform="Discord", find=find)


class _DiscordFoundFile:
    """See `bots.fetching.FoundFile`."""

    def __init__(self, context: DiscordContext, file: SharedFile, job: FileJob) -> None:
        self._context = context
        self._file = file
        self._place: Mapping[str, str] = job.place
        self._message: DiscordStatusMessage | NoStatusMessage = NoStatusMessage()
        nowhere = job.place.get("foreign") and job.place.get("further")
        if not (job.place.get("scope") or nowhere):
            self._message = DiscordStatusMessage(
                rest=context.rest,
                shared_files=SharedFiles(context.workplace.pool),
                file=file,
                place=job.place,
            )
        self.status = FileStatus(self._message, refused=DiscordRefused, away=(DiscordTrouble,))

    async def audience(self) -> Audience:
        """Of the channel, of a question's thread alone, or of the person in direct messages."""
        place = self._place
        return await self._context.workplace.identities.resolve(
            platform=SURFACE,
            workspace=place["workspace"],
            channel=place.get("scope") or place["channel"] or None,
            member=place["member"],
        )

    async def admitted(self, audience: Audience) -> bool:
        """Whether the person may still read where the file was shared."""
        try:
            return await still_reads(self._context, self._place)
        except (DiscordAway, RateLimited) as error:
            raise RetryLater from error

    async def contents(self) -> Contents:
        """A message's text, or the attachment's bytes."""
        source, origin = self._file.source, self._origin()
        if "text" in source:
            return Contents(pieces=str(source["text"]).encode(), origin=origin)
        file = Attached(**source["file"])
        if file.media_type.startswith(("audio/", "video/")):
            raise DocumentRejected(NO_SOUND)
        pieces = download(
            file,
            settings=self._context.settings,
            limit_bytes=self._context.workplace.documents.max_bytes,
        )
        return Contents(pieces=pieces, origin=origin)

    def _origin(self) -> dict[str, str]:
        """A link to the message that brought it, or else to the one that says so."""
        place, ref = self._place, self._message.ref
        message = place.get("message") or (ref.message if ref is not None else "")
        if not message:
            return {}
        where = f"{place['workspace']}/{place['reply_to']}/{message}"
        return {"permalink": f"https://discord.com/channels/{where}"}
