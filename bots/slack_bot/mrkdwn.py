"""Text of models, documents and people made safe for Slack, and Markdown in Slack's own dialect.

Slack reads `<…>` as a mention, a command such as `<!channel>`, or a link, in its mrkdwn and inside
`markdown` blocks alike, and shows `&lt;` as the character without reading it again. So escaping
`& < >` takes the meaning from all of them. `@name` and `@channel` get an invisible joiner behind
the `@`: some clients and some ways to post link names.
"""

import re
from typing import Final

from bots.dialect import Dialect

NEVER_LINKED = "\u2060"
"""A word joiner: invisible, and it ends what Slack could take for a name."""

_AT = re.compile(r"(?<!\w)@")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?)[ \t#]*$")
_BULLET = re.compile(r"^([ \t]*)[-*+][ \t]+")
_CODE_SPAN = re.compile(r"(`[^`\n]+`)")
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_STRUCK = re.compile(r"~~(?=\S)(.+?)(?<=\S)~~")


def escape(text: str) -> str:
    """Take every special meaning from `text`: for mrkdwn, `markdown` blocks and streams.

    The result of a beginning of `text` begins the result of `text`, so a stream can be escaped as
    it comes.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _AT.sub("@" + NEVER_LINKED, text)


def escaped_length(text: str) -> int:
    """Characters that Slack counts once `text` is escaped."""
    return len(escape(text))


def mrkdwn(text: str) -> str:
    """Markdown as Slack's mrkdwn, escaped; never longer than `escape(text)`."""
    lines = []
    fence = ""
    for line in escape(text).split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
            lines.append("```")  # Slack would show a language as text
        elif fence:
            closes = found is not None and found[1].startswith(fence) and line.strip() == found[1]
            lines.append("```" if closes else line)
            fence = "" if closes else fence
        else:
            lines.append(_line(line))
    return "\n".join(lines)


def link(url: str, label: str) -> str:
    """A mrkdwn link; plain text where `url` is no address of the web."""
    label = escape(" ".join(label.split())).replace("|", "¦")
    if not re.fullmatch(r"https?://[^\s<>|]+", url):
        return label
    return f"<{url.replace('&', '&amp;')}|{label}>"


class Mrkdwn:
    """Slack's mrkdwn as `bots.dialect` puts sentences together."""

    adding = "Share a file where I am"

    def plain(self, text: str) -> str:
        """Escaped."""
        return escape(text)

    def bold(self, text: str) -> str:
        """Between stars."""
        return f"*{escape(text)}*"

    def italic(self, text: str) -> str:
        """Between underscores."""
        return f"_{escape(text)}_"

    def code(self, text: str) -> str:
        """Between backticks."""
        return f"`{escape(text)}`"

    def link(self, url: str, text: str) -> str:
        """A link under a name."""
        return link(url, text)

    def person(self, platform_id: str) -> str:
        """A mention of a person or a user group."""
        return f"<!subteam^{platform_id}>" if platform_id.startswith("S") else f"<@{platform_id}>"

    def command(self, words: str) -> str:
        """A subcommand of ours."""
        return self.code(f"/parley {words}")


MRKDWN: Final[Dialect] = Mrkdwn()


def _line(line: str) -> str:
    if heading := _HEADING.match(line):
        plain = _BOLD.sub(r"\2", heading[1])
        return f"*{plain}*" if plain else ""
    line = _BULLET.sub(r"\1• ", line)
    parts = _CODE_SPAN.split(line)
    return "".join(part if index % 2 else _inline(part) for index, part in enumerate(parts))


def _inline(text: str) -> str:
    text = _ITALIC.sub(r"_\1_", text)
    text = _BOLD.sub(r"*\2*", text)
    return _STRUCK.sub(r"~\1~", text)
