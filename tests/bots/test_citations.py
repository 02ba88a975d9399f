"""Citations: only what a source supports is marked and listed."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.citations import Citer, closest
from bots.messages import Source
from storage.identity import ChunkId, DocumentId

LIBRARY = "The library opened in 1907. It holds 40,000 books and was designed by Ada Brunn."
DAM = "In spring the river floods the lower town. A dam was built in 1954 to hold the water back."


def _source(number: int, text: str, *, score: float = 0.9) -> Source:
    return Source(
        number=number,
        chunk_id=ChunkId(uuid4()),
        document_id=DocumentId(uuid4()),
        document="town.md",
        page=None,
        heading=None,
        text=text,
        score=score,
    )


SOURCES = (_source(1, LIBRARY), _source(2, DAM))
CITER = Citer(question="Who designed the library?", sources=SOURCES)


@pytest.mark.parametrize(
    ("answer", "shown", "cited"),
    [
        ("It was designed by Ada Brunn.", "It was designed by Ada Brunn. [1]", [1]),
        ("It was designed by Ada Brunn [1].", "It was designed by Ada Brunn. [1]", [1]),
        ("It was designed by Ada Brunn. [1]", "It was designed by Ada Brunn. [1]", [1]),
        ("Ada Brunn", "Ada Brunn [1]", [1]),
        ("It was designed by Ada Brunn [7].", "It was designed by Ada Brunn. [1]", [1]),
        ("It was designed by Ada Brunn [2].", "It was designed by Ada Brunn. [1]", [1]),
        ("It was designed by Karl Otto [1].", "It was designed by Karl Otto.", []),
        ("The library opened in 1908 [1].", "The library opened in 1908.", []),
        ("The library holds 40000 books.", "The library holds 40000 books. [1]", [1]),
        ("Nobody knows anything about that [1, 2].", "Nobody knows anything about that.", []),
        (
            "The library opened in 1907. A dam was built in 1954. [1][2]",
            "The library opened in 1907. [1] A dam was built in 1954. [2]",
            [1, 2],
        ),
    ],
)
def test_a_marker_stands_where_a_source_supports_the_sentence(
    answer: str, shown: str, cited: list[int]
) -> None:
    result = CITER.cite(answer)
    assert result.text == shown
    assert [citation.number for citation in result.citations] == cited


def test_the_quote_is_the_supporting_passage() -> None:
    (citation,) = CITER.cite("The dam was built in 1954.").citations
    assert citation.quote == "A dam was built in 1954 to hold the water back."


def test_languages_without_spaces_are_attributed() -> None:
    sources = (
        _source(1, "図書館は一九〇七年に開館した。設計者は田中花子である。"),
        _source(2, DAM),
    )
    result = Citer(question="設計者は誰ですか。", sources=sources).cite("設計者は田中花子である。")
    assert [citation.number for citation in result.citations] == [1]


def test_the_closest_passage_is_the_one_that_shares_the_rare_words() -> None:
    assert "Ada Brunn" in closest("Who designed the library?", SOURCES).quote
    assert "1954" in closest("When was the dam built?", SOURCES).quote


PIECES = st.sampled_from(
    [
        "It was designed by Ada Brunn",
        "A dam was built in 1954",
        ".",
        " ",
        " [1]",
        "[9]",
        "\n",
        "Karl",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_markers_name_only_sources_that_are_listed(answer: str) -> None:
    result = CITER.cite(answer)
    listed = {citation.number for citation in result.citations}
    assert {number for number in range(10) if f"[{number}]" in result.text} == listed


@given(st.lists(PIECES, max_size=12).map("".join), st.integers(0, 200))
def test_what_is_shown_of_an_unfinished_answer_is_never_taken_back(answer: str, cut: int) -> None:
    words = answer.split(" ")
    early = " ".join(words[: cut % (len(words) + 1)])
    assert CITER.cite(answer).text.startswith(CITER.cite(early, complete=False).text)
