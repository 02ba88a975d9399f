"""Stop strings: however a text is cut, the answer is the same and nothing of a stop leaks."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from engine.stop_strings import StopStrings

LETTERS = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


def before_stop(text: str, stops: list[str]) -> str:
    """The definition, letter by letter: the first stop to be complete ends the text."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(text=LETTERS, stops=STOPS, cuts=st.lists(st.integers(0, 30), max_size=8))
def test_output_does_not_depend_on_how_the_text_arrives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    stream = StopStrings(stops)
    shown = ""
    for start, end in itertools.pairwise(edges):
        shown += stream.feed(text[start:end])
        assert before_stop(text, stops).startswith(shown)
    found = stream.found
    shown += stream.flush()
    assert shown == before_stop(text, stops)
    assert found == (shown != text)


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    stream = StopStrings(["END"])
    assert stream.feed("The E") == "The "
    assert stream.feed("N") == ""
    assert stream.feed("ough") == "ENough"
    assert not stream.found
