"""Model output: no address that no document holds, no picture, no tag, nothing hidden."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.neutral import LINK_REMOVED, Preview, neutral

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


def _streamed(text: str, size: int) -> tuple[str, Preview]:
    preview = Preview(render=str)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    shown = ""
    while pieces and not preview.loops:
        shown += preview.push(pieces.pop(0))
    preview.end()
    return shown, preview


@pytest.mark.parametrize("size", [1, 5, 200])
@pytest.mark.parametrize("after", ["", " The", " The source is", " Then it ended."])
def test_a_sentence_said_twice_ends_the_text_and_is_shown_once(size: int, after: str) -> None:
    once = "It was in 1907. The source is a page of text."
    shown, preview = _streamed(f"{once} The source is a page of text.{after}", size)
    assert preview.loops
    assert preview.raw == once
    assert once.startswith(shown)


@pytest.mark.parametrize("size", [1, 5, 200])
def test_sentences_that_only_begin_alike_are_shown_whole(size: int) -> None:
    text = "The source is a page of text. The source is a page of text about bridges. Yes. Yes."
    shown, preview = _streamed(text, size)
    assert not preview.loops
    assert preview.raw == text
    assert shown == text.removesuffix(" Yes.")
