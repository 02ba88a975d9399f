"""Tables: CSV of any delimiter, and spreadsheets sheet by sheet. Read row by row."""

import csv
import datetime
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO

from storage.errors import DocumentRejected
from storage.parsing.archive import open_archive
from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table_row
from storage.parsing.encodings import PIECE_CHARACTERS, open_text
from storage.parsing.reading import LimitExceeded, Reading, Source

DELIMITERS = ",;\t|:"
SNIFFED_LINES = 50
BLOCK_CHARACTERS = 20_000
"""Rows of one block; each begins with the header row again, so that every block explains itself."""
MAX_CSV_LINE_CHARACTERS = 10 * 1024**2
CSV_FIELD_CHARACTERS = 1024**2

Rows = Iterable[list[str]]


def read_csv(source: Source, reading: Reading) -> Drafts:
    """Yield the rows of a delimited text file; the delimiter is found from its first lines."""
    csv.field_size_limit(CSV_FIELD_CHARACTERS)
    with open_text(source.path) as file:
        head = list(itertools.islice(_bounded_lines(file), SNIFFED_LINES))
        delimiter = sniff_delimiter(head)
        rows = csv.reader(itertools.chain(head, _bounded_lines(file)), delimiter=delimiter)
        try:
            yield from grid_drafts(rows, reading)
        except csv.Error as error:
            raise DocumentRejected(
                "The table is malformed: one cell never ends (is a quotation mark missing?)."
            ) from error


def _bounded_lines(file: IO[str]) -> Iterator[str]:
    """Yield lines with their ends and without NUL; refuse one that never ends."""
    while line := file.readline(MAX_CSV_LINE_CHARACTERS):
        if len(line) == MAX_CSV_LINE_CHARACTERS:
            raise LimitExceeded(
                f"One line of the table is longer than {MAX_CSV_LINE_CHARACTERS // 2**20} million "
                "characters."
            )
        yield line.replace("\0", "")


def sniff_delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts the most lines into the same number of cells.

    `csv.Sniffer` guesses from letter statistics and names letters as delimiters; counting cells
    with quoting honoured does not.
    """
    best = (0.0, 0, ",")
    lines = [line[:PIECE_CHARACTERS] for line in lines]
    for place, delimiter in enumerate(DELIMITERS):
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            continue
        wide = [(count, width) for width, count in widths.items() if width > 1]
        if wide:
            count, width = max(wide)
            score = (count / sum(widths.values()), min(width, 20) - place, delimiter)
            best = max(best, score)
    return best[2]


def read_xlsx(source: Source, reading: Reading) -> Drafts:
    """Yield the sheets of a workbook, each below its name; formulas as their last values."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    with open_archive(source.path, reading):
        pass  # checks what openpyxl will unpack
    try:
        with source.path.open("rb") as file:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # a wrong promise would pad or hide cells
                rows = (
                    [_shown(value) for value in row] for row in sheet.iter_rows(values_only=True)
                )
                yield from _sheet_drafts(sheet.title, rows, reading)
            book.close()
    except (InvalidFileException, KeyError) as error:
        raise DocumentRejected("The workbook is damaged: a part of it is missing.") from error


def read_calamine(source: Source, reading: Reading) -> Drafts:
    """Yield the sheets of a binary (XLS, XLSB) or OpenDocument workbook."""
    import python_calamine

    if source.path.open("rb").read(2) == b"PK":
        with open_archive(source.path, reading):
            pass
    try:
        with source.path.open("rb") as file:
            book = python_calamine.CalamineWorkbook.from_filelike(file)
            for name in book.sheet_names:
                rows = book.get_sheet_by_name(name).iter_rows()
                shown = ([_shown(value) for value in row] for row in rows)
                yield from _sheet_drafts(name, shown, reading)
    except python_calamine.PasswordError as error:
        raise DocumentRejected(
            "The workbook is protected by a password; save it without one."
        ) from error
    except python_calamine.CalamineError as error:
        raise DocumentRejected("The workbook is damaged: it cannot be opened.") from error


def _sheet_drafts(name: str, rows: Rows, reading: Reading) -> Drafts:
    """Put a sheet's name above its content; an empty sheet leaves nothing."""
    drafts = grid_drafts(rows, reading)
    if (first := next(drafts, None)) is not None:
        yield heading(name, 1)
        yield first
        yield from drafts


def _shown(value: object) -> str:
    """Write a cell's value as a person would read it."""
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case float():
            return f"{value:.15g}"
        case datetime.datetime():
            midnight = value.time() == datetime.time()
            return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
        case _:
            return str(value)


def grid_drafts(rows: Rows, reading: Reading) -> Drafts:
    """Yield the tables of a grid: parted by empty rows, titles (single cells) above them.

    The first row of two cells or more is the header, repeated at the start of every block.
    """
    header, lines, size, margin = "", list[str](), 0, 0
    for row in rows:
        if len(row) > reading.limits.max_columns:
            raise LimitExceeded(
                f"A table row has {len(row):,} cells; the limit is {reading.limits.max_columns:,}."
            )
        cells = [" ".join(cell.split()) for cell in row]
        filled = [index for index, cell in enumerate(cells) if cell]
        if not filled:
            if lines:
                yield _table(lines)
            header, lines, size = "", [], 0
            continue
        if not header and len(filled) == 1:
            yield paragraph(cells[filled[0]])
            continue
        if not header:
            margin = filled[0]
        line = table_row(cells[min(margin, filled[0]) :])
        if size > BLOCK_CHARACTERS:
            yield _table(lines)
            lines, size = (
                ([header], len(header)) if len(header) < BLOCK_CHARACTERS // 2 else ([], 0)
            )
        header = header or line
        lines.append(line)
        size += len(line)
    if lines:
        yield _table(lines)


def _table(lines: list[str]) -> Draft:
    return Draft(kind="table" if len(lines) > 1 else "paragraph", text="\n".join(lines))
