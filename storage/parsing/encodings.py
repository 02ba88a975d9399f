"""Which character encoding a text file has, and reading it in bounded pieces."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SAMPLE_BYTES = 64 * 1024
PIECE_CHARACTERS = 64 * 1024
"""Longest line that a reader meets; longer ones arrive in pieces."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x08\x1b\x1a")
MAX_CONTROL_SHARE = 0.02
"""Control bytes beyond this share mean a binary file; text has none but stray ones."""
MAX_CONTROL_SHARE_UTF8 = 0.1
"""The same where all bytes are valid UTF-8, which binary files never are."""
MAX_UNPRINTABLE_SHARE = 0.05


def looks_like_text(head: bytes) -> bool:
    """Whether the first bytes of a file can be text in some encoding."""
    if wide_encoding(head):
        return True
    controls = sum(head.count(byte) for byte in range(32) if byte not in _TEXT_CONTROLS)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return controls <= MAX_CONTROL_SHARE * len(head)
    return controls <= MAX_CONTROL_SHARE_UTF8 * len(head)


def wide_encoding(head: bytes) -> str | None:
    """Return a UTF-16 or UTF-32 encoding that a BOM or the places of NUL bytes give away."""
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    if len(head) < 4 or b"\0" not in head:
        return None
    sample = head[: min(len(head), 4096) // 4 * 4]
    zeros = [sample[place::4].count(0) / (len(sample) / 4) for place in range(4)]
    for encoding, expected in (
        ("utf-32-le", (0, 0, 1, 1)), ("utf-32-be", (1, 1, 0, 0)),
        ("utf-16-le", (0, 1, 0, 1)), ("utf-16-be", (1, 0, 1, 0)),
    ):  # fmt: skip
        if all(abs(share - want) < 0.3 for share, want in zip(zeros, expected, strict=True)):
            text = sample.decode(encoding, "replace")
            odd = sum(not (letter.isprintable() or letter.isspace()) for letter in text)
            return encoding if odd <= MAX_UNPRINTABLE_SHARE * len(text) else None
    return None


def sample_text(head: bytes) -> str:
    """Decode the first bytes of a file well enough to recognise markup."""
    return head.decode(wide_encoding(head) or "utf-8", "replace").lstrip("\ufeff")


def detect_encoding(path: Path) -> str:
    """Return the encoding of a text file: BOM, then UTF-8 if all of it is, then the likeliest."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        if encoding := wide_encoding(head):
            return encoding
        piece = head
        try:
            while piece:
                decoder.decode(piece)
                piece = file.read(1024**2)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            file.seek(0)
            return _legacy_encoding(file.read(4 * SAMPLE_BYTES))
    return "utf-8"


def decode(data: bytes) -> str:
    """Decode a whole text held in memory, by the rules of `detect_encoding`."""
    if encoding := wide_encoding(data[:SAMPLE_BYTES]):
        return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(_legacy_encoding(data[: 4 * SAMPLE_BYTES]), "replace")


def _legacy_encoding(sample: bytes) -> str:
    """Guess an encoding from before Unicode; short Latin samples are Windows-1252, the commonest.

    Statistics need material: below about 50 non-ASCII bytes detectors call German text Chinese.
    """
    high = sum(byte >= 0x80 for byte in sample)
    if high < 50 and high < 0.3 * len(sample):
        return _western(sample)
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else _western(sample)


def _western(sample: bytes) -> str:
    """Windows-1252 where its printable range is used, else Latin-1, which decodes every byte."""
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def open_text(path: Path) -> IO[str]:
    """Open a text file in its own encoding; bytes that do not fit become U+FFFD."""
    return path.open(encoding=detect_encoding(path), errors="replace", newline=None)


def text_lines(file: IO[str]) -> Iterator[str]:
    """Yield lines without their ends; a line beyond `PIECE_CHARACTERS` arrives in pieces."""
    while line := file.readline(PIECE_CHARACTERS):
        yield line.rstrip("\n")
