"""One reading of one file: its budgets, its progress, and the way into nested files."""

import importlib
import os
import resource
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from storage.errors import DocumentRejected
from storage.parsing.blocks import (
    MAX_HEADING_LEVEL,
    Draft,
    Drafts,
    ParseLimits,
    heading,
    paragraph,
)
from storage.parsing.formats import PICTURE_BEARING, READERS, detect, label


class LimitExceeded(DocumentRejected):
    """A limit was passed: unlike other faults of an inner file, it ends the whole reading."""


@dataclass(frozen=True)
class Source:
    """A file to read and the name that its owner gave it."""

    path: Path
    name: str

    @property
    def suffix(self) -> str:
        """Extension of the name, lower case, without the dot."""
        return Path(self.name).suffix.lower().lstrip(".")


class Reports(Protocol):
    """Sends a record to the parent."""

    def __call__(self, **record: object) -> None: ...  # noqa: D102


class Reading:
    """Dispatches to the reader of a format and keeps the budgets that nested files share."""

    def __init__(self, *, limits: ParseLimits, report: Reports) -> None:
        self.limits = limits
        self.format_label = "its"
        self._report = report
        self._depth = 0
        self._expandable_bytes = limits.max_expanded_bytes
        self._ocr_pages = 0

    def read(self, source: Source) -> Drafts:
        """Yield the drafts of one file, at the top or nested.

        Raises:
            DocumentRejected: it cannot be read, or holds no text.
        """
        if self._depth > self.limits.max_nesting:
            raise LimitExceeded(f"Files are nested deeper than {self.limits.max_nesting} levels.")
        size = os.stat(source.path).st_size
        if size > self.limits.max_bytes:
            raise LimitExceeded(
                f"It is too large: {size / 1e6:.0f} MB; "
                f"the limit is {self.limits.max_bytes / 1e6:.0f} MB."
            )
        file_format = detect(source.path, source.name)
        self.format_label = label(file_format)
        readers = [_reader(READERS[file_format])]
        if file_format in PICTURE_BEARING:
            readers.append(_reader("archive:read_pictures"))
        self._depth += 1
        found = False
        for read in readers:
            for draft in read(source, self):
                found = found or any(map(str.isalnum, draft.text))
                yield draft
            if found:
                break
        self._depth -= 1
        if not found:
            tried = ", text recognition included" if self._ocr_pages else ""
            raise DocumentRejected(
                f"No text was found in it (read as {label(file_format)}{tried})."
            )

    def read_nested(self, inner: Source) -> Generator[Draft, None, str | None]:
        """Yield the drafts of a file within a file, below its name as a heading.

        A file that cannot be read becomes a sentence saying why, which is also returned: one odd
        attachment must not hide the rest. Limits still end the whole reading.
        """
        depth = self._depth
        yield heading(inner.name, 1)
        try:
            for draft in self.read(inner):
                level = draft.level and min(draft.level + 1, MAX_HEADING_LEVEL)
                yield Draft(kind=draft.kind, text=draft.text, page=draft.page, level=level)
        except LimitExceeded:
            raise
        except DocumentRejected as error:
            self._depth = depth
            yield paragraph(f"({inner.name} was not read: {error.reason})")
            return error.reason
        return None

    @contextmanager
    def unpacked(self, stream: IO[bytes]) -> Iterator[Path]:
        """Copy a packed stream to an unlinked temporary file and give its path.

        Unlinked: a killed process leaves nothing behind.
        """
        with tempfile.TemporaryFile() as file:
            while piece := stream.read(1024**2):
                self.spend_expanded(len(piece))
                file.write(piece)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")

    def spend_expanded(self, count: int) -> None:
        """Take unpacked bytes from the budget that the whole reading shares."""
        self._expandable_bytes -= count
        if self._expandable_bytes < 0:
            raise LimitExceeded(
                f"It unpacks to more than {self.limits.max_expanded_bytes / 1e6:.0f} MB "
                "(a ZIP bomb?)."
            )

    def progress(self, done: int, total: int) -> None:
        """Report pages of the outermost file; inner files have no say in the total."""
        if self._depth == 1:
            self._report(record="progress", pages_done=done, pages_total=total)

    def check_pages(self, count: int) -> None:
        """Reject a document of too many pages before reading the first."""
        if count > self.limits.max_pages:
            raise LimitExceeded(f"It has {count:,} pages; the limit is {self.limits.max_pages:,}.")

    def begin_ocr_page(self) -> None:
        """Allow one more page of text recognition, with its own time and memory limits."""
        if not self._ocr_pages:
            self._report(record="ocr")
            for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
                hard = resource.getrlimit(limit)[1]
                resource.setrlimit(limit, (hard, hard))
        self._ocr_pages += 1
        if self._ocr_pages > self.limits.max_ocr_pages:
            raise LimitExceeded(
                f"More than {self.limits.max_ocr_pages} of its pages are scans; "
                "text recognition stops there. Split the file."
            )


def _reader(name: str) -> Callable[[Source, Reading], Drafts]:
    """Import the reader of one format only: a text file must not wait for the PDF library."""
    module, _, function = name.partition(":")
    found: Callable[[Source, Reading], Drafts] = getattr(
        importlib.import_module(f"storage.parsing.{module}"), function
    )
    return found
