"""What every chat surface says around an answer, in the words of its platform."""

from collections.abc import Mapping
from typing import Final

from bots import replies
from bots.dialect import Dialect
from bots.messages import Answer, Citation, place_in_document
from bots.neutral import neutral
from feedback import Winner
from storage.identity import DocumentId

SEARCHING = "Searching the documents…"
FINISH_NOTES: Final = {
    "stopped": "Stopped.",
    "length": "Cut at the greatest length of an answer; ask for the rest if you need it.",
}
"""What stands under an answer that did not end by itself."""
MAX_CITATION_CHARACTERS = 300
"""Of a document's name, and of the place in it."""

SIDES: Final = ("A", "B")
"""What the two answers of a comparison are called, from left to right."""
VOTE = "Which answer is better? The models are named once you have voted."
CHOICES: Final[Mapping[Winner, str]] = {
    "left": "A is better",
    "right": "B is better",
    "tie": "Tie",
    "both_bad": "Both bad",
}
"""The buttons of a comparison."""


def in_chat(text: str, dialect: Dialect) -> str:
    """What the assistant says, in the words of a chat; Markdown as `text` is."""
    if text == replies.NO_DOCUMENTS:
        return (
            f"There are no documents here yet. {dialect.adding}, or use “Add to knowledge” on a "
            "message that has a file; then ask again."
        )
    if text == replies.STILL_READING:
        return (
            "The documents here are still being read; ask again when one of them is ready "
            f"({dialect.command('documents')} shows how far they are)."
        )
    return text


def queued(position: int) -> str:
    """What is shown while other questions are answered."""
    if position <= 1:
        return "Waiting for other questions; yours is next…"
    return f"Waiting for other questions; yours is number {position} in the queue…"


def reading(sources: int) -> str:
    """What is shown while the model reads."""
    return "Reading a source…" if sources == 1 else f"Reading {sources} sources…"


def citation_lines(
    answer: Answer, *, links: Mapping[DocumentId, str], dialect: Dialect
) -> list[str]:
    """The sources of an answer, one a line."""
    return [
        citation_line(citation, links.get(citation.document_id), dialect)
        for citation in answer.citations
    ]


def citation_line(citation: Citation, url: str | None, dialect: Dialect) -> str:
    """A source: a link to it where it has an address, and where in it."""
    name = _brief(citation.document)
    place = _brief(place_in_document(page=citation.page, heading=citation.heading))
    named = dialect.link(url, name) if url else dialect.plain(name)
    return f"[{citation.number}] {named}" + (f", {dialect.plain(place)}" if place else "")


def revealed(winner: Winner, *, models: tuple[str, str], changed: bool, dialect: Dialect) -> str:
    """What a voter learns.

    Args:
        models: from left to right.
        changed: whether an earlier vote was another one.
    """
    chosen = {
        "left": f"You chose {dialect.bold('A')}",
        "right": f"You chose {dialect.bold('B')}",
        "tie": f"You called it a {dialect.bold('tie')}",
        "both_bad": f"You called {dialect.bold('both bad')}",
    }[winner]
    left, right = (dialect.code(model) for model in models)
    return f"{chosen}{' (changed)' if changed else ''}. A was {left}, B was {right}."


def _brief(text: str) -> str:
    return neutral(" ".join(text.split()), allowed="")[:MAX_CITATION_CHARACTERS]
