"""How a workspace's own models are: who answers, which were made, and how its runs go.

For the chats' status and the terminal's: facts first, then one way to say them in lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from storage.identity import WorkspaceId
from storage.model_versions import ModelVersion, ModelVersions
from storage.notices import Notices
from storage.pool import Pool
from storage.runs import Metric, Runs, StoredRun

VERSIONS_SHOWN: Final = 3
"""Newest versions in a status."""
RUNS_LOOKED_AT: Final = 50
"""Newest runs among which the running, the waiting and the last ended one are."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A run that goes on, and what it told of its last step; None = it has told of none."""

    run: StoredRun
    step: Metric | None


@dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """What is known at one moment.

    Attributes:
        live: answers everybody; None = the model that the settings name.
        tried: answers its share of the threads; None = no version does.
        liked: whether live votes found the tried one better, so that somebody may promote it.
        versions: the newest ones, newest first.
        running: at most one in each queue.
        waiting: runs that nobody has begun, oldest first.
        ended: the run that ended last; None = none has.
    """

    live: ModelVersion | None
    tried: ModelVersion | None
    liked: bool
    versions: Sequence[ModelVersion]
    running: Sequence[Running]
    waiting: Sequence[StoredRun]
    ended: StoredRun | None


async def training_status(pool: Pool, workspace_id: WorkspaceId) -> TrainingStatus:
    """How it is now.

    Raises:
        StorageUnavailable: safe to retry.
    """
    store, versions = Runs(pool), ModelVersions(pool)
    serving = await versions.serving(workspace_id)
    runs = await store.list(workspace_id, limit=RUNS_LOOKED_AT)
    running = []
    for run in runs:
        if run.status == "running":
            steps = [each for each in await store.metrics(run.id) if each.stage == run.stage]
            running.append(Running(run=run, step=steps[-1] if steps else None))
    ended = [run for run in runs if run.ended_at is not None]
    tried, liked = serving.canary, False
    if tried is not None and tried.run_id is not None:
        liked = await Notices(pool).was_left(tried.run_id, "better")
    return TrainingStatus(
        live=serving.live,
        tried=tried,
        liked=liked,
        versions=(await versions.list(workspace_id))[:VERSIONS_SHOWN],
        running=running,
        waiting=[run for run in reversed(runs) if run.status == "queued"],
        ended=max(ended, key=lambda run: (run.ended_at, run.created_at), default=None),
    )


def lines(status: TrainingStatus) -> list[tuple[str, str]]:
    """The status in plain words, each line with its label."""
    live, tried = status.live, status.tried
    found = [("Answers", f"v{live.number}" if live else "the base model; no version is live")]
    if tried is not None:
        verdict = f"; people like it better: promote v{tried.number}" if status.liked else ""
        found.append(("Tried", f"v{tried.number}, on {tried.share:.0%} of the threads{verdict}"))
    found += [(f"v{version.number}", version_line(version)) for version in status.versions]
    for going in status.running:
        run = going.run
        parts = [run.stage or "begun", _progress(going.step), run.note]
        found.append(("Running", f"{run.kind} {run.id}: {'; '.join(p for p in parts if p)}"))
    found += [("Waiting", f"{run.kind} {run.id}") for run in status.waiting]
    if status.ended is not None and status.ended.ended_at is not None:
        run, at = status.ended, status.ended.ended_at
        found.append(("Last run", f"{run.kind} {run.id}, {at:%Y-%m-%d %H:%M} UTC: {outcome(run)}"))
    return found


def version_line(version: ModelVersion) -> str:
    """What a version is now, and what the gate said of it."""
    reasons = " ".join(version.gate.get("reasons", ()))
    if version.status == "undecided":
        return f"undecided: {reasons} The gate looks again with: judge v{version.number}"
    decided = str(version.gate.get("outcome", version.status))
    said = "" if decided == version.status else f" ({decided})"
    return f"{version.status}{said}: {reasons}".rstrip(": ")


def outcome(run: StoredRun) -> str:
    """How an ended run ended."""
    told = summary(run)
    return f"{run.status}: {told}" if told else f"{run.status}."


def summary(run: StoredRun) -> str:
    """What came out of a run, or where it stands, in a line; empty where nothing is to be said."""
    if run.failure is not None:
        return f"{run.failure} {run.advice or ''}".rstrip()
    if run.ended_at is None:
        return run.stage or ("begun" if run.status == "running" else "waiting")
    result = run.result
    parts = [result.get("version"), result.get("outcome"), result.get("why")]
    if "now" in result:
        parts.append(f"({result['now'] or 'the base model'} answers now)")
    parts += [*result.get("reasons", ()), *_left_out(run)]
    return " ".join(str(part) for part in parts if part)


def _left_out(run: StoredRun) -> list[str]:
    """The stages of a pipeline that had nothing to learn from, each with its reason."""
    stages = run.result.get("stages", {})
    return [
        f"{kind} was left out: {told['left_out']}"
        for kind, told in stages.items()
        if told.get("left_out")
    ]


def step_line(metric: Metric) -> str:
    """A step with what it measured."""
    of = f"/{metric.values['of_steps']:.0f}" if "of_steps" in metric.values else ""
    return "  ".join([f"{metric.stage} {metric.step}{of}", *_measured(metric)])


def _progress(step: Metric | None) -> str:
    if step is None or "of_steps" not in step.values:
        return ""
    return ", ".join([f"step {step.step} of {step.values['of_steps']:.0f}", *_measured(step)])


def _measured(metric: Metric) -> list[str]:
    """What a step told, in words; not every stage tells all of it."""
    words: dict[str, Callable[[float], str]] = {
        "loss": lambda loss: f"loss {loss:.4f}",
        "learning_rate": lambda rate: f"learning rate {rate:.2e}",
        "tokens_per_s": lambda speed: f"{speed:.0f} tokens/s",
        "eta_s": _left,
    }
    return [say(metric.values[name]) for name, say in words.items() if name in metric.values]


def _left(eta_s: float) -> str:
    return f"{eta_s / 60:.0f} min left" if eta_s >= 60 else f"{eta_s:.0f} s left"
