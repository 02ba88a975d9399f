"""Reading order of recognised lines, which arrive without one: columns first, then rows.

A PDF's own text needs none of this (see `page_layout`).
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from storage.parsing.page_lines import CELL_GAP_EMS, Line

PROSE_WIDTH_EMS = 8
"""Lines at least this wide on both sides of a gutter are columns of prose, not cells of a table."""
MIN_COLUMN_LINES = 3


def recognised_line(box: Any, text: str, page_height: int) -> Line:
    """Make a line of a recognised box: four corners in pixels, y growing downwards."""
    xs = [float(corner[0]) for corner in box]
    ys = [page_height - float(corner[1]) for corner in box]
    bottom, top = min(ys), max(ys)
    return Line(
        cells=[" ".join(text.split())],
        left=min(xs),
        right=max(xs),
        bottom=bottom,
        top=top,
        baseline=bottom,
        size=max(top - bottom, 1.0),
        bold=False,
    )


def in_reading_order(lines: list[Line]) -> list[Line]:
    """Order lines by columns and rows, and join those of one row as cells of one line."""
    if not lines:
        return []
    typical = median(line.size for line in lines)
    upright = [line for line in lines if not _is_rotated(line, typical)]
    ordered = list(_ordered(upright)) + [line for line in lines if _is_rotated(line, typical)]
    for line in ordered:  # boxes hug the ink: the same font gives 20 % more with descenders
        line.size = typical if 0.7 * typical < line.size < 1.3 * typical else line.size
    return ordered


def _is_rotated(line: Line, typical: float) -> bool:
    """Whether a line runs up or down the margin, and so would tie all lines beside it together."""
    return line.top - line.bottom > max(3 * typical, 1.5 * (line.right - line.left))


def _ordered(lines: list[Line]) -> Iterator[Line]:
    """Read the longest run of bands that share a gutter column by column, other bands as rows."""
    bands = _bands(lines)
    start = 0
    while start < len(bands):
        for end in range(len(bands), start, -1):
            run = [line for band in bands[start:end] for line in band]
            if columns := _columns(run):
                for column in columns:
                    yield from _ordered(column)
                start = end
                break
        else:
            yield _row(bands[start])
            start += 1


def _bands(lines: list[Line]) -> list[list[Line]]:
    """Group lines into horizontal bands: those whose middles overlap a neighbour's height."""
    bands: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: -(line.top + line.bottom)):
        middle = (line.top + line.bottom) / 2
        if bands and any(other.bottom < middle < other.top for other in bands[-1]):
            bands[-1].append(line)
        else:
            bands.append([line])
    return bands


def _columns(lines: list[Line]) -> tuple[list[Line], list[Line]] | None:
    """Split lines at the widest vertical gutter if prose stands on both of its sides."""
    ordered = sorted(lines, key=lambda line: line.left)
    height = median(line.size for line in lines)
    best: tuple[float, int] | None = None
    right = ordered[0].right
    for index, line in enumerate(ordered[1:], start=1):
        gap = line.left - right
        if gap > 0.5 * height and (best is None or gap > best[0]):
            best = (gap, index)
        right = max(right, line.right)
    if best is None:
        return None
    sides = ordered[: best[1]], ordered[best[1] :]
    for side in sides:
        wide = median(line.right - line.left for line in side) >= PROSE_WIDTH_EMS * height
        if len(side) < MIN_COLUMN_LINES or not wide:
            return None
    return sides


def _row(band: list[Line]) -> Line:
    """Join the lines of one band from left to right."""
    band.sort(key=lambda line: line.left)
    row = band[0]
    for line in band[1:]:
        if line.left - row.right > CELL_GAP_EMS * row.size:
            row.cells += line.cells
        else:
            row.cells[-1] += f" {line.cells[0]}"
        row.right = max(row.right, line.right)
        row.bottom, row.top = min(row.bottom, line.bottom), max(row.top, line.top)
    return row
