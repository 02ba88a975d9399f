"""Word documents (DOCX): the body streamed paragraph by paragraph, styles making headings.

Why not mammoth or python-docx: they hold the whole tree, and drop text boxes, content controls or
tracked insertions, which people see in Word.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lxml import etree

from storage.parsing.archive import open_archive
from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.ooxml import Package, attribute, iterate_xml, local_name, walk_shown
from storage.parsing.reading import Reading, Source

MAX_BOLD_HEADING_CHARACTERS = 80
BOLD_HEADING_LEVEL = 8
"""Below every real heading: people make sub-headings by bold type alone."""

_SKIPPED = frozenset({"del", "moveFrom", "Fallback", "txbxContent", "instrText", "delText"})
_TITLE_STYLES = frozenset({"title"})


@dataclass(frozen=True)
class _Style:
    level: int = 0
    listed: bool = False


def read_docx(source: Source, reading: Reading) -> Drafts:
    """Yield headers, body, notes and footers of a Word document."""
    with open_archive(source.path, reading) as archive:
        package = Package(archive, reading)
        main = package.main_part()
        parts = package.relationships(main).values()
        styles = _styles(package, [part.target for part in parts if part.kind == "styles"])
        yield from _margins(package, [part.target for part in parts if part.kind == "header"])
        with package.open(main) as stream:
            yield from _grouped(_body(stream, styles))
        for kind in ("footnotes", "endnotes"):
            for name in [
                part.target for part in parts if part.kind == kind and part.target in package
            ]:
                for note in package.tree(name):
                    yield paragraph(" ".join(_texts(note.iter("{*}p"))))
        yield from _margins(package, [part.target for part in parts if part.kind == "footer"])


def _styles(package: Package, names: list[str]) -> dict[str, _Style]:
    """Return heading levels and list membership by style id, inherited along `basedOn`."""
    elements: dict[str, etree._Element] = {}
    for name in names:
        if name in package:
            for element in package.tree(name).iterchildren("{*}style"):
                elements[attribute(element, "styleId") or ""] = element
    return {identity: _style(identity, elements) for identity in elements}


def _style(identity: str, elements: dict[str, etree._Element]) -> _Style:
    level, listed = 0, False
    seen: set[str] = set()
    while identity in elements and identity not in seen:
        seen.add(identity)
        element = elements[identity]
        name = (_value(element, "name") or "").lower()
        if not level:
            level = _named_level(name) or _outline_level(element.find("{*}pPr"))
        properties = element.find("{*}pPr")
        listed = listed or (properties is not None and properties.find("{*}numPr") is not None)
        identity = _value(element, "basedOn") or ""
    return _Style(level, listed)


def _named_level(name: str) -> int:
    """Level of a built-in style, whose name Word stores in English; the title stands above."""
    if name in _TITLE_STYLES:
        return 1
    if name.startswith("heading ") and name[8:].isdecimal():
        return int(name[8:]) + 1
    return 0


def _outline_level(properties: etree._Element | None) -> int:
    if properties is None or (value := _value(properties, "outlineLvl")) is None:
        return 0
    return int(value) + 2 if value.isdecimal() and int(value) < 9 else 0


def _value(element: etree._Element, name: str) -> str | None:
    child = element.find(f"{{*}}{name}")
    return None if child is None else attribute(child, "val")


def _margins(package: Package, names: list[str]) -> Drafts:
    """Yield the distinct texts of headers or footers."""
    seen: set[str] = set()
    for name in sorted(names):
        if name in package:
            for text in _texts(package.tree(name).iter("{*}p")):
                if text not in seen and not text.strip().isdecimal():
                    seen.add(text)
                    yield paragraph(text)


def _body(stream: object, styles: dict[str, _Style]) -> Drafts:
    """Yield the drafts of outermost paragraphs and tables, freeing each element behind."""
    nesting = 0
    for event, element in iterate_xml(stream):  # type: ignore[arg-type]
        name = local_name(element)
        if name not in ("p", "tbl") or not _is_word(element):
            continue
        if event == "start":
            nesting += 1
            continue
        nesting -= 1
        if nesting:
            continue
        yield from _paragraph(element, styles) if name == "p" else _table(element, styles)
        element.clear()
        for before in element.itersiblings(preceding=True):
            before.getparent().remove(before)


def _is_word(element: etree._Element) -> bool:
    return "wordprocessingml" in element.tag


def _paragraph(element: etree._Element, styles: dict[str, _Style]) -> Drafts:
    """Yield a paragraph as heading, list item or text, then the text boxes anchored in it."""
    text = paragraph_text(element)
    properties = element.find("{*}pPr")
    style = _Style()
    if properties is not None:
        style = styles.get(_value(properties, "pStyle") or "", style)
    level = _outline_level(properties) or style.level
    numbering = properties.find("{*}numPr") if properties is not None else None
    if text.strip():
        if level:
            yield heading(text, level)
        elif numbering is not None or style.listed:
            indent = _value(numbering, "ilvl") if numbering is not None else None
            depth = int(indent) if indent and indent.isdecimal() else 0
            yield Draft(kind="list", text=f"{'  ' * min(depth, 8)}- {' '.join(text.split())}")
        elif _is_bold_heading(element, text):
            yield heading(text, BOLD_HEADING_LEVEL)
        else:
            yield paragraph(text)
    for box in element.iter("{*}txbxContent"):
        if not any(local_name(above) == "Fallback" for above in box.iterancestors()):
            for inner in box.iterchildren("{*}p", "{*}tbl"):
                yield from (_paragraph if local_name(inner) == "p" else _table)(inner, styles)


def _is_bold_heading(element: etree._Element, text: str) -> bool:
    """Whether a short line is bold throughout and does not end like a sentence."""
    stripped = text.strip()
    if len(stripped) > MAX_BOLD_HEADING_CHARACTERS or stripped[-1] in ".,;:!?" or "\n" in stripped:
        return False
    for run in element.iter("{*}r"):
        if any(child.text and child.text.strip() for child in run.iterchildren("{*}t")):
            properties = run.find("{*}rPr")
            bold = properties.find("{*}b") if properties is not None else None
            if bold is None or attribute(bold, "val") in ("0", "false", "none"):
                return False
    return any(map(str.isalpha, stripped))


def paragraph_text(element: etree._Element) -> str:
    """Return the text of a paragraph as Word shows it: insertions, no deletions, no text boxes."""
    parts: list[str] = []
    for event, name, node in walk_shown(element, _SKIPPED):
        if event == "end":
            continue
        if name == "t":
            parts.append(node.text or "")
        elif name == "tab":
            parent = node.getparent()  # tab stops of the paragraph have the same name
            parts.append("\t" if parent is not None and local_name(parent) == "r" else "")
        elif name in ("br", "cr"):
            parts.append("\n")
        elif name == "noBreakHyphen":
            parts.append("-")
    return "".join(parts)


def _texts(paragraphs: Iterable[etree._Element]) -> Iterator[str]:
    return (text for text in map(paragraph_text, paragraphs) if text.strip())


def _table(element: etree._Element, styles: dict[str, _Style]) -> Drafts:
    """Yield a table; one of a single cell is a frame around its content."""
    rows = list(_rows(element))
    if (len(rows) == 1 and len(rows[0]) == 1) or max(map(len, rows), default=0) == 1:
        for cell in element.iter("{*}tc"):
            for inner in cell.iterchildren("{*}p", "{*}tbl"):
                yield from (_paragraph if local_name(inner) == "p" else _table)(inner, styles)
        return
    yield table(rows)


def _rows(element: etree._Element) -> Iterator[list[str]]:
    """Yield rows; a cell merged downwards repeats its text, one merged to the right pads."""
    above: dict[int, str] = {}
    for row in element.iterchildren("{*}tr", "{*}sdt", "{*}ins"):
        for inner in [row] if local_name(row) == "tr" else list(row.iter("{*}tr")):
            cells: list[str] = []
            for cell in inner.iter("{*}tc"):
                if next(cell.iterancestors("{*}tr"), None) is not inner:
                    continue  # of a table within the cell, part of its text already
                properties = cell.find("{*}tcPr")
                span = _value(properties, "gridSpan") if properties is not None else None
                merge = properties.find("{*}vMerge") if properties is not None else None
                text = " ".join(_texts(cell.iter("{*}p")))
                if merge is not None and attribute(merge, "val") != "restart":
                    text = above.get(len(cells), "")
                above[len(cells)] = text
                cells += [text] + [""] * (
                    min(int(span), 1000) - 1 if span and span.isdecimal() else 0
                )
            yield cells


def _grouped(drafts: Drafts) -> Drafts:
    """Join the items of a list, which Word stores as single paragraphs."""
    items: list[str] = []
    for draft in drafts:
        if draft.kind == "list":
            items.append(draft.text)
            continue
        if items:
            yield Draft(kind="list", text="\n".join(items))
            items = []
        yield draft
    if items:
        yield Draft(kind="list", text="\n".join(items))
