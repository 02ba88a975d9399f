"""OpenDocument text and slides (ODT, ODP): `content.xml` streamed block by block."""

from collections.abc import Iterator

from lxml import etree

from storage.errors import DocumentRejected
from storage.parsing.archive import open_archive
from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.ooxml import Package, attribute, iterate_xml, local_name, walk_shown
from storage.parsing.reading import Reading, Source

MAX_REPEATED = 100
"""Cells and rows are stored once with a count; beyond this they only pad to the sheet's edge."""

_BLOCKS = frozenset({"h", "p", "list", "table"})
_SKIPPED = frozenset({"annotation", "tracked-changes", "ruby-text"})


def read_opendocument(source: Source, reading: Reading) -> Drafts:
    """Yield the blocks of an OpenDocument file; slides are pages."""
    with open_archive(source.path, reading) as archive:
        package = Package(archive, reading)
        if "META-INF/manifest.xml" in package:
            manifest = package.tree("META-INF/manifest.xml")
            if next(manifest.iter("{*}encryption-data"), None) is not None:
                raise DocumentRejected("The file is protected by a password; save it without one.")
        with package.open("content.xml") as stream:
            yield from _blocks(stream)


def _blocks(stream: object) -> Drafts:
    """Yield the outermost blocks, freeing each element behind."""
    nesting = skipped = page = 0
    title = ""
    for event, element in iterate_xml(stream):  # type: ignore[arg-type]
        name = local_name(element)
        if name in _SKIPPED:
            skipped += 1 if event == "start" else -1
        elif name == "page" and event == "start" and "drawing" in element.tag:
            page += 1
            title = attribute(element, "name") or f"Slide {page}"
        elif name in _BLOCKS:
            nesting += 1 if event == "start" else -1
            if event == "end" and not nesting:
                for draft in _drafts(element, name, page or None) if not skipped else ():
                    if title and draft.text.strip():  # an empty slide leaves nothing
                        yield heading(title, 1, page)
                        title = ""
                    yield draft
                element.clear()


def _drafts(element: etree._Element, name: str, page: int | None) -> Drafts:
    if name == "h":
        level = attribute(element, "outline-level") or "1"
        yield heading(_text(element), int(level) if level.isdecimal() else 1, page)
    elif name == "list":
        yield Draft(kind="list", text="\n".join(_items(element, 0)), page=page)
    elif name == "table":
        yield table(list(_rows(element)), page)
    else:
        yield paragraph(_text(element), page)


def _items(element: etree._Element, depth: int) -> Iterator[str]:
    for item in element.iterchildren("{*}list-item", "{*}list-header"):
        for child in item:
            if local_name(child) == "list":
                yield from _items(child, depth + 1) if depth < 50 else ()
            elif text := " ".join(_text(child).split()):
                yield f"{'  ' * depth}- {text}"


def _rows(element: etree._Element) -> Iterator[list[str]]:
    for row in element.iter("{*}table-row"):
        cells: list[str] = []
        for cell in row.iterchildren("{*}table-cell", "{*}covered-table-cell"):
            repeated = attribute(cell, "number-columns-repeated") or "1"
            count = int(repeated) if repeated.isdecimal() else 1
            text = " ".join(map(_text, cell.iter("{*}p", "{*}h")))
            cells += [text] * (count if count <= MAX_REPEATED else 1)
        yield cells


def _text(element: etree._Element) -> str:
    """Return the text of a paragraph, its spaces, tabs and line breaks spelt out."""
    parts: list[str] = []
    for event, name, node in walk_shown(element, _SKIPPED):
        if event == "start":
            if name == "s":
                count = attribute(node, "c") or "1"
                parts.append(" " * min(int(count), 100) if count.isdecimal() else " ")
            elif name in ("tab", "line-break"):
                parts.append("\t" if name == "tab" else "\n")
            elif name == "note":
                parts.append(" ")
            parts.append(node.text or "")
        elif node is not element:
            parts.append(node.tail or "")
    return "".join(parts)
