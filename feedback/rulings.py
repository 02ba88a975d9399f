"""What curators decide about a record; it counts before what members say of it. Pure.

Curators who contradict each other decide nothing, and nothing is learnt from what they dispute. A
curator consents for nobody: a word trains models only where a rating of the same record may.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from feedback.rules import Rules
from storage.curations import Curation
from storage.rated import Correction, Judgement, RatedAnswer, RatedComparison, Vote
from storage.ratings import Winner


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the curators of one record say together.

    Attributes:
        disputed: they contradict each other; the rest is empty then.
        value: of the answer; None where nobody rated it.
        corrections: better answers.
        winner: of the comparison.
        curators: who said so, in the order of their ids.
    """

    disputed: bool = False
    value: Literal[-1, 1] | None = None
    corrections: tuple[str, ...] = ()
    winner: Winner | None = None
    curators: tuple[UUID, ...] = ()


def discarded(record: RatedAnswer | RatedComparison) -> bool:
    """Whether every curator who said something wants nothing to be learnt from it."""
    return all_discard(record.curations)


def all_discard(said: Sequence[Curation]) -> bool:
    """Whether these are curators' words, and none of them lets the record count."""
    return bool(said) and all(each.status == "discarded" for each in said)


def ruling(record: RatedAnswer | RatedComparison, rules: Rules) -> Ruling | None:
    """What the curators decide; None where they say nothing or may not be listened to."""
    if not record.curations or not _consented(record, rules):
        return None
    return together(record.curations)


def together(said: Sequence[Curation]) -> Ruling:
    """What curators who said this decide."""
    values: set[Literal[-1, 1]] = {each.value for each in said if each.value is not None}
    winners: set[Winner] = {each.winner for each in said if each.winner is not None}
    statuses = {each.status for each in said}
    if len(statuses) > 1 or len(values) > 1 or len(winners) > 1:
        return Ruling(disputed=True)
    return Ruling(
        value=next(iter(values), None),
        corrections=tuple(dict.fromkeys(_corrections(said))),
        winner=next(iter(winners), None),
        curators=tuple(sorted(each.curator_id for each in said)),
    )


def _corrections(said: Iterable[Curation]) -> Iterable[str]:
    return (each.correction.strip() for each in said if each.correction and each.correction.strip())


def _consented(record: RatedAnswer | RatedComparison, rules: Rules) -> bool:
    ratings: tuple[Vote | Correction | Judgement, ...] = (
        record.judgements
        if isinstance(record, RatedComparison)
        else (*record.votes, *record.corrections)
    )
    return any(each.consent and each.voter not in rules.quarantined for each in ratings)
