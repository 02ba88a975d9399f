"""The lines of a PDF page, as pdfium finds them, with their places and fonts."""

import ctypes
import itertools
import math
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

CELL_GAP_EMS = 1.6
"""A gap this wide within a line separates cells; justified words reach about one em."""
WORD_GAP_EMS = 0.15
BOLD_WEIGHT = 550
"""Regular faces report 300 to 400, semibold ones 585 to 600, bold ones 700."""

_NEWLINE = 10
_HYPHEN_MARK = 2
"""What pdfium reports, without a newline, for a hyphen that ends a line."""
HYPHEN = "\u2010"
"""Stands for that hyphen in a line's text."""

Box = tuple[float, float, float, float]
"""Left, right, bottom, top in points; y grows upwards."""


@dataclass
class Line:
    """One line of text and where it stands."""

    cells: list[str]
    left: float
    right: float
    bottom: float
    top: float
    baseline: float
    size: float
    bold: bool

    @property
    def text(self) -> str:
        """The whole line, its cells joined by spaces."""
        return " ".join(self.cells)


def page_lines(page: pdfium.PdfPage) -> list[Line]:
    """Return the lines of a page in content order, cut into cells at wide gaps."""
    textpage = page.get_textpage()
    try:
        raw = textpage.raw
        unicode_at = pdfium_c.FPDFText_GetUnicode
        codes = [unicode_at(raw, index) for index in range(pdfium_c.FPDFText_CountChars(raw))]
        lines: list[Line] = []
        start = 0
        ends = [index for index, code in enumerate(codes) if code in (_NEWLINE, _HYPHEN_MARK)]
        for end in [*ends, len(codes) - 1]:
            if words := _words(raw, codes, start, end + 1):
                _append_line(lines, _line(raw, words))
            start = end + 1
        return lines
    finally:
        textpage.close()


@dataclass
class _Word:
    text: str
    first: int
    box: Box


def _words(raw: Any, codes: list[int], start: int, end: int) -> list[_Word]:
    """Words between two character positions; only their first and last letters are measured."""
    words: list[_Word] = []
    first = start
    for index in range(start, end + 1):
        blank = index == end or (codes[index] <= 32 and codes[index] != _HYPHEN_MARK)
        if not blank and codes[index] != 0xA0:
            continue
        if index > first:
            text = _decoded(codes[first:index])
            begin, finish = _char_box(raw, first), _char_box(raw, index - 1)
            box = (
                min(begin[0], finish[0]),
                max(begin[1], finish[1]),
                min(begin[2], finish[2]),
                max(begin[3], finish[3]),
            )
            words.append(_Word(text, first, box))
        first = index + 1
    return words


def _decoded(codes: list[int]) -> str:
    """Join code units; pdfium hands out astral characters as two surrogates."""
    text = "".join(HYPHEN if code == _HYPHEN_MARK else chr(code) for code in codes)
    if any(0xD800 <= code < 0xE000 for code in codes):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _line(raw: Any, words: list[_Word]) -> Line:
    middle = words[len(words) // 2].first
    size = _font_size(raw, middle)
    cells = [words[0].text]
    for before, word in itertools.pairwise(words):
        if word.box[0] - before.box[1] > CELL_GAP_EMS * size:
            cells.append(word.text)
        else:
            cells[-1] += f" {word.text}"
    return Line(
        cells=cells,
        left=min(word.box[0] for word in words),
        right=max(word.box[1] for word in words),
        bottom=min(word.box[2] for word in words),
        top=max(word.box[3] for word in words),
        baseline=_baseline(raw, middle),
        size=size,
        bold=pdfium_c.FPDFText_GetFontWeight(raw, middle) >= BOLD_WEIGHT,
    )


def _append_line(lines: list[Line], line: Line) -> None:
    """Add a line; one that continues the last on the same height (a superscript) joins it."""
    if lines:
        last = lines[-1]
        overlap = min(last.top, line.top) - max(last.bottom, line.bottom)
        height = min(last.top - last.bottom, line.top - line.bottom)
        gap = line.left - last.right
        size = max(last.size, line.size)
        if overlap > 0.4 * height > 0 and -0.3 * size <= gap:
            if gap > CELL_GAP_EMS * size:
                last.cells += line.cells
            else:
                space = " " if gap > WORD_GAP_EMS * size else ""
                last.cells[-1] += space + line.cells[0]
                last.cells += line.cells[1:]
            last.right = max(last.right, line.right)
            last.bottom, last.top = min(last.bottom, line.bottom), max(last.top, line.top)
            return
    lines.append(line)


def _char_box(raw: Any, index: int) -> Box:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium_c.FPDFText_GetCharBox(raw, index, left, right, bottom, top)
    return left.value, right.value, bottom.value, top.value


def _baseline(raw: Any, index: int) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium_c.FPDFText_GetCharOrigin(raw, index, x, y)
    return y.value


def _font_size(raw: Any, index: int) -> float:
    """Size in points as drawn: many programs set size 1 and scale by the matrix."""
    size = float(pdfium_c.FPDFText_GetFontSize(raw, index))
    matrix = pdfium_c.FS_MATRIX()
    if pdfium_c.FPDFText_GetMatrix(raw, index, matrix):
        size *= math.hypot(matrix.c, matrix.d) or 1.0
    return size
