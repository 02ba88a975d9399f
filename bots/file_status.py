"""The one message that says what becomes of a shared file, edited until it is ready or failed."""

import logging
from dataclasses import dataclass
from typing import Protocol

from storage.identity import DocumentId
from storage.jobs import RetryLater

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FileNote:
    """What is said about a file; plain text.

    Attributes:
        document_id: once it is a document, which can then be removed and replaced.
    """

    name: str
    text: str
    document_id: DocumentId | None = None


class StatusMessage(Protocol):
    """The message on its platform."""

    async def put(self, note: FileNote, *, final: bool) -> None:
        """Post it, or change it; what is not final may be left out where the platform is busy.

        Raises:
            Exception: the platform refuses it, or is away.
        """


class FileStatus:
    """Shows a file's status where the file was shared.

    Args of the constructor:
        refused: errors after which no other attempt helps.
        away: errors of a platform that does not answer now.
    """

    def __init__(
        self,
        message: StatusMessage,
        *,
        refused: type[Exception],
        away: tuple[type[Exception], ...],
    ) -> None:
        self._message = message
        self._refused = refused
        self._away = away
        self._shown: FileNote | None = None

    async def show(self, note: FileNote, *, final: bool = False) -> None:
        """Show it; what is replaced soon is left out where the platform wants a pause.

        Args:
            final: nothing follows, so it must get there.

        Raises:
            RetryLater: it is final and the platform does not answer now.
        """
        if note == self._shown:
            return
        try:
            await self._message.put(note, final=final)
            self._shown = note
        except self._refused as error:
            # The document is what counts; the list of documents shows it too.
            logger.warning("no status of a file: %s", error, extra={"action": "status_refused"})
        except self._away as error:
            if final:
                raise RetryLater from error
            logger.info("a status is left out: %s", error, extra={"action": "status_left_out"})
