"""Which model is better, from blind comparisons: Bradley-Terry strengths with honest intervals.

The probability that the left answer is preferred is modelled as
`sigmoid(strength[left] - strength[right] + position + length * difference)`: Bradley and Terry's
model (1952) as a logistic regression, a tie (and "both bad") as half a win for each, as Chatbot
Arena fits it (arxiv.org/abs/2403.04132). `position` takes up that people prefer a side, `length`
that they prefer the longer answer, so that neither counts as a model's strength. Intervals come
from the standard errors of a bootstrap over comparisons, which held the true strength a little more
often in simulations than its percentiles did. Pure: no database, no clock; the seed is fixed, so
the same votes give the same figures.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storage.ratings import Battle, Winner

MIN_VOTES: Final = 30
"""Of a model, before it gets a strength: below it even a model that wins every second comparison
has an interval of more than ±0.7, a win rate anywhere between a third and two thirds."""
BOOTSTRAP_REPLICATES: Final = 1000
STANDARD_ERRORS: Final = 1.96
"""To either side: 95 % of a normal distribution."""
RIDGE: Final = 1e-3
"""Keeps a model that never lost finite; shifts the others by less than 1e-3 from `MIN_VOTES` on."""
MAX_STEPS: Final = 50
TOLERANCE: Final = 1e-9

_SCORES: Final[Mapping[Winner, float]] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A model's place.

    Attributes:
        rank: 1 + how many models are better beyond doubt (their interval lies above this one's);
            None without a strength.
        strength: log-odds against the mean of the ranked models; None with fewer than `MIN_VOTES`
            votes, or without a chain of comparisons to the others.
        win_rate: chance of being preferred to a model of mean strength, 0 to 1, likewise.
    """

    model: str
    rank: int | None
    strength: Estimate | None
    win_rate: Estimate | None
    wins: int
    losses: int
    ties: int

    @property
    def votes(self) -> int:
        """Votes that the model was part of."""
        return self.wins + self.losses + self.ties


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """How the models fare, the best first; those without enough votes last.

    Attributes:
        position: log-odds that the left answer has by its place alone; None without a ranking.
        length: log-odds of an answer that is all of the two answers' text, against none of it;
            likewise, and where all answers were equally long.
        votes: that were counted.
        excluded: votes that were not, by reason.
    """

    models: tuple[Ranked, ...]
    position: Estimate | None
    length: Estimate | None
    votes: int
    excluded: Mapping[str, int]

    @property
    def enough(self) -> bool:
        """Whether there is a ranking at all."""
        return any(model.rank is not None for model in self.models)


def leaderboard(
    battles: Iterable[Battle], *, max_weight: float, excluded: Mapping[str, int] | None = None
) -> Leaderboard:
    """Rank the models.

    Args:
        battles: votes on comparisons of two different models.
        max_weight: most votes that one person's may count as together.
        excluded: what was left out before, for the record.
    """
    counted = list(battles)
    tallies = _tallies(counted)
    ranked = _comparable(counted, tallies)
    used = [each for each in counted if each.left_model in ranked and each.right_model in ranked]
    fit = _fit(used, sorted(ranked), max_weight=max_weight) if used else None
    models = [_ranked(model, tallies[model], fit) for model in tallies]
    models.sort(
        key=lambda each: (
            each.strength is None,
            -(each.strength.value if each.strength is not None else 0.0),
            -each.votes,
            each.model,
        )
    )
    return Leaderboard(
        models=tuple(models),
        position=fit.control(0) if fit is not None else None,
        length=fit.control(1) if fit is not None and fit.length_varies else None,
        votes=len(counted),
        excluded=dict(excluded or {}),
    )


def voter_weights(voters: Sequence[object], *, max_weight: float) -> Floats:
    """A weight for each vote, so that no voter's votes count as more than `max_weight` together.

    What nobody in particular said (None) counts in full: curators decide, however much they curate.
    """
    numbers = Counter(voters)
    return np.array(
        [1.0 if voter is None else min(1.0, max_weight / numbers[voter]) for voter in voters]
    )


# -- Fitting --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Coefficients: a strength per model, then position, then length; shape (models + 2,).

    Attributes:
        replicates: the same of each bootstrap replicate, shape (replicates, models + 2).
    """

    models: Sequence[str]
    coefficients: Floats
    replicates: Floats
    length_varies: bool

    def control(self, index: int) -> Estimate:
        return self._estimate(len(self.models) + index)

    def strength(self, model: str) -> Estimate:
        return self._estimate(self.models.index(model))

    def rank(self, model: str) -> int:
        mine = self.strength(model)
        return 1 + sum(self.strength(other).low > mine.high for other in self.models)

    def _estimate(self, column: int) -> Estimate:
        value = float(self.coefficients[column])
        reach = STANDARD_ERRORS * float(self.replicates[:, column].std(ddof=1))
        return Estimate(value=value, low=value - reach, high=value + reach)


def _fit(battles: Sequence[Battle], models: Sequence[str], *, max_weight: float) -> _Fit:
    place = {model: column for column, model in enumerate(models)}
    rows = np.arange(len(battles))
    design = np.zeros((len(battles), len(models) + 2))
    design[rows, [place[each.left_model] for each in battles]] = 1.0
    design[rows, [place[each.right_model] for each in battles]] = -1.0
    design[:, -2] = 1.0
    design[:, -1] = [_length_difference(each) for each in battles]
    score = np.array([_SCORES[each.winner] for each in battles])
    weights = voter_weights([each.voter for each in battles], max_weight=max_weight)
    draws = np.random.default_rng(0).multinomial(
        len(battles), np.full(len(battles), 1 / len(battles)), size=BOOTSTRAP_REPLICATES
    )
    return _Fit(
        models=models,
        coefficients=logistic_regression(design, score, weights[None])[0],
        replicates=logistic_regression(design, score, weights * draws),
        length_varies=bool(np.ptp(design[:, -1]) > 0),
    )


def logistic_regression(design: Floats, score: Floats, weights: Floats) -> Floats:
    """Fit several weightings of the same rows at once, by Newton's method with a faint ridge.

    Args:
        design: shape (rows, columns).
        score: what each row's outcome is worth, 0 to 1; shape (rows,).
        weights: one weighting of the rows per line; shape (fits, rows).

    Returns:
        Coefficients, shape (fits, columns).
    """
    columns = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    found = np.zeros((len(weights), columns))
    ridge = RIDGE * np.eye(columns)
    for _ in range(MAX_STEPS):
        expected = 1 / (1 + np.exp(-(found @ design.T)))
        gradient = (weights * (score - expected)) @ design - RIDGE * found
        curvature = (weights * expected * (1 - expected)) @ products
        hessian = curvature.reshape(-1, columns, columns) + ridge
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        found += np.clip(step, -2.0, 2.0)  # far from the optimum a full step may overshoot
        if np.abs(step).max() < TOLERANCE:
            break
    return found


def _length_difference(battle: Battle) -> float:
    """How much longer the left answer is, as a share of both, -1 to 1 (Arena's style control)."""
    left, right = len(battle.left_text), len(battle.right_text)
    return (left - right) / (left + right) if left + right else 0.0


# -- Counting -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Tally:
    wins: int = 0
    losses: int = 0
    ties: int = 0

    @property
    def votes(self) -> int:
        return self.wins + self.losses + self.ties


def _tallies(battles: Iterable[Battle]) -> dict[str, _Tally]:
    tallies: dict[str, _Tally] = {}
    for battle in battles:
        left = tallies.setdefault(battle.left_model, _Tally())
        right = tallies.setdefault(battle.right_model, _Tally())
        match battle.winner:
            case "left":
                left.wins, right.losses = left.wins + 1, right.losses + 1
            case "right":
                left.losses, right.wins = left.losses + 1, right.wins + 1
            case _:
                left.ties, right.ties = left.ties + 1, right.ties + 1
    return tallies


def _comparable(battles: Sequence[Battle], tallies: Mapping[str, _Tally]) -> set[str]:
    """Models with enough votes that are linked by comparisons: the largest such group."""
    left = {model for model, tally in tallies.items() if tally.votes >= MIN_VOTES}
    links: dict[str, set[str]] = {model: set() for model in left}
    for battle in battles:
        if battle.left_model in left and battle.right_model in left:
            links[battle.left_model].add(battle.right_model)
            links[battle.right_model].add(battle.left_model)
    groups = []
    while left:
        group, waiting = set(), [min(left)]
        while waiting:
            model = waiting.pop()
            group.add(model)
            waiting += links[model] - group
        left -= group
        groups.append(group)
    largest = max(groups, key=len, default=set())
    return largest if len(largest) > 1 else set()


def _ranked(model: str, tally: _Tally, fit: _Fit | None) -> Ranked:
    strength = fit.strength(model) if fit is not None and model in fit.models else None
    return Ranked(
        model=model,
        rank=fit.rank(model) if fit is not None and strength is not None else None,
        strength=strength,
        win_rate=_win_rate(strength) if strength is not None else None,
        wins=tally.wins,
        losses=tally.losses,
        ties=tally.ties,
    )


def _win_rate(strength: Estimate) -> Estimate:
    value, low, high = (
        float(1 / (1 + np.exp(-each))) for each in (strength.value, strength.low, strength.high)
    )
    return Estimate(value=value, low=low, high=high)
