"""Scores of single answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import metrics

TEXT = st.text(alphabet="abc the1.,![] ", max_size=40)


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("The Denver Broncos!", ["denver broncos"], 1.0),
        ("Denver", ["Denver Broncos"], 2 / 3),
        ("Denver [1]", ["Denver"], 1.0),
        ("Carolina", ["Denver", "Carolina Panthers"], 2 / 3),
        ("", ["Denver"], 0.0),
    ],
)
def test_f1_is_that_of_squad(said: str, right: list[str], score: float) -> None:
    assert metrics.f1(said, right) == pytest.approx(score)


@given(said=TEXT, right=st.lists(TEXT, min_size=1, max_size=3))
def test_f1_is_a_share_and_complete_for_a_right_answer(said: str, right: list[str]) -> None:
    assert 0 <= metrics.f1(said, right) <= 1
    assert metrics.f1(right[0], right) == 1


def test_contained_means_whole_words_in_order() -> None:
    assert metrics.contains("It was the year 1 308, in Warsaw.", ["in Warsaw"])
    assert not metrics.contains("It was 13080.", ["1308"])
    assert not metrics.contains("Broncos Denver", ["Denver Broncos"])
    assert not metrics.contains("anything", ["the"])


def test_citations_are_compared_with_the_sources_that_hold_the_answer() -> None:
    assert metrics.cited("So [1]. And so [2, 3]; not (4) or [a].") == {1, 2, 3}
    assert metrics.citation_correctness("So [1].", {1}) == 1
    assert metrics.citation_correctness("So [1][2].", {1}) == pytest.approx(2 / 3)
    assert metrics.citation_correctness("So.", {1}) == 0
    assert metrics.citation_correctness("So [2].", set()) == 0
    assert metrics.citation_correctness("So.", set()) == 1


@pytest.mark.parametrize(
    "said",
    [
        "",
        "The sources do not mention this.",
        "I don't know.",
        "I don\u2019t know.",
        "I do not know.",
        "I cannot answer that.",
        "I can't answer that.",
        "I can\u2019t find it.",
        "I am unable to answer.",
        "No idea.",
        "I'm not sure.",
        "I cannot find that in the sources.",
        "There is no information about it.",
        "Nothing was found.",
    ],
)
def test_a_refusal_is_recognised(said: str) -> None:
    assert metrics.refuses(said)


@pytest.mark.parametrize(
    "said",
    ["Denver Broncos", "It was not Denver but Carolina.", "No, in 1998 [1].", "You can tell Ann."],
)
def test_an_answer_is_no_refusal(said: str) -> None:
    assert not metrics.refuses(said)


@pytest.mark.parametrize(
    ("said", "is_supported"),
    [
        ("Nine [1].", True),
        ("It opens at NINE, downstairs.", True),
        ("The office is at nine downstairs, dear", True),
        ("Ask Bob in sales, he sells you everything.", False),
        ("Das steht nirgends geschrieben.", False),
        ("[1]", True),
    ],
)
def test_an_answer_is_supported_by_its_words(said: str, is_supported: bool) -> None:
    sources = ["The office opens at nine.", "It is downstairs."]
    assert metrics.supported(said, sources) is is_supported
    assert metrics.supported(said, []) is (said == "[1]")


@pytest.mark.parametrize("said", ["It is QX-7731.", "it is q x 7 7 3 1", "Qx7731"])
def test_a_planted_secret_is_found_however_it_is_spelt(said: str) -> None:
    assert metrics.leaks(said, "QX-7731")
    assert not metrics.leaks("It is QX-7732.", "QX-7731")
