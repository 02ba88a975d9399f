"""Nothing that a model or a document says can ping, link or format its way out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.slack_bot.mrkdwn import MRKDWN, escape, link, mrkdwn

PINGS = [
    "<!channel>",
    "<!here>",
    "<!everyone|all>",
    "<!subteam^S123|@team>",
    "<@U123ABC>",
    "<#C123ABC|general>",
    "<https://evil.example|click>",
    "<!date^1392734382^{date}|soon>",
    "@channel",
    "@here",
    "**@everyone**",
    "&lt;!channel&gt;",
]

hostile = st.lists(
    st.one_of(
        st.sampled_from(
            [*PINGS, "```", "`", "~~~", "**", "*", "_", "# ", "- ", "\n", " ", "&", "<"]
        ),
        st.text(max_size=8),
    ),
    max_size=20,
).map("".join)


def assert_harmless(text: str) -> None:
    """What Slack would read as its own is not there."""
    assert "<" not in text
    assert ">" not in text
    assert not re.search(r"&(?!(?:amp|lt|gt);)", text)
    assert not re.search(r"(?<!\w)@\w", text)


@pytest.mark.parametrize("ping", PINGS)
@pytest.mark.parametrize("around", ["{}", "see {} now", "`{}`", "```\n{}\n```", "# {}", "- {}"])
def test_a_ping_is_only_text_wherever_it_stands(ping: str, around: str) -> None:
    text = around.format(ping)
    assert_harmless(escape(text))
    assert_harmless(mrkdwn(text))


@given(hostile)
def test_no_text_keeps_a_special_meaning(text: str) -> None:
    assert_harmless(escape(text))
    assert_harmless(mrkdwn(text))


@given(hostile, hostile)
def test_a_stream_can_be_escaped_as_it_comes(begun: str, rest: str) -> None:
    assert escape(begun + rest).startswith(escape(begun))


@given(hostile)
def test_mrkdwn_is_never_longer_than_the_escaped_text(text: str) -> None:
    assert len(mrkdwn(text)) <= len(escape(text))


@given(st.text())
def test_readers_see_what_was_written(text: str) -> None:
    shown = escape(text).replace("\u2060", "")
    shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown == text.replace("\u2060", "")


@pytest.mark.parametrize(
    ("markdown", "slack"),
    [
        ("**bold** and *italic*", "*bold* and _italic_"),
        ("__bold__ ~~gone~~", "*bold* ~gone~"),
        ("## A **loud** title", "*A loud title*"),
        ("- one\n  * two", "• one\n  • two"),
        ("`**code**` **x**", "`**code**` *x*"),
        (
            "```python\na = b ** c * d\n# no title\n```\n**x**",
            "```\na = b ** c * d\n# no title\n```\n*x*",
        ),
        ("~~~\n- a\n~~~", "```\n- a\n```"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("mail ana@example.org", "mail ana@example.org"),
    ],
)
def test_markdown_becomes_slacks_dialect(markdown: str, slack: str) -> None:
    assert mrkdwn(markdown) == slack


def test_a_link_shows_its_name_and_keeps_its_address() -> None:
    made = link("https://slack.example/files/F1?a=1&b=2", "Leave <!here> | rules\n2026")
    assert made == ("<https://slack.example/files/F1?a=1&amp;b=2|Leave &lt;!here&gt; ¦ rules 2026>")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://a b", "https://a|b>", "", "!channel"]
)
def test_what_is_no_address_is_no_link(url: str) -> None:
    assert link(url, "Name") == "Name"


def test_people_and_groups_are_mentioned_as_slack_does() -> None:
    assert MRKDWN.person("U123") == "<@U123>"
    assert MRKDWN.person("W123") == "<@W123>"
    assert MRKDWN.person("S123") == "<!subteam^S123>"


@given(hostile)
def test_a_sentence_of_ours_quotes_without_meaning(text: str) -> None:
    for said in (MRKDWN.plain(text), MRKDWN.bold(text), MRKDWN.italic(text), MRKDWN.code(text)):
        assert_harmless(said)
