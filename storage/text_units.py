# ruff: noqa: RUF001 - punctuation of all scripts is the subject here
"""Where text may be cut: sentences, lines, words and characters of any language. Pure.

Spans of one level tile their text: every character belongs to exactly one, trailing space included.

Why not a sentence library: pysbd and the like want to be told the language and cover about 20;
Unicode's sentence terminators cover all scripts, and a missed boundary after an abbreviation only
moves a cut.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

from storage.parsing.blocks import BlockKind

Span = tuple[int, int]
"""Start and end of a part of a text, in characters."""
UnitSpans = Callable[[str, Span], list[Span]]

MAX_ABBREVIATION_LETTERS = 3
SLICE_CHARACTERS = 24
"""First cut through a run without spaces: about eight tokens in any script."""

_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]+")
"""Regional indicators: each two of them are one flag."""
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
_CLOSERS = r"""["'”’»›)\]}」』】〉》）]*"""
_BOUNDARY = re.compile(
    f"(?P<wide>[。！？｡．]+{_CLOSERS})"
    f"|(?P<spaced>[.!?…‼⁇⁈⁉؟۔।॥։។။።፧᠃᠉꓿]+{_CLOSERS}(?=\\s))"
    r"|(?P<blank>\n[ \t]*\n)"
)
_ABBREVIATION = re.compile(r"(?:^|[\s(\[\"'“‘«])((?:\w+\.)*\w+)$")
_WORD = re.compile(r"\S+\s*|^\s+")
_LINE = re.compile(r"[^\n]*\n+|[^\n]+")


def sentence_spans(text: str, span: Span) -> list[Span]:
    """Return sentences: up to a terminator of any script that is not part of an abbreviation."""
    start, end = span
    cuts = []
    for match in _BOUNDARY.finditer(text, start, end):
        cut = match.end()
        while cut < end and text[cut].isspace():
            cut += 1
        if match["spaced"] and match[0][0] == "." and _abbreviates(text, start, match.start(), cut):
            continue
        cuts.append(cut)
    return _tiles(cuts, span)


def _abbreviates(text: str, start: int, dot: int, following: int) -> bool:
    """Whether a full stop belongs to an abbreviation, by what follows and by its word's shape."""
    after = text[following : following + 1]
    if after.islower():
        return True
    match = _ABBREVIATION.search(text[max(start, dot - 20) : dot])
    if match is None:
        return False
    word = match[1]
    short = word.isalpha() and len(word) <= MAX_ABBREVIATION_LETTERS
    return "." in word or (short and (word[0].isupper() or after.isdigit()))


def line_spans(text: str, span: Span) -> list[Span]:
    """Return lines with the line ends that follow them."""
    return _tiles((match.end() for match in _LINE.finditer(text, *span)), span)


def word_spans(text: str, span: Span) -> list[Span]:
    """Return runs between white space, with the space that follows them."""
    return _tiles((match.end() for match in _WORD.finditer(text, *span)), span)


def slice_spans(text: str, span: Span) -> list[Span]:
    """Return slices of a run without spaces; marks stay with the letter that they modify."""
    return _slices(text, span, SLICE_CHARACTERS)


def character_spans(text: str, span: Span) -> list[Span]:
    """Return single characters with the marks that modify them."""
    return _slices(text, span, 1)


def _slices(text: str, span: Span, length: int) -> list[Span]:
    cuts = []
    cut = span[0] + length
    halves = {
        at
        for flags in _FLAGS.finditer(text, *span)
        for at in range(flags.start() + 1, flags.end(), 2)
    }
    while cut < span[1]:
        while cut < span[1] and cut - span[0] < 10_000:
            if cut not in halves and not _joins(text[cut - 1], text[cut]):
                break
            cut += 1
        cuts.append(cut)
        cut += length
    return _tiles(cuts, span)


def _joins(before: str, character: str) -> bool:
    """Whether a character modifies the one before it: marks, joiners, tones of skin."""
    return (
        unicodedata.category(character).startswith("M")
        or "\u200d" in (before, character)
        or _SKIN_TONES[0] <= character <= _SKIN_TONES[1]
        or (before, character) == ("\r", "\n")
    )


def _tiles(cuts: Iterable[int], span: Span) -> list[Span]:
    """Return the spans between cuts, the ends of the whole span included."""
    start, end = span
    inner = sorted({cut for cut in cuts if start < cut < end})
    return list(zip([start, *inner], [*inner, end], strict=True))


UNIT_LEVELS: dict[BlockKind, tuple[UnitSpans, ...]] = {
    "heading": (sentence_spans, word_spans, slice_spans, character_spans),
    "paragraph": (sentence_spans, line_spans, word_spans, slice_spans, character_spans),
    "list": (line_spans, sentence_spans, word_spans, slice_spans, character_spans),
    "table": (line_spans, sentence_spans, word_spans, slice_spans, character_spans),
    "code": (line_spans, word_spans, slice_spans, character_spans),
}
"""The levels tried in turn for each kind of block, from the largest unit to a single character."""
