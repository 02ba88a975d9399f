"""Answers as messages: inside every limit, with all their text, sources and buttons."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots import replies
from bots.discord_bot import custom_ids
from bots.discord_bot.markdown import units
from bots.discord_bot.messages import (
    MAX_CHARACTERS,
    Post,
    answer_posts,
    compared_posts,
    notice_post,
    progress_post,
    vote_post,
    written,
)
from bots.screens import Reach
from feedback import ComparisonId
from storage.identity import AnswerId, DocumentId, MessageId
from tests.bots.answers import MESSAGE, an_answer, cited
from tests.bots.discord_bot.test_markdown import assert_harmless, hostile


def assert_postable(post: Post) -> None:
    assert post.content.strip()
    assert units(post.content) <= MAX_CHARACTERS
    assert len(post.buttons) <= 5
    for button in post.buttons:
        assert len(button.custom_id) <= custom_ids.MAX_CUSTOM_ID_CHARACTERS
        assert len(button.label) <= 80


@given(st.lists(hostile, min_size=1, max_size=6), st.integers(1, 900))
@settings(max_examples=60, deadline=None)
def test_every_answer_fits_and_keeps_its_words(parts: list[str], repeat: int) -> None:
    text = "\n\n".join(parts) + "\n\n" + "word " * repeat
    posts = answer_posts(an_answer(text), links={}, reach=Reach.CHANNEL)
    for post in posts:
        assert_postable(post)
        assert_harmless(post.content)
    assert sum(post.content.count("word") for post in posts) == text.count("word")


@given(hostile, hostile)
@settings(max_examples=60, deadline=None)
def test_whatever_else_is_shown_fits_too(text: str, more: str) -> None:
    answer = an_answer(text * 60, cited(document=more * 20))
    for side in (0, 1):
        for post in compared_posts(answer, side=side, links={}):
            assert_postable(post)
    assert_postable(progress_post(written(text * 60), MESSAGE, title="**A**"))
    assert_postable(notice_post(text * 60, under=more * 60))


def test_many_sources_go_on_in_further_messages_above_the_buttons() -> None:
    links = {DocumentId(UUID(int=n)): f"https://d.example/{'x' * 200}/{n}" for n in range(1, 40)}
    answer = an_answer("Yes.", *(cited(n, document=f"document {n}.pdf") for n in range(1, 40)))
    *full, last = answer_posts(answer, links=links, reach=Reach.CHANNEL)
    assert full
    assert last.buttons
    lines = "\n".join(post.content for post in (*full, last)).split("\n")[1:]
    assert len(lines) == 39
    assert lines[0].startswith("-# [1] [document 1.pdf](<https://d.example/")


@pytest.mark.parametrize(
    ("reach", "kinds"),
    [
        (Reach.ALONE, ["up", "down", "again"]),
        (Reach.CHANNEL, ["up", "down", "again", "human"]),
        (Reach.PRIVATE, ["up", "down", "again", "human", "share"]),
        (Reach.SHARED, ["up", "down"]),
    ],
)
def test_an_answer_is_rated_asked_again_and_handed_on(reach: Reach, kinds: list[str]) -> None:
    [post] = answer_posts(an_answer("Yes."), links={}, reach=reach)
    assert [button.custom_id.split(":")[1] for button in post.buttons] == kinds


@pytest.mark.parametrize("text", [replies.NO_DOCUMENTS, replies.STILL_READING])
def test_what_to_do_is_said_in_the_words_of_discord(text: str) -> None:
    [post] = answer_posts(an_answer(text, finish="no_documents"), links={}, reach=Reach.CHANNEL)
    assert "`/upload`" in post.content or "`/documents`" in post.content
    assert "parley" not in post.content


def test_a_long_side_of_a_comparison_goes_on_under_its_name() -> None:
    answer = an_answer("A sentence. " * 400)
    posts = compared_posts(answer, side=1, links={})
    assert len(posts) == 3
    assert all(post.content.startswith("**B**\nA sentence.") for post in posts)
    assert sum(post.content.count("A sentence.") for post in posts) == 400
    assert all(post.buttons == () for post in posts)


async def test_views_never_end() -> None:
    view = vote_post(ComparisonId(uuid4())).view()
    assert view is not None
    assert view.is_persistent()
    assert [len(row["components"]) for row in view.to_components()] == [4]


def test_a_button_names_the_message_that_it_stands_in() -> None:
    other = MessageId(uuid4())
    for make in (custom_ids.stop, custom_ids.again):
        assert custom_ids.part_of(make(MESSAGE, 3), MESSAGE) == 3
        assert custom_ids.part_of(make(other, 3), MESSAGE) is None
    assert custom_ids.part_of(custom_ids.up(AnswerId(UUID(int=7))), MESSAGE) is None
