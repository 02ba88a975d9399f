"""JSON, JSON Lines, notebooks and XML: every value with the names that lead to it."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from storage.parsing.blocks import Drafts, heading, paragraph
from storage.parsing.commonmark import markdown_drafts
from storage.parsing.encodings import decode, open_text, text_lines
from storage.parsing.hypertext import html_drafts
from storage.parsing.plain import code_drafts, read_text
from storage.parsing.reading import LimitExceeded, Reading, Source

MAX_DEPTH = 200
RECORD_CHARACTERS = 2_000
"""Most text of one paragraph of values: a record of a usual API fits."""

_ENCODED = re.compile(r"[A-Za-z0-9+/=_-]{300,}")
"""A value that is a picture or a key in Base64: no text."""


def read_json(source: Source, reading: Reading) -> Drafts:
    """Yield the values of a JSON file; several documents on lines of their own are records.

    What is not valid JSON is still text, and read as such.
    """
    if source.suffix in ("jsonl", "ndjson"):
        yield from _records(source)
        return
    try:
        value = json.loads(decode(source.path.read_bytes()))
    except RecursionError:
        raise LimitExceeded(_too_deep()) from None
    except ValueError as error:
        several = str(error).startswith("Extra data")
        yield from _records(source) if several else read_text(source, reading)
        return
    if isinstance(value, dict) and isinstance(value.get("cells"), list):
        yield from _notebook(value["cells"])
    else:
        yield from value_drafts(value)


def _records(source: Source) -> Drafts:
    """Yield one JSON document a line; lines that are none stay text."""
    with open_text(source.path) as file:
        for line in text_lines(file):
            if line.strip():
                try:
                    yield from _paragraphs(_named_values(json.loads(line), "", 0))
                except RecursionError:
                    raise LimitExceeded(_too_deep()) from None
                except ValueError:
                    yield paragraph(line)


def value_drafts(value: Any) -> Drafts:
    """Yield a JSON value: elements of a list as records, members of an object below their names."""
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        for element in value:
            yield from _paragraphs(_named_values(element, "", 0))
        return
    if not isinstance(value, dict):
        yield from _paragraphs(_named_values(value, "", 0))
        return
    simple = {name: member for name, member in value.items() if not isinstance(member, dict | list)}
    yield from _paragraphs(_named_values(simple, "", 0))
    for name, member in value.items():
        if name not in simple and member:
            yield heading(name, 1)
            records = member if isinstance(member, list) else [member]
            plain = not any(isinstance(record, dict | list) for record in records)
            for record in [records] if plain else records:
                yield from _paragraphs(_named_values(record, "", 0))


def _named_values(value: Any, path: str, depth: int) -> Iterator[str]:
    """Yield `path: value` lines for everything within a value."""
    if depth > MAX_DEPTH:
        raise LimitExceeded(_too_deep())
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _named_values(member, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        for number, element in enumerate(value, start=1):
            yield from _named_values(element, f"{path}[{number}]", depth + 1)
    elif isinstance(value, list):
        yield _line(path, ", ".join(_shown(element) for element in value))
    else:
        yield _line(path, _shown(value))


def _line(path: str, text: str) -> str:
    text = _ENCODED.sub("…", text.strip())
    return f"{path}: {text}" if path and text else text


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _paragraphs(lines: Iterable[str]) -> Drafts:
    """Group lines into paragraphs of bounded size."""
    group: list[str] = []
    size = 0
    for line in filter(None, lines):
        if group and size + len(line) > RECORD_CHARACTERS:
            yield paragraph("\n".join(group))
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield paragraph("\n".join(group))


def _notebook(cells: list[Any]) -> Drafts:
    """Yield the cells of a Jupyter notebook: prose and code, not the outputs."""
    for cell in cells:
        source = cell.get("source", "") if isinstance(cell, dict) else ""
        text = "".join(source) if isinstance(source, list) else str(source)
        if isinstance(cell, dict) and cell.get("cell_type") == "markdown":
            yield from markdown_drafts(text)
        else:
            yield from code_drafts(text.splitlines())


def read_xml(source: Source, reading: Reading) -> Drafts:
    """Yield XML record by record: the children of the root. Malformed XML is read as HTML.

    Raises:
        LimitExceeded: it defines entities, which only serve bombs and file theft here, or is too
        deep.
    """
    found = False
    try:
        for record in _xml_records(source):
            for draft in record:
                found = True
                yield draft
    except DefusedXmlException as error:
        raise LimitExceeded(
            "The XML defines entities of its own (an XML bomb?); save it without them."
        ) from error
    except (ParseError, ValueError, LookupError):
        if not found:
            yield from html_drafts(source.path.read_bytes())


def _xml_records(source: Source) -> Iterator[Drafts]:
    """Yield the drafts of each child of the root, and free it."""
    depth = 0
    root: Element | None = None
    with source.path.open("rb") as file:
        for event, element in iterparse(file, events=("start", "end")):
            if event == "start":
                root = element if root is None else root
                depth += 1
                if depth > MAX_DEPTH:
                    raise LimitExceeded(_too_deep())
                continue
            depth -= 1
            if depth == 1 and root is not None:
                yield _paragraphs(_element_lines(element, ""))
                root.clear()
            elif depth == 0:
                yield _paragraphs(_element_lines(element, ""))


def _element_lines(element: Element, path: str) -> Iterator[str]:
    """Yield `name: text` lines; an element that mixes text and elements is one running text."""
    name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
    path = f"{path}.{name}" if path else name
    for attribute, value in element.attrib.items():
        if not attribute.startswith("{"):
            yield _line(f"{path} {attribute}", value)
    mixed = len(element) and any((child.tail or "").strip() for child in element)
    if mixed or not len(element):
        yield _line(path, " ".join("".join(element.itertext()).split()))
        return
    yield _line(path, " ".join((element.text or "").split()))
    for child in element:
        yield from _element_lines(child, path)


def _too_deep() -> str:
    return f"It is nested more than {MAX_DEPTH} levels deep."
