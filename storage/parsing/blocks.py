"""The vocabulary between readers, the child process and its parent. Imports nothing heavy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "paragraph", "table", "code", "list"]

BLOCK_SEPARATOR = "\n\n"
"""Joins the texts of all blocks to the document's extracted text, to which offsets refer."""

MAX_HEADING_LEVEL = 9

CELL_SEPARATOR = " | "
"""Joins the cells of one table row; rows are lines, the first row is the header."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One structural unit of a document.

    `offset` counts characters in the extracted text: the texts of all blocks joined by
    `BLOCK_SEPARATOR`. `page` counts from 1 and is None where the format has no pages. `level` is 1
    or more for headings and 0 for everything else. The lines of a table are its rows, the first
    being the header; the lines of a list are its items.
    """

    kind: BlockKind
    text: str
    page: int | None
    level: int = 0
    offset: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Pages read so far and in all; sent for formats that have pages."""

    pages_done: int
    pages_total: int


@dataclass(frozen=True, kw_only=True)
class ParseLimits:
    """What one document may cost. Beyond a limit it is rejected, naming the limit.

    Defaults: ten times the largest of the evaluation documents, or the point where the reference
    machine (2 cores) would be busy for minutes.
    """

    max_bytes: int = 100 * 1024**2
    timeout_s: float = 300.0
    """Wall clock; also CPU time, of which two cores can use twice as much."""
    ocr_timeout_s: float = 3600.0
    """Wall clock once text recognition has begun: about 4.4 s a page on the reference machine."""
    memory_bytes: int = 1024**3
    """Address space of the child for formats read without text recognition."""
    ocr_memory_bytes: int = 6 * 1024**3
    """Address space with text recognition; onnxruntime reserves far more than it touches."""
    max_pages: int = 5_000
    max_ocr_pages: int = 500
    max_characters: int = 50_000_000
    """Most extracted text: about 25,000 printed pages."""
    max_expanded_bytes: int = 512 * 1024**2
    """Most bytes that a ZIP-based file may unpack to, nested archives included."""
    max_expansion_ratio: int = 200
    """Unpacked to packed bytes of one archive; deflate reaches about 1,000, office files 5 to
    50."""
    max_archive_entries: int = 10_000
    max_nesting: int = 4
    """Archives within archives, attachments within mails."""
    max_pixels: int = 100_000_000
    """Width times height of one picture: an A3 page at 600 dpi has 70 million."""
    max_columns: int = 16_384
    """Cells of one table row; also the limit of Excel."""
    max_pdf_objects: int = 500_000
    """A 5,000-page book has about 100,000."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A block as a reader yields it: text not cleaned yet, no offset."""

    kind: BlockKind
    text: str
    page: int | None = None
    level: int = 0


Drafts = Iterator[Draft]


def heading(text: str, level: int, page: int | None = None) -> Draft:
    """Return a heading draft on one line, its level kept between 1 and 9."""
    return Draft(
        kind="heading", text=" ".join(text.split()), level=min(max(level, 1), 9), page=page
    )


def paragraph(text: str, page: int | None = None) -> Draft:
    """Return a paragraph draft."""
    return Draft(kind="paragraph", text=text, page=page)


def table_row(cells: list[str]) -> str:
    """Return one table row as a line; empty when every cell is empty."""
    flat = [" ".join(cell.split()) for cell in cells]
    while flat and not flat[-1]:
        flat.pop()
    return CELL_SEPARATOR.join(flat)


def table(rows: list[list[str]], page: int | None = None) -> Draft:
    """Return a table draft without empty rows and columns; a single row is a paragraph."""
    width = max(map(len, rows), default=0)
    filled = [
        any(len(row) > column and row[column].strip() for row in rows) for column in range(width)
    ]
    kept = [[cell for cell, keep in zip(row, filled, strict=False) if keep] for row in rows]
    lines = [line for line in map(table_row, kept) if line]
    if len(lines) < 2:
        return paragraph("\n".join(lines), page)
    return Draft(kind="table", text="\n".join(lines), page=page)
