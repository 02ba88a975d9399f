"""What a bot adds to the engine's own time: `python -m tests.benchmarks overhead [--short]`."""

import asyncio

import numpy as np

from tests.benchmarks import Row
from tests.benchmarks.answers import take_turns

REACH_MS = 50.0


def run(*, short: bool) -> list[Row]:
    """About 50 turns of few tokens, or eight; the first one pays for connections."""
    told = asyncio.run(take_turns(step=80 if short else 13, max_answer_tokens=16))
    added = [case.answer.timings.total_ms - case.answer.timings.engine_ms for case in told[1:]]
    p95 = float(np.percentile(added, 95))
    return [
        Row(
            what=f"answer time minus engine time, p95 of {len(added)} turns",
            reached=f"{p95:.1f} ms",
            target=f"< {REACH_MS:.0f} ms",
            ok=p95 < REACH_MS,
        ),
        Row(what="the same, median", reached=f"{np.median(added):.1f} ms"),
    ]
