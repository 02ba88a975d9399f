"""PowerPoint (PPTX): slides as pages, with tables, charts, diagrams and speaker notes."""

import itertools
from collections.abc import Iterator

from lxml import etree

from storage.parsing.archive import open_archive
from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.ooxml import Package, attribute, local_name, related
from storage.parsing.reading import Reading, Source

_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "sldNum", "hdr", "sldImg"})
"""Placeholders that repeat on every slide: date, footer, number."""
_LINKED_TEXT = {"chart": "{*}v", "diagramData": "{*}t"}
"""Related parts that hold text of a slide, and the elements that hold it."""


def read_pptx(source: Source, reading: Reading) -> Drafts:
    """Yield the slides in the order of the show; titles are headings."""
    with open_archive(source.path, reading) as archive:
        package = Package(archive, reading)
        main = package.main_part()
        parts = package.relationships(main)
        slides = [
            parts[identity].target
            for element in package.tree(main).iter("{*}sldId")
            if (identity := related(element)) in parts
        ]
        reading.check_pages(len(slides))
        for number, name in enumerate(slides, start=1):
            reading.progress(number - 1, len(slides))
            if name in package:
                yield from _slide(package, name, number)
        reading.progress(len(slides), len(slides))


def _slide(package: Package, name: str, page: int) -> Drafts:
    tree = package.tree(name)
    shapes = [shape for shape in tree.iter("{*}sp", "{*}graphicFrame") if not _is_furniture(shape)]
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
    title = " ".join(line for shape in titles for line in _lines(shape))
    bodies = (shape for shape in shapes if shape not in titles and not _is_fallback(shape))
    drafts = itertools.chain(_body(bodies, page), _linked(package, name, page))
    filled = [draft for draft in drafts if draft.text.strip()]
    if title or filled:  # without one, the title of the slide before would stand above this one
        yield heading(title or f"Slide {page}", 1, page)
    yield from filled


def _body(shapes: Iterator[etree._Element], page: int) -> Drafts:
    for shape in shapes:
        grid = next(shape.iter("{*}tbl"), None)
        if grid is not None:
            yield table(list(_rows(grid)), page)
        elif lines := list(_lines(shape)):
            yield from _text(lines, page)


def _linked(package: Package, name: str, page: int) -> Drafts:
    """Yield what stands in parts of its own: charts, diagrams, speaker notes, comments."""
    for part in package.relationships(name).values():
        if part.target not in package:
            continue
        if wanted := _LINKED_TEXT.get(part.kind):
            words = [node.text or "" for node in package.tree(part.target).iter(wanted)]
            yield paragraph(" ".join(words), page)
        elif part.kind == "notesSlide":
            for shape in package.tree(part.target).iter("{*}sp"):
                if not _is_furniture(shape):
                    yield paragraph("\n".join(_lines(shape)), page)
        elif part.kind == "comments":
            for comment in package.tree(part.target).iter("{*}text", "{*}t"):
                yield paragraph(comment.text or "", page)


def _text(lines: list[str], page: int) -> Drafts:
    """A shape of several lines is a list, as slides are written."""
    if len(lines) == 1:
        yield paragraph(lines[0], page)
    else:
        yield Draft(kind="list", text="\n".join(f"- {line}" for line in lines), page=page)


def _placeholder(shape: etree._Element) -> str | None:
    """Return the type of a placeholder; None for any other shape."""
    for element in shape.iterfind("{*}nvSpPr/{*}nvPr/{*}ph"):
        return attribute(element, "type") or "body"
    return None


def _is_furniture(shape: etree._Element) -> bool:
    return _placeholder(shape) in _FURNITURE


def _is_fallback(shape: etree._Element) -> bool:
    """Whether a shape only stands in for one that old programs cannot show."""
    return any(local_name(above) == "Fallback" for above in shape.iterancestors())


def _lines(shape: etree._Element) -> Iterator[str]:
    """Yield the paragraphs of a shape that hold text."""
    for element in shape.iter("{*}p"):
        parts = []
        for node in element.iter("{*}t", "{*}br", "{*}tab"):
            name = local_name(node)
            parts.append((node.text or "") if name == "t" else " ")
        if text := " ".join("".join(parts).split()):
            yield text


def _rows(grid: etree._Element) -> Iterator[list[str]]:
    """Yield the rows of a table; cells merged downwards repeat the text above."""
    above: dict[int, str] = {}
    for row in grid.iterchildren("{*}tr"):
        cells = []
        for column, cell in enumerate(row.iterchildren("{*}tc")):
            text = " ".join(_lines_of_cell(cell))
            if cell.get("vMerge") in ("1", "true"):
                text = above.get(column, "")
            above[column] = text
            cells.append(text)
        yield cells


def _lines_of_cell(cell: etree._Element) -> Iterator[str]:
    for element in cell.iter("{*}p"):
        if text := "".join(node.text or "" for node in element.iter("{*}t")).strip():
            yield text
