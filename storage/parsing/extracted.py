"""From drafts to blocks: clean the text, bound its size, count offsets."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from storage.parsing.blocks import BLOCK_SEPARATOR, Block, Draft, ParseLimits
from storage.parsing.reading import LimitExceeded

MAX_BLOCK_CHARACTERS = 50_000
"""Longest block, about 20 pages: bounds one record and the chunker's memory."""

_SPACES = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_BREAKS = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\uffff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_TRAILING = re.compile(" +\n")
_RUNS_OF_SPACES = re.compile("(?<=[^ \n]) {2,}")
_BLANK_LINES = re.compile("\n{3,}")


def clean(text: str, *, keep_spaces: bool = False) -> str:
    """Return text without control and invisible characters, NFC, with plain spaces and newlines.

    Args:
        text: whatever a reader found.
        keep_spaces: leave runs of spaces and tabs alone, as code needs them.
    """
    text = _LINE_BREAKS.sub("\n", text)
    text = _INVISIBLE.sub("", _SURROGATES.sub("\ufffd", text).replace("\ufffd", "\ue000"))
    text = unicodedata.normalize("NFC", text.replace("\ue000", "\ufffd"))
    if not keep_spaces:
        text = _RUNS_OF_SPACES.sub(" ", _SPACES.sub(" ", text))
    text = _BLANK_LINES.sub("\n\n", _TRAILING.sub("\n", text))
    return text.strip("\n") if keep_spaces else text.strip()


def extracted_blocks(drafts: Iterable[Draft], limits: ParseLimits) -> Iterator[Block]:
    """Yield cleaned, bounded blocks with their offsets in the extracted text.

    Raises:
        LimitExceeded: more text than `limits.max_characters`.
    """
    offset = 0
    for draft in drafts:
        for piece in pieces(draft.text):
            text = clean(piece, keep_spaces=draft.kind == "code")
            if not text or (draft.kind == "heading" and not any(map(str.isalnum, text))):
                continue
            kind = draft.kind
            yield Block(kind=kind, text=text, page=draft.page, level=draft.level, offset=offset)
            offset += len(text) + len(BLOCK_SEPARATOR)
            if offset > limits.max_characters:
                raise LimitExceeded(
                    f"It holds more than {limits.max_characters:,} characters of text."
                )


def pieces(text: str) -> Iterator[str]:
    """Cut text longer than `MAX_BLOCK_CHARACTERS`, best at a line's end, else at a space."""
    start = 0
    while len(text) - start > MAX_BLOCK_CHARACTERS:
        end = start + MAX_BLOCK_CHARACTERS
        cut = max(text.rfind("\n", start + MAX_BLOCK_CHARACTERS // 2, end) + 1, 0)
        cut = cut or text.rfind(" ", start + MAX_BLOCK_CHARACTERS // 2, end) + 1 or end
        yield text[start:cut]
        start = cut
    yield text[start:]
