"""Markdown cut into messages of a platform's length, each of them complete by itself. Pure.

Whole blocks go together as long as they fit: paragraphs, lists, tables, code. A block moves to the
next message before it is cut, and one that no message can hold is cut where it hurts least: code
between lines, its fence closed and opened again with its language; tables between rows, under the
same header; lists between items; text between sentences, then words. A cut never falls inside a
link, a citation, marked-up words or a character, unless one of them alone is longer than a message.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from storage.text_units import character_spans, line_spans, sentence_spans, word_spans

MIN_LIMIT = 32
"""Below this nothing can be kept whole; every platform allows far more."""
MAX_REPEATED_SHARE = 0.5
"""Of a message that a fence's line or a table's header may take when it is repeated."""

Length = Callable[[str], int]
"""Length of a text as the platform counts; of a joined text at most the sum of its parts."""

_FENCE = re.compile(r"[ \t]*(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>[^\n]*)$", re.MULTILINE)
_ITEM = re.compile(r"(?P<indent>[ \t]*)(?:[-*+•]|\d{1,9}[.)])[ \t]+\S")
_TABLE_ROW = re.compile(r"[ \t]*\|")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t:|-]*-[ \t:|-]*$")
_ATOM = re.compile(
    r"!?\[[^\[\]\n]*\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:[ \t]+\"[^\"\n]*\")?\)"  # a link
    r"|(?P<cited>(?:[ \t]?\[\d{1,3}(?:[,;][ \t]*\d{1,3})*\])+)"
    r"|<[^<>\s][^<>\n]*>"
    r"|(?:https?://|www\.)[^\s<>]+"
    r"|(?P<ticks>`+)[^`\n]+(?P=ticks)"
    r"|(?P<stars>\*{1,3}|_{1,3}|~~)(?=\S)[^*_~\n]{1,200}?(?<=\S)(?P=stars)"
)

Cut = Callable[[str], Sequence[str]]


def split_markdown(text: str, *, limit: int, length: Length = len) -> list[str]:
    """Cut `text` into as few messages as keep its blocks whole.

    Args:
        text: Markdown; a fence that is still open is closed.
        limit: most `length` of one message, as the platform documents it.
        length: how the platform counts, such as UTF-16 units or escaped characters.

    Returns:
        The messages in order, none of them blank; nothing for a blank text.

    Raises:
        ValueError: `limit` is below `MIN_LIMIT`.
    """
    if limit < MIN_LIMIT:
        raise ValueError(f"a limit of {limit} is below {MIN_LIMIT}")
    cutter = _Cutter(limit, length)
    messages = cutter.pack(_blocks(_closed(text)), cutter.cut_block)
    return [trimmed for message in messages if (trimmed := _trimmed(message)).strip()]


def _trimmed(message: str) -> str:
    """Without blank lines around it; indentation stays."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", message).rstrip()


class _Cutter:
    """Cuts what is longer than a message."""

    def __init__(self, limit: int, length: Length) -> None:
        self._limit = limit
        self._length = length

    def pack(self, pieces: Iterable[str], cut: Cut) -> list[str]:
        """Join neighbours as long as they fit; `cut` what is too long by itself."""
        packed: list[str] = []
        current, used = "", 0
        for piece in pieces:
            # The blank lines at a message's end do not count: they are not sent.
            if used + self._length(piece.rstrip()) <= self._limit:
                current += piece
                used += self._length(piece)
                continue
            packed.append(current)
            *full, current = [piece] if self._fits(piece) else cut(piece)
            packed += full
            used = self._length(current)
        return [*(part for part in packed if part), current]

    def _fits(self, text: str) -> bool:
        return self._length(text.rstrip()) <= self._limit

    # -- Blocks -----------------------------------------------------------------------------------

    def cut_block(self, block: str) -> list[str]:
        """Cut a block by its kind."""
        if _fence(block):
            return self._cut_code(block)
        if _ITEM.match(block):
            return self.pack(_items(block), self._cut_item)
        rows = _lines(block)
        if _is_table(rows):
            return self._cut_table(rows)
        return self._cut_text(block)

    def _cut_item(self, item: str) -> list[str]:
        head, *rest = _lines(item)
        return self.pack(
            [head, *_blocks("".join(rest))],
            lambda part: self._cut_text(part) if part == head else self.cut_block(part),
        )

    def _cut_code(self, block: str) -> list[str]:
        """Close the fence at each cut, and open it again."""
        opening, *lines = _lines(block.rstrip())
        mark = _fence(opening) or "```"
        if lines and closes_fence(lines[-1], mark):
            lines.pop()
        opening = opening.rstrip() + "\n"
        closing = "\n" + opening[: _indent(opening)] + mark
        if self._length(opening) + self._length(closing) > self._limit * MAX_REPEATED_SHARE:
            opening, closing = "```\n", "\n```"  # an odd fence is worth less than the code
        inner = _Cutter(self._limit - self._length(opening) - self._length(closing), self._length)
        parts = inner.pack(lines, inner._cut_line)
        behind = block[len(block.rstrip()) :]
        return [opening + part.rstrip() + closing for part in parts[:-1]] + [
            opening + parts[-1].rstrip() + closing + behind
        ]

    def _cut_table(self, rows: Sequence[str]) -> list[str]:
        """Repeat the header above each part."""
        header = "".join(rows[:2])
        room = self._limit - self._length(header)
        longest = max(self._length(row.rstrip()) for row in rows[2:])
        if room < max(longest, self._limit * (1 - MAX_REPEATED_SHARE)):
            return self._cut_text("".join(rows))
        inner = _Cutter(room, self._length)
        return [header + part for part in inner.pack(rows[2:], inner._cut_line)]

    # -- Text -------------------------------------------------------------------------------------

    def _cut_text(self, text: str) -> list[str]:
        return self.pack(_outside_atoms(text, line_spans), self._cut_line)

    def _cut_line(self, line: str) -> list[str]:
        return self.pack(_outside_atoms(line, sentence_spans), self._cut_sentence)

    def _cut_sentence(self, sentence: str) -> list[str]:
        return self.pack(_outside_atoms(sentence, word_spans), self._cut_word)

    def _cut_word(self, word: str) -> list[str]:
        if _ATOM.fullmatch(word.rstrip()):
            return self._cut_atom(word)
        return self.pack(_outside_atoms(word, character_spans), self._cut_atom)

    def _cut_atom(self, atom: str) -> list[str]:
        pieces = [atom[start:end] for start, end in character_spans(atom, (0, len(atom)))]
        return self.pack(pieces, self._cut_character)

    def _cut_character(self, character: str) -> list[str]:
        """What looks like one character can be made of hundreds."""
        return self.pack(character, lambda point: [point])


# -- Reading Markdown -----------------------------------------------------------------------------


def _lines(text: str) -> list[str]:
    return [text[start:end] for start, end in pairwise(_line_ends(text))]


def _line_ends(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer(r"[^\n]*\n|[^\n]+", text))]


def _fence(line: str) -> str | None:
    """The mark of the fence that a line opens."""
    opened = _FENCE.match(line)
    return opened["mark"] if opened else None


def closes_fence(line: str, mark: str) -> bool:
    """Whether a line of code ends the block that `mark` opened."""
    stripped = line.strip()
    return stripped.startswith(mark) and not stripped.strip(mark[0])


def _closed(text: str) -> str:
    """With the end of the fence that is still open at the end."""
    lines = _lines(text)
    at = 0
    while at < len(lines):
        mark = _fence(lines[at])
        end = _fence_end(lines, at, mark) if mark else at + 1
        if mark and (end == at + 1 or not closes_fence(lines[end - 1], mark)):
            return f"{text.rstrip()}\n{lines[at][: _indent(lines[at])]}{mark}"
        at = end
    return text


def _blocks(text: str) -> list[str]:
    """Fences, lists, tables and paragraphs, each with the blank lines behind it."""
    blocks: list[str] = []
    lines = _lines(text)
    at = 0
    while at < len(lines):
        end = _block_end(lines, at)
        while end < len(lines) and not lines[end].strip():
            end += 1
        blocks.append("".join(lines[at:end]))
        at = end
    return blocks


def _block_end(lines: Sequence[str], at: int) -> int:
    """Where the block that begins at a line ends, without blank lines behind it."""
    if mark := _fence(lines[at]):
        return _fence_end(lines, at, mark)
    if item := _ITEM.match(lines[at]):
        return _list_end(lines, at, indent=len(item["indent"]))
    end = at + 1
    while end < len(lines) and lines[end].strip():
        if _fence(lines[end]) or _ITEM.match(lines[end]):
            break
        if bool(_TABLE_ROW.match(lines[end])) != bool(_TABLE_ROW.match(lines[at])):
            break
        end += 1
    return end


def _fence_end(lines: Sequence[str], at: int, mark: str) -> int:
    for end in range(at + 1, len(lines)):
        if closes_fence(lines[end], mark):
            return end + 1
    return len(lines)


def _list_end(lines: Sequence[str], at: int, *, indent: int) -> int:
    """A list holds its items, what is indented below them, and the lines that continue them."""
    end = at + 1
    while end < len(lines):
        line = lines[end]
        mark = _fence(line)
        if mark and _indent(line) > indent:
            end = _fence_end(lines, end, mark)
        elif not line.strip():
            following = next((other for other in lines[end:] if other.strip()), "")
            if not (_ITEM.match(following) or _indent(following) > indent):
                return end
            end += 1
        elif mark or (_TABLE_ROW.match(line) and _indent(line) <= indent):
            return end
        else:
            end += 1
    return end


def _items(block: str) -> list[str]:
    """The items of a list at its own level, each with everything below it."""
    lines = _lines(block)
    level = _indent(lines[0])
    items: list[str] = []
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines):
            if mark := _fence(lines[end]):
                end = _fence_end(lines, end, mark)
            elif _ITEM.match(lines[end]) and _indent(lines[end]) <= level:
                break
            else:
                end += 1
        items.append("".join(lines[at:end]))
        at = end
    return items


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _is_table(rows: Sequence[str]) -> bool:
    return (
        len(rows) > 2
        and _TABLE_ROW.match(rows[0]) is not None
        and _TABLE_RULE.match(rows[1].rstrip()) is not None
    )


def _outside_atoms(
    text: str, spans: Callable[[str, tuple[int, int]], list[tuple[int, int]]]
) -> list[str]:
    """The pieces that `spans` makes; a cut inside an atom moves behind it."""
    behind: dict[int, int] = {}
    for atom in _ATOM.finditer(text):
        # Citations stay with the word before them as well.
        inside = range(atom.start() + (atom["cited"] is None), atom.end())
        after = len(text) - len(text[atom.end() :].lstrip(" \t"))
        behind.update(dict.fromkeys(inside, after))
    cuts = {behind.get(end, end) for _, end in spans(text, (0, len(text)))}
    return [text[start:end] for start, end in pairwise(sorted({0, *cuts}))]
