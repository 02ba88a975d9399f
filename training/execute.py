"""A run's own process: stages, the quantized model, the gate. The only one that imports torch.

`python -m training execute <folder>` begins where the run's folder ends: every part leaves a file
that says it is done, so a killed run loses the steps since its last checkpoint and nothing else.
Exit codes: 0 done, `result.json` says what came out; 3 it cannot succeed, `failure.json` says why
and what to do; 4 the disk is full, which no file can say: it goes on when it is started again;
130 a stage was asked to stop, and goes on when it is started again.
"""

import gc
import json
import logging
import resource
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from engine.errors import EngineError
from engine.manifest import Manifest
from training import artifact, gate
from training.base_model import Reader, base_weights
from training.decision import Thresholds
from training.errors import DiskFull, NotEnoughFeedback, RunCancelled, TrainingError, of_system
from training.execute_files import (
    EVENTS,
    EXIT_DISK_FULL,
    EXIT_FAILED,
    EXIT_STOPPED,
    FAILURE,
    LOG,
    RESULT,
)
from training.plan import Live, Plan, write_whole
from training.recipes import StageKind, StageRecipe, stages_of
from training.stage import (
    Events,
    Stage,
    StageResult,
    cancelled_by_signal,
    disk_errors,
    memory_errors,
)

logger = logging.getLogger(__name__)


def execute(folder: Path, *, judge_api_key: SecretStr | None) -> int:
    """Carry out a run's plan; returns the exit code."""
    try:
        with disk_errors():
            return _carry_out(folder, judge_api_key)
    except DiskFull as error:
        logger.error("%s", error, extra={"action": "disk_full"})
        return EXIT_DISK_FULL


def _carry_out(folder: Path, judge_api_key: SecretStr | None) -> int:
    try:
        plan = Plan.read(folder)
        _limit_memory(plan.memory_mb)
        with memory_errors(), disk_errors():
            result = _execute(plan, folder, Events(file=folder / EVENTS), judge_api_key)
    except RunCancelled:
        return EXIT_STOPPED
    except DiskFull:
        raise
    except (TrainingError, EngineError) as error:
        return _failed(folder, str(error), getattr(error, "advice", ""), type(error).__name__)
    except OSError as error:
        logger.exception("a run broke", extra={"action": "run_broke"})
        told = of_system(error)
        return _failed(folder, str(told), told.advice, type(error).__name__)
    except Exception:
        logger.exception("a run broke", extra={"action": "run_broke"})
        return _failed(
            folder,
            "A fault of Parley or its libraries; the run's log says which.",
            f"See {folder / LOG}.",
            "Exception",
        )
    write_whole(folder / RESULT, json.dumps(result, indent=2, default=str))
    return 0


def _execute(
    plan: Plan,
    folder: Path,
    events: Events,
    judge_api_key: SecretStr | None,
) -> Mapping[str, Any]:
    events.tell(stage="prepare", note="Loading the base model.")
    weights = base_weights(plan.base, home=plan.home)
    # Only a stage has something to write down when it is asked to stop; everything else just ends.
    with cancelled_by_signal() as cancelled:
        results, left_out = _stages(plan, folder, weights, events, cancelled)
        if cancelled():
            raise RunCancelled("The run was cancelled.")
    told = _told(results) | {kind: {"left_out": reason} for kind, reason in left_out.items()}
    policy = _policy(results)
    if policy is None:
        # A reward model alone answers nobody: there is nothing to judge or to serve.
        return {"outcome": "no policy", "reasons": [], "stages": told}
    events.tell(stage="artifact", note="Merging the adapter and quantizing.")
    model = artifact.make(plan, folder, weights=weights, adapter=policy)
    report = _judged(plan, folder, results, events, judge_api_key)
    return {
        "outcome": report.outcome,
        "reasons": list(report.reasons),
        "model": str(model),
        "sha256": Manifest.read(model, verify=False).files["model.bin"].sha256,
        "gate": report.told(),
        "stages": told,
    }


def _judged(
    plan: Plan,
    folder: Path,
    results: Mapping[str, StageResult],
    events: Events,
    judge_api_key: SecretStr | None,
) -> gate.GateReport:
    """What the gate says of the model, against the one that answers now."""
    live = Live.read(folder)
    if live.directory is None:
        number = plan.name.partition("-")[0]
        reason = (
            f"The live model {live.name} answers from another server, so nothing can be compared "
            f"here; `parley promote {number}` lets this version answer all the same."
        )
        return gate.GateReport(outcome="no decision", reasons=(reason,), evidence={})
    events.tell(stage="gate", note=f"Comparing with the live model {live.name}.")
    return gate.judge(
        plan,
        folder,
        reward_model=_left_by("reward", results),
        judge_api_key=judge_api_key,
        events=events,
        live=live.directory,
        judge_at=live.judge,
        reward_model_proves=_may_prove(results),
    )


def _may_prove(results: Mapping[str, StageResult]) -> bool:
    """Whether the reward model's word may prove the policy better.

    Of two answers that models wrote it must find the one that people prefer more often than a coin
    does, beyond doubt and of enough questions. And a policy that learnt to please it is no better
    for pleasing it.
    """
    if "reward" not in results or "rloo" in results:
        return False
    found = results["reward"].metrics
    enough = found.get("held_out_answers_questions", 0.0) >= Thresholds().min_observations
    return enough and found["held_out_answers_accuracy_low"] > 0.5


def _stages(
    plan: Plan, folder: Path, weights: Path, events: Events, cancelled: Callable[[], bool]
) -> tuple[dict[str, StageResult], dict[str, str]]:
    """Run the stages that have not ended yet.

    Each begins with the policy that the one before it left. What all of them hold on to is the
    policy that `sft` left, or the base where it was left out.

    Returns:
        Results of all of them by kind, and of those that were left out the reason.
    """
    results: dict[str, StageResult] = {}
    left_out: dict[str, str] = {}
    recipes = stages_of(plan.recipe)
    for number, recipe in enumerate(recipes, 1):
        stage = Stage(
            kind=recipe.kind,
            folder=folder / "stages" / f"{number}-{recipe.kind}",
            weights=weights,
            reader=Reader.of(plan.base),
            snapshot=plan.snapshot,
            events=events,
            policy=_policy(results),
            reference=_left_by("sft", results),
            reward_model=_left_by("reward", results),
            cancelled=cancelled,
        )
        stage.folder.mkdir(parents=True, exist_ok=True)
        try:
            results[recipe.kind] = stage.result or _run(stage, recipe)
        except NotEnoughFeedback as error:
            if len(recipes) == 1:
                raise
            left_out[recipe.kind] = str(error)
            stage.note(f"Left out: {error}")
    if not results:
        raise NotEnoughFeedback(
            "There is nothing to learn from for any stage.", advice="Rate and correct more answers."
        )
    return results, left_out


def _run(stage: Stage, recipe: StageRecipe) -> StageResult:
    if stage.kind == "rloo" and stage.reward_model is None:
        raise NotEnoughFeedback("There is no reward model, because there were no pairs for one.")
    # Imported when its turn comes: each brings another trainer.
    run: Callable[[Stage, StageRecipe], StageResult] = import_module(f"training.{stage.kind}").run
    with memory_errors(stage.kind):
        result = run(stage, recipe)
    _free_memory()
    stage.events.tell(stage=stage.kind, note="Done.", metrics=dict(result.metrics))
    return result


def _free_memory() -> None:
    """Free what an ended stage held before another model is loaded beside it.

    A trainer and its model refer to each other, so only the collector frees them; of a GPU's memory
    torch keeps what is free for itself.
    """
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _policy(results: Mapping[str, StageResult]) -> Path | None:
    """The adapter of the last stage that made a policy."""
    adapters = [result.adapter for kind, result in results.items() if kind != "reward"]
    return adapters[-1] if adapters else None


def _left_by(kind: StageKind, results: Mapping[str, StageResult]) -> Path | None:
    """The adapter of a stage; None where it was left out or has not been yet."""
    return results[kind].adapter if kind in results else None


def _told(results: Mapping[str, StageResult]) -> dict[str, Any]:
    return {
        kind: {"rows": result.rows, "metrics": dict(result.metrics), "device": result.device}
        for kind, result in results.items()
    }


def _limit_memory(memory_mb: int) -> None:
    """Let an allocation beyond the limit fail, which says more than the kernel's killer does."""
    limit = memory_mb * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _failed(folder: Path, reason: str, advice: str, kind: str) -> int:
    logger.error("%s %s", reason, advice, extra={"action": "run_failed"})
    failure = {"reason": reason, "advice": advice, "kind": kind}
    write_whole(folder / FAILURE, json.dumps(failure, indent=2))
    return EXIT_FAILED
