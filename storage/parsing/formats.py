"""What a file is, decided by its content; its name is only checked against that."""

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from storage.errors import DocumentRejected
from storage.parsing.encodings import looks_like_text, sample_text

SAMPLE_BYTES = 64 * 1024


class Format(NamedTuple):
    """What people call a format, which extensions claim it, and its reader (`module:function`)."""

    label: str
    extensions: frozenset[str]
    reader: str


def _format(label: str, extensions: str, reader: str) -> Format:
    return Format(label, frozenset(extensions.split()), reader)


BINARY_FORMATS: dict[str, Format] = {
    "pdf": _format("PDF", "pdf", "pdf:read_pdf"),
    "docx": _format("Word (DOCX)", "docx docm dotx dotm", "word:read_docx"),
    "pptx": _format("PowerPoint (PPTX)", "pptx pptm potx potm ppsx ppsm", "slides:read_pptx"),
    "xlsx": _format("Excel (XLSX)", "xlsx xlsm xltx xltm", "spreadsheet:read_xlsx"),
    "xlsb": _format("Excel (XLSB)", "xlsb", "spreadsheet:read_calamine"),
    "xls": _format("Excel (XLS)", "xls xlt xla", "spreadsheet:read_calamine"),
    "odt": _format("OpenDocument text", "odt ott", "opendocument:read_opendocument"),
    "odp": _format("OpenDocument slides", "odp otp", "opendocument:read_opendocument"),
    "ods": _format("OpenDocument spreadsheet", "ods ots", "spreadsheet:read_calamine"),
    "epub": _format("EPUB", "epub", "ebook:read_epub"),
    "zip": _format("ZIP", "zip", "archive:read_zip"),
    "rtf": _format("RTF", "rtf", "rich_text:read_rtf"),
    "msg": _format("Outlook message", "msg oft", "outlook:read_msg"),
    "image": _format(
        "picture",
        "png jpg jpeg jpe jfif tif tiff bmp dib webp gif heic heif",
        "picture:read_picture",
    ),
}
"""Formats with a signature of their own: their extensions promise it."""

TEXT_FORMATS: dict[str, Format] = {
    "html": _format("HTML", "html htm xhtml xht", "hypertext:read_html"),
    "markdown": _format("Markdown", "md markdown mdown mkd mdx", "commonmark:read_markdown"),
    "csv": _format("CSV", "csv tsv tab psv", "spreadsheet:read_csv"),
    "email": _format("e-mail", "eml mht mhtml p7s", "mail:read_eml"),
    "json": _format("JSON", "json jsonl ndjson geojson ipynb", "structured:read_json"),
    "xml": _format("XML", "xml xsl xslt xsd svg rss atom", "structured:read_xml"),
    "code": _format(
        "source code",
        "py pyi js mjs cjs jsx ts tsx java kt kts scala groovy c h cc cpp cxx hpp hh cs go rs rb "
        "php pl pm swift m mm r jl lua sh bash zsh fish ps1 bat sql css scss less vue svelte dart "
        "ex exs erl hs clj lisp el vim tf proto graphql cmake mk gradle yaml yml toml ini cfg conf "
        "properties env dockerfile makefile tex bib diff patch",
        "plain:read_code",
    ),
    "text": _format("text", "txt text log rst org adoc asciidoc srt vtt", "plain:read_text"),
}

READERS = {key: known.reader for key, known in (BINARY_FORMATS | TEXT_FORMATS).items()}

PICTURE_BEARING = frozenset({"docx", "pptx", "odt", "odp", "epub"})
"""Archives whose pictures are recognised when they hold no other text, such as scans pasted in."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"{\\rtf", "rtf"),
    (0, b"\x89PNG\r\n\x1a\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"II*\x00", "image"),
    (0, b"MM\x00*", "image"),
    (0, b"BM", "image"),
    (8, b"WEBP", "image"),
    (4, b"ftypheic", "image"),
    (4, b"ftypheix", "image"),
    (4, b"ftypmif1", "image"),
    (4, b"ftypmsf1", "image"),
    (4, b"ftypheim", "image"),
    (4, b"ftypheis", "image"),
)

_UNSUPPORTED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"MZ", "a Windows program"),
    (0, b"\x7fELF", "a Linux program"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ID3", "a sound recording"),
    (0, b"OggS", "a sound recording"),
    (0, b"fLaC", "a sound recording"),
    (8, b"WAVE", "a sound recording"),
    (8, b"AVI ", "a video"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)

_MAIL_HEADER = re.compile(
    "(from|to|subject|date|received|return-path|delivered-to|message-id|mime-version|x-[a-z-]+): "
)
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLD_OFFICE = {"WordDocument": ("Word", "docx"), "PowerPoint Document": ("PowerPoint", "pptx")}
_OLD_EXTENSIONS = frozenset({"doc", "dot", "ppt", "pps", "pot"})
_OPEN_DOCUMENT = {"text": "odt", "presentation": "odp", "spreadsheet": "ods"}


def label(key: str) -> str:
    """Return what people call a format."""
    return (BINARY_FORMATS | TEXT_FORMATS)[key].label


def detect(path: Path, name: str) -> str:
    """Return the key of the format whose reader fits the content of a file.

    Raises:
        DocumentRejected: empty, of no supported type, encrypted, or its name promises another type.
    """
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if not head:
        raise DocumentRejected("The file is empty.")
    suffix = Path(name).suffix.lower().lstrip(".")
    claimed = _claimed_binary(suffix)
    found = _binary_format(path, head)
    if found is None:
        if not looks_like_text(head):
            raise _unreadable(claimed, suffix)
        found = _text_format(head, suffix)
    _refuse_contradiction(found, claimed, suffix)
    return found


def _refuse_contradiction(found: str, claimed: str | None, suffix: str) -> None:
    """A name that promises one type over the content of another is a mistake or an attack."""
    if claimed == found or (suffix == "doc" and found == "rtf"):  # Word itself names RTF so
        return
    promises_text = any(suffix in known.extensions for known in TEXT_FORMATS.values())
    promises_binary = claimed is not None or suffix in _OLD_EXTENSIONS
    if not promises_binary and (found in TEXT_FORMATS or not promises_text):
        return
    raise DocumentRejected(
        f"The file is named .{suffix} but its content is {label(found)}. "
        "If that is right, correct its name."
    )


def _claimed_binary(suffix: str) -> str | None:
    for key, known in BINARY_FORMATS.items():
        if suffix in known.extensions:
            return key
    return None


def _unreadable(claimed: str | None, suffix: str) -> DocumentRejected:
    if claimed is not None:
        return DocumentRejected(
            f"The file is damaged: it is named .{suffix} but is not a valid {label(claimed)} file."
        )
    return DocumentRejected(
        f"Files of this type{f' (.{suffix})' if suffix else ''} are not supported: "
        "no text can be read from it."
    )


def _binary_format(path: Path, head: bytes) -> str | None:
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(_OLE_SIGNATURE):
        return _ole_format(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(path)
    for offset, signature, key in _SIGNATURES:
        if head.startswith(signature, offset) and not (
            len(signature) == 2 and looks_like_text(head)
        ):
            return key
    for offset, signature, what in _UNSUPPORTED:
        if head.startswith(signature, offset) and not looks_like_text(head):
            raise DocumentRejected(f"Files of this type are not supported: it is {what}.")
    return None


def _zip_format(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            kind = (
                archive.read("mimetype")[:200].decode("ascii", "replace")
                if "mimetype" in names
                else ""
            )
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise DocumentRejected(
            "The file is damaged: it is cut short or its structure is broken."
        ) from error
    except RuntimeError as error:  # zipfile's word for an encrypted entry
        raise DocumentRejected("The file is encrypted; save it without a password.") from error
    if kind.startswith("application/epub"):
        return "epub"
    if kind.startswith("application/vnd.oasis.opendocument."):
        flavour = kind.removeprefix("application/vnd.oasis.opendocument.").split("-")[0].strip()
        if flavour in _OPEN_DOCUMENT:
            return _OPEN_DOCUMENT[flavour]
        raise DocumentRejected(f"OpenDocument files of type {flavour!r} are not supported.")
    if "[Content_Types].xml" in names:
        for part, key in (
            ("word/", "docx"), ("ppt/", "pptx"), ("xl/workbook.bin", "xlsb"), ("xl/", "xlsx"),
        ):  # fmt: skip
            if any(name.startswith(part) for name in names):
                return key
    if "META-INF/container.xml" in names:
        return "epub"
    return "zip"


def _ole_format(path: Path) -> str:
    import olefile

    try:
        with olefile.OleFileIO(str(path)) as ole:
            streams = {entry[0] for entry in ole.listdir()}
    except Exception as error:
        raise DocumentRejected(
            "The file is damaged: it is cut short or its structure is broken."
        ) from error
    if "EncryptedPackage" in streams:
        raise DocumentRejected("The file is protected by a password; save it without one.")
    for stream, (program, modern) in _OLD_OFFICE.items():
        if stream in streams:
            raise DocumentRejected(
                f"The old binary format of {program} is not supported; save it as .{modern}."
            )
    if "__properties_version1.0" in streams:
        return "msg"
    if streams & {"Workbook", "Book"}:
        return "xls"
    raise DocumentRejected("Files of this type are not supported: it is an unknown OLE container.")


def _text_format(head: bytes, suffix: str) -> str:
    """The extension chooses among the text formats; content decides when it says nothing."""
    for key, known in TEXT_FORMATS.items():
        if suffix in known.extensions:
            return key
    start = sample_text(head).lstrip().lower()
    if start.startswith(("<!doctype html", "<html")) or "<html" in start[:1000]:
        return "html"
    if start.startswith("<?xml"):
        return "xml"
    if _MAIL_HEADER.match(start) and re.search(r"^from:", start, re.MULTILINE):
        return "email"
    if start.startswith(("{", "[")):
        return "json"
    return "text"
