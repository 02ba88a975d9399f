"""Votes on answers and comparisons: what is stored, and what voters are told, in every chat.

Who clicks again the other way changes the vote, who clicks again the same way changes nothing, and
the confirmation that only the voter sees takes the vote back.
"""

from dataclasses import dataclass
from typing import Final, Literal

from bots.dialect import Dialect
from bots.wording import revealed
from feedback import ComparisonId, Feedback, Winner
from storage.identity import AnswerId, Audience

WITHDRAW = "Withdraw"
EXPLAIN = "Say why or write the better answer"
"""The buttons of a confirmation; the second one below a down-vote."""
CRITICISM_TITLE = "What was wrong?"
REASONS_LABEL = "Reasons"
COMMENT_LABEL = "In your words"
COMMENT_HINT = "What is wrong or missing"
BETTER_LABEL = "Write the better answer"
BETTER_HINT = "What a good answer would have said"
BETTER_NOTE = "It teaches the model only if you and this place have consented."
"""The form behind a down-vote."""

_THUMBS: Final = {1: "👍", -1: "👎"}
_OUTCOMES: Final = {
    "recorded": "Your vote {thumb} is recorded. Thank you!",
    "changed": "Your vote is changed to {thumb}.",
    "unchanged": "Your vote was and stays {thumb}.",
    "withdrawn": "Your vote is withdrawn.",
}


@dataclass(frozen=True, kw_only=True)
class Voted:
    """What became of a vote.

    Attributes:
        text: for the voter, plain.
        new: whether it was not this vote before.
    """

    text: str
    new: bool


@dataclass(frozen=True, kw_only=True)
class Criticism:
    """What somebody submitted about an answer; empty where they left it so."""

    reasons: tuple[str, ...]
    comment: str | None
    better: str | None


async def vote(
    feedback: Feedback, answer_id: AnswerId, *, audience: Audience, value: Literal[-1, 1]
) -> Voted:
    """Store the acting person's one vote on an answer.

    Raises:
        MessageNotFound: no such answer for this audience.
        StorageUnavailable: nothing was stored.
    """
    outcome = await feedback.vote(answer_id=answer_id, audience=audience, value=value)
    text = _OUTCOMES[outcome].format(thumb=_THUMBS[value])
    return Voted(text=text, new=outcome != "unchanged")


async def withdraw(feedback: Feedback, answer_id: AnswerId, *, audience: Audience) -> str:
    """Take the vote back; returns what to tell.

    Raises:
        MessageNotFound: no such answer for this audience.
        StorageUnavailable: nothing was stored.
    """
    outcome = await feedback.vote(answer_id=answer_id, audience=audience, value=None)
    return _OUTCOMES["withdrawn"] if outcome == "withdrawn" else "You have no vote on this answer."


async def criticise(
    feedback: Feedback, answer_id: AnswerId, *, audience: Audience, criticism: Criticism
) -> str:
    """Store why an answer is bad and what would be better; returns what to tell.

    Raises:
        MessageNotFound: no such answer for this audience.
        StorageUnavailable: safe to retry.
    """
    if criticism.reasons or criticism.comment:
        await feedback.vote(
            answer_id=answer_id,
            audience=audience,
            value=-1,
            reasons=criticism.reasons,
            comment=criticism.comment,
        )
    if criticism.better:
        await feedback.correct(answer_id=answer_id, audience=audience, text=criticism.better)
    if criticism == Criticism(reasons=(), comment=None, better=None):
        return "Nothing was added; your vote stays."
    return "Thank you: what you wrote is kept with the answer."


async def choose(
    feedback: Feedback,
    comparison_id: ComparisonId,
    *,
    audience: Audience,
    winner: Winner,
    dialect: Dialect,
) -> str:
    """Store the acting person's judgement of a comparison; returns what to tell, the models named.

    Raises:
        MessageNotFound: no such comparison for this audience.
        StorageUnavailable: nothing was stored.
    """
    outcome = await feedback.compare(comparison_id=comparison_id, audience=audience, winner=winner)
    return revealed(winner, models=outcome.models, changed=outcome.changed, dialect=dialect)
