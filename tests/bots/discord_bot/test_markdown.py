"""Nothing that a model or a document says can ping, unfurl, hide or pass for a source."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bots.discord_bot.markdown import JOINER, MARKDOWN, render, rendered_length, units
from bots.splitting import split_markdown

PINGS = [
    "@everyone",
    "@here",
    "x@everyone",
    "<@123456789012345678>",
    "<@!123456789012345678>",
    "<@&123456789012345678>",
    "<#123456789012345678>",
    "</ask:123456789012345678>",
    "<:smile:123456789012345678>",
    "<a:smile:123456789012345678>",
    "<t:1618953630:R>",
    "<id:customize>",
    "**@everyone**",
    "\\<@123456789012345678>",
]
LINKS = [
    "https://evil.example/x",
    "<https://evil.example/x>",
    "HTTP://evil.example",
    "[1](https://evil.example)",
    "[https://good.example](https://evil.example)",
    "\\`https://evil.example`",
    "`https://evil.example`",
    "https://a.example/?u=https://evil.example/@everyone",
    "discord://evil",
]

hostile = st.lists(
    st.one_of(
        st.sampled_from(
            [*PINGS, *LINKS, "```", "```py", "`", "``", "~~~", "**", "*", "_", "__", "||", "\\"]
        ),
        st.sampled_from(
            ["| a |\n|-|\n", "# ", "#### ", "- ", "> ", ">>> ", "-# ", "\n", " ", "<", "](", "[1] "]
        ),
        st.text(max_size=8),
    ),
    max_size=20,
).map("".join)


def outside_blocks(text: str) -> str:
    """What Discord does not read as a block of code, by its own rule."""
    return re.sub(r"```(?:[a-zA-Z0-9_+\-.#]+?\n)?\n*[^\n][\s\S]*?\n*```", "", text)


def assert_harmless(text: str) -> None:
    """What Discord would read as its own is not there."""
    assert not re.search(r"<(?:@|#|/|a?:\w|t:\d|id:)", text)
    assert not re.search(r"@(?:everyone|here)", text, re.IGNORECASE)
    text = outside_blocks(text)
    assert not re.search(r"(?<!<)\bhttps?://", text, re.IGNORECASE)
    assert "](" not in text
    assert not re.search(r"^[ \t>*-]*-#", text, re.MULTILINE)
    assert "```" not in text


@pytest.mark.parametrize("told", [*PINGS, *LINKS, "-# [1] handbook.md", "> -# [1] handbook.md"])
@pytest.mark.parametrize("around", ["{}", "see {} now", "`{}`", "```\n{}\n```", "# {}", "- {}"])
def test_a_ping_or_a_link_is_only_text_wherever_it_stands(told: str, around: str) -> None:
    assert_harmless(render(around.format(told)))


@given(hostile)
def test_no_text_keeps_a_special_meaning(text: str) -> None:
    assert_harmless(render(text))


@given(hostile)
def test_a_sentence_of_ours_quotes_without_meaning(text: str) -> None:
    for say in (MARKDOWN.plain, MARKDOWN.bold, MARKDOWN.italic, MARKDOWN.code):
        assert_harmless(say(text))
    assert "://" not in MARKDOWN.plain(text)


@given(hostile, hostile)
@example("~~~", "")
def test_the_length_is_known_beforehand(text: str, more: str) -> None:
    assert rendered_length(text + more) == rendered_length(text) + rendered_length(more)
    closed = "\n".join(split_markdown(text, limit=10_000))
    assert units(render(closed)) <= rendered_length(closed)


@pytest.mark.parametrize(
    ("markdown", "discord"),
    [
        ("**bold** and *italic*", "**bold** and *italic*"),
        ("__bold__ ~~gone~~ snake__case__name", "**bold** ~~gone~~ snake__case__name"),
        ("# One\n#### Four ##", "# One\n**Four**"),
        ("- a\n- b\n1. c", "- a\n- b\n1. c"),
        ("`a <b> c`", "`a <b> c`"),
        ("```python\nx < y\n```", "```python\nx < y\n```"),
        ("~~~\nx\n~~~", "```\nx\n```"),
        ("```\nstill written", "```\nstill written\n```"),
        (
            "As here:\n| a | b |\n|---|---|\n| 1 | 2 |\nx",
            "As here:\n```\n| a | b |\n|---|---|\n| 1 | 2 |\n```\nx",
        ),
        ("````md\n```\nx\n```\n````", f"```md\n`{JOINER}``\nx\n`{JOINER}``\n```"),
        ("```\n```", f"```\n{JOINER}\n```"),
        ("see https://a.example/b(c), now.", "see <https://a.example/b(c>), now."),
        ("see (https://a.example).", "see (<https://a.example>)."),
        (">>> all of it", "> all of it"),
        ("a `b", "a \\`b"),
        ("1 < 2 and a<b", f"1 < 2 and a<{JOINER}b"),
    ],
)
def test_markdown_as_discord_reads_it(markdown: str, discord: str) -> None:
    assert render(markdown) == discord


def test_a_source_is_a_link_without_a_preview() -> None:
    assert MARKDOWN.link("https://d.example/a b", "x") == "x"
    assert MARKDOWN.link("javascript://x", "x") == "x"
    linked = MARKDOWN.link("https://discord.com/channels/1/2/3", "hand_book [v2].pdf")
    assert linked == "[hand_book (v2).pdf](<https://discord.com/channels/1/2/3>)"


@given(hostile, hostile)
def test_a_link_leads_to_its_address_alone(path: str, label: str) -> None:
    link = MARKDOWN.link("https://d.example/" + path, label)
    assert link.count("](") <= 1
    assert_harmless(re.sub(r"\]\(<[^<>\s()]*>\)$", "]", link))
