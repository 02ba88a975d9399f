"""What each stage of the pipeline gains: `python -m tests.benchmarks recipes [--short]`.

The simulated team of `proof` rates, and one run of the shipped `pipeline` learns from each kind of
its feedback in turn. Every stage is measured on held-out rows of its own kind, before its first
step and after its last one.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks import Row
from tests.benchmarks.training_team import MOST_PIECES, training_team

MEASURES = {
    "sft": ("log_likelihood", "mean log-likelihood of the right answers, nats a token"),
    "dpo": ("margin", "margin of preferred answers, nats"),
    "kto": ("value", "value of single votes, 0 to 1"),
    "reward": ("accuracy", "pairwise accuracy"),
    "rloo": ("reward", "reward of the likeliest answers"),
}
SHORT = {
    "kind": "pipeline",
    "stages": [{"kind": kind, "max_steps": 1} for kind in MEASURES],
}


def run(*, short: bool) -> Iterator[Row]:
    """300 pieces of feedback, or a handful and one step of each stage."""
    return iter(asyncio.run(_run(short=short)))


async def _run(*, short: bool) -> list[Row]:
    async with training_team(short=short) as place:
        await place.rate()
        trained = await place.trained(SHORT if short else "pipeline")
        stages = trained.result["stages"]
        rows = [Row(what="feedback", reached=place.pieces, target=f"<= {MOST_PIECES} pieces")]
        rows += [_gained(kind, stages[kind], short=short) for kind in MEASURES if kind in stages]
        rows.append(
            Row(
                what="the gate says",
                reached=f"{trained.result['outcome']}: {' '.join(trained.result['reasons'])}",
            )
        )
        return rows


def _gained(kind: str, stage: Mapping[str, Any], *, short: bool) -> Row:
    name, what = MEASURES[kind]
    metrics = stage["metrics"]
    measure = f"held_out_{name}"
    before, after = metrics.get(f"{measure}_before"), metrics.get(measure)
    if before is None or after is None:
        return Row(what=f"{kind}: {what}", reached="no held-out rows", ok=None if short else False)
    low, high = metrics[f"{measure}_gain_low"], metrics[f"{measure}_gain_high"]
    return Row(
        what=f"{kind}: {what}, {metrics['held_out_rows']:.0f} held-out rows",
        reached=f"{before:.3f} to {after:.3f} (gain {low:+.3f} to {high:+.3f})",
        target="interval above 0",
        ok=None if short else low > 0,
    )
