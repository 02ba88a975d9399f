# ruff: noqa: RUF001 - punctuation of all scripts is the subject here
"""Model output made harmless: nothing in it can load, link or hide anything. Pure.

A document may try to make the model write a link or picture whose address carries what others wrote
here. So pictures go, links and addresses stay only where a source that people may read holds them
verbatim, HTML cannot open a tag, and characters that cannot be seen are dropped.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

from storage.text_units import sentence_spans

LINK_REMOVED = "[link removed]"
MAX_HELD_CHARACTERS = 600
"""Longest piece that the preview holds back waiting for the end of a link."""
REPEATED_WORDS = 4
"""A sentence of at least so many words that comes a second time means that the model loops."""

_LINK = re.compile(
    r"!?\[(?P<label>[^\[\]]*)\]\(\s*<?(?P<target>[^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?[^)]*\)"
)
_ADDRESS = re.compile(
    # All lengths are limited: else a long word costs the square of its length.
    r"(?:[a-z][a-z0-9+.-]{0,30}:(?://)?|//|www\.)(?<=[:/.])[^\s<>\"'`./]*[./][^\s<>\"'`]*"
    r"|[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}/[^\s<>\"'`]+",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(?=[/!?]?[^\W\d_])")
_OPEN_LINK = re.compile(r"!?\[[^\[\]]*(?:\]|\]\([^)]*)?$")
_TRAILING = ".,;:!?)]}»”’*_"
_HIDDEN_KEPT = "\u200c\u200d"
"""Joiners: several scripts cannot be written without them."""


def neutral(text: str, *, allowed: str) -> str:
    """Return `text` without pictures, tags, hidden characters, and addresses not in `allowed`."""
    text = _LINK.sub(lambda match: _link(match, allowed), _visible(text))
    text = _ADDRESS.sub(lambda match: _address(match[0], allowed), text)
    return _TAG.sub("‹", text)


def _visible(text: str) -> str:
    """Drop control and format characters: terminal escapes, overrides of direction, tags."""
    return "".join(
        character
        for character in text.replace("\r\n", "\n")
        if character in "\n\t"
        or character in _HIDDEN_KEPT
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )


def _link(match: re.Match[str], allowed: str) -> str:
    label, target = match["label"], match["target"]
    if match[0].startswith("!") or target not in allowed or not target:
        return label
    return f"{label} ({target})"


def _address(found: str, allowed: str) -> str:
    address = found.rstrip(_TRAILING)
    return found if address in allowed else LINK_REMOVED + found[len(address) :]


class Preview:
    """Turns a raw stream into deltas that end between words and are never taken back.

    Args:
        render: what to show of a text that the model has written so far; for a longer text it must
            begin with the same.

    Attributes:
        raw: what the model wrote, without what it said a second time.
        shown: what was returned so far.
        loops: whether the model has begun to repeat its sentences; more of it says nothing new.
    """

    def __init__(self, *, render: Callable[[str], str]) -> None:
        self._render = render
        self.raw = ""
        self.shown = ""
        self.loops = False

    def push(self, text: str) -> str:
        """Add what the model wrote; return what may be shown now, often nothing."""
        self.raw += text
        sentences = self._sentences()
        self._end_at_repetition(sentences[:-1])
        return self.show(self._render(self.raw[: self._settled(sentences)]))

    def end(self) -> None:
        """Nothing more comes: the last sentence is whole, and is judged like the others."""
        self._end_at_repetition(self._sentences())

    def show(self, text: str) -> str:
        """Return what `text` adds to what is shown; nothing where it does not continue that."""
        if not text.startswith(self.shown):
            return ""  # the complete answer replaces the preview
        new, self.shown = text[len(self.shown) :], text
        return new

    def _sentences(self) -> list[tuple[int, str]]:
        """Start and words of each sentence; the last one may be incomplete."""
        return [
            (start, " ".join(self.raw[start:end].casefold().split()))
            for start, end in sentence_spans(self.raw, (0, len(self.raw)))
        ]

    def _end_at_repetition(self, sentences: Sequence[tuple[int, str]]) -> None:
        seen: set[str] = set()
        for start, sentence in sentences:
            if sentence in seen and _is_long(sentence):
                self.raw, self.loops = self.raw[:start].rstrip(), True
                return
            seen.add(sentence)

    def _settled(self, sentences: Sequence[tuple[int, str]]) -> int:
        """End of the text that nothing to come can change the meaning of, or end before."""
        end = max(self.raw.rfind(" "), self.raw.rfind("\n"))
        if end < 0:
            return 0
        if sentences:
            start, last = sentences[-1]
            if any(_is_long(earlier) and earlier.startswith(last) for _, earlier in sentences[:-1]):
                end = min(end, len(self.raw[:start].rstrip()))
        opened = _OPEN_LINK.search(self.raw, max(0, end - MAX_HELD_CHARACTERS), end)
        return opened.start() if opened else end


def _is_long(sentence: str) -> bool:
    return len(sentence.split()) >= REPEATED_WORDS
