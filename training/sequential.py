"""Which of two models people vote for more often, decided while the votes come in. Pure.

An admin, or a job every minute, looks at the votes again and again; a usual test would call any two
equal models different in the end. Here the evidence is an e-process: a bet on "the candidate is
liked more often" whose stake cannot grow on average unless that is so. By Ville's inequality it
reaches 1/alpha at any time whatever with probability at most alpha, so looking costs nothing
(Shekhar and Ramdas, "Nonparametric two-sample testing by betting", IEEE Trans. Inf. Theory 2024).

A thread belongs to one model for good, and its votes share the person, the topic and the mood: they
are one observation, not many, and the first one stands for it. Were each vote counted, then equal
models with 5 to 20 votes a thread would be called better, and as often worse, some 30 times in a
hundred and not 5: `python -m tests.benchmarks canary` measures both.

Votes are compared in blocks that end as soon as both models have a vote since the last block: the
payoff is the difference of their means, so shares of 1:9 waste nothing, and a change of mood that
concerns both models cancels. The fraction at stake is a mixture over a grid (Robbins' method of
mixtures), as nobody knows the true difference.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Arm = Literal["candidate", "live"]
Verdict = Literal["better", "worse", "undecided"]

ALPHA: Final = 0.05
MIN_VOTERS: Final = 2
"""People whose votes count, before there is a verdict: one person's taste is not the team's. Not
more, as in a team of five often no more than two vote, and their trials must end too."""
_STAKES: Final = np.linspace(0.05, 0.95, 19)
"""Below 1, so that no block can ruin the bet."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One vote on an answer of either model.

    Attributes:
        thread: where the answer was given.
        voter: who cast it.
    """

    arm: Arm
    good: bool
    thread: Hashable
    voter: Hashable


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the votes say so far.

    Attributes:
        verdict: the side whose evidence reached 1/alpha. "worse" stays, whatever comes after;
            "better" stays until "worse" is proven too, as a version may become worse while it waits
            for an administrator.
        decided_after: counted votes until then; None while undecided.
        better: evidence that the candidate is liked more often, a factor; 1 = none.
        worse: evidence of the contrary.
        votes: of both models that count, one a thread.
        blocks: comparisons that they made.
    """

    verdict: Verdict
    decided_after: int | None
    better: float
    worse: float
    votes: int
    blocks: int


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Votes since the last block, until both models have one.

    Attributes:
        votes: until its end, of all blocks.
        voters: who cast them.
        payoff: the candidate's share of good votes minus the live model's, -1 to 1.
    """

    votes: int
    voters: int
    payoff: float


def standing(votes: Iterable[Vote], *, alpha: float = ALPHA) -> Standing:
    """Weigh the votes, of each thread the first.

    Args:
        votes: in the order in which they were cast.
        alpha: most probability of ever saying "better" of a candidate that is not, and likewise of
            "worse"; in (0, 1).

    Raises:
        ValueError: alpha is no probability.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, not between 0 and 1")
    counted = _first_of_threads(votes)
    better, worse = np.zeros_like(_STAKES), np.zeros_like(_STAKES)
    verdict: Verdict = "undecided"
    decided_after: int | None = None
    blocks = 0
    for block in _blocks(counted):
        blocks += 1
        better += np.log1p(_STAKES * block.payoff)
        worse += np.log1p(-_STAKES * block.payoff)
        if block.voters < MIN_VOTERS or verdict == "worse":
            continue
        if _evidence(worse) >= 1 / alpha:
            verdict, decided_after = "worse", block.votes
        elif verdict == "undecided" and _evidence(better) >= 1 / alpha:
            verdict, decided_after = "better", block.votes
    return Standing(
        verdict=verdict,
        decided_after=decided_after,
        better=_evidence(better),
        worse=_evidence(worse),
        votes=len(counted),
        blocks=blocks,
    )


def _first_of_threads(votes: Iterable[Vote]) -> Sequence[Vote]:
    first: dict[Hashable, Vote] = {}
    for vote in votes:
        first.setdefault(vote.thread, vote)
    return list(first.values())


def _blocks(votes: Iterable[Vote]) -> Iterator[_Block]:
    block: dict[Arm, list[bool]] = {"candidate": [], "live": []}
    voters: set[Hashable] = set()
    for number, vote in enumerate(votes, start=1):
        voters.add(vote.voter)
        block[vote.arm].append(vote.good)
        ours, theirs = block["candidate"], block["live"]
        if ours and theirs:
            payoff = sum(ours) / len(ours) - sum(theirs) / len(theirs)
            yield _Block(votes=number, voters=len(voters), payoff=payoff)
            block = {"candidate": [], "live": []}


def _evidence(log_wealth: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """The mixture's wealth; capped where a float ends, far beyond any alpha."""
    return float(np.exp(np.minimum(log_wealth, 700)).mean())
