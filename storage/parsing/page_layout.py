# ruff: noqa: RUF001 - punctuation of all scripts is the subject here
"""From the lines of a page to headings, paragraphs, lists and tables.

Why content order: programs write pages in reading order, column by column; sorting by position
breaks more pages than it mends. Geometry only joins lines to paragraphs and tells headings and
table rows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from storage.parsing.blocks import Draft, Drafts, heading, paragraph, table
from storage.parsing.page_lines import HYPHEN, Line

HEADING_RATIOS = ((1.7, 1), (1.35, 2), (1.12, 3))
"""Font size relative to the body's, and the heading level it makes: 10 pt body, 12 pt sections."""
BOLD_LEVEL = 4
MAX_HEADING_CHARACTERS = 160
MAX_HEADING_COMMAS = 3
"""More make an enumeration, such as the authors of a paper."""
MARGIN_SHARE = 0.12
"""Height of one margin relative to the page: 3.5 cm on A4."""
MARGIN_LINES = 2
"""Running titles and page numbers stand in the outermost lines of a page."""

Frame = tuple[float, float]
"""Bottom and top of a page, in the units of its lines."""

_BULLET = re.compile(r"^\s*([•‣◦▪●○■□–—*·-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_SENTENCE_END = re.compile(r"[.!?:;。！？؟।…][\"'”’»)\]]*$")
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"^\W*#(\s*/\s*#)?\W*$")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")


@dataclass(frozen=True)
class Survey:
    """What holds for the whole document: the body's font size and the lines repeated at margins."""

    body_size: float
    margins: frozenset[str]


def margin_lines(lines: list[Line], frame: Frame) -> list[Line]:
    """Return the lines in the top and bottom margin of a page."""
    bottom, top = frame
    margin = MARGIN_SHARE * (top - bottom)
    ordered = sorted(lines, key=lambda line: -line.top)
    highest = [line for line in ordered[:MARGIN_LINES] if line.bottom > top - margin]
    rest = ordered[len(highest) :]
    return highest + [line for line in rest[-MARGIN_LINES:] if line.top < bottom + margin]


def pattern(line: Line) -> str:
    """Return the text of a margin line with numbers levelled, as page numbers change."""
    return _DIGITS.sub("#", line.text.strip())


def page_drafts(lines: list[Line], page: int | None, survey: Survey, frame: Frame) -> Drafts:
    """Yield the blocks of one page without its running titles and page number."""
    margins = [
        line
        for line in margin_lines(lines, frame)
        if pattern(line) in survey.margins
        or (len(lines) > 2 * MARGIN_LINES and _PAGE_NUMBER.match(pattern(line)))
    ]
    body = [line for line in lines if not any(line is margin for margin in margins)]
    items: list[str] = []
    for group in _groups(body):
        for draft in _group_drafts(group, page, survey):
            if draft.kind == "list":
                items.append(draft.text)
                continue
            if items:
                yield Draft(kind="list", text="\n".join(items), page=page)
                items = []
            yield draft
    if items:
        yield Draft(kind="list", text="\n".join(items), page=page)


def _groups(lines: list[Line]) -> Iterator[list[Line]]:
    """Group lines that belong to one paragraph, heading or table."""
    group: list[Line] = []
    for line in lines:
        if group and _begins_group(group, line):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _begins_group(group: list[Line], line: Line) -> bool:
    """Whether a line begins something new after the lines of a group."""
    last = group[-1]
    size = max(last.size, 1.0)
    if (len(last.cells) > 1) != (len(line.cells) > 1):
        return True
    if abs(line.size - last.size) > 0.08 * size or line.bold != last.bold:
        return True
    gap = last.bottom - line.top
    if len(line.cells) > 1:
        return gap > 2.5 * size or gap < -3 * size
    ended = bool(_SENTENCE_END.search(last.text))
    if gap < -2 * size:  # the next column, or a caption placed elsewhere
        return ended or not line.text[:1].islower()
    if _BULLET.match(line.text) and (ended or line.left <= last.left + size):
        return True
    leading = (group[-2].baseline - last.baseline) if len(group) > 1 else 1.4 * size
    if last.baseline - line.baseline > max(1.25 * leading, 1.3 * size):
        return True
    width = max(member.right for member in group) - min(member.left for member in group)
    indented = line.left > min(member.left for member in group) + 0.8 * size
    short = last.right < max(*(member.right for member in group), line.right) - 0.12 * width
    return ended and not _BULLET.match(group[0].text) and (indented or short)


def _group_drafts(group: list[Line], page: int | None, survey: Survey) -> Drafts:
    if len(group[0].cells) > 1:
        if len(group) > 1 or len(group[0].cells) > 2:
            yield table([line.cells for line in group], page)
        else:
            yield paragraph(group[0].text, page)
        return
    text = _joined(group)
    level = _heading_level(group, text, survey)
    if level:
        yield heading(text, level, page)
    elif _BULLET.match(text):
        yield Draft(kind="list", text=text, page=page)
    else:
        yield paragraph(text, page)


def _heading_level(group: list[Line], text: str, survey: Survey) -> int:
    """Return the level of a heading, or 0 for anything else."""
    letters = sum(map(str.isalpha, text))
    if letters < 3 or letters < 0.4 * len(text) or len(text) > MAX_HEADING_CHARACTERS:
        return 0
    ratio = group[0].size / max(survey.body_size, 1.0)
    for least, level in HEADING_RATIOS:
        if ratio >= least:
            return level
    bold = all(line.bold for line in group) and ratio > 0.95 and len(group) <= 2
    bold = bold and text.count(",") < MAX_HEADING_COMMAS
    return BOLD_LEVEL if bold and not _SENTENCE_END.search(text) else 0


def _joined(group: list[Line]) -> str:
    """Join lines to running text: mend hyphenation, and put no space between unspaced scripts."""
    text = group[0].text
    for line in group[1:]:
        following = line.text
        if text.endswith(HYPHEN):
            keep = "-" if following[:1].isupper() or following[:1].isdigit() else ""
            text = text[:-1] + keep + following
        elif text.endswith("-") and text[-2:-1].islower() and following[:1].islower():
            text = text[:-1] + following
        elif _UNSPACED.match(text[-1:]) and _UNSPACED.match(following[:1]):
            text += following
        else:
            text += f" {following}"
    return text.replace(HYPHEN, "-")
