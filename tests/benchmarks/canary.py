"""How often the test of live votes errs, and how long it takes: `… canary [--short]`.

Simulated votes on two models whose rates are known, looked at after every vote: first one vote a
thread, then 5 to 20 that share the person and the topic, as the votes of a team do.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tests.benchmarks import Row
from tests.training.test_statistics import clustered_votes, votes
from training.sequential import ALPHA, Standing, standing

SIMULATIONS = 1000
VOTES = 2_000
THREADS = 300
LIVE = 0.6
MUCH_BETTER = 0.8


def run(*, short: bool) -> list[Row]:
    """1,000 simulations of 2,000 votes each, or 20."""
    simulations = 20 if short else SIMULATIONS
    rows = []
    for share in (0.1, 0.5):
        rows += _single(share, simulations, short=short)
        rows += _clustered(share, simulations, short=short)
    return rows


def _single(share: float, simulations: int, *, short: bool) -> list[Row]:
    random = np.random.default_rng(11)
    equal, better = (
        [
            standing(votes(random, count=VOTES, candidate=rate, live=LIVE, share=share))
            for _ in range(simulations)
        ]
        for rate in (LIVE, MUCH_BETTER)
    )
    return [
        *_alarms(f"share {share:.0%}, equal models", equal, judged=not short),
        _found(f"share {share:.0%}", better, of=f"{VOTES:,} votes"),
    ]


def _clustered(share: float, simulations: int, *, short: bool) -> list[Row]:
    random = np.random.default_rng(12)
    equal, counted_singly, better = [], [], []
    for _ in range(simulations):
        cast = clustered_votes(random, threads=THREADS, candidate=LIVE, live=LIVE, share=share)
        equal.append(standing(cast))
        counted_singly.append(
            standing(replace(vote, thread=number) for number, vote in enumerate(cast))
        )
        cast = clustered_votes(
            random, threads=THREADS, candidate=MUCH_BETTER, live=LIVE, share=share
        )
        better.append(standing(cast))
    what = f"share {share:.0%}, 5 to 20 votes a thread"
    return [
        *_alarms(f"{what}, equal models", equal, judged=not short),
        *_alarms(f"{what}, equal models, were each vote counted", counted_singly, judged=False),
        _found(what, better, of=f"{THREADS} threads"),
    ]


def _alarms(what: str, equal: Sequence[Standing], *, judged: bool) -> list[Row]:
    rows = []
    for verdict in ("better", "worse"):
        alarms = sum(each.verdict == verdict for each in equal) / len(equal)
        rows.append(
            Row(
                what=f"{what}: ever called {verdict}",
                reached=f"{alarms:.1%}",
                target=f"<= {ALPHA:.0%}",
                ok=alarms <= ALPHA if judged else None,
            )
        )
    return rows


def _found(what: str, better: Sequence[Standing], *, of: str) -> Row:
    taken = [each.decided_after for each in better if each.decided_after is not None]
    half = f"{np.median(taken):.0f} counted votes" if taken else "none"
    return Row(
        what=f"{what}, liked {MUCH_BETTER:.0%} against {LIVE:.0%}: found within {of}; half of them "
        "within",
        reached=f"{len(taken) / len(better):.1%}; {half}",
    )
