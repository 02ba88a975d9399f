"""E-mail (EML): subject, people, body and attachments, which are read like files of their own."""

import email
import email.policy
import io
from collections.abc import Iterable
from email.message import EmailMessage

from storage.errors import DocumentRejected
from storage.parsing.blocks import Drafts, heading, paragraph
from storage.parsing.encodings import decode, wide_encoding
from storage.parsing.hypertext import html_drafts
from storage.parsing.plain import text_drafts
from storage.parsing.reading import Reading, Source

HEADERS = ("From", "To", "Cc", "Date")
_ENCRYPTED_TYPES = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_SIGNATURE_TYPES = ("application/pkcs7-signature", "application/pgp-signature")


def read_eml(source: Source, reading: Reading) -> Drafts:
    """Yield an e-mail: its subject as heading, who and when, the body, then each attachment."""
    data = source.path.read_bytes()
    if wide_encoding(data[:4096]):
        data = decode(data).lstrip("\ufeff").encode()
    yield from message_drafts(email.message_from_bytes(data, policy=email.policy.default), reading)


def message_drafts(message: EmailMessage, reading: Reading) -> Drafts:
    """Yield the drafts of a parsed message."""
    if message.get_content_type() in _ENCRYPTED_TYPES:
        raise DocumentRejected("The e-mail is encrypted or sealed; save it as plain text.")
    yield from envelope_drafts(
        _header(message, "Subject"), [(name, _header(message, name)) for name in HEADERS]
    )
    bodies, attachments = _parts(message)
    for part in bodies:
        text = _text(part)
        if part.get_content_subtype() == "html":
            yield from html_drafts(text)
        else:
            yield from text_drafts(text)
    for number, part in enumerate(attachments, start=1):
        name = part.get_filename() or f"attachment {number}"
        if part.get_content_type() == "message/rfc822":
            inner = part.get_payload()
            first = inner[0] if isinstance(inner, list) and inner else None
            data = first.as_bytes() if isinstance(first, EmailMessage) else b""
            name = part.get_filename() or "message.eml"
        else:
            payload = part.get_payload(decode=True)
            data = payload if isinstance(payload, bytes) else b""
        with reading.unpacked(io.BytesIO(data)) as path:
            yield from reading.read_nested(Source(path, name))


def envelope_drafts(subject: str, headers: Iterable[tuple[str, str]]) -> Drafts:
    """Yield what stands on the envelope, for e-mails of any format."""
    if subject:
        yield heading(subject, 1)
    yield paragraph("\n".join(f"{name}: {value}" for name, value in headers if value))


def _header(message: EmailMessage, name: str) -> str:
    """Return a header decoded; a malformed one as it stands, or empty."""
    try:
        return " ".join(str(message.get(name, "")).split())
    except Exception:  # the email package raises anything on malformed headers
        return ""


def _parts(message: EmailMessage) -> tuple[list[EmailMessage], list[EmailMessage]]:
    """Sort the parts into bodies, the plain one preferred, and attachments."""
    bodies: list[EmailMessage] = []
    attachments: list[EmailMessage] = []
    answered: set[int | None] = set()
    stack: list[tuple[EmailMessage, int | None]] = [(message, None)]
    while stack:
        part, alternative = stack.pop()
        kind = part.get_content_type()
        if part.get_content_maintype() == "multipart":
            group = id(part) if kind == "multipart/alternative" else alternative
            children = part.get_payload()
            if isinstance(children, list):
                stack += [
                    (child, group)
                    for child in reversed(children)
                    if isinstance(child, EmailMessage)
                ]
        elif kind in _SIGNATURE_TYPES:
            continue
        elif part.get_filename() or kind not in ("text/plain", "text/html"):
            inline_picture = part.get_content_maintype() == "image" and part.get("Content-ID")
            if not inline_picture:
                attachments.append(part)
        elif alternative not in answered and _text(part).strip():
            bodies.append(part)
            if alternative is not None:
                answered.add(alternative)
    return bodies, attachments


def _text(part: EmailMessage) -> str:
    """Decode a text part by its charset, or by its bytes where that is wrong."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset() or "utf-8"
    try:
        return payload.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return decode(payload)
