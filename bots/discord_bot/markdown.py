"""Text of models, documents and people made safe for Discord, and Markdown as Discord reads it.

Discord reads `<@1>`, `<#1>`, `</ask:1>`, `<:name:1>`, `<t:0>` and `@everyone` wherever they stand,
links every address and shows what is behind it. Here an invisible joiner takes the meaning from the
first ones, also in code, and addresses stand in `<…>`, which Discord links without a preview; no
text can be a link under another name. Lines of small print (`-# `) are ours alone: sources stand in
them, so no text can pass for a source.
https://support.discord.com/hc/en-us/articles/210298617
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from bots.dialect import Dialect
from bots.splitting import closes_fence

JOINER: Final = "\u2060"
"""A word joiner: invisible, and it ends what Discord could take for a command of its own."""

_FENCE = re.compile(r"[ \t]*(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})[ \t]*(?P<language>[\w+.#-]*)")
_TABLE_ROW = re.compile(r"[ \t]*\|.*\|")
_TABLE_RULE = re.compile(r"[ \t]*\|[ \t:|-]*-[ \t:|-]*\|[ \t]*")
_DEEP_HEADING = re.compile(r"#{4,}[ \t]+(.*?)[ \t#]*$")
_QUOTED_REST = re.compile(r"([ \t]*)>>>(?=\s)")
_ESCAPED_OR_TICKS = re.compile(r"\\[^\w\s]|`+")
_ADDRESS = re.compile(r"<?(https?)://([^\s<>\"`\[\]]*)>?", re.IGNORECASE)
_TRAILING = ".,;:!?)]}”’*_|~\\"  # noqa: RUF001 - quotation marks end sentences
_COMMAND = re.compile(r"<(?=\S)")
_MENTION_START = re.compile(r"<(?=[@#:/]|a:|t:|id:)")
_AT = re.compile(r"@(?=everyone|here)|(?<!\w)@(?=\S)", re.IGNORECASE)
_INVITE = re.compile(r"(?<=discord)\.(?=gg/)|(?<=discordapp)\.(?=com/)", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w\\])__(?=\S)([^_\n]+?)(?<=\S)__(?!\w)")
_SPECIAL = re.compile(r"[\\`*~|]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^([ \t]*)(?:([#>+-])|(\d+)\.)", re.MULTILINE)
_GROWING = {"<": 1, "@": 2, "`": 1, "~": 1, "]": 1, "#": 1, ":": 2, ".": 1, "|": 2}
"""How many characters `render` may add for one of these. An empty block of code gets two."""


def render(text: str) -> str:
    """Markdown in Discord's dialect: formatting and code stay, everything else has no meaning.

    Tables, which Discord does not know, become blocks of code.
    """
    done: list[str] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        begun = at
        if opened := _FENCE.match(lines[at]):
            at = next(
                (
                    end
                    for end in range(at + 1, len(lines))
                    if closes_fence(lines[end], opened["mark"])
                ),
                len(lines),
            )
            done += _block(opened["language"], lines[begun + 1 : at])
            at += 1
        elif _is_table(lines[at : at + 2]):
            while at < len(lines) and _TABLE_ROW.match(lines[at]):
                at += 1
            done += _block("", lines[begun:at])
        else:
            done.append(_line(lines[at]))
            at += 1
    return "\n".join(done)


def small_print(line: str) -> str:
    """A line of ours below an answer; `line` is safe already."""
    return f"-# {line}"


def rendered_length(text: str) -> int:
    """At most so many characters has `render(text)`, as Discord's clients count (UTF-16 units).

    Of a joined text it is the sum of the parts', as `bots.splitting` needs it.
    """
    return units(text) + sum(more * text.count(each) for each, more in _GROWING.items())


def units(text: str) -> int:
    """Length of a text in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


class Markdown:
    """Discord's Markdown as `bots.dialect` puts sentences together."""

    adding = "Add one with `/upload`"

    def plain(self, text: str) -> str:
        """Without any meaning, addresses included."""
        text = _SPECIAL.sub(r"\\\g<0>", text)
        text = _LINE_START.sub(_escaped_start, text)
        return _broken(text)

    def bold(self, text: str) -> str:
        """Between stars."""
        return f"**{self.plain(text)}**"

    def italic(self, text: str) -> str:
        """Between single stars."""
        return f"*{self.plain(text)}*"

    def code(self, text: str) -> str:
        """Between backticks."""
        return _span("`", " ".join(text.replace("`", "'").split()))

    def link(self, url: str, text: str) -> str:
        """A link under a name, without a preview."""
        label = self.plain(" ".join(text.split()).replace("[", "(").replace("]", ")"))
        if not re.fullmatch(r"https?://[^\s<>]+", url):
            return label
        return f"[{label}](<{quote(url, safe=_URL_SAFE)}>)"

    def person(self, platform_id: str) -> str:
        """A mention of a member, or of a role by `&` and its id; it calls nobody by itself."""
        return f"<@{platform_id}>"

    def command(self, words: str) -> str:
        """A command of ours."""
        return self.code(f"/{words}")


MARKDOWN: Final[Dialect] = Markdown()
_URL_SAFE = "!#$%&'*+,/:;=?~-._"
"""Of an address; what is not here is written as `%XX`."""


# -- Blocks ---------------------------------------------------------------------------------------


def _is_table(lines: Sequence[str]) -> bool:
    head = len(lines) == 2 and _TABLE_ROW.match(lines[0]) is not None
    return head and _TABLE_RULE.fullmatch(lines[1]) is not None


def _block(language: str, lines: Sequence[str]) -> list[str]:
    """A block of code; an empty one would not be one."""
    filled = any(line.strip() for line in lines)
    code = [_in_code(line) for line in lines] if filled else [JOINER]
    return ["```" + language, *code, "```"]


# -- Lines ----------------------------------------------------------------------------------------


def _line(line: str) -> str:
    """A line outside of code blocks."""
    if heading := _DEEP_HEADING.match(line):
        plain = heading[1].replace("**", "")
        line = f"**{plain}**" if plain else ""
    line = _QUOTED_REST.sub(r"\1>", line)
    done: list[str] = []
    at = text_from = 0
    while found := _ESCAPED_OR_TICKS.search(line, at):
        at = found.end()
        if found[0].startswith("\\"):
            continue
        done.append(_words(line[text_from : found.start()]))
        closing = re.compile(rf"(?<!`){found[0]}(?!`)").search(line, at)
        if closing is None:
            done.append(found[0].replace("`", "\\`"))
        else:
            done.append(_span(found[0], line[at : closing.start()]))
            at = closing.end()
        text_from = at
    done.append(_words(line[text_from:]))
    return "".join(done).replace("-#", f"-{JOINER}#")


def _span(ticks: str, code: str) -> str:
    if len(ticks) > 2:  # Discord would read a block
        ticks, code = "`", code.replace("`", "'")
    code = _ADDRESS.sub(_address, _in_code(code)).replace("](", f"]{JOINER}(")
    return ticks + code + ticks


def _words(text: str) -> str:
    """Text with formatting, outside of code."""
    text = _BOLD.sub(r"**\1**", text)
    done: list[str] = []
    at = 0
    for found in _ADDRESS.finditer(text):
        done += [_broken(text[at : found.start()]), _address(found)]
        at = found.end()
    done.append(_broken(text[at:]))
    return "".join(done).replace("](", f"]{JOINER}(")


def _address(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    kept = rest.rstrip(_TRAILING)
    behind = _broken(rest[len(kept) :])
    if not kept:
        return f"{scheme}:{JOINER}//{behind}"
    kept = kept.replace("@", "%40").replace("://", "%3A//")
    return f"<{scheme}://{kept}>{behind}"


def _in_code(line: str) -> str:
    """Code: nothing in it ends its block or is looked up."""
    return re.sub("`(?=``)", "`" + JOINER, _unmentioned(line))


def _broken(text: str) -> str:
    """Text in which nothing stands for anything else."""
    text = _INVITE.sub("." + JOINER, text)
    text = _COMMAND.sub("<" + JOINER, text)
    text = _AT.sub("@" + JOINER, text).replace("://", f":{JOINER}//")
    return text.replace("](", f"]{JOINER}(")


def _unmentioned(text: str) -> str:
    return _AT.sub("@" + JOINER, _MENTION_START.sub("<" + JOINER, text))


def _escaped_start(found: re.Match[str]) -> str:
    indent, mark, number = found[1], found[2], found[3]
    return f"{indent}\\{mark}" if mark else f"{indent}{number}\\."
