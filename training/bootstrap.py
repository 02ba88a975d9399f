"""Intervals without assumptions on how scores are distributed: the percentile bootstrap. Pure.

Both models answer the same prompts, so prompts are drawn again, not answers: what makes a prompt
hard for both cancels (Efron and Tibshirani 1993, chapters 8 and 13). Prompts of one question are
drawn together, for their scores are not independent. The seed is fixed: the same scores give the
same interval.
"""

from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feedback.rankings import Estimate

REPLICATES: Final = 2000
"""Efron and Tibshirani advise at least 1,000 for percentiles."""
CONFIDENCE: Final = 0.95
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
    totals, sizes = _by_group(values, groups)
    drawn = np.random.default_rng(_SEED).multinomial(
        len(totals), np.full(len(totals), 1 / len(totals)), size=REPLICATES
    )
    means = (drawn @ totals) / (drawn @ sizes)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))


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


def _by_group(
    values: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the scores of each group."""
    if groups is None:
        return values, np.ones_like(values)
    if len(groups) != len(values):
        raise ValueError("each score belongs to one group")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.array([numbers[group] for group in groups])
    return np.bincount(places, values).astype(np.float64), np.bincount(places).astype(np.float64)
