"""Answers as messages: inside every limit, with all their text, sources and buttons."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots import replies
from bots.screens import Reach
from bots.slack_bot.blocks import (
    FEEDBACK_ACTION,
    MAX_TEXT_CHARACTERS,
    NEED_HUMAN_ACTION,
    PART_CHARACTERS,
    REGENERATE_ACTION,
    SHARE_ACTION,
    STOP_ACTION,
    Block,
    Post,
    answer_posts,
    compared_posts,
    progress_post,
)
from bots.slack_bot.mrkdwn import MRKDWN
from bots.wording import citation_line
from storage.identity import DocumentId
from tests.bots.answers import MESSAGE, an_answer, cited
from tests.bots.slack_bot.test_mrkdwn import assert_harmless, hostile
from tests.fakes.slack_blocks import check_blocks, elements_of, texts_of


def buttons(post: Post) -> dict[str, Block]:
    return {
        element["action_id"]: element for block in post.blocks for element in elements_of(block)
    }


def shown(post: Post) -> str:
    return "\n".join(text for _, text in texts_of(post.blocks))


def assert_postable(post: Post) -> None:
    check_blocks(list(post.blocks))
    assert len(post.text) <= MAX_TEXT_CHARACTERS
    for kind, text in texts_of(post.blocks):
        if kind != "plain_text":
            assert_harmless(text)


@given(st.lists(hostile, min_size=1, max_size=6), st.integers(1, 1500))
@settings(max_examples=60, deadline=None)
def test_every_answer_fits_every_limit_and_keeps_its_words(parts: list[str], repeat: int) -> None:
    text = "\n\n".join(parts) + "\n\n" + "word " * repeat  # not on a fence's line: languages go
    posts = answer_posts(an_answer(text), links={}, reach=Reach.CHANNEL)
    for post in posts:
        assert_postable(post)
        assert_harmless(post.text)
        assert (
            sum(len(b["text"]) for b in post.blocks if b["type"] == "markdown") <= PART_CHARACTERS
        )
    assert sum(post.text.count("word") for post in posts) == text.count("word")


def test_a_long_answer_has_its_buttons_once_under_its_end() -> None:
    posts = answer_posts(an_answer("A sentence. " * 900), links={}, reach=Reach.CHANNEL)
    assert len(posts) > 2
    assert [bool(buttons(post)) for post in posts] == [False] * (len(posts) - 1) + [True]


def test_code_is_fenced_in_every_message() -> None:
    code = "```python\n" + "\n".join(f"line_{n} = {n}" for n in range(500)) + "\n```"
    posts = answer_posts(an_answer(code), links={}, reach=Reach.CHANNEL)
    assert len(posts) > 1
    for post in posts:
        [text] = [block["text"] for block in post.blocks if block["type"] == "markdown"]
        assert text.startswith("```python\n")
        assert text.endswith("\n```")


def test_an_answer_is_rated_asked_again_and_handed_to_people() -> None:
    [post] = answer_posts(an_answer("Yes."), links={}, reach=Reach.CHANNEL)
    found = buttons(post)
    assert set(found) == {FEEDBACK_ACTION, REGENERATE_ACTION, NEED_HUMAN_ACTION}
    assert found[FEEDBACK_ACTION]["positive_button"]["value"] == f"up:{UUID(int=9)}"
    assert found[FEEDBACK_ACTION]["negative_button"]["value"] == f"down:{UUID(int=9)}"
    assert found[REGENERATE_ACTION]["value"] == str(MESSAGE)
    assert found[NEED_HUMAN_ACTION]["value"] == str(UUID(int=9))


def test_alone_with_the_assistant_there_are_no_other_people_to_call() -> None:
    [post] = answer_posts(an_answer("Yes."), links={}, reach=Reach.ALONE)
    assert set(buttons(post)) == {FEEDBACK_ACTION, REGENERATE_ACTION}


def test_a_private_answer_can_be_shared_and_a_shared_one_is_rated() -> None:
    [private] = answer_posts(an_answer("Yes."), links={}, reach=Reach.PRIVATE)
    assert buttons(private)[SHARE_ACTION]["value"] == str(UUID(int=9))
    [shared] = answer_posts(an_answer("Yes."), links={}, reach=Reach.SHARED)
    assert set(buttons(shared)) == {FEEDBACK_ACTION}


def test_a_source_is_a_link_where_it_has_an_address_else_a_name_and_a_place() -> None:
    answer = an_answer(
        "Yes [1][2].", cited(1, page=2, heading=None), cited(2, document="rules.pdf", page=2)
    )
    links = {DocumentId(UUID(int=1)): "https://slack.example/F1"}
    [post] = answer_posts(answer, links=links, reach=Reach.CHANNEL)
    [lines] = [block["elements"] for block in post.blocks if block["type"] == "context"]
    assert [line["text"] for line in lines] == [
        "[1] <https://slack.example/F1|leave.md>, page 2",
        "[2] rules.pdf, page 2, Leave",
    ]
    assert all(line["verbatim"] for line in lines)
    assert post.text.endswith("[2] rules.pdf, page 2, Leave")


def test_the_name_of_a_document_pings_nobody_and_leads_nowhere() -> None:
    hostile = cited(document="<!channel> https://evil.example/x?q=1", heading="<@U1> @here")
    line = citation_line(hostile, None, MRKDWN)
    assert_harmless(line)
    assert "evil.example" not in line


def test_many_sources_stay_within_the_blocks_of_a_message() -> None:
    answer = an_answer("Yes.", *(cited(n, document="d" * 500) for n in range(1, 150)))
    [post] = answer_posts(answer, links={}, reach=Reach.CHANNEL)
    assert_postable(post)


@pytest.mark.parametrize("text", [replies.NO_DOCUMENTS, replies.STILL_READING])
def test_what_to_do_is_said_in_the_words_of_slack(text: str) -> None:
    [post] = answer_posts(
        an_answer(text, finish="no_documents", found=False), links={}, reach=Reach.CHANNEL
    )
    assert "`parley " not in post.text
    assert "page" not in post.text


def test_nothing_found_is_said_plainly() -> None:
    answer = an_answer(replies.NOT_FOUND, finish="not_found", found=False)
    [post] = answer_posts(answer, links={}, reach=Reach.CHANNEL)
    assert post.text == replies.NOT_FOUND


def test_a_stopped_answer_says_so() -> None:
    [post] = answer_posts(an_answer("Half a", finish="stopped"), links={}, reach=Reach.CHANNEL)
    assert "Stopped." in shown(post)


@given(hostile)
@settings(deadline=None)
def test_what_is_being_written_can_be_stopped(text: str) -> None:
    post = progress_post(text * 50, MESSAGE)
    assert_postable(post)
    assert buttons(post)[STOP_ACTION]["value"] == str(MESSAGE)


def test_a_compared_answer_names_no_model_and_has_no_buttons() -> None:
    [post] = compared_posts(an_answer("Yes [1].", cited()), side=0, links={})
    assert_postable(post)
    assert buttons(post) == {}
    assert post.text.startswith("*A*\nYes")


def test_a_long_compared_answer_is_shown_whole() -> None:
    text = "".join(f"Sentence {number} has A & B in it. " for number in range(900))
    posts = compared_posts(an_answer(text, cited()), side=1, links={})
    assert len(posts) == 3
    for post in posts:
        assert_postable(post)
    assert all(post.text.startswith("*B*") for post in posts)
    blocks = [block for post in posts for block in post.blocks]
    shown = [block["text"] for block in blocks if block["type"] == "markdown"]
    assert max(map(len, shown)) <= 12_000
    assert " ".join(" ".join(shown).split()) == text.replace("&", "&amp;").strip()
    assert [block["type"] for block in blocks].count("context") == 1
    assert blocks[-1]["type"] == "context"
