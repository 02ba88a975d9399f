"""What people wrote, as they saw it."""

import pytest

from bots.slack_bot.said import mentions, mentions_others, plain_text


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("<@U0BOT> how many days?", "how many days?"),
        ("<@U0BOT|parley>   how many days?", "how many days?"),
        ("ask <@U7|ana> &amp; <#C1|team> if 1 &lt; 2", "ask @ana & #team if 1 < 2"),
        (
            "see <https://a.example/x?y=1&amp;z=2|the page>",
            "see the page (https://a.example/x?y=1&z=2)",
        ),
        ("see <https://a.example>", "see https://a.example"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("<!channel> and <!subteam^S1|@people>", "@channel and @people"),
        ("&amp;lt; stays", "&lt; stays"),
        ("one\n  two  three", "one\n  two  three"),
    ],
)
def test_text_reads_as_its_author_saw_it(written: str, seen: str) -> None:
    assert plain_text(written, without="U0BOT") == seen


def test_a_mention_is_ours_with_and_without_a_name() -> None:
    assert mentions("hi <@U1>", "U1")
    assert mentions("hi <@U1|parley>", "U1")
    assert not mentions("hi <@U11>", "U1")


def test_a_text_that_calls_somebody_else_first_is_theirs() -> None:
    assert mentions_others("<@U2> what do you think?", "U1")
    assert mentions_others(" <!subteam^S2|@people> look", "U1")
    assert not mentions_others("<@U1> and <@U2>", "U1")
    assert not mentions_others("what does <@U2> think?", "U1")
