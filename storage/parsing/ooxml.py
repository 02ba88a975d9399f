"""What Word and PowerPoint files share: parts, relationships and the XML parser's safety."""

import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from lxml import etree

from storage.errors import DocumentRejected
from storage.parsing.reading import Reading

RELATIONSHIPS = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
STRICT_RELATIONSHIPS = "{http://purl.oclc.org/ooxml/officeDocument/relationships}"


@dataclass(frozen=True)
class Relationship:
    """A link from one part to another: the last word of its type, and the target's name."""

    kind: str
    target: str


class Package:
    """The parts of an Office Open XML file, each taken from the reading's budget."""

    def __init__(self, archive: zipfile.ZipFile, reading: Reading) -> None:
        self._archive = archive
        self._reading = reading
        self._names = {name.lower().lstrip("/"): name for name in archive.namelist()}

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._names

    def open(self, part: str) -> IO[bytes]:
        """Open a part for streaming.

        Raises:
            DocumentRejected: the file lacks it.
        """
        if part not in self:
            raise DocumentRejected(f"The file is damaged: its part {part} is missing.")
        name = self._names[part.lower()]
        self._reading.spend_expanded(self._archive.getinfo(name).file_size)
        return self._archive.open(name)

    def tree(self, part: str) -> etree._Element:
        """Parse a part that is small by nature: styles, relationships, one slide."""
        with self.open(part) as stream:
            return etree.parse(stream, xml_parser()).getroot()

    def relationships(self, part: str) -> dict[str, Relationship]:
        """Return a part's relationships by id; none when it has no such file."""
        folder, name = posixpath.split(part)
        source = posixpath.join(folder, "_rels", f"{name}.rels")
        if source not in self:
            return {}
        found = {}
        for element in self.tree(source):
            if element.get("TargetMode") != "External":
                target = element.get("Target", "")
                path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                kind = element.get("Type", "").rpartition("/")[2]
                found[element.get("Id", "")] = Relationship(kind, path)
        return found

    def main_part(self) -> str:
        """Return the name of the document, presentation or workbook part."""
        for relationship in self.relationships("").values():
            if relationship.kind == "officeDocument":
                return relationship.target
        raise DocumentRejected("The file is damaged: it does not name its main part.")


def xml_parser() -> etree.XMLParser:
    """Return a parser without entities, network and DTDs that mends small faults."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, recover=True, huge_tree=False
    )


def iterate_xml(stream: IO[bytes], events: tuple[str, ...] = ("start", "end")) -> Iterator[Any]:
    """Iterate over a large part with the same safety as `xml_parser`."""
    return iter(
        etree.iterparse(
            stream,
            events=events,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            recover=True,
            huge_tree=False,
        )
    )


def local_name(element: etree._Element) -> str:
    """Return an element's name without its namespace; empty for comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def walk_shown(
    element: etree._Element, hidden: frozenset[str]
) -> Iterator[tuple[str, str, etree._Element]]:
    """Walk an element as (`start` or `end`, local name, node), leaving out what nobody sees.

    Args:
        element: where to begin; it is walked itself.
        hidden: local names of elements whose content is left out. Of the outermost of them the
            `end` is given still: text may follow it.
    """
    depth = 0
    for event, node in etree.iterwalk(element, events=("start", "end")):
        name = local_name(node)
        if name in hidden:
            depth += 1 if event == "start" else -1
        if not depth:
            yield event, name, node


def attribute(element: etree._Element, name: str) -> str | None:
    """Return an attribute by its name without the namespace, transitional or strict."""
    for key, value in element.attrib.items():
        if str(key).rpartition("}")[2] == name:
            return str(value)
    return None


def related(element: etree._Element, name: str = "id") -> str | None:
    """Return the relationship id that an element refers to."""
    return element.get(RELATIONSHIPS + name) or element.get(STRICT_RELATIONSHIPS + name)
