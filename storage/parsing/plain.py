"""Plain text and source code: paragraphs at blank lines, headings by underlines."""

import re
from collections.abc import Iterable, Iterator

from storage.parsing.blocks import Draft, Drafts, heading, paragraph
from storage.parsing.encodings import open_text, text_lines
from storage.parsing.reading import Reading, Source

LONG_LINE_CHARACTERS = 200
"""A line longer than any wrapped one is a paragraph by itself."""
PARAGRAPH_CHARACTERS = 20_000
CODE_CHARACTERS = 3_000
"""About 60 lines: cut code here at the next unindented line that follows a blank one."""

_ADORNMENT = re.compile(r"^([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_OUTLINE = re.compile(r"^(\*{1,9}|={1,6}) (?=\S)")
_LEVELS = {"=": 1, "#": 1, "*": 1, "-": 2, "~": 3, "^": 4, '"': 5}


def read_text(source: Source, reading: Reading) -> Drafts:
    """Yield the paragraphs of a text, hard-wrapped lines kept as they are."""
    outlines = source.suffix in {"org", "adoc", "asciidoc"}
    with open_text(source.path) as file:
        for lines in _paragraphs(text_lines(file)):
            yield from _paragraph_drafts(lines, outlines=outlines)


def text_drafts(text: str, page: int | None = None) -> Drafts:
    """Yield the paragraphs of text that a reader holds already, such as a mail's body."""
    for lines in _paragraphs(text.splitlines()):
        yield paragraph("\n".join(lines), page)


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """Group lines into paragraphs: at blank lines, long lines and a size that bounds memory."""
    group: list[str] = []
    size = 0
    for line in lines:
        long = len(line) >= LONG_LINE_CHARACTERS
        if group and (not line.strip() or long or size > PARAGRAPH_CHARACTERS):
            yield group
            group, size = [], 0
        if long:
            yield [line]
        elif line.strip():
            group.append(line)
            size += len(line)
    if group:
        yield group


def _paragraph_drafts(lines: list[str], *, outlines: bool) -> Drafts:
    """Split headings off a paragraph's lines: underlined (reStructuredText) or starred (Org)."""
    body: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        below = lines[index + 1] if index + 1 < len(lines) else ""
        level = 0
        if outlines and (match := _OUTLINE.match(line)):
            level, title, used = len(match[1]), line[match.end() :], 1
        elif (match := _ADORNMENT.match(below)) and line.strip() and not _ADORNMENT.match(line):
            level, title, used = _LEVELS.get(match[1], 6), line, 2
            level = level if len(below.strip()) >= len(line.strip()) * 0.8 else 0
        if not level:
            body.append(line)
            index += 1
            continue
        if body := [text for text in body if not _ADORNMENT.match(text)]:
            yield paragraph("\n".join(body))
        yield heading(title, level)
        body = []
        index += used
    if body:
        yield paragraph("\n".join(body))


def read_code(source: Source, reading: Reading) -> Drafts:
    """Yield source code in blocks that begin at top-level definitions."""
    with open_text(source.path) as file:
        yield from code_drafts(text_lines(file))


def code_drafts(lines: Iterable[str]) -> Drafts:
    """Cut lines of code into blocks, preferring an unindented line after a blank one."""
    group: list[str] = []
    size = 0
    for line in lines:
        starts = bool(line[:1].strip()) and bool(group) and not group[-1].strip()
        if group and (size > 4 * CODE_CHARACTERS or (size > CODE_CHARACTERS and starts)):
            yield Draft(kind="code", text="\n".join(group))
            group, size = [], 0
        group.append(line)
        size += len(line) + 1
    if group:
        yield Draft(kind="code", text="\n".join(group))
