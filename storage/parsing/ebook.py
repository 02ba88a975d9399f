"""EPUB: the chapters in the order of the spine, each an HTML file."""

import posixpath
from urllib.parse import unquote

from storage.errors import DocumentRejected
from storage.parsing.archive import open_archive
from storage.parsing.blocks import Drafts, heading
from storage.parsing.hypertext import html_drafts
from storage.parsing.ooxml import Package
from storage.parsing.reading import Reading, Source

_CHAPTER_TYPES = ("application/xhtml+xml", "text/html")
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(source: Source, reading: Reading) -> Drafts:
    """Yield the title and the chapters of a book."""
    with open_archive(source.path, reading) as archive:
        package = Package(archive, reading)
        _refuse_protected(package)
        container = package.tree("META-INF/container.xml")
        root = next((file.get("full-path", "") for file in container.iter("{*}rootfile")), "")
        book = package.tree(root)
        for title in book.iter("{http://purl.org/dc/elements/1.1/}title"):
            yield heading(title.text or "", 1)
            break
        items = {
            item.get("id"): item.get("href", "")
            for item in book.iter("{*}item")
            if item.get("media-type") in _CHAPTER_TYPES
        }
        for reference in book.iter("{*}itemref"):
            if href := items.get(reference.get("idref")):
                part = posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(href)))
                if part in package:
                    with package.open(part) as stream:
                        yield from _chapter(stream.read())


def _chapter(data: bytes) -> Drafts:
    for draft in html_drafts(data):
        if draft.kind == "heading":
            yield heading(draft.text, draft.level + 1)  # below the book's title
        else:
            yield draft


def _refuse_protected(package: Package) -> None:
    """Refuse books under copy protection; scrambled fonts alone do no harm."""
    if "META-INF/encryption.xml" in package:
        for method in package.tree("META-INF/encryption.xml").iter("{*}EncryptionMethod"):
            if method.get("Algorithm") not in _FONT_OBFUSCATION:
                raise DocumentRejected("The book is encrypted (copy protection).")
