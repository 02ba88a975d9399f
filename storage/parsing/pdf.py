"""PDF: pdfium opens the file, pages with text are laid out, pages without are recognised."""

import re
from collections import Counter
from pathlib import Path

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from storage.errors import DocumentRejected
from storage.parsing.blocks import Drafts
from storage.parsing.page_layout import Survey, margin_lines, page_drafts, pattern
from storage.parsing.page_lines import Line, page_lines
from storage.parsing.reading import LimitExceeded, Reading, Source

SURVEYED_PAGES = 24
"""Pages looked at first, evenly spread, for the body's font size and for repeated margins."""
MIN_TEXT_CHARACTERS = 16
"""A page of fewer letters and with a picture is a scan; page numbers and stamps have fewer."""

_DRAWN = (
    pdfium_c.FPDF_PAGEOBJ_IMAGE,
    pdfium_c.FPDF_PAGEOBJ_PATH,
    pdfium_c.FPDF_PAGEOBJ_SHADING,
)
_PDF_SIZE = re.compile(rb"/Size\s+(\d{1,10})")
_PDF_OBJECT = re.compile(rb"\d\s+obj\b")


def read_pdf(source: Source, reading: Reading) -> Drafts:
    """Yield the blocks of a PDF page by page; pages without text go through text recognition."""
    _check_objects(source.path, reading.limits.max_pdf_objects)
    document = _open(source.path)
    count = len(document)
    reading.check_pages(count)
    survey = _survey(document, count)
    for index in range(count):
        reading.progress(index, count)
        try:
            page = document[index]
        except pdfium.PdfiumError:
            continue  # a broken page must not hide the others
        lines = page_lines(page)
        if _is_scan(page, lines):
            from storage.parsing.picture import recognise_page

            yield from recognise_page(page, index + 1, reading)
        else:
            yield from page_drafts(lines, index + 1, survey, _frame(page))
        page.close()
    reading.progress(count, count)


def _open(path: Path) -> pdfium.PdfDocument:
    try:
        document = pdfium.PdfDocument(path)
        if len(document) == 0:
            raise DocumentRejected("The PDF has no pages.")
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise DocumentRejected(
                "The PDF is encrypted and needs a password; save it without one."
            ) from error
        raise DocumentRejected("The PDF is damaged or malformed: it cannot be opened.") from error
    return document


def _check_objects(path: Path, limit: int) -> None:
    """Refuse object floods before pdfium builds tables for them.

    Objects inside compressed streams do not show, but the trailer's `/Size` counts them.
    """
    found = declared = 0
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(1024**2):
            window = tail + piece
            found += sum(1 for _ in _PDF_OBJECT.finditer(window, max(len(tail) - 8, 0)))
            declared = max([declared, *(int(size) for size in _PDF_SIZE.findall(window))])
            tail = window[-32:]
            if max(found, declared) > limit:
                raise LimitExceeded(
                    f"The PDF has {max(found, declared):,} objects or more; the limit is {limit:,}."
                )


def _survey(document: pdfium.PdfDocument, count: int) -> Survey:
    """Find the body's font size and the lines that repeat at the pages' margins."""
    sizes: Counter[float] = Counter()
    margins: Counter[str] = Counter()
    surveyed = range(0, count, max(count // SURVEYED_PAGES, 1))
    for index in surveyed:
        try:
            page = document[index]
        except pdfium.PdfiumError:
            continue
        lines = page_lines(page)
        for line in lines:
            sizes[round(line.size * 2) / 2] += len(line.text)
        margins.update({pattern(line) for line in margin_lines(lines, _frame(page))})
        page.close()
    repeated = {text for text, times in margins.items() if times >= max(3, 0.4 * len(surveyed))}
    body_size = sizes.most_common(1)[0][0] if sizes else 10.0
    return Survey(body_size, frozenset(repeated))


def _frame(page: pdfium.PdfPage) -> tuple[float, float]:
    """Return the bottom and top of the visible page, in the coordinates of its text."""
    _, bottom, _, top = page.get_cropbox()
    return bottom, top


def _is_scan(page: pdfium.PdfPage, lines: list[Line]) -> bool:
    """Whether a page has no usable text but a picture, or glyphs without Unicode."""
    text = "".join(line.text for line in lines)
    letters = sum(map(str.isalnum, text))
    if letters >= MIN_TEXT_CHARACTERS:
        return False
    drawn = (pdfium_c.FPDF_PAGEOBJ_IMAGE,) if letters else _DRAWN
    return len(text) >= 2 * MIN_TEXT_CHARACTERS or any(
        True for _ in page.get_objects(drawn, max_depth=3)
    )
