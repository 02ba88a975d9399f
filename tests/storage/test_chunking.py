"""Chunks follow the structure, lose nothing, keep order and limits, in any script."""

import itertools
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.chunking import Chunk, chunk_blocks
from storage.parsing.blocks import BLOCK_SEPARATOR, Block, BlockKind
from storage.text_units import UNIT_LEVELS, sentence_spans


def count_words(texts: Sequence[str]) -> list[int]:
    """Two special tokens, and one token for every four characters of a word, as embedders do."""
    return [2 + sum(-(-len(word) // 4) for word in text.split()) for text in texts]


def document(*parts: tuple[BlockKind, str] | tuple[BlockKind, str, int]) -> list[Block]:
    """Blocks with true offsets; a third value is a heading's level or another block's page."""
    blocks, offset = [], 0
    for kind, text, *rest in parts:
        level = (rest[0] if rest else 1) if kind == "heading" else 0
        page = rest[0] if rest and kind != "heading" else None
        blocks.append(Block(kind=kind, text=text, page=page, level=level, offset=offset))
        offset += len(text) + len(BLOCK_SEPARATOR)
    return blocks


def chunks_of(blocks: list[Block], **limits: int) -> list[Chunk]:
    return list(chunk_blocks(blocks, count_tokens=count_words, **limits))


PARAGRAPH = "The quick brown fox jumps over the lazy dog near the river bank. " * 5

REMARK = "One remark, short but longer than a title, as people make it in passing, and end it so."


def test_normal_paragraphs_stay_units_and_small_ones_are_merged() -> None:
    chunks = chunks_of(
        document(
            ("paragraph", PARAGRAPH.strip()),
            ("paragraph", REMARK),
            ("paragraph", REMARK),
            ("paragraph", PARAGRAPH.strip()),
        )
    )
    assert [chunk.text.count("remark") for chunk in chunks] == [0, 2, 0]
    assert [chunk.ordinal for chunk in chunks] == [0, 1, 2]


def test_heading_paths_follow_levels_and_bare_headings_are_found() -> None:
    chunks = chunks_of(
        document(
            ("heading", "Book", 1),
            ("heading", "One", 2),
            ("paragraph", PARAGRAPH.strip()),
            ("heading", "Two", 2),
            ("heading", "Three", 2),
            ("paragraph", PARAGRAPH.strip()),
        )
    )
    assert [(chunk.heading, chunk.text[:5]) for chunk in chunks] == [
        ("Book \u203a One", "The q"),
        ("Book", "Two"),
        ("Book \u203a Three", "The q"),
    ]


def test_pages_and_headings_part_small_paragraphs() -> None:
    chunks = chunks_of(document(("paragraph", "one", 1), ("paragraph", "two", 2)))
    assert [(chunk.page, chunk.text) for chunk in chunks] == [(1, "one"), (2, "two")]


def test_table_is_whole_where_it_fits_else_repeats_its_header() -> None:
    rows = [f"row {number} | value {number}" for number in range(100)]
    header = "Name | Amount"
    blocks = document(("paragraph", "Prices:"), ("table", "\n".join([header, *rows])))
    small = chunks_of(blocks, max_tokens=2000)
    assert [chunk.text for chunk in small] == ["Prices:\n\n" + "\n".join([header, *rows])]
    large = chunks_of(blocks, max_tokens=60)[1:]
    assert len(large) > 5
    assert all(chunk.text.startswith(f"{header}\n") for chunk in large)
    assert [row for chunk in large for row in chunk.text.split("\n")[1:]] == rows


@pytest.mark.parametrize(
    "sentence",
    [
        "The committee met again on Tuesday. ",
        "委员会在星期二再次开会讨论预算问题。",
        "समिति की बैठक मंगलवार को फिर हुई। ",
        "اجتمعت اللجنة مرة أخرى يوم الثلاثاء؟ ",
        "今日は天気がとても良いです。",
        "Комитет снова собрался во вторник. ",
    ],
)
def test_sentences_of_any_script_are_never_cut(sentence: str) -> None:
    chunks = list(
        chunk_blocks(
            document(("paragraph", (sentence * 40).strip())),
            count_tokens=lambda texts: [len(text) for text in texts],
            max_tokens=100,
        )
    )
    assert len(chunks) > 5
    for chunk in chunks:
        end = re.escape(sentence.strip()[-1])
        assert set(re.split(f"(?<={end}) ?", chunk.text)) <= {sentence.strip(), ""}


def test_abbreviations_do_not_end_sentences() -> None:
    text = (
        "Dr. Smith met J. R. Doe, e.g. on p. 5, at No. 7 of the U.S. Senate. They agreed. So what?"
    )
    sentences = [text[start:end].strip() for start, end in sentence_spans(text, (0, len(text)))]
    assert sentences == [
        "Dr. Smith met J. R. Doe, e.g. on p. 5, at No. 7 of the U.S. Senate.",
        "They agreed.",
        "So what?",
    ]


def test_long_heading_paths_leave_room_for_text() -> None:
    long_title = "An exceedingly long title that never seems to end " * 20
    (chunk, *_) = chunks_of(
        document(("heading", long_title, 1), ("heading", "Inner", 2), ("paragraph", PARAGRAPH))
    )
    assert chunk.heading == "Inner"
    alone = chunks_of(document(("heading", long_title, 1), ("paragraph", PARAGRAPH)))
    for chunk in alone:
        assert chunk.heading is not None
        assert long_title.startswith(chunk.heading)
        assert sum(count_words([chunk.heading, chunk.text])) - 2 <= 220


ALPHABET = st.one_of(
    st.sampled_from(" \n.。!?؟।a\u0301\u200dÄ中ก🏳️\u202e|-"),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.text(ALPHABET, min_size=1, max_size=400).filter(lambda text: bool(text.strip()))
PARTS = st.lists(
    st.tuples(
        st.sampled_from(["heading", "paragraph", "table", "code", "list"]),
        TEXTS.map(str.strip),
        st.integers(1, 3),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(parts=PARTS, max_tokens=st.integers(12, 80))
def test_any_document_keeps_its_text_order_and_limits(
    parts: list[tuple[BlockKind, str, int]], max_tokens: int
) -> None:
    blocks = document(*parts)
    text = BLOCK_SEPARATOR.join(block.text for block in blocks)
    chunks = list(
        chunk_blocks(
            blocks,
            count_tokens=lambda texts: [len(text) for text in texts],
            max_tokens=max_tokens,
            small_tokens=8,
            target_tokens=10,
        )
    )
    covered = set[int]()
    for chunk in chunks:
        assert chunk.text.strip()
        assert len(chunk.text) + len(chunk.heading or "") <= max_tokens or len(chunk.text) < 60
        if text.startswith(chunk.text, chunk.offset):
            covered |= set(range(chunk.offset, chunk.offset + len(chunk.text)))
        else:  # a table's repeated header stands above its rows
            header, _, rows = chunk.text.partition("\n")
            assert header in text
            assert text.startswith(rows, chunk.offset)
            covered |= set(range(chunk.offset, chunk.offset + len(rows)))
    offsets = [chunk.offset for chunk in chunks]
    assert offsets == sorted(offsets)
    for block in blocks:
        for place in range(block.offset, block.offset + len(block.text)):
            assert block.kind == "heading" or place in covered or text[place].isspace()


@given(text=TEXTS)
def test_units_of_every_level_tile_their_text(text: str) -> None:
    for levels in UNIT_LEVELS.values():
        for level in levels:
            spans = level(text, (0, len(text)))
            assert spans[0][0] == 0
            assert spans[-1][1] == len(text)
            assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_memory_does_not_grow_with_the_document() -> None:
    def endless(count: int) -> Iterator[Block]:
        for number in range(count):
            yield Block(kind="paragraph", text=PARAGRAPH, page=None, offset=number * 400)

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in chunk_blocks(endless(count), count_tokens=count_words):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(4000) < 1.5 * peak(400)


def test_giant_paragraph_is_cut_in_linear_time() -> None:
    def seconds(length: int) -> float:
        began = time.perf_counter()
        chunks_of(document(("paragraph", "x" * length)))
        return time.perf_counter() - began

    seconds(1000)
    assert seconds(48_000) < 5
