"""What each stage gains on its own feedback: `python -m tests.benchmarks recipes [--short]`.

The simulated team of `proof` rates, and every stage learns from its feedback by the shipped recipe,
`dpo` and `kto` from the policy that `sft` left. `rloo` goes on from a policy that has had a few
steps of `sft` only: the shipped four epochs answer in so few words, and so surely, that they leave
no answers to choose from. Every stage is measured on held-out rows of its own kind, before its
first step and after its last one.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from feedback.datasets import snapshot, write
from feedback.rules import Rules
from tests.benchmarks import Row
from tests.benchmarks.training_team import MODEL, MOST_PIECES, training_team
from training.base_model import Reader, base_weights
from training.recipes import Recipe, StageKind, parse
from training.stage import Events, Stage, StageResult

MEASURES: Mapping[StageKind, tuple[str, str]] = {
    "sft": ("log_likelihood", "log-likelihood of right answers, nats a token"),
    "dpo": ("margin", "margin of preferred answers, nats"),
    "kto": ("value", "value of single votes, 0 to 1"),
    "reward": ("accuracy", "pairwise accuracy"),
    "rloo": ("reward", "reward of answers as they are drawn"),
}
SERVED = ("likeliest_reward", "reward of the likeliest answers")
"""Of `rloo`, which works for drawn answers."""
BEGUN: Mapping[str, Any] = {"learning_rate": 2e-4, "num_train_epochs": 1}
"""Of the policy that `rloo` goes on from."""


def run(*, short: bool) -> Iterator[Row]:
    """300 pieces of feedback, or a handful and one step of each stage."""
    with tempfile.TemporaryDirectory(prefix="parley-recipes-") as folder:
        yield asyncio.run(_rate(Path(folder), short=short))
        school = _School.open(Path(folder), short=short)
        sft = school.learn("sft")
        yield school.gained("sft", sft)
        yield school.gained("dpo", school.learn("dpo", policy=sft.adapter))
        yield school.gained("kto", school.learn("kto", policy=sft.adapter))
        reward = school.learn("reward")
        yield school.gained("reward", reward)
        begun = school.learn("sft", name="begun", **BEGUN)
        rloo = school.learn("rloo", policy=begun.adapter, reward_model=reward.adapter)
        yield school.gained("rloo", rloo)
        yield school.gained("rloo", rloo, SERVED)


async def _rate(folder: Path, *, short: bool) -> Row:
    async with training_team(short=short) as place:
        await place.rate()
        workspace = place.team.audiences[0].workspace_id
        found = await snapshot(place.team.pool, workspace_id=workspace, rules=Rules())
        write(found, folder).rename(folder / "snapshot")
        return Row(what="feedback", reached=place.pieces, target=f"<= {MOST_PIECES} pieces")


@dataclass(frozen=True, kw_only=True)
class _School:
    """Runs stages on one snapshot, each in a folder of its own."""

    folder: Path
    weights: Path
    reader: Reader
    short: bool

    @classmethod
    def open(cls, folder: Path, *, short: bool) -> "_School":
        home = Path(os.environ.get("PARLEY_HOME", ".parley")).resolve()
        base = (home / "models" / MODEL).resolve()
        return cls(
            folder=folder,
            weights=base_weights(base, home=home),
            reader=Reader.of(base),
            short=short,
        )

    def learn(
        self,
        kind: StageKind,
        *,
        name: str | None = None,
        policy: Path | None = None,
        reward_model: Path | None = None,
        **fields: Any,
    ) -> StageResult:
        stage = Stage(
            kind=kind,
            folder=self.folder / (name or kind),
            weights=self.weights,
            reader=self.reader,
            snapshot=self.folder / "snapshot",
            events=Events(file=self.folder / "events.jsonl"),
            policy=policy,
            reward_model=reward_model,
        )
        stage.folder.mkdir()
        steps = {"max_steps": 1} if self.short else {}
        recipe: Recipe = parse({"kind": kind, **fields, **steps})
        found: StageResult = import_module(f"training.{kind}").run(stage, recipe)
        return found

    def gained(
        self, kind: StageKind, result: StageResult, beside: tuple[str, str] | None = None
    ) -> Row:
        """A measure of held-out rows before and after; `beside` the stage's own, without target."""
        name, what = beside or MEASURES[kind]
        metrics, measure = result.metrics, f"held_out_{name}"
        if measure not in metrics:
            return Row(what=f"{kind}: {what}", reached="no held-out rows")
        before, after, low, high = (
            metrics[measure + end] for end in ("_before", "", "_gain_low", "_gain_high")
        )
        return Row(
            what=f"{kind}: {what}, {metrics['held_out_rows']:.0f} held-out rows",
            reached=f"{before:.3f} to {after:.3f} (gain {low:+.3f} to {high:+.3f})",
            target="" if beside else "interval above 0",
            ok=None if self.short or beside else low > 0,
        )
