"""The reader of text queries, which runs inside Argilla's environment but needs nothing of it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedback.argilla_server


def load() -> ModuleType:
    path = Path(feedback.argilla_server.__path__[0]) / "inside" / "text_query.py"
    spec = importlib.util.spec_from_file_location("text_query", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


text_query = load()


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("red fish", "((red) & (fish))"),
        ("red | fish", "((red) | (fish))"),
        ("-red", "!(red)"),
        ("red -(blue | fish)", "((red) & !((blue) | (fish)))"),
        ('"red fish"', "(red <-> fish)"),
        ('"red fish"~2', "(red <-> fish)"),
        ("fis*", "(fis:*)"),
        ("fish~1", "(fish)"),
        ("red-fish", "(red & fish)"),
        ("v2.8.0", "(v2 & 8 & 0)"),
        ("Straße", "(straße)"),
        ('"red', "(red)"),
        ("(red", "(red)"),
        ("red | | fish", "((red) | (fish))"),
        ("red & 'fish' !x :*", "(((red) & (fish)) & (x))"),
    ],
)
def test_queries_are_read_from_left_to_right(query: str, read: str) -> None:
    assert text_query.to_tsquery(text_query.parse(query)) == read


@pytest.mark.parametrize("query", ["", "  ", '"', "-", "()", "| + -", "!!", "\\", '""'])
def test_a_query_without_words_is_none(query: str) -> None:
    assert text_query.parse(query) is None


@given(st.text(alphabet="ab1_ä \"()|+-*~\\:&!<>'", max_size=30))
def test_whatever_is_typed_is_read_and_holds_no_foreign_operator(query: str) -> None:
    node = text_query.parse(query)
    if node is not None:
        read = text_query.to_tsquery(node).replace(" <-> ", " ").replace(":*)", ")")
        assert set(read) <= set("ab1ä()|& !")
        assert text_query.count_in(node, ["a"]) >= 0


def test_a_reading_counts_what_it_finds() -> None:
    words = text_query.words_of("The red fish, the blue fish.")
    found = {
        query: text_query.count_in(text_query.parse(query), words)
        for query in (
            "fish",
            "red fish",
            '"blue fish"',
            '"fish blue"',
            "bl*",
            "green | fish",
            "-red",
        )
    }
    assert found == {
        "fish": 2,
        "red fish": 3,
        '"blue fish"': 1,
        '"fish blue"': 0,
        "bl*": 1,
        "green | fish": 2,
        "-red": 0,
    }
