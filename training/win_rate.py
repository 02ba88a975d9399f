"""How often the candidate's answer is preferred, and how often at equal length. Pure.

Judges, reward models and people like longer answers. As in AlpacaEval 2 (Dubois et al. 2024,
arxiv.org/abs/2404.04475) a logistic regression explains each preference by the models and by the
difference in length; the win rate without the second part is what remains when both say as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feedback.rankings import BOOTSTRAP_REPLICATES, Estimate, logistic_regression
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
        length_controlled: as it would be if both answers were equally long.
        longer: characters by which the candidate's answers are longer, on average.
    """

    raw: Estimate
    length_controlled: Estimate
    longer: float


_EVEN: Final = (0.0, 1.0)


def win_rate(preferences: Sequence[Preference]) -> WinRate:
    """Both win rates with 95 % intervals.

    Raises:
        ValueError: there are no preferences.
    """
    raw = bootstrap.mean([each.score for each in preferences])
    return WinRate(
        raw=raw,
        length_controlled=_length_controlled(preferences),
        longer=float(np.mean([each.candidate_length - each.live_length for each in preferences])),
    )


def _length_controlled(preferences: Sequence[Preference]) -> Estimate:
    score = np.array([each.score for each in preferences])
    design = np.array([(1.0, _length_difference(each)) for each in preferences])
    # One won and one lost half-prompt at equal length: without them, candidates that win every
    # prompt of a small set would have an interval of no width.
    design = np.concatenate([design, [(1.0, 0.0), (1.0, 0.0)]])
    score = np.concatenate([score, _EVEN])
    count = len(preferences)
    drawn = np.random.default_rng(0).multinomial(
        count, np.full(count, 1 / count), size=BOOTSTRAP_REPLICATES
    )
    weights = np.concatenate([np.ones((1, count)), drawn])
    weights = np.concatenate([weights, np.full((len(weights), 2), 0.5)], axis=1)
    rates = 1 / (1 + np.exp(-logistic_regression(design, score, weights)[:, 0]))
    tail = (1 - bootstrap.CONFIDENCE) / 2
    low, high = np.quantile(rates[1:], [tail, 1 - tail])
    return Estimate(value=float(rates[0]), low=float(low), high=float(high))


def _length_difference(each: Preference) -> float:
    """How much longer the candidate's answer is, as a share of both, -1 to 1."""
    both = each.candidate_length + each.live_length
    return (each.candidate_length - each.live_length) / both if both else 0.0
