"""Markdown in messages of a platform's length."""

import re
from html import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bots.splitting import MIN_LIMIT, split_markdown

FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
LINK = "[the handbook](https://files.test/a_(b).pdf)"

words = st.sampled_from(
    [
        "leave",
        "27",
        "days",
        "é",
        "👩‍👩‍👧",
        "🇩🇪🇫🇷",
        "👍🏽",
        "e\u0301",
        "**bold words**",
        "&",
        LINK,
        "a [1][2].",
        "x. [3]",
    ]
)
lines = st.lists(words, min_size=1, max_size=12).map(" ".join)
code = st.lists(lines, max_size=8).map(lambda rows: "```python\n" + "\n".join(rows) + "\n```")
lists = st.lists(lines, min_size=1, max_size=8).map(
    lambda rows: "\n".join(f"{'  ' * (index % 2)}- {row}" for index, row in enumerate(rows))
)
tables = st.lists(lines, min_size=1, max_size=8).map(
    lambda rows: "| a | b |\n|---|---|\n" + "\n".join(f"| {row} | 1 |" for row in rows)
)
texts = st.lists(st.one_of(lines, code, lists, tables), max_size=6).map("\n\n".join)


def _bare(text: str) -> str:
    """What must survive: everything but space, fences and repeated table headers."""
    text = re.sub(r"^[ \t]*(```|~~~).*$", "", text, flags=re.MULTILINE)
    text = text.replace("| a | b |\n|---|---|", "")
    return "".join(text.split())


@given(texts, st.integers(min_value=MIN_LIMIT, max_value=400))
@example("```\nopen", 40)
@example("- a\n  ```py\n  open", 40)
def test_messages_fit_are_complete_and_lose_nothing(text: str, limit: int) -> None:
    messages = split_markdown(text, limit=limit)
    assert all(0 < len(message) <= limit for message in messages)
    assert all(len(FENCE.findall(message)) % 2 == 0 for message in messages)
    assert _bare("\n".join(messages)) == _bare(text)


@given(st.text(max_size=400), st.integers(min_value=MIN_LIMIT, max_value=80))
def test_any_text_fits(text: str, limit: int) -> None:
    messages = split_markdown(text, limit=limit)
    assert all(0 < len(message) <= limit for message in messages)


@given(texts, st.integers(min_value=60, max_value=400))
def test_links_citations_and_characters_stay_whole(text: str, limit: int) -> None:
    joined = "\n".join(split_markdown(text, limit=limit))
    for whole in (LINK, "[1][2]", "👩‍👩‍👧", "🇩🇪🇫🇷"[:2], "👍🏽", "e\u0301", "**bold words**"):
        assert joined.count(whole) >= text.count(whole)


def test_a_text_that_fits_is_one_message() -> None:
    text = "# Leave\n\n27 days.\n\n- one\n- two\n\n```\ncode\n```"
    assert split_markdown(f"\n{text}\n", limit=200) == [text]
    assert split_markdown(" \n", limit=200) == []


def test_a_block_moves_to_the_next_message_before_it_is_cut() -> None:
    items = "- one item\n- two items\n- three items"
    assert split_markdown(f"Some words before it.\n\n{items}", limit=45) == [
        "Some words before it.",
        items,
    ]


def test_code_is_cut_between_lines_and_keeps_its_language() -> None:
    text = "```python\nfirst = 1\nsecond = 2\nthird = 3\n```\n\nDone."
    assert split_markdown(text, limit=40) == [
        "```python\nfirst = 1\nsecond = 2\n```",
        "```python\nthird = 3\n```\n\nDone.",
    ]


def test_a_fence_inside_a_list_is_closed_where_it_is_cut() -> None:
    text = "- run this:\n  ```sh\n  one --option\n  two --option\n  three --option\n  ```"
    messages = split_markdown(text, limit=48)
    assert len(messages) > 1
    assert all(len(FENCE.findall(message)) % 2 == 0 for message in messages)
    assert all("```sh" in message for message in messages if "--option" in message)


def test_a_table_is_cut_between_rows_under_its_header() -> None:
    header = "| city | euros |\n|---|---|\n"
    rows = [f"| city {number} | {number} |" for number in range(6)]
    messages = split_markdown(header + "\n".join(rows), limit=70)
    assert len(messages) > 1
    assert all(message.startswith(header) for message in messages)
    assert [row for message in messages for row in message.splitlines()[2:]] == rows


def test_sentences_are_cut_before_words_and_behind_their_citations() -> None:
    text = "The first sentence is here. [1] The second sentence is longer than it."
    assert split_markdown(text, limit=45) == [
        "The first sentence is here. [1]",
        "The second sentence is longer than it.",
    ]


def test_the_platform_counts() -> None:
    text = "a & b " * 30
    messages = split_markdown(text, limit=60, length=lambda part: len(escape(part)))
    assert all(len(escape(message)) <= 60 for message in messages)
    assert "".join(messages).replace(" ", "") == text.replace(" ", "")


def test_a_limit_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="below"):
        split_markdown("text", limit=MIN_LIMIT - 1)
