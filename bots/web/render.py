"""Plain data to HTML: the only place where text of people, documents and models becomes markup.

Everything goes through Jinja with autoescape; the one filter that returns markup, `rich`, escapes
first.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bots import voting
from bots.web.entries import Entry, Refusal
from bots.web.rating import MAX_TEXT_CHARS
from feedback import Leaderboard
from feedback.rankings import MIN_VOTES
from storage.documents import Document

_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")
_CODE = re.compile(r"`([^`\n]+)`")
_MARKER = re.compile(r"\[(\d{1,3})\]")


def entry(item: Entry) -> str:
    """One question with its answer so far."""
    return _macro("entry", item)


def thread(entries: Sequence[Entry], *, any_document: bool, problem: str | None) -> str:
    """A whole thread, why it cannot be read, and when it is empty, what to do first."""
    return _macro("thread", entries, any_document, problem)


def threads(items: Iterable[Any]) -> str:
    """The list of threads."""
    return _macro("threads", list(items))


def documents(
    items: Sequence[Document], *, refusals: Sequence[Refusal], problem: str | None
) -> str:
    """What the channel knows, the files it refused, and why the list cannot be read."""
    return _macro("documents", items, refusals, problem)


def leaderboard(board: Leaderboard | None, *, choices: Sequence[Any], drawn: str | None) -> str:
    """The page of one ranking.

    Args:
        board: None where nobody compared anything.
        choices: links to the others, with `name`, `address`, `votes` and `chosen`.
        drawn: address of its picture; None without one.
    """
    template = _ENVIRONMENT.get_template("leaderboard.html")
    return template.render(board=board, choices=choices, drawn=drawn, min_votes=MIN_VOTES)


def _macro(name: str, *args: object) -> str:
    return str(getattr(_FRAGMENTS, name)(*args))


def _rich(text: str, item: Entry) -> Markup:
    """Escape an answer, then mark bold, code and the citations that the entry lists."""
    html = str(escape(text))
    html = _CODE.sub(r"<code>\1</code>", html)
    html = _BOLD.sub(r"<strong>\1</strong>", html)
    listed = {shown.number for shown in item.sources}

    def marker(match: re.Match[str]) -> str:
        number = int(match.group(1))
        if number not in listed:
            return match.group(0)
        target = f"source-{item.key}-{number}"
        return (
            f'<button type="button" class="cite" data-source="{target}"'
            f' aria-label="Source {number}">{number}</button>'
        )

    return Markup(_MARKER.sub(marker, html))  # noqa: S704 (escaped above; only fixed tags are added)


def _progress(document: Document) -> str:
    """A document's state in words."""
    match document.status:
        case "queued":
            state = f"queued: {document.reason}" if document.reason else "queued"
        case "parsing":
            state = "reading…"
        case "embedding":
            state = f"reading… {document.progress:.0%}"
        case "failed":
            state = f"failed: {document.reason}"
        case "ready":
            passages = "passage" if document.chunks == 1 else "passages"
            pages = f"{document.pages} pages, " if (document.pages or 0) > 1 else ""
            return f"ready · {pages}{document.chunks} {passages}"
    return f"{state} (the old version answers meanwhile)" if document.searchable else state


def _hue(name: str) -> int:
    """A colour for a person: the same in every browser and after every restart."""
    return hashlib.blake2b(name.casefold().encode(), digest_size=2).digest()[0] * 360 // 256


def _initials(name: str) -> str:
    words = name.split()
    return "".join(
        word[0] for word in (words[:1] + words[-1:] if len(words) > 1 else words)
    ).upper()


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "hue": _hue,
        "initials": _initials,
        "progress": _progress,
        "rich": _rich,
    }
    environment.globals |= {"voting": voting, "max_better": MAX_TEXT_CHARS}
    return environment


_ENVIRONMENT = _environment()
_FRAGMENTS: Any = _ENVIRONMENT.get_template("fragments.html").module
