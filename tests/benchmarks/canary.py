"""How often the test of live votes errs, and how long it takes: `… canary [--short]`.

Simulated votes on two models whose rates are known, looked at after every vote.
"""

import numpy as np

from tests.benchmarks import Row
from tests.training.test_statistics import votes
from training.sequential import ALPHA, standing

SIMULATIONS = 1000
VOTES = 2_000
LIVE = 0.6
MUCH_BETTER = 0.8


def run(*, short: bool) -> list[Row]:
    """1,000 simulations of 2,000 votes each, or 20."""
    simulations = 20 if short else SIMULATIONS
    return [row for share in (0.1, 0.5) for row in _share(share, simulations, short=short)]


def _share(share: float, simulations: int, *, short: bool) -> list[Row]:
    random = np.random.default_rng(11)
    equal, better = (
        [
            standing(votes(random, count=VOTES, candidate=rate, live=LIVE, share=share))
            for _ in range(simulations)
        ]
        for rate in (LIVE, MUCH_BETTER)
    )
    rows = []
    for verdict in ("better", "worse"):
        alarms = sum(each.verdict == verdict for each in equal) / simulations
        rows.append(
            Row(
                what=f"share {share:.0%}, equal models: ever called {verdict}",
                reached=f"{alarms:.1%}",
                target=f"<= {ALPHA:.0%}",
                ok=None if short else alarms <= ALPHA,
            )
        )
    taken = [each.decided_after for each in better if each.decided_after is not None]
    rows.append(
        Row(
            what=f"share {share:.0%}, liked {MUCH_BETTER:.0%} against {LIVE:.0%}: found within "
            f"{VOTES:,} votes; half of them within",
            reached=f"{len(taken) / simulations:.1%}; {np.median(taken):.0f} votes",
        )
    )
    return rows
