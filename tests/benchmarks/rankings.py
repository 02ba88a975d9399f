"""Whether the leaderboard's intervals keep their promise: `python -m tests.benchmarks rankings`.

Simulated voters judge simulated answers as the model says, with a preferred side, a taste for
length, and ties; the strengths are known.
"""

import time

import numpy as np

from feedback.rankings import leaderboard
from tests.benchmarks import Row
from tests.feedback.test_rankings import STRENGTHS, simulated

BATTLES = 5_000
SIMULATIONS = 200
REACH_INSIDE = 0.94


def run(*, short: bool) -> list[Row]:
    """200 simulations, or 20."""
    simulations = 20 if short else SIMULATIONS
    inside, errors, durations = [], [], []
    for seed in range(simulations):
        battles = simulated(BATTLES, seed=seed, position=0.3, length=1.0, ties=0.3)
        begun = time.perf_counter()
        board = leaderboard(battles, max_weight=BATTLES)
        durations.append(time.perf_counter() - begun)
        for ranked in board.models:
            if ranked.strength is None:
                raise AssertionError("every model has enough votes")
            truth = STRENGTHS[ranked.model]
            inside.append(ranked.strength.low <= truth <= ranked.strength.high)
            errors.append(abs(ranked.strength.value - truth))
    share = float(np.mean(inside))
    return [
        Row(
            what=f"{simulations} simulations of {BATTLES:,} battles: true strength in the interval",
            reached=f"{share:.1%}",
            target=f">= {REACH_INSIDE:.0%}",
            ok=None if short else share >= REACH_INSIDE,
        ),
        Row(
            what="mean error of a strength, in log-odds",
            reached=f"{np.mean(errors):.3f}",
            target="",
            ok=None,
        ),
        Row(
            what="one leaderboard with its intervals",
            reached=f"{np.median(durations):.2f} s",
            target="",
            ok=None,
        ),
    ]
