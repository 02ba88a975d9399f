"""Which of two models people vote for more often, decided while the votes come in. Pure.

An admin, or a job every minute, looks at the votes again and again; a usual test would call any two
equal models different in the end. Here the evidence is an e-process: a bet on "the candidate is
liked more often" whose stake cannot grow on average unless that is so. By Ville's inequality it
reaches 1/alpha at any time whatever with probability at most alpha, so looking costs nothing
(Shekhar and Ramdas, "Nonparametric two-sample testing by betting", IEEE Trans. Inf. Theory 2024).

Votes are compared in blocks that end as soon as both models have a vote since the last block: the
payoff is the difference of their means, so shares of 1:9 waste nothing, and a change of mood that
concerns both models cancels. The fraction at stake is a mixture over a grid (Robbins' method of
mixtures), as nobody knows the true difference.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Arm = Literal["candidate", "live"]
Verdict = Literal["better", "worse", "undecided"]

ALPHA: Final = 0.05
_STAKES: Final = np.linspace(0.05, 0.95, 19)
"""Below 1, so that no block can ruin the bet."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One vote on an answer of either model, in the order in which they came."""

    arm: Arm
    good: bool


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the votes say so far.

    Attributes:
        verdict: the first side whose evidence reached 1/alpha; it stays, whatever comes after.
        decided_after: votes until then; None while undecided.
        better: evidence that the candidate is liked more often, a factor; 1 = none.
        worse: evidence of the contrary.
        votes: of both models.
        blocks: comparisons that they made.
    """

    verdict: Verdict
    decided_after: int | None
    better: float
    worse: float
    votes: int
    blocks: int


def standing(votes: Iterable[Vote], *, alpha: float = ALPHA) -> Standing:
    """Weigh the votes.

    Args:
        alpha: most probability of ever saying "better" of a candidate that is not, and likewise of
            "worse"; in (0, 1).

    Raises:
        ValueError: alpha is no probability.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, not between 0 and 1")
    cast = list(votes)
    better, worse = np.zeros_like(_STAKES), np.zeros_like(_STAKES)
    verdict: Verdict = "undecided"
    decided_after: int | None = None
    blocks = 0
    for votes_until, payoff in _payoffs(cast):
        blocks += 1
        better += np.log1p(_STAKES * payoff)
        worse += np.log1p(-_STAKES * payoff)
        if decided_after is None and max(_evidence(better), _evidence(worse)) >= 1 / alpha:
            verdict = "better" if _evidence(better) > _evidence(worse) else "worse"
            decided_after = votes_until
    return Standing(
        verdict=verdict,
        decided_after=decided_after,
        better=_evidence(better),
        worse=_evidence(worse),
        votes=len(cast),
        blocks=blocks,
    )


def _payoffs(votes: Iterable[Vote]) -> Iterator[tuple[int, float]]:
    """Block by block, the votes until its end, and the payoff.

    That is the candidate's share of good votes minus the live model's, -1 to 1.
    """
    block: dict[Arm, list[bool]] = {"candidate": [], "live": []}
    for number, vote in enumerate(votes, start=1):
        block[vote.arm].append(vote.good)
        ours, theirs = block["candidate"], block["live"]
        if ours and theirs:
            yield number, sum(ours) / len(ours) - sum(theirs) / len(theirs)
            block = {"candidate": [], "live": []}


def _evidence(log_wealth: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """The mixture's wealth; capped where a float ends, far beyond any alpha."""
    return float(np.exp(np.minimum(log_wealth, 700)).mean())
