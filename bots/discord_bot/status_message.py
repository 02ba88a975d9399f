"""The message in Discord that shows a file's status; see `bots.file_status`."""

import time
from collections.abc import Mapping

import discord

from bots.discord_bot import custom_ids
from bots.discord_bot.board import UNKNOWN_MESSAGE
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.rest import DiscordCalls, DiscordRefused
from bots.discord_bot.ways import Ref
from bots.document_list import shown_name
from bots.file_status import FileNote
from storage.identity import DocumentId
from storage.shared_files import SharedFile, SharedFiles


class DiscordStatusMessage:
    """Posts and edits it.

    It begins as the response to the command that brought the file, where there was one, and is
    edited by the app itself once the command's token has ended.
    """

    def __init__(
        self,
        *,
        rest: DiscordCalls,
        shared_files: SharedFiles,
        file: SharedFile,
        place: Mapping[str, str],
    ) -> None:
        self._rest = rest
        self._shared_files = shared_files
        self._file_id = file.id
        self._place = place
        self._ref = Ref.parse(file.status_ref) if file.status_ref else None

    @property
    def ref(self) -> Ref | None:
        """Where it stands."""
        return self._ref

    async def put(self, note: FileNote, *, final: bool) -> None:
        """Post it, or change it.

        Raises:
            DiscordTrouble: Discord refuses it, or is away.
        """
        content, view = status_content(note), status_view(note)
        if self._by_token:
            try:
                await self._respond(content, view)
                return
            except DiscordRefused as error:
                if error.status not in (401, 404) or self._place.get("foreign"):
                    raise  # in a place that is not ours nothing else can be done
                self._place = {**self._place, "token": ""}
        if self._ref is not None:
            try:
                await self._rest.edit(
                    self._ref.channel, self._ref.message, content=content, view=view
                )
                return
            except DiscordRefused as error:
                if error.code != UNKNOWN_MESSAGE:
                    raise
                self._ref = None
        await self._post(content, view)

    @property
    def _by_token(self) -> bool:
        lives = time.time() < float(self._place.get("expires") or 0)
        return bool(self._place.get("token")) and lives

    async def _respond(self, content: str, view: discord.ui.View | None) -> None:
        """Fill the response."""
        message = self._ref.message if self._ref is not None else "@original"
        posted = await self._rest.edit_response(
            self._place["application"],
            self._place["token"],
            content=content,
            view=view,
            message_id=message,
        )
        await self._remember(*posted)

    async def _post(self, content: str, view: discord.ui.View | None) -> None:
        channel = self._place["reply_to"]
        message = await self._rest.send(
            channel,
            content=content,
            view=view,
            reference=self._place.get("message") or None,
            nonce=f"f{self._file_id.hex[:24]}",
        )
        await self._remember(channel, message)

    async def _remember(self, channel: str, message: str) -> None:
        ref = Ref(channel=channel, message=message)
        if ref != self._ref:
            self._ref = ref
            await self._shared_files.shown(self._file_id, str(ref))


class NoStatusMessage:
    """For files of a question, whose answer tells what became of them, and where there is no place.

    That is for all but the first file that is added where the app is no member.
    """

    ref = None

    async def put(self, note: FileNote, *, final: bool) -> None:
        """Nothing."""


def status_content(note: FileNote) -> str:
    """What becomes of a file, as safe Markdown; far below 2,000 characters."""
    return f"{MARKDOWN.bold(shown_name(note.name))}: {MARKDOWN.plain(note.text[:600])}"


def status_view(note: FileNote) -> discord.ui.View | None:
    """Buttons, once it is a document."""
    return document_view(note.document_id) if note.document_id is not None else None


def document_view(document_id: DocumentId) -> discord.ui.View:
    """What can be done with a document."""
    view = discord.ui.View(timeout=None)
    view.add_item(
        discord.ui.Button(label="Replace", custom_id=custom_ids.replace_document(document_id))
    )
    view.add_item(
        discord.ui.Button(label="Remove", custom_id=custom_ids.remove_document(document_id))
    )
    return view
