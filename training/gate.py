"""The gate: the quantized candidate against the model that is live, on the same prompts.

It measures; `training.decision` decides. What it measured is `gate.json` in the run's folder, and a
run that goes on after a kill does not measure again.
"""

import asyncio
import contextlib
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from engine.upstream import Upstream
from feedback.rankings import Estimate
from training import bootstrap
from training.decision import Decision, Evidence, Metric, Outcome, Thresholds, decide
from training.errors import TrainingError
from training.evaluation import Prompt, Reply, ask, likelihoods, served, size_bytes
from training.gate_prompts import GatePrompts, Trap, as_text, gate_prompts, identifiers
from training.judge import DEADLINE_S as JUDGE_DEADLINE_S
from training.judge import Judged, Pair
from training.judge import judge as ask_judge
from training.metrics import citation_correctness, cited, contains, f1, leaks, refuses
from training.plan import Plan, write_whole
from training.rows import TrainingRow
from training.stage import Events
from training.win_rate import Preference, win_rate

FILE: Final = "gate.json"
TURN: Final = 8
UNNOTICED_S: Final = 0.2
"""Answers that take less are equally fast: nobody notices, and small times are mostly noise."""
_SILENT: Final[Mapping[Metric, float]] = {"citations": 1.0}
"""What saying nothing is worth where the other model says something: who cites nothing cites none
wrongly."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said to everything that the gate asks, by prompt."""

    replies: Mapping[Prompt, Reply]
    accuracy: tuple[float, ...]

    def text(self, prompt: Prompt) -> str:
        """The answer to a prompt."""
        return self.replies[prompt].text

    @property
    def median_s(self) -> float:
        """Of the time from a question to the end of its answer."""
        return statistics.median(each.seconds for each in self.replies.values())


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What was decided and everything that was measured for it.

    Attributes:
        figures: means by metric of both models, and what else was counted.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def judge(
    plan: Plan,
    folder: Path,
    *,
    labels: int,
    reward_model: Path | None,
    judge_api_key: SecretStr | None,
    events: Events,
) -> GateReport:
    """Measure and decide; what was measured before a kill is read again.

    Args:
        labels: rows that the candidate learnt from.
        reward_model: adapter of the run's reward stage, which compares answers where no judge is
            named.
        judge_api_key: of the plan's judge; never written down.

    Raises:
        EngineError: a model directory is damaged.
        TrainingError: the snapshot is damaged.
        TimeoutError: a model does not answer.
    """
    file = folder / FILE
    if file.exists():
        fields = json.loads(file.read_bytes())
        return GateReport(**{**fields, "reasons": tuple(fields["reasons"])})
    prompts = gate_prompts(plan.snapshot)
    candidate, live = _answers(folder / "model", plan.live, prompts, events)
    rate, judge_failure = win_rate_of(
        plan, prompts, candidate, live, reward_model=reward_model, judge_api_key=judge_api_key
    )
    memorised = _memorised(identifiers(plan.snapshot), prompts, candidate, live)
    evidence = Evidence(
        labels=labels,
        prompts=len(prompts.held_out),
        known=len(prompts.known),
        differences=differences(prompts, candidate, live),
        win_rate=rate,
        judge_failure=judge_failure,
        leaked=tuple({*_caught(prompts.memorised, candidate, live), *memorised}),
        obeyed=_caught(prompts.injected, candidate, live),
        slower=max(candidate.median_s, UNNOTICED_S) / max(live.median_s, UNNOTICED_S),
        larger=size_bytes(folder / "model") / size_bytes(plan.live),
    )
    decision = decide(evidence, Thresholds(min_labels=plan.min_labels))
    report = _report(decision, evidence, prompts, candidate, live)
    write_whole(file, json.dumps(report.told(), indent=2))
    return report


def _answers(
    candidate: Path, live: Path, prompts: GatePrompts, events: Events
) -> tuple[Answers, Answers]:
    """Ask both models everything, as they would be served."""
    traps = [each.prompt for each in (*prompts.injected, *prompts.memorised)]
    asked = list(dict.fromkeys([*prompts.held_out, *prompts.without_answer, *traps]))
    replies = asyncio.run(_taking_turns(candidate, live, asked, events))
    events.tell(stage="gate", note="Comparing preferences.")
    both = zip((candidate, live), replies, strict=True)
    ours, theirs = (
        Answers(
            replies=dict(zip(asked, said, strict=True)),
            accuracy=_accuracy(directory, prompts.pairs),
        )
        for directory, said in both
    )
    return ours, theirs


async def _taking_turns(
    candidate: Path, live: Path, asked: Sequence[Prompt], events: Events
) -> tuple[list[Reply], list[Reply]]:
    """Some prompts to one model, then to the other: what slows the machine slows both."""
    ours: list[Reply] = []
    theirs: list[Reply] = []
    with served(candidate) as one, served(live) as other:
        for begin in range(0, len(asked), TURN):
            events.tell(stage="gate", note=f"Asked {begin} of {len(asked)} questions.")
            ours += await ask(one, asked[begin : begin + TURN])
            theirs += await ask(other, asked[begin : begin + TURN])
    return ours, theirs


def _accuracy(directory: Path, pairs: Sequence[TrainingRow]) -> tuple[float, ...]:
    """Per held-out pair, whether a model finds the preferred answer likelier."""
    sides = [(row.prompt, row.chosen) for row in pairs]
    sides += [(row.prompt, row.rejected or "") for row in pairs]
    scores = likelihoods(directory, sides)
    chosen, rejected = scores[: len(pairs)], scores[len(pairs) :]
    return tuple(float(good > bad) for good, bad in zip(chosen, rejected, strict=True))


def _scores(prompts: GatePrompts, said: Answers) -> dict[Metric, list[float | None]]:
    """Every metric of one model, per prompt; None where it has nothing to measure."""
    return {
        "preference accuracy": list(said.accuracy),
        "answer F1": [f1(said.text(each.prompt), each.right) for each in prompts.known],
        "contains": [
            float(contains(said.text(each.prompt), each.right)) if each.short else None
            for each in prompts.known
        ],
        # Answers without markers get theirs from the product; only the model's own can be wrong.
        "citations": [
            citation_correctness(said.text(each.prompt), each.supporting)
            if cited(said.text(each.prompt))
            else None
            for each in prompts.known
        ],
        "refusals": [float(refuses(said.text(each))) for each in prompts.without_answer],
    }


def differences(prompts: GatePrompts, candidate: Answers, live: Answers) -> dict[Metric, Estimate]:
    """Candidate minus live of every metric that says something, with its interval."""
    ours, theirs = _scores(prompts, candidate), _scores(prompts, live)
    found: dict[Metric, Estimate] = {}
    for metric, scores in ours.items():
        silent = _SILENT.get(metric)
        pairs = [
            (silent if mine is None else mine, silent if other is None else other)
            for mine, other in zip(scores, theirs[metric], strict=True)
            if (mine, other) != (None, None)
        ]
        if pairs:
            found[metric] = bootstrap.difference(
                [mine for mine, _ in pairs if mine is not None],
                [other for _, other in pairs if other is not None],
            )
    return found


def _caught(traps: Sequence[Trap], candidate: Answers, live: Answers) -> tuple[str, ...]:
    """Traps into which only the candidate fell."""
    return tuple(
        trap.secret
        for trap in traps
        if leaks(candidate.text(trap.prompt), trap.secret)
        and not leaks(live.text(trap.prompt), trap.secret)
    )


def _memorised(
    learnt: Collection[str], prompts: GatePrompts, candidate: Answers, live: Answers
) -> tuple[str, ...]:
    """Rare strings of the training rows that only the candidate says without having read them."""
    found: set[str] = set()
    for prompt in (*prompts.held_out, *prompts.without_answer):
        read, said, before = as_text(prompt), candidate.text(prompt), live.text(prompt)
        found.update(
            each for each in learnt if each in said and each not in read and each not in before
        )
    return tuple(sorted(found))


def win_rate_of(
    plan: Plan,
    prompts: GatePrompts,
    candidate: Answers,
    live: Answers,
    *,
    reward_model: Path | None,
    judge_api_key: SecretStr | None,
) -> tuple[Estimate | None, str | None]:
    """The length-controlled win rate, and why the judge that was to be asked gave none.

    Where one model's answers are always longer, length and quality cannot be told apart, and the
    interval says so.
    """
    if not prompts.held_out:
        return None, None
    if plan.judge_url is not None:
        judged = asyncio.run(_judged(plan, judge_api_key, prompts.held_out, candidate, live))
        if judged.failure is not None:
            return None, judged.failure
        scores: Sequence[float | None] = judged.scores
    elif reward_model is not None:
        from training.reward import reward_scores  # only where there is one: it loads torch

        both = [
            (prompt, said.text(prompt)) for said in (candidate, live) for prompt in prompts.held_out
        ]
        rewards = reward_scores(plan, reward_model, both)
        half = len(prompts.held_out)
        scores = [
            0.5 if ours == theirs else float(ours > theirs)
            for ours, theirs in zip(rewards[:half], rewards[half:], strict=True)
        ]
    else:
        return None, None
    preferences = [
        Preference(
            score=score,
            candidate_length=len(candidate.text(prompt)),
            live_length=len(live.text(prompt)),
        )
        for score, prompt in zip(scores, prompts.held_out, strict=True)
        if score is not None
    ]
    return win_rate(preferences).length_controlled, None


async def _judged(
    plan: Plan,
    api_key: SecretStr | None,
    held_out: Sequence[Prompt],
    candidate: Answers,
    live: Answers,
) -> Judged:
    if plan.judge_url is None or plan.judge_model is None:
        raise TrainingError("A judge needs training.judge_url and training.judge_model.")
    backend = Upstream(
        name="judge",
        address=f"{plan.judge_url}#{plan.judge_model}",
        api_key=api_key,
        timeout_s=JUDGE_DEADLINE_S,
    )
    pairs = [
        Pair(prompt=as_text(each), candidate=candidate.text(each), live=live.text(each))
        for each in held_out
    ]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(backend.close)
        return await ask_judge(backend, pairs)


def _report(
    decision: Decision,
    evidence: Evidence,
    prompts: GatePrompts,
    candidate: Answers,
    live: Answers,
) -> GateReport:
    def means(said: Answers) -> dict[str, float]:
        known = {
            metric: [each for each in scores if each is not None]
            for metric, scores in _scores(prompts, said).items()
        }
        return {metric: statistics.fmean(each) for metric, each in known.items() if each}

    told = asdict(evidence)
    # Said by heart is counted, never repeated: reports are read by more people than secrets.
    told["leaked"], told["obeyed"] = len(evidence.leaked), len(evidence.obeyed)
    return GateReport(
        outcome=decision.outcome,
        reasons=decision.reasons,
        evidence=told,
        figures={
            "candidate": means(candidate),
            "live": means(live),
            "known_answers": len(prompts.known),
            "pairs": len(prompts.pairs),
            "median_s": {"candidate": candidate.median_s, "live": live.median_s},
        },
    )
