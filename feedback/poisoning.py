"""Signs that somebody steers the votes: for an administrator's eyes, who decides.

Nothing is taken away by a flag alone: a keen tester looks like a bot for an hour. Whoever is
quarantined (`storage.members.Members.quarantine`) counts nowhere from then on.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from math import comb
from typing import Final, Literal
from uuid import UUID

from storage.identity import MemberId
from storage.rated import RatedAnswer, RatedComparison

BURST_RATINGS: Final = 20
BURST_WINDOW: Final = timedelta(minutes=1)
"""Faster than a person reads: three seconds an answer, for a minute."""
SHARED_ITEMS: Final = 10
"""Ratings of the same items by two people, from which their agreement says something."""
TOGETHER: Final = timedelta(minutes=2)
"""Two people who rate an item so soon after each other may have agreed on it."""
MAX_CHANCE: Final = 1e-4
"""A preference for one model that is less likely than this, given how others vote, is flagged."""
MIN_JUDGEMENTS: Final = 20
"""Of one person between the same two models, before their preference is looked at."""

Sign = Literal["burst", "together", "one-sided"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something to look at.

    Attributes:
        members: who, by their pseudonyms.
        what: in words, with the figures.
    """

    sign: Sign
    members: tuple[MemberId, ...]
    what: str


@dataclass(frozen=True, kw_only=True)
class _Rating:
    voter: MemberId
    item: UUID
    value: str
    at: datetime


def flags(answers: Iterable[RatedAnswer], comparisons: Iterable[RatedComparison]) -> list[Flag]:
    """What looks odd, the same for the same ratings."""
    compared = list(comparisons)
    ratings = [
        _Rating(voter=vote.voter, item=answer.id, value=str(vote.value), at=vote.at)
        for answer in answers
        for vote in answer.votes
    ]
    ratings += [
        _Rating(voter=each.voter, item=comparison.id, value=each.winner, at=each.at)
        for comparison in compared
        for each in comparison.judgements
    ]
    return [*_bursts(ratings), *_together(ratings), *_one_sided(compared)]


def _bursts(ratings: Sequence[_Rating]) -> list[Flag]:
    times = defaultdict(list)
    for rating in ratings:
        times[rating.voter].append(rating.at)
    found = []
    for voter, moments in sorted(times.items()):
        moments.sort()
        most = first = 0
        for count, moment in enumerate(moments, start=1):
            while moment - moments[first] > BURST_WINDOW:
                first += 1
            most = max(most, count - first)
        if most >= BURST_RATINGS:
            seconds = round(BURST_WINDOW.total_seconds())
            found.append(
                Flag(sign="burst", members=(voter,), what=f"{most} ratings within {seconds} s")
            )
    return found


def _together(ratings: Sequence[_Rating]) -> list[Flag]:
    """Two people who rate the same items alike, one right after the other."""
    by_item = defaultdict(list)
    for rating in ratings:
        by_item[rating.item].append(rating)
    shared: defaultdict[tuple[MemberId, MemberId], int] = defaultdict(int)
    alike: defaultdict[tuple[MemberId, MemberId], int] = defaultdict(int)
    for item in by_item.values():
        for one, other in combinations(sorted(item, key=lambda rating: rating.voter), 2):
            pair = (one.voter, other.voter)
            shared[pair] += 1
            alike[pair] += one.value == other.value and abs(one.at - other.at) <= TOGETHER
    return [
        Flag(
            sign="together",
            members=pair,
            what=f"{count} of {count} shared items rated alike within"
            f" {round(TOGETHER.total_seconds())} s",
        )
        for pair, count in sorted(shared.items())
        if count >= SHARED_ITEMS and alike[pair] == count
    ]


def _one_sided(comparisons: Sequence[RatedComparison]) -> list[Flag]:
    """People whose preference between two models is not that of the others (binomial test)."""
    wins: defaultdict[tuple[str, str], defaultdict[MemberId, list[int]]] = defaultdict(
        lambda: defaultdict(lambda: [0, 0])
    )
    for comparison in comparisons:
        first, second = sorted((comparison.left.model, comparison.right.model))
        if first == second:
            continue
        for each in comparison.judgements:
            if each.winner in ("left", "right"):
                winner = comparison.left if each.winner == "left" else comparison.right
                wins[first, second][each.voter][int(winner.model == second)] += 1
    found = []
    for (first, second), voters in sorted(wins.items()):
        for voter, (for_first, for_second) in sorted(voters.items()):
            own = for_first + for_second
            others = [counts for other, counts in voters.items() if other != voter]
            total = sum(map(sum, others))
            if own < MIN_JUDGEMENTS or total < MIN_JUDGEMENTS:
                continue
            rate = (sum(counts[0] for counts in others) + 1) / (total + 2)
            if _chance(for_first, own, rate) < MAX_CHANCE:
                favourite, count = max((first, for_first), (second, for_second), key=lambda x: x[1])
                found.append(
                    Flag(
                        sign="one-sided",
                        members=(voter,),
                        what=f"chose {favourite} {count} of {own} times; the others chose {first}"
                        f" {rate:.0%} of the time against {second}",
                    )
                )
    return found


def _chance(successes: int, trials: int, rate: float) -> float:
    """Probability of a count at least as far to its side (one tail of a binomial)."""
    counts = range(successes, trials + 1) if successes > rate * trials else range(successes + 1)
    return sum(comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in counts)
