"""ZIP: the files inside, each below its name; and the bounded opening of every ZIP-based format."""

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import DocumentRejected
from storage.parsing.blocks import Drafts
from storage.parsing.reading import LimitExceeded, Reading, Source

SMALL_BYTES = 10 * 1024**2
"""What an archive may unpack to whatever its ratio: repetitive text packs better than any bomb
needs."""

_NOISE = ("__MACOSX/", ".DS_Store", "Thumbs.db")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
_ENCRYPTED = 0x1


@contextmanager
def open_archive(path: Path, reading: Reading) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP whose directory promises no more than the limits allow.

    `zipfile` reads no entry beyond its promised size, so the promises bound what comes out.

    Raises:
        LimitExceeded: too many entries, too many bytes, or a ratio that only bombs have.
        DocumentRejected: damaged or encrypted.
    """
    limits = reading.limits
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > limits.max_archive_entries:
                raise LimitExceeded(
                    f"The archive has {len(entries):,} entries; the limit is "
                    f"{limits.max_archive_entries:,}."
                )
            promised = sum(entry.file_size for entry in entries)
            if promised > limits.max_expanded_bytes or (
                promised > SMALL_BYTES
                and promised > limits.max_expansion_ratio * path.stat().st_size
            ):
                raise LimitExceeded(
                    f"It unpacks to {promised / 1e6:,.0f} MB, "
                    f"{promised // max(path.stat().st_size, 1):,} times its size (a ZIP bomb?)."
                )
            if any(entry.flag_bits & _ENCRYPTED for entry in entries):
                raise DocumentRejected("The file is encrypted; save it without a password.")
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise DocumentRejected(
            "The file is damaged: it is cut short or its structure is broken."
        ) from error


def read_zip(source: Source, reading: Reading) -> Drafts:
    """Yield the drafts of every file in a ZIP, in the order of their names."""
    with open_archive(source.path, reading) as archive:
        entries = [
            entry
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename)
            if not entry.is_dir() and not any(part in entry.filename for part in _NOISE)
        ]
        if not entries:
            raise DocumentRejected("The archive is empty.")
        reasons: list[str] = []
        for entry in entries:
            name = posixpath.normpath(entry.filename.replace("\\", "/")).lstrip("./")
            with archive.open(entry) as stream, reading.unpacked(stream) as path:
                reason = yield from reading.read_nested(Source(path, name))
                reasons += [reason] if reason else []
        if len(reasons) == len(entries):
            raise DocumentRejected(f"None of the files in it can be read; the first: {reasons[0]}")


def read_pictures(source: Source, reading: Reading) -> Drafts:
    """Yield the text in the pictures of an office file or book."""
    with open_archive(source.path, reading) as archive:
        for entry in archive.infolist():
            if entry.filename.lower().endswith(_PICTURES) and "thumbnail" not in entry.filename:
                with archive.open(entry) as stream, reading.unpacked(stream) as path:
                    yield from _readable(Source(path, entry.filename), reading)


def _readable(picture: Source, reading: Reading) -> Drafts:
    """Yield the drafts of a picture, none when it is damaged or shows no text."""
    try:
        yield from reading.read(picture)
    except LimitExceeded:
        raise
    except DocumentRejected:
        return
