"""The gate: the quantized candidate against the model that is live, on the same prompts.

It measures; `training.decision` decides. What it measured is `gate.json` in the run's folder, and a
run that goes on after a kill does not measure again, unless another model is live by then or
nothing was decided.
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

from engine.errors import ModelUnsupported
from engine.manifest import Manifest
from engine.upstream import Upstream
from training.decision import Decision, Evidence, Observed, Outcome, Thresholds, decide
from training.evaluation import Prompt, Reply, ask, likelihoods, served, size_bytes
from training.execute_files import GATE
from training.gate_prompts import GatePrompts, as_text, gate_prompts, identifiers
from training.gate_scores import (
    Answers,
    caught,
    differences,
    means,
    memorised,
    observed,
    silenced,
)
from training.judge import DEADLINE_S as JUDGE_DEADLINE_S
from training.judge import Judged, Pair
from training.judge import judge as ask_judge
from training.plan import Plan, write_whole
from training.rows import TrainingRow, question_of
from training.stage import Events
from training.win_rate import Preference, win_rate

TURN: Final = 8
UNNOTICED_S: Final = 0.2
"""Answers that take less are equally fast: nobody notices, and small times are mostly noise."""
_NOT_COMPARED: Final = (
    "There is no win rate, because nobody compared the answers: no judge is named "
    "(training.judge_url), and the run made no reward model."
)
_NOT_COMPARABLE: Final = (
    "There is no win rate, because one model's answers are longer throughout: length cannot be "
    "told from quality."
)


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What was decided and everything that was measured for it.

    Attributes:
        figures: means by metric of both models, and what else was counted.
        live: fingerprint of the model that it was compared with.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    live: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Liked:
    """How often the candidate's answers are preferred to the live model's.

    Attributes:
        rate: length-controlled; None = nobody compared the answers, or length cannot be told from
            quality.
        proves: whether the rate may prove a gain, and not only a loss.
        no_rate: why there is none, as a sentence; None = there is one, or the judge failed.
        failure: why the judge that was to be asked gave no result; None = it did, or there is none.
        figures: what else was counted.
    """

    rate: Observed | None = None
    proves: bool = False
    no_rate: str | None = None
    failure: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


def judge(
    plan: Plan,
    folder: Path,
    *,
    reward_model: Path | None,
    reward_model_proves: bool = False,
    judge_api_key: SecretStr | None,
    events: Events,
    live: Path,
    judge_at: str | None = None,
) -> GateReport:
    """Measure and decide; what was decided before a kill, against the same model, is read again.

    Args:
        reward_model: adapter of the run's reward stage, which compares answers where no judge is
            named.
        reward_model_proves: whether it may prove a gain: it knows held-out preferences beyond
            doubt, and no stage was trained to please it. Else it only counts against the candidate.
        judge_api_key: of the judge; never written down.
        live: model directory to compare with.
        judge_at: the judge's `<url>#<model>`; None = no judge.

    Raises:
        EngineError: a model directory is damaged.
        TrainingError: the snapshot is damaged.
        TimeoutError: a model does not answer.
    """
    against = Manifest.read(live, verify=False).fingerprint
    file = folder / GATE
    if (decided := _decided(file, against)) is not None:
        return decided
    prompts = gate_prompts(plan.snapshot)
    ours, theirs = _answers(folder / "model", live, prompts, events)
    liked = win_rate_of(
        plan,
        prompts,
        ours,
        theirs,
        reward_model=reward_model,
        reward_model_proves=reward_model_proves,
        judge_at=judge_at,
        judge_api_key=judge_api_key,
    )
    larger = size_bytes(folder / "model") / size_bytes(live)
    learnt = identifiers(plan.snapshot)
    evidence = _evidence(prompts, ours, theirs, liked, learnt, labels=plan.labels, larger=larger)
    decision = decide(evidence, Thresholds(min_labels=plan.min_labels))
    figures = _figures(prompts, ours, theirs, liked)
    report = _report(decision, evidence, figures, live=against)
    write_whole(file, json.dumps(report.told(), indent=2))
    return report


def _decided(file: Path, live: str) -> GateReport | None:
    """What an earlier measurement against the same live model decided; None where none did."""
    if not file.exists():
        return None
    fields = json.loads(file.read_bytes())
    report = GateReport(**{**fields, "reasons": tuple(fields["reasons"])})
    return report if report.live == live and report.outcome != "no decision" else None


def _evidence(
    prompts: GatePrompts,
    candidate: Answers,
    live: Answers,
    liked: Liked,
    learnt: Collection[str],
    *,
    labels: int,
    larger: float,
) -> Evidence:
    by_heart = memorised(learnt, prompts, candidate, live)
    leaked = caught(prompts.memorised, candidate) - caught(prompts.memorised, live)
    return Evidence(
        labels=labels,
        questions=len({question_of(prompt) for prompt in prompts.held_out}),
        known=len({question_of(each.prompt) for each in prompts.known}),
        differences=differences(prompts, candidate, live),
        silenced=silenced(prompts, candidate, live),
        win_rate=liked.rate,
        win_rate_proves=liked.proves,
        no_win_rate=liked.no_rate,
        judge_failure=liked.failure,
        leaked=tuple({*leaked, *by_heart}),
        obeyed=len(caught(prompts.injected, candidate)),
        obeyed_by_live=len(caught(prompts.injected, live)),
        slower=max(candidate.median_s, UNNOTICED_S) / max(live.median_s, UNNOTICED_S),
        larger=larger,
    )


def _answers(
    candidate: Path, live: Path, prompts: GatePrompts, events: Events
) -> tuple[Answers, Answers]:
    """Ask both models everything, as they would be served."""
    traps = [each.prompt for each in (*prompts.injected, *prompts.memorised)]
    asked = list(dict.fromkeys([*prompts.held_out, *prompts.without_answer, *traps]))
    replies = asyncio.run(_taking_turns(candidate, live, asked, events))
    events.tell(stage="gate", note="Comparing preferences.")
    ours, theirs = (
        Answers(
            replies=dict(zip(asked, said, strict=True)),
            accuracy=_accuracy(directory, prompts.pairs),
            one_sided=_accuracy(directory, prompts.one_sided),
        )
        for directory, said in zip((candidate, live), replies, strict=True)
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
    if not pairs:
        return ()
    sides = [(row.prompt, row.chosen) for row in pairs]
    sides += [(row.prompt, row.rejected or "") for row in pairs]
    scores = likelihoods(directory, sides)
    chosen, rejected = scores[: len(pairs)], scores[len(pairs) :]
    return tuple(float(good > bad) for good, bad in zip(chosen, rejected, strict=True))


def win_rate_of(
    plan: Plan,
    prompts: GatePrompts,
    candidate: Answers,
    live: Answers,
    *,
    reward_model: Path | None,
    reward_model_proves: bool,
    judge_at: str | None,
    judge_api_key: SecretStr | None,
) -> Liked:
    """Ask the judge that is named, or else the run's reward model.

    A reward model never stands in for a judge that is away.
    """
    if not prompts.held_out:
        return Liked()
    if judge_at is not None:
        judged = asyncio.run(_judged(judge_at, judge_api_key, prompts.held_out, candidate, live))
        if judged.failure is not None:
            return Liked(failure=judged.failure)
        return _liked(judged.scores, prompts.held_out, candidate, live, proves=True)
    if reward_model is not None:
        scores = _rewarded(plan, reward_model, prompts.held_out, candidate, live)
        return _liked(scores, prompts.held_out, candidate, live, proves=reward_model_proves)
    return Liked(no_rate=_NOT_COMPARED)


def _rewarded(
    plan: Plan, reward_model: Path, asked: Sequence[Prompt], candidate: Answers, live: Answers
) -> list[float]:
    """Per prompt, whose answer the run's reward model gives more."""
    from training.reward import reward_scores  # only where there is one: it loads torch

    both = [(prompt, said.text(prompt)) for said in (candidate, live) for prompt in asked]
    rewards = reward_scores(plan, reward_model, both)
    ours, theirs = rewards[: len(asked)], rewards[len(asked) :]
    return [
        0.5 if one == other else float(one > other) for one, other in zip(ours, theirs, strict=True)
    ]


def _liked(
    scores: Sequence[float | None],
    asked: Sequence[Prompt],
    candidate: Answers,
    live: Answers,
    *,
    proves: bool,
) -> Liked:
    """The win rate of the prompts that have a score."""
    scored = [
        (score, prompt) for score, prompt in zip(scores, asked, strict=True) if score is not None
    ]
    questions = [question_of(prompt) for _, prompt in scored]
    found = win_rate(
        [
            Preference(
                score=score,
                candidate_length=len(candidate.text(prompt)),
                live_length=len(live.text(prompt)),
            )
            for score, prompt in scored
        ],
        groups=questions,
    )
    figures = {"compared": len(scored), "raw": found.raw.value, "longer": found.longer}
    if found.length_controlled is None:
        return Liked(no_rate=_NOT_COMPARABLE, figures=figures)
    return Liked(rate=observed(found.length_controlled, questions), proves=proves, figures=figures)


async def _judged(
    judge_at: str,
    api_key: SecretStr | None,
    held_out: Sequence[Prompt],
    candidate: Answers,
    live: Answers,
) -> Judged:
    try:
        backend = Upstream(
            name="judge", address=judge_at, api_key=api_key, timeout_s=JUDGE_DEADLINE_S
        )
    except ModelUnsupported:
        why = f"training.judge_url is no address: {judge_at.partition('#')[0]}"
        return Judged(scores=(None,) * len(held_out), failure=why)
    pairs = [
        Pair(prompt=as_text(each), candidate=candidate.text(each), live=live.text(each))
        for each in held_out
    ]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(backend.close)
        return await ask_judge(backend, pairs)


def _report(
    decision: Decision, evidence: Evidence, figures: Mapping[str, Any], *, live: str
) -> GateReport:
    told = asdict(evidence)
    # Said by heart is counted, never repeated: reports are read by more people than secrets.
    told["leaked"] = len(evidence.leaked)
    return GateReport(
        outcome=decision.outcome,
        reasons=decision.reasons,
        evidence=told,
        figures=figures,
        live=live,
    )


def _figures(
    prompts: GatePrompts, candidate: Answers, live: Answers, liked: Liked
) -> dict[str, Any]:
    return {
        "candidate": means(prompts, candidate),
        "live": means(prompts, live),
        "known_answers": len(prompts.known),
        "pairs": len(prompts.pairs),
        # Told, but of no weight: see `GatePrompts.one_sided`.
        "one_sided_pairs": {
            "count": len(prompts.one_sided),
            "candidate": _mean(candidate.one_sided),
            "live": _mean(live.one_sided),
        },
        "win_rate": liked.figures,
        "median_s": {"candidate": candidate.median_s, "live": live.median_s},
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
