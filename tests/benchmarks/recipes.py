"""What each stage gains on its own feedback: `python -m tests.benchmarks recipes [--short]`.

The simulated team of `proof` rates, and every stage learns from its feedback as in the shipped
recipe of its name: `dpo` and `kto` go on from the policy that `sft` left, `rloo` from that of a
short `sft`, because after four epochs a policy answers in so few words, and so surely, that it
leaves no answers to choose from. Every stage is measured on held-out rows of its own kind, before
its first step and after its last one.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from feedback.datasets import snapshot, write
from feedback.rules import Rules
from tests.benchmarks import Row
from tests.benchmarks.training_team import MODEL, MOST_PIECES, training_team
from training.base_model import Reader, base_weights
from training.recipes import StageKind, StageRecipe, named, stages_of
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


def run(*, short: bool) -> Iterator[Row]:
    """300 pieces of feedback, or a handful and one step of each stage."""
    with tempfile.TemporaryDirectory(prefix="parley-recipes-") as folder:
        yield asyncio.run(_rate(Path(folder), short=short))
        school = _School.open(Path(folder), short=short)
        sft_recipe, dpo_recipe = stages_of(named("dpo", "cpu"))
        *_, kto_recipe = stages_of(named("kto", "cpu"))
        begun_recipe, reward_recipe, rloo_recipe = stages_of(named("rloo", "cpu"))
        sft = school.learn(sft_recipe)
        yield school.gained("sft", sft)
        yield school.gained("dpo", school.learn(dpo_recipe, policy=sft.adapter))
        yield school.gained("kto", school.learn(kto_recipe, policy=sft.adapter))
        reward = school.learn(reward_recipe)
        yield school.gained("reward", reward)
        begun = school.learn(begun_recipe, name="begun")
        rloo = school.learn(rloo_recipe, policy=begun.adapter, reward_model=reward.adapter)
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
        recipe: StageRecipe,
        *,
        name: str | None = None,
        policy: Path | None = None,
        reward_model: Path | None = None,
    ) -> StageResult:
        stage = Stage(
            kind=recipe.kind,
            folder=self.folder / (name or recipe.kind),
            weights=self.weights,
            reader=self.reader,
            snapshot=self.folder / "snapshot",
            events=Events(file=self.folder / "events.jsonl"),
            policy=policy,
            reference=policy,
            reward_model=reward_model,
        )
        stage.folder.mkdir()
        if self.short:
            recipe = recipe.model_copy(update={"max_steps": 1})
        found: StageResult = import_module(f"training.{recipe.kind}").run(stage, recipe)
        return found

    def gained(
        self, kind: StageKind, result: StageResult, beside: tuple[str, str] | None = None
    ) -> Row:
        """A measure of held-out rows before and after; `beside` the stage's own, without target."""
        name, what = beside or MEASURES[kind]
        metrics, measure = result.metrics, f"held_out_{name}"
        if f"{measure}_gain_low" not in metrics:
            return Row(what=f"{kind}: {what}", reached="fewer than two held-out questions")
        before, after, low, high = (
            metrics[measure + end] for end in ("_before", "", "_gain_low", "_gain_high")
        )
        return Row(
            what=f"{kind}: {what}, {metrics['held_out_rows']:.0f} held-out rows",
            reached=f"{before:.3f} to {after:.3f} (gain {low:+.3f} to {high:+.3f})",
            target="" if beside else "interval above 0",
            ok=None if self.short or beside else low > 0,
        )
