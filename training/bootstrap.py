"""Intervals without assumptions on how scores are distributed: the percentile bootstrap. Pure.

Both models answer the same prompts, so prompts are drawn again, not answers: what makes a prompt
hard for both cancels (Efron and Tibshirani 1993, chapters 8 and 13). Prompts of one question are
drawn together, for their scores are not independent. The seed is fixed: the same scores give the
same interval.

Percentiles of few questions are too narrow, because they know the spread no better than a normal
distribution would. They are moved outwards as Hesterberg does (2015, "What Teachers Should Know
About the Bootstrap", The American Statistician 69:371, section 4.3), so that their interval is as
wide as Student's.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feedback.rankings import Estimate

REPLICATES: Final = 2000
"""Efron and Tibshirani advise at least 1,000 for percentiles."""
CONFIDENCE: Final = 0.95
UNKNOWN: Final = 1e9
"""End of the interval of one question, which says nothing about others. JSON has no infinity."""
_SEED: Final = 20_240_607


def mean(
    scores: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean of scores with its interval.

    Args:
        scores: one per prompt.
        groups: the question of each prompt; None = each prompt is a question of its own.
        confidence: share of repetitions in which the interval holds the true mean, 0 to 1.

    Raises:
        ValueError: there are no scores, or not one group each.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not values.size:
        raise ValueError("an interval needs at least one score")
    places = group_places(groups if groups is not None else range(len(values)))
    if len(places) != len(values):
        raise ValueError("each score belongs to one group")
    totals, sizes = np.bincount(places, values), np.bincount(places)
    drawn = draw(len(sizes), REPLICATES)
    return estimate(
        float(values.mean()),
        (drawn @ totals) / (drawn @ sizes),
        groups=len(sizes),
        confidence=confidence,
    )


def difference(
    candidate: Sequence[float],
    live: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """How much higher the candidate's mean is, with the interval of the paired bootstrap.

    Raises:
        ValueError: there are no scores, or not as many of each.
    """
    if len(candidate) != len(live):
        raise ValueError("paired scores come in pairs")
    pairs = zip(candidate, live, strict=True)
    return mean([ours - theirs for ours, theirs in pairs], groups=groups, confidence=confidence)


def group_places(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    """The number of each element's group, counted from 0 in the order of their first elements."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.intp)


def draw(groups: int, replicates: int) -> NDArray[np.int64]:
    """How often each repetition draws each group; shape (replicates, groups)."""
    shares = np.full(groups, 1 / groups)
    return np.random.default_rng(_SEED).multinomial(groups, shares, size=replicates)


def estimate(
    value: float,
    repeated: NDArray[np.float64],
    *,
    groups: int,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A value with the interval that its repetitions give.

    Args:
        repeated: the same figure of each repetition.
        groups: how many were drawn from.
    """
    if groups < 2:
        return Estimate(value=value, low=-UNKNOWN, high=UNKNOWN)
    tail = _tail(groups, confidence)
    low, high = np.quantile(repeated, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def _tail(groups: int, confidence: float) -> float:
    """Share of repetitions beyond either end: Phi(-sqrt(n / (n - 1)) * t) for n groups.

    t is the quantile of Student's distribution with n - 1 degrees of freedom; the root makes up
    for the repetitions' spread, which is that of a divisor n.
    """
    from scipy.special import ndtr, stdtrit  # type: ignore[import-untyped]  # loads slowly

    student = stdtrit(groups - 1, (1 + confidence) / 2)
    return float(ndtr(-math.sqrt(groups / (groups - 1)) * student))
