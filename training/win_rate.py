"""How often the candidate's answer is preferred, and how often at equal length. Pure.

Judges, reward models and people like longer answers. As in AlpacaEval 2 (Dubois et al. 2024,
arxiv.org/abs/2404.04475) a logistic regression explains each preference by the models and by the
difference in length; the win rate without the second part is what remains when both say as much.
That needs answers of about equal length: where one model's are always longer, there is no such
rate.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feedback.rankings import BOOTSTRAP_REPLICATES, Estimate, Floats, logistic_regression
from training import bootstrap


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Which of two answers to the same prompt was preferred.

    Attributes:
        score: 1 = the candidate's, 0 = the live model's, 0.5 = neither.
        candidate_length: of the answer in characters; `live_length` likewise.
    """

    score: float
    candidate_length: int
    live_length: int


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """Shares of prompts, 0 to 1, whose answer by the candidate is preferred.

    Attributes:
        raw: as it was judged.
        length_controlled: as it would be if both answers were equally long; None where one model's
            are longer throughout, so that no answers show what would happen at equal length.
        longer: characters by which the candidate's answers are longer, on average.
    """

    raw: Estimate
    length_controlled: Estimate | None
    longer: float


_EVEN: Final = (0.0, 1.0)
NEAR: Final = 0.1
"""Relative difference in length up to which answers are as good as equally long."""
LEAST_SIDE: Final = 3
LEAST_SIDE_SHARE: Final = 0.1
"""Questions on either side of equal length, and their share of all: with fewer, a regression tells
what it assumes about lengths and not what was observed."""


def win_rate(
    preferences: Sequence[Preference], *, groups: Sequence[Hashable] | None = None
) -> WinRate:
    """Both win rates with 95 % intervals.

    Args:
        groups: the question of each prompt; see `bootstrap.mean`.

    Raises:
        ValueError: there are no preferences, or not one group each.
    """
    raw = bootstrap.mean([each.score for each in preferences], groups=groups)
    places = bootstrap.group_places(groups or range(len(preferences)))
    lengths = np.array([_length_difference(each) for each in preferences])
    score = np.array([each.score for each in preferences])
    return WinRate(
        raw=raw,
        length_controlled=_length_controlled(score, lengths, places)
        if _comparable(lengths, places)
        else None,
        longer=float(np.mean([each.candidate_length - each.live_length for each in preferences])),
    )


def _comparable(lengths: Floats, places: NDArray[np.intp]) -> bool:
    """Whether enough questions lie on either side of equal length, or near it."""
    needed = max(LEAST_SIDE, LEAST_SIDE_SHARE * (int(places.max()) + 1))
    return all(len(set(places[side])) >= needed for side in (lengths <= NEAR, lengths >= -NEAR))


def _length_controlled(score: Floats, lengths: Floats, places: NDArray[np.intp]) -> Estimate:
    """The regression's win rate at equal length.

    Args:
        score: of each preference; shape (N,).
        lengths: relative difference in length of each, -1 to 1; shape (N,).
        places: number of each one's question; shape (N,).
    """
    design = np.stack([np.ones_like(lengths), lengths], axis=1)
    # One won and one lost half-prompt at equal length: without them, candidates that win every
    # prompt of a small set would have an interval of no width.
    design = np.concatenate([design, [(1.0, 0.0), (1.0, 0.0)]])
    score = np.concatenate([score, _EVEN])
    groups = int(places.max()) + 1
    drawn = bootstrap.draw(groups, BOOTSTRAP_REPLICATES)[:, places]
    weights = np.concatenate([np.ones((1, len(places))), drawn])
    weights = np.concatenate([weights, np.full((len(weights), 2), 0.5)], axis=1)
    rates = 1 / (1 + np.exp(-logistic_regression(design, score, weights)[:, 0]))
    return bootstrap.estimate(float(rates[0]), rates[1:], groups=groups)


def _length_difference(each: Preference) -> float:
    """How much longer the candidate's answer is, as a share of both, -1 to 1."""
    both = each.candidate_length + each.live_length
    return (each.candidate_length - each.live_length) / both if both else 0.0
