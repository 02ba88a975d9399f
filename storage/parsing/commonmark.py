"""Markdown: markdown-it's tokens, read in sections so that memory does not grow with the file."""

import re
from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.encodings import open_text, text_lines
from storage.parsing.plain import code_drafts
from storage.parsing.reading import Reading, Source

SECTION_CHARACTERS = 50_000
MAX_NESTING = 20
"""Lists and quotes deeper than this are read as text; markdown-it's own default."""

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_FRONT_MATTER_LINES = 100


def read_markdown(source: Source, reading: Reading) -> Drafts:
    """Yield the blocks of a Markdown file; inline markup stays as written."""
    with open_text(source.path) as file:
        for section in _sections(text_lines(file)):
            yield from markdown_drafts("\n".join(section))


def markdown_drafts(text: str) -> Drafts:
    """Yield the blocks of Markdown held in memory."""
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING}).enable("table")
    yield from _drafts(parser.parse(text), text.split("\n"))


def _sections(lines: Iterable[str]) -> Iterator[list[str]]:
    """Cut at a blank line before an unindented one, outside fences, once a section is large."""
    section: list[str] = []
    size = 0
    fence = ""
    for line in lines:
        if (match := _FENCE.match(line)) and (not fence or match[1].startswith(fence)):
            fence = "" if fence else match[1]
        boundary = not fence and line[:1].strip() and section and not section[-1].strip()
        if section and (size > 4 * SECTION_CHARACTERS or (size > SECTION_CHARACTERS and boundary)):
            yield section
            section, size = [], 0
        section.append(line)
        size += len(line) + 1
    if section:
        yield section


def _drafts(tokens: list[Token], lines: list[str]) -> Drafts:
    """Yield drafts for the top-level tokens; the inner ones of lists and tables go with theirs."""
    index = 0
    while index < len(tokens):
        token = tokens[index]
        inline = tokens[index + 1].content if index + 1 < len(tokens) else ""
        if token.type == "heading_open":
            yield heading(inline, int(token.tag[1]))
        elif token.type == "paragraph_open":
            yield paragraph(inline)
        elif token.type in ("fence", "code_block"):
            yield from code_drafts(token.content.splitlines())
        elif token.type == "html_block":
            from storage.parsing.hypertext import html_drafts

            yield from html_drafts(token.content)
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            index = _closing(tokens, index)
            start, end = token.map or (0, 0)
            items = [line.rstrip() for line in lines[start:end] if line.strip()]
            yield Draft(kind="list", text="\n".join(items))
        elif token.type == "table_open":
            end = _closing(tokens, index)
            yield table(list(_rows(tokens[index:end])))
            index = end
        index += 1


def _closing(tokens: list[Token], index: int) -> int:
    """Index of the token that closes the one at `index`."""
    level = tokens[index].level
    return next(
        place
        for place in range(index + 1, len(tokens))
        if tokens[place].level == level and tokens[place].nesting == -1
    )


def _rows(tokens: list[Token]) -> Iterator[list[str]]:
    row: list[str] = []
    for token in tokens:
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append(token.content)
        elif token.type == "tr_close":
            yield row
