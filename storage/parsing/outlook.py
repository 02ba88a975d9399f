"""Outlook messages (MSG): MAPI properties in an OLE container, read with olefile.

Why not extract-msg: it is GPL, brings ten dependencies, and this needs eight properties.
"""

import io
from typing import Any

import olefile

from storage.errors import DocumentRejected
from storage.parsing.blocks import Drafts
from storage.parsing.encodings import decode
from storage.parsing.hypertext import html_drafts
from storage.parsing.mail import envelope_drafts
from storage.parsing.plain import text_drafts
from storage.parsing.reading import Reading, Source

_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER, _TO, _CC, _TRANSPORT_HEADERS = "0C1A", "0E04", "0E03", "007D"
_DATA, _LONG_NAME, _SHORT_NAME = "3701", "3707", "3704"
_TEXT_TYPES = (("001F", "utf-16-le"), ("001E", ""))
_BINARY_TYPE, _EMBEDDED_TYPE = "0102", "000D"


def read_msg(source: Source, reading: Reading) -> Drafts:
    """Yield an Outlook message: subject, people, body and attachments."""
    try:
        with olefile.OleFileIO(str(source.path)) as ole:
            yield from _message(_Properties(ole, []), reading)
    except (OSError, olefile.OleFileError) as error:
        raise DocumentRejected("The Outlook message is damaged: it cannot be opened.") from error


class _Properties:
    """The properties below one storage of the container."""

    def __init__(self, ole: Any, storage: list[str]) -> None:
        self.ole = ole
        self.storage = storage

    def binary(self, tag: str, kind: str = _BINARY_TYPE) -> bytes:
        path = [*self.storage, f"__substg1.0_{tag}{kind}"]
        return bytes(self.ole.openstream(path).read()) if self.ole.exists(path) else b""

    def text(self, tag: str) -> str:
        for kind, encoding in _TEXT_TYPES:
            if data := self.binary(tag, kind):
                text = data.decode(encoding, "replace") if encoding else decode(data)
                return text.rstrip("\0")
        return ""

    def attachments(self) -> list["_Properties"]:
        depth = len(self.storage)
        names = {
            entry[depth]
            for entry in self.ole.listdir(streams=False, storages=True)
            if entry[:depth] == self.storage and entry[depth].startswith("__attach_version1.0_")
        }
        return [_Properties(self.ole, [*self.storage, name]) for name in sorted(names)]


def _message(message: _Properties, reading: Reading) -> Drafts:
    headers = [("From", _SENDER), ("To", _TO), ("Cc", _CC)]
    yield from envelope_drafts(
        message.text(_SUBJECT), [(name, message.text(tag)) for name, tag in headers]
    )
    if body := message.text(_BODY):
        yield from text_drafts(body)
    elif html := message.binary(_HTML) or message.text(_HTML).encode():
        yield from html_drafts(html)
    elif packed := message.binary(_RTF):
        import compressed_rtf  # type: ignore[import-untyped,unused-ignore]

        with reading.unpacked(io.BytesIO(compressed_rtf.decompress(packed))) as path:
            yield from reading.read(Source(path, "body.rtf"))
    for attachment in message.attachments():
        name = attachment.text(_LONG_NAME) or attachment.text(_SHORT_NAME) or "attachment"
        embedded = [*attachment.storage, f"__substg1.0_{_DATA}{_EMBEDDED_TYPE}"]
        if message.ole.exists(embedded) and len(embedded) < 2 * reading.limits.max_nesting:
            yield from _message(_Properties(message.ole, embedded), reading)
            continue
        with reading.unpacked(io.BytesIO(attachment.binary(_DATA))) as path:
            yield from reading.read_nested(Source(path, name))
