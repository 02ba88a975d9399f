"""HTML: a walk over lxml's tree that keeps headings, lists, tables and code."""

import re
from collections.abc import Iterator

from lxml import etree, html

from storage.errors import DocumentRejected
from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.encodings import decode, wide_encoding
from storage.parsing.reading import Reading, Source

MAX_DEPTH = 120
"""Elements nested deeper lose their structure and keep their text; real pages reach about 40."""

_SKIPPED = frozenset({
    "script", "style", "noscript", "template", "head", "svg", "iframe", "object", "select",
    "button", "input",
})  # fmt: skip
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html",
    "legend", "li", "main", "nav", "ol", "p", "section", "summary", "td", "th", "tr", "tbody", "ul",
})  # fmt: skip
_LISTS = frozenset({"ul", "ol", "dir", "menu"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLANK_LINE = re.compile(r"\n\s*\n")
_BREAKS_TABLE = frozenset({"table", "h1", "h2", "h3", "h4", "pre"})


def read_html(source: Source, reading: Reading) -> Drafts:
    """Yield the blocks of an HTML file."""
    yield from html_drafts(source.path.read_bytes(), titled=True)


def html_drafts(data: bytes | str, *, titled: bool = False) -> Drafts:
    """Yield the blocks of HTML; bytes are decoded by BOM, `<meta charset>` or statistics.

    Args:
        data: a document or a fragment.
        titled: begin with its `<title>` where no first heading stands in its place.

    Raises:
        DocumentRejected: nothing in it can be parsed.
    """
    text = data if isinstance(data, str) else _decode_html(data)
    if not text.strip():
        return
    parser = html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    try:
        root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError) as error:
        raise DocumentRejected("The HTML is malformed: nothing in it can be parsed.") from error
    walk = _Walk()
    if titled and not root.xpath("//h1") and (title := root.findtext(".//title")):
        yield heading(title, 1)
    walk.children(root, 0)
    walk.flush()
    yield from walk.drafts


def _decode_html(data: bytes) -> str:
    """Honour the declared charset where the bytes obey it; a declaration in ASCII is no UTF-16."""
    declared = html_charset(data[:4096])
    if (
        declared
        and not declared.startswith(("utf-16", "utf-32"))
        and not wide_encoding(data[:4096])
    ):
        try:
            return data.decode(declared)
        except (UnicodeDecodeError, LookupError):
            pass
    return decode(data)


def html_charset(head: bytes) -> str | None:
    """Return the charset that `<meta>` or an XML declaration names; Latin-1 means Windows-1252."""
    match = re.search(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", head)
    name = match[1].decode("ascii").lower() if match else None
    return "cp1252" if name in {"iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii"} else name


class _Walk:
    """Collects inline text until a block element ends it."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self._inline: list[str] = []

    def flush(self) -> None:
        """End the paragraph that the inline text so far forms."""
        for part in _BLANK_LINE.split("".join(self._inline)):  # two <br> part paragraphs
            if text := _squeezed(part):
                self.drafts.append(paragraph(text))
        self._inline.clear()

    def children(self, element: etree._Element, depth: int) -> None:
        """Take the text and the children of an element."""
        self._inline.append(_flow(element.text))
        for child in element:
            self._element(child, depth + 1)
            self._inline.append(_flow(child.tail))

    def _element(self, element: etree._Element, depth: int) -> None:
        tag = element.tag if isinstance(element.tag, str) else ""
        tag = tag.rpartition("}")[2].lower()
        if not tag or tag in _SKIPPED:
            return
        if depth > MAX_DEPTH:
            self._inline.append(inner_text(element))
        elif tag == "br":
            self._inline.append("\n")
        elif tag == "img":
            self._inline.append(f" {element.get('alt', '')} ")
        elif tag in _HEADINGS:
            self.flush()
            self.drafts.append(heading(inner_text(element), _HEADINGS[tag]))
        elif tag in _LISTS:
            self._list(element, depth)
        elif tag == "table":
            self._table(element, depth)
        elif tag == "pre":
            self.flush()
            text = "".join(map(str, element.itertext()))
            self.drafts.append(Draft(kind="code", text=text))
        elif tag in _BLOCKS:
            self.flush()
            self.children(element, depth)
            self.flush()
        else:
            self.children(element, depth)

    def _list(self, element: etree._Element, depth: int) -> None:
        """A list is one block, unless it holds tables or headings and so serves layout."""
        self.flush()
        if any(True for _ in element.iter(*_BREAKS_TABLE)):
            self.children(element, depth)
            self.flush()
            return
        lines = list(_list_lines(element, 0))
        if lines:
            self.drafts.append(Draft(kind="list", text="\n".join(lines)))

    def _table(self, element: etree._Element, depth: int) -> None:
        """A table of data becomes rows; one used for layout is walked like any container."""
        self.flush()
        rows = list(_table_rows(element))
        inner = any(True for child in element for _ in child.iter(*_BREAKS_TABLE))
        columns = max((sum(map(bool, row)) for row in rows), default=0)
        if inner or columns < 2:
            self.children(element, depth)
            self.flush()
            return
        if caption := element.find("caption"):
            self.drafts.append(paragraph(inner_text(caption)))
        self.drafts.append(table(rows))


def _list_lines(element: etree._Element, depth: int) -> Iterator[str]:
    """Yield the items of a list, nested ones indented, each on one line."""
    number = 0
    for child in element:
        tag = child.tag if isinstance(child.tag, str) else ""
        if tag in _LISTS:
            yield from _list_lines(child, min(depth + 1, MAX_DEPTH)) if depth < MAX_DEPTH else ()
        elif tag == "li":
            number += 1
            marker = f"{number}." if element.tag == "ol" else "-"
            nested = [part for part in child.iter(*_LISTS) if _list_parent(part) is element]
            text = _squeezed(inner_text(child, skip=nested)).replace("\n", " ")
            if text:
                yield f"{'  ' * depth}{marker} {text}"
            for part in nested:
                yield from _list_lines(part, depth + 1) if depth < MAX_DEPTH else ()


def _list_parent(element: etree._Element) -> etree._Element | None:
    parent = element.getparent()
    while parent is not None and parent.tag not in _LISTS:
        parent = parent.getparent()
    return parent


def _table_rows(element: etree._Element) -> Iterator[list[str]]:
    """Yield the rows of a table; a cell spanning rows repeats, one spanning columns pads."""
    spanning: dict[int, tuple[int, str]] = {}
    for row in element.iter("tr"):
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            _fill_spans(cells, spanning)
            text = " ".join(inner_text(cell).split())
            width = _span(cell, "colspan", 1000)
            if (height := _span(cell, "rowspan", 1000)) > 1:
                spanning[len(cells)] = (height - 1, text)
            cells += [text] + [""] * (width - 1)
        _fill_spans(cells, spanning)
        yield cells


def _fill_spans(cells: list[str], spanning: dict[int, tuple[int, str]]) -> None:
    while len(cells) in spanning:
        left, text = spanning.pop(len(cells))
        if left > 1:  # back again for the next row
            spanning[len(cells)] = (left - 1, text)
        cells.append(text)


def _span(cell: etree._Element, name: str, limit: int) -> int:
    value = cell.get(name, "1").strip()
    return min(max(int(value), 1), limit) if value.isdecimal() else 1


def inner_text(element: etree._Element, skip: list[etree._Element] | None = None) -> str:
    """Return all text within an element, blocks set apart by spaces, without skipped subtrees."""
    parts: list[str] = []
    skipped = 0
    for event, node in etree.iterwalk(element, events=("start", "end")):
        tag = node.tag if isinstance(node.tag, str) else ""
        ignored = not tag or tag in _SKIPPED or (skip is not None and node in skip)
        if event == "start":
            skipped += ignored
            if not skipped:
                parts.append(node.text or "")
                parts.append(f" {node.get('alt', '')} " if tag == "img" else "")
                parts.append(" " if tag == "br" or tag in _BLOCKS else "")
        else:
            skipped -= ignored
            if not skipped and node is not element:
                parts.append(" " if tag in _BLOCKS else "")
                parts.append(node.tail or "")
    return "".join(parts)


def _flow(text: str | None) -> str:
    """Text as a browser flows it: line ends in the source are spaces, only `<br>` breaks a line."""
    return (text or "").replace("\n", " ").replace("\r", " ")


def _squeezed(text: str) -> str:
    """Collapse runs of spaces and drop empty lines."""
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
