"""Chunks: the units that are embedded, found and cited, cut along a document's structure. Pure.

A chunk is one paragraph, list, table or code block where it fits. Small neighbours below the same
heading are merged, larger blocks are cut between sentences, items, rows (the header row repeated)
or lines, and within those only where one alone is over the limit.

Why no overlap: a chunk carries its headings, and search returns neighbours' text twice otherwise.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from storage.parsing.blocks import BLOCK_SEPARATOR, Block, BlockKind
from storage.text_units import UNIT_LEVELS, Span, UnitSpans

CountTokens = Callable[[Sequence[str]], list[int]]
"""Token counts of texts by the embedder's tokenizer, special tokens included, not truncated."""

HEADING_SEPARATOR = " \u203a "
MAX_TOKENS = 220
"""Heading path and text; all-MiniLM-L6-v2 reads 256 and search adds a title and special tokens."""
SMALL_TOKENS = 60
"""A paragraph from here on stands alone: about three sentences, enough to answer a question."""
TITLE_TOKENS = 20
"""A paragraph below it is a title or a lead-in, and goes with what follows."""
TARGET_TOKENS = 120
"""Smaller neighbours are merged up to this: the median paragraph of an encyclopedia."""
BATCH_BLOCKS = 64
"""Blocks counted in one call; bounds what is held in memory."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One citable piece of a document.

    `offset` is the character in the extracted text (see `storage.parsing.blocks`) where the chunk's
    text starts. From there the extracted text equals `text`, but for the header row that is
    repeated above the later pieces of a table. `heading` is the path of headings above it, `page`
    the page it starts on.
    """

    ordinal: int
    text: str
    page: int | None
    heading: str | None
    offset: int


@dataclass(frozen=True, kw_only=True)
class _Passage:
    """A block's text, whole or in part, on its way to become a chunk."""

    kind: BlockKind
    text: str
    page: int | None
    heading: str | None
    offset: int
    tokens: int = 0
    budget: int = 0


def chunk_blocks(
    blocks: Iterable[Block],
    *,
    count_tokens: CountTokens,
    max_tokens: int = MAX_TOKENS,
    small_tokens: int = SMALL_TOKENS,
    target_tokens: int = TARGET_TOKENS,
) -> Iterator[Chunk]:
    """Yield the chunks of a document in order, holding no more than a batch of its blocks.

    Args:
        blocks: in reading order, as `storage.parsing.parse` yields them.
        count_tokens: called with many texts at once.
        max_tokens: most tokens of heading path and text together.
        small_tokens: blocks below it are merged with small neighbours of the same heading and page.
        target_tokens: merged blocks stay at or below it.
    """
    measure = _Measure(count_tokens, max_tokens)
    passages = _passages(blocks)
    sized = _sized(passages, measure)
    merged = _merged(sized, small_tokens=small_tokens, target_tokens=min(target_tokens, max_tokens))
    for ordinal, passage in enumerate(merged):
        yield Chunk(
            ordinal=ordinal,
            text=passage.text,
            page=passage.page,
            heading=passage.heading,
            offset=passage.offset,
        )


def _passages(blocks: Iterable[Block]) -> Iterator[_Passage]:
    """Turn headings into paths; one with nothing below it becomes a passage, to be found too."""
    path: list[Block] = []
    bare = False  # nothing stands below the last heading yet
    for block in blocks:
        if block.kind != "heading":
            bare = False
            yield _passage(block, path)
            continue
        if bare and block.level <= path[-1].level:
            yield _passage(path[-1], path[:-1])
        path = [above for above in path if above.level < block.level]
        path.append(block)
        bare = True
    if bare:
        yield _passage(path[-1], path[:-1])


def _passage(block: Block, path: list[Block]) -> _Passage:
    heading = HEADING_SEPARATOR.join(above.text for above in path) or None
    return _Passage(
        kind=block.kind, text=block.text, page=block.page, heading=heading, offset=block.offset
    )


class _Measure:
    """Counts tokens in batches, and fits heading paths into their share of a chunk."""

    def __init__(self, count_tokens: CountTokens, max_tokens: int) -> None:
        self._count = count_tokens
        self._max_tokens = max_tokens
        self.specials = count_tokens([""])[0]
        self._headings: dict[str | None, tuple[str | None, int]] = {None: (None, max_tokens)}

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included."""
        return self._count(texts) if texts else []

    def own_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without the special tokens, so that counts of parts add up."""
        return [count - self.specials for count in self.counts(texts)]

    def fit_heading(self, heading: str | None) -> tuple[str | None, int]:
        """Return a heading path cut to a third of a chunk, and the tokens left for text.

        Outer headings go first: the innermost says most about the text.
        """
        if heading is not None and heading not in self._headings:
            share = self._max_tokens // 3
            fitted = heading
            while (tokens := self.own_counts([fitted])[0]) > share:
                _, separator, inner = fitted.partition(HEADING_SEPARATOR)
                fitted = (
                    inner if separator else fitted[: len(fitted) * share // (tokens + 1)].rstrip()
                )
                if not fitted:
                    tokens = 0
                    break
            if len(self._headings) > 1000:  # a cache, not a store
                self._headings = {None: self._headings[None]}
            self._headings[heading] = (fitted or None, self._max_tokens - tokens)
        return self._headings[heading]


def _sized(passages: Iterator[_Passage], measure: _Measure) -> Iterator[_Passage]:
    """Yield passages that fit, with their counts; those that do not are split."""
    while batch := list(islice(passages, BATCH_BLOCKS)):
        counts = measure.counts([passage.text for passage in batch])
        for passage, tokens in zip(batch, counts, strict=True):
            heading, budget = measure.fit_heading(passage.heading)
            fitted = replace(passage, heading=heading, tokens=tokens, budget=budget)
            if tokens <= budget:
                yield fitted
            elif passage.kind == "table" and "\n" in passage.text:
                yield from _split_table(fitted, measure)
            else:
                yield from _split(fitted, measure)


def _split_table(passage: _Passage, measure: _Measure) -> Iterator[_Passage]:
    """Split a table between rows and repeat its first row, unless that takes half of the space."""
    header, _, rows = passage.text.partition("\n")
    header_tokens = measure.own_counts([header])[0] + 1
    if header_tokens > passage.budget // 2:
        yield from _split(passage, measure)
        return
    first = len(header) + 1
    below = replace(
        passage, text=rows, offset=passage.offset + first, budget=passage.budget - header_tokens
    )
    for index, piece in enumerate(_split(below, measure)):
        yield replace(
            piece,
            text=f"{header}\n{piece.text}",
            offset=passage.offset if index == 0 else piece.offset,
            tokens=piece.tokens + header_tokens,
            budget=passage.budget,
        )


def _split(passage: _Passage, measure: _Measure) -> Iterator[_Passage]:
    """Split a passage into pieces of similar size along the largest units that fit."""
    levels = UNIT_LEVELS[passage.kind]
    whole = (0, len(passage.text))
    for start, end in _packed(passage.text, whole, levels, passage.budget, measure):
        text = passage.text[start:end]
        lead = len(text) - len(text.lstrip())
        if stripped := text.strip():
            # Its siblings are full: a short last piece must not merge with what follows.
            yield replace(
                passage, text=stripped, offset=passage.offset + start + lead, tokens=passage.budget
            )


def _packed(
    text: str, span: Span, levels: Sequence[UnitSpans], budget: int, measure: _Measure
) -> Iterator[Span]:
    """Yield spans of at most `budget` tokens that tile a span, cut between whole units."""
    units = levels[0](text, span)
    counts = measure.own_counts([text[start:end] for start, end in units])
    room = max(budget - measure.specials, 1)
    goal = sum(counts) / max(math.ceil(sum(counts) / room), 1)
    begin = filled = 0
    packs: list[tuple[int, int]] = []  # index ranges of units
    for index, count in enumerate(counts):
        if filled and (filled + count > room or filled >= goal):
            packs.append((begin, index))
            begin, filled = index, 0
        filled += count
    packs.append((begin, len(units)))
    spans = [(units[first][0], units[last - 1][1]) for first, last in packs]
    totals = measure.counts([text[start:end].strip() for start, end in spans])
    for pack, piece, total in zip(packs, spans, totals, strict=True):
        if total <= budget:
            yield piece
        elif pack[1] - pack[0] > 1:  # parts can count less than their whole: pack tighter
            yield from _packed(text, piece, levels, budget * budget // (total + 1), measure)
        elif len(levels) > 1:
            yield from _packed(text, piece, levels[1:], budget, measure)
        else:
            yield piece  # a single character


def _merged(
    passages: Iterator[_Passage], *, small_tokens: int, target_tokens: int
) -> Iterator[_Passage]:
    """Merge runs of small passages of one heading and page, and a lead-in with what it leads to."""
    pending: _Passage | None = None
    for passage in passages:
        if pending is not None:
            together = pending.tokens + passage.tokens
            end = pending.offset + len(pending.text) + len(BLOCK_SEPARATOR)
            same_place = (pending.heading, pending.page, end) == (
                passage.heading,
                passage.page,
                passage.offset,  # another section may have the same heading
            )
            small = passage.tokens < small_tokens and together <= target_tokens
            led_in = pending.kind == "paragraph" and (
                passage.kind in ("list", "table", "code") or pending.tokens < TITLE_TOKENS
            )
            if same_place and (small or (led_in and together <= passage.budget)):
                text = f"{pending.text}{BLOCK_SEPARATOR}{passage.text}"
                kind = pending.kind if small else passage.kind
                pending = replace(pending, text=text, tokens=together, kind=kind)
                if not small:
                    yield pending
                    pending = None
                continue
            yield pending
            pending = None
        if passage.tokens < small_tokens:
            pending = passage
        else:
            yield passage
    if pending is not None:
        yield pending
