"""A person's home: what they have said and agreed to, what is known, how the models fare.

What it shows is the person's own: their votes, and documents that their audience may read.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bots.administration_wording import leaderboard_lines
from bots.channel_settings import WorkspaceSettings, load_workspace
from bots.dialect import Dialect
from bots.workplace import Workplace
from feedback import Leaderboard, MyVote
from storage.documents import Document
from storage.identity import Audience, MemberId

VOTES_SHOWN = 10
DOCUMENTS_SHOWN = 25
LINE_CHARACTERS = 110
"""Of a question or a name in a list."""

_THUMBS = {1: "👍", -1: "👎"}


@dataclass(frozen=True, kw_only=True)
class Home:
    """What one person's home shows.

    Attributes:
        settings: of the workspace.
    """

    consents: bool
    votes: Sequence[MyVote]
    documents: Sequence[Document]
    leaderboard: Leaderboard
    settings: WorkspaceSettings


@dataclass(frozen=True, kw_only=True)
class Part:
    """A list in the home; `empty` is what stands in the place of no lines."""

    title: str
    lines: Sequence[str]
    empty: str


async def load_home(workplace: Workplace, audience: Audience) -> Home:
    """Everything that the home of the audience's person shows.

    Raises:
        ValueError: the audience names nobody.
        StorageUnavailable: safe to retry.
    """
    consents, votes, documents, leaderboard, settings = await asyncio.gather(
        workplace.members.consent(person_of(audience)),
        workplace.feedback.mine(audience=audience, limit=VOTES_SHOWN),
        workplace.documents.list(audience=audience),
        workplace.feedback.ranking(workspace_id=audience.workspace_id),
        load_workspace(workplace.places, audience.workspace_id),
    )
    return Home(
        consents=consents,
        votes=votes,
        documents=documents,
        leaderboard=leaderboard,
        settings=settings,
    )


def person_of(audience: Audience) -> MemberId:
    """Whose home it is.

    Raises:
        ValueError: the audience names nobody.
    """
    if audience.member_id is None:
        raise ValueError("a home belongs to a person")
    return audience.member_id


def consent_text(home: Home, dialect: Dialect) -> str:
    """What the person has agreed to."""
    if home.consents:
        return (
            f"You {dialect.bold('have agreed')} that your votes and corrections train models, "
            "where the channel's settings agree too. What you rated before you agreed does not."
        )
    return (
        f"Your votes and corrections {dialect.bold('do not train')} models: you have not agreed "
        "to it. Agreeing is for what you rate from then on; it does not reach earlier ratings."
    )


def consent_change(home: Home) -> tuple[str, str]:
    """Label and value of the button that changes the consent.

    The value is what it changes to, so that a double click is not two changes.
    """
    return ("Withdraw my consent", "no") if home.consents else ("I agree", "yes")


def parts(home: Home, dialect: Dialect) -> list[Part]:
    """The home's lists."""
    return [
        Part(
            title="My votes",
            lines=[
                f"{_THUMBS[vote.value]} {_short(vote.question, dialect)}" for vote in home.votes
            ],
            empty="You have not voted yet.",
        ),
        Part(
            title="What I know here",
            lines=_document_lines(home.documents, dialect),
            empty="No documents yet.",
        ),
        Part(
            title="Leaderboard",
            lines=leaderboard_lines(home.leaderboard, dialect),
            empty=f"No comparisons yet: {dialect.command('compare QUESTION')} starts one.",
        ),
    ]


def listed(part: Part, *, limit: int, length: Callable[[str], int] = len) -> str:
    """The part's lines, as far as `limit` holds them; `length` counts as the platform does."""
    text = ""
    for line in part.lines:
        if length(text) + length(line) + 3 > limit:
            break
        text += f"• {line}\n"
    return text or part.empty


def _document_lines(documents: Sequence[Document], dialect: Dialect) -> list[str]:
    lines = [
        _short(document.name, dialect)
        + ("" if document.searchable else f" {dialect.italic(f'({document.status})')}")
        for document in documents[:DOCUMENTS_SHOWN]
    ]
    if len(documents) > DOCUMENTS_SHOWN:
        lines.append(dialect.italic(f"and {len(documents) - DOCUMENTS_SHOWN} more"))
    return lines


def _short(text: str, dialect: Dialect) -> str:
    line = " ".join(text.split())
    shown = line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"
    return dialect.plain(shown)
