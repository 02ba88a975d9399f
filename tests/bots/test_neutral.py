"""Model output: no address that no document holds, no picture, no tag, nothing hidden."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.neutral import LINK_REMOVED, Preview, neutral, repetition_start
from storage.text_units import sentence_spans

ALLOWED = "The manual is at https://docs.example.org/manual and nowhere else."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![chart](https://evil.test/?q=secret)", "chart"),
        ("[click](https://evil.test/?q=secret)", "click"),
        (
            "[the manual](https://docs.example.org/manual)",
            "the manual (https://docs.example.org/manual)",
        ),
        ("![x](https://docs.example.org/manual)", "x"),
        ("[a](javascript:alert(1))", "a"),
        ("see https://evil.test/?q=secret.", f"see {LINK_REMOVED}."),
        ("see https://docs.example.org/manual.", "see https://docs.example.org/manual."),
        ("see https://docs.example.org/manual?q=1", f"see {LINK_REMOVED}"),
        ("www.evil.test/x", LINK_REMOVED),
        ("secret.evil.test/x", LINK_REMOVED),
        ("<img src=x>", "‹img src=x>"),
        ("1 < 2 and a <b", "1 < 2 and a ‹b"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u202eb\U000e0041c", "abc"),
        ("from 3:30 to 4/5, and/or e.g. this", "from 3:30 to 4/5, and/or e.g. this"),
    ],
)
def test_output_is_defanged(text: str, shown: str) -> None:
    assert neutral(text, allowed=ALLOWED) == shown


def test_a_long_word_costs_no_more_than_its_length() -> None:
    begun = time.process_time()
    assert neutral("a" * 20_000, allowed="") == "a" * 20_000
    assert time.process_time() - begun < 5  # 27 s at the square of it


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "word ",
            "![a b](",
            "[x](",
            "https://evil.test/",
            "q=1",
            ")",
            "<img ",
            "]",
            "[1] ",
            "\n",
            ". ",
        ]
    ),
    max_size=15,
).map("".join)


@given(FRAGMENTS, st.integers(1, 7))
def test_no_stream_ever_shows_a_foreign_address(text: str, size: int) -> None:
    preview = Preview(render=lambda raw: neutral(raw, allowed=ALLOWED))
    shown = "".join(preview.push(text[start : start + size]) for start in range(0, len(text), size))
    assert "evil.test" not in shown
    assert "](" not in shown.replace("] (", "")


def test_a_loop_is_found_where_it_begins() -> None:
    once = "The source is a page of text. "
    text = "It was in 1907. " + once + once + "The"
    assert repetition_start(text, sentence_spans(text, (0, len(text)))) == len(
        "It was in 1907. " + once
    )
    assert repetition_start(once, sentence_spans(once, (0, len(once)))) is None
