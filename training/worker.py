"""Training's worker: takes runs from the queue, one at a time, and carries them out.

A training runs in a process of its own (`training.execute`), so that whatever it does to memory or
to itself ends a run and never the worker, which imports no torch. A worker that dies leaves a run
whose folder says how far it was; the next worker goes on there.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from procrastinate.jobs import Job

from engine.errors import EngineError
from feedback import datasets
from feedback.datasets import Snapshot
from feedback.rows import Row
from feedback.rules import Rules
from storage.errors import StorageError
from storage.model_versions import GateStatus, ModelVersions, version_name
from storage.notices import PERSON, NewNotice, Notices
from storage.outages import outlive_outages
from storage.pool import Pool
from storage.queue import Worker
from storage.runs import RUN, SERVING_QUEUE, TRAINING_QUEUE, RunId, RunRow, Runs, StoredRun
from training import reports
from training.canary import CanaryWatch
from training.decision import Thresholds, enough_labels
from training.errors import NotEnoughFeedback, TrainingError
from training.execute_files import EXIT_FAILED, EXIT_STOPPED, FAILURE, RESULT
from training.plan import FILE as PLAN
from training.plan import Plan
from training.provenance import code_revision, library_versions
from training.recipes import Device, Recipe, named, parse
from training.schedule import queue_due_runs
from training.serving import ModelSwitch, Rollback
from training.settings import TrainingProcessSettings
from training.supervision import Supervisor
from training.telling import Telling

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
SNAPSHOT_S: Final = 3600.0
"""Most time to compile all feedback of a workspace."""


@dataclass(kw_only=True)
class TrainingWorker:
    """Carries out what is queued.

    Attributes:
        environment: of the runs' processes.
    """

    pool: Pool
    settings: TrainingProcessSettings
    environment: Mapping[str, str]
    switch: ModelSwitch

    def __post_init__(self) -> None:
        self.runs = Runs(self.pool)
        self._versions = ModelVersions(self.pool)
        self._notices = Notices(self.pool)
        self._telling = Telling(pool=self.pool)

    async def work(self) -> None:
        """Work, and watch what is tried, until cancelled; outlives outages of the database."""
        watch = CanaryWatch(
            pool=self.pool,
            switch=self.switch,
            settings=self.settings.training,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.watch())
            group.create_task(queue_due_runs(self.runs, self.settings.training))
            for queue in (TRAINING_QUEUE, SERVING_QUEUE):
                work = partial(self._work, queue)
                group.create_task(outlive_outages(work, action="training_database_lost"))

    async def _work(self, queue: str) -> None:
        await Worker(
            pool=self.pool,
            queue=queue,
            tasks=(RUN,),
            run=self._run,
            gave_up=self._gave_up,
            concurrency=1,  # a device serves one run
            max_attempts=MAX_ATTEMPTS,
            delete_jobs="always",
        ).work()

    async def _run(self, job: Job) -> None:
        run = await self.runs.get(_run_id(job))
        if run is None:
            return
        if not await self.runs.start(run.id):
            await self.runs.end(run.id, "cancelled")
            return
        try:
            await self._carry_out(run)
        except (TrainingError, EngineError) as error:
            await self._fail(run, str(error), getattr(error, "advice", "") or None)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            await self._fail(run, f"The disk refuses: {error}.", "Make room.")

    async def _fail(self, run: StoredRun, failure: str, advice: str | None) -> None:
        text = reports.failed(failure, advice)
        await self._notices.add(NewNotice(run=run, text=text, about="ended"))
        await self.runs.end(run.id, "failed", failure=failure, advice=advice)

    async def _gave_up(self, job: Job, died: bool) -> None:
        """Tell of a run that broke this worker again and again."""
        how = "it ended the worker each time" if died else "a fault, which the worker's log names"
        run = await self.runs.get(_run_id(job))
        if run is not None:
            await self._fail(run, f"Given up: {how}.", None)

    async def _carry_out(self, run: StoredRun) -> None:
        match run.kind:
            case "promote":
                await self._promote(run)
            case "rollback":
                await self._roll_back(run)
            case "train":
                await self._train(run)

    async def _promote(self, run: StoredRun) -> None:
        name = run.parameters.get("version")
        if name is None:
            name = await self.switch.to_promote(run.workspace_id)
            await self.runs.decide(run.id, {"version": name})
        promoted = await self.switch.promote(run.workspace_id, name, by=run.member_id)
        await self._notices.add(await self._telling.promotion(run, promoted, by=PERSON))
        await self.runs.end(run.id, "succeeded", result=promoted.told())

    async def _roll_back(self, run: StoredRun) -> None:
        if "decided" in run.parameters:
            rollback = Rollback(**run.parameters["decided"])
        else:
            to = run.parameters.get("version")
            rollback = await self.switch.to_roll_back(run.workspace_id, to=to)
            await self.runs.decide(run.id, {"decided": asdict(rollback)})
        why = "an administrator asked for it"
        told = await self.switch.roll_back(run.workspace_id, rollback, by=run.member_id, why=why)
        text = reports.rolled_back(told)
        await self._notices.add(NewNotice(run=run, text=text, about="rolled back"))
        await self.runs.end(run.id, "succeeded", result=told)

    # -- Training ---------------------------------------------------------------------------------

    async def _train(self, run: StoredRun) -> None:
        folder = self.folder(run.id)
        if not (folder / PLAN).exists():
            await self._plan(run, folder)
        code = await Supervisor(
            run,
            folder,
            runs=self.runs,
            limits=self.settings.training,
            environment=self.environment,
        ).until_ended()
        if code == 0:
            await self._made(run, folder)
        elif code == EXIT_FAILED:
            failure = json.loads((folder / FAILURE).read_bytes())
            await self._fail(run, failure["reason"], failure["advice"] or None)
        elif code == EXIT_STOPPED:
            await self.runs.end(run.id, "cancelled")

    def folder(self, run_id: RunId) -> Path:
        """Where a run keeps everything."""
        return (self.settings.home / "runs" / str(run_id)).absolute()

    async def _plan(self, run: StoredRun, folder: Path) -> None:
        """Write down what the run learns from, then how it does.

        Raises:
            NotEnoughFeedback: there are too few rows to begin.
            RecipeInvalid, BaseUnusable: the recipe or the settings must be corrected.
        """
        await self.runs.tell(run.id, stage="snapshot")
        recipe = recipe_of(run.parameters, default=self.settings.training.recipe)
        base = self.settings.base_directory
        rules = Rules(min_voters=int(run.parameters.get("min_voters", 1)))
        try:
            found = await datasets.snapshot(
                self.pool, workspace_id=run.workspace_id, rules=rules, apart_s=SNAPSHOT_S
            )
        except (TimeoutError, BrokenProcessPool) as error:
            raise TrainingError(
                "The feedback could not be compiled: its process "
                + ("took too long." if isinstance(error, TimeoutError) else "died."),
                advice="Make room in memory, then run again.",
            ) from error
        _require_labels(found, self.settings.training.min_labels)
        home = self.settings.home.absolute()
        snapshot = await asyncio.to_thread(datasets.write, found, home / "snapshots")
        await self.runs.learn_from(
            run.id, snapshot_sha256=found.sha256, rows=[_run_row(row) for row in found.rows]
        )
        live = (await self._versions.serving(run.workspace_id)).live
        number = await self._versions.next_number(run.workspace_id)
        training = self.settings.training
        Plan(
            run_id=str(run.id),
            name=version_name(run.workspace_id, number),
            recipe=recipe,
            snapshot=snapshot,
            snapshot_sha256=found.sha256,
            base=base,
            live=Path(live.directory) if live else base,
            home=home,
            parent=live.name if live else None,
            versions=library_versions(),
            code=await asyncio.to_thread(code_revision),
            min_labels=training.min_labels,
            memory_mb=training.memory_mb,
            judge_url=training.judge_url,
            judge_model=training.judge_model,
        ).write(folder)

    async def _made(self, run: StoredRun, folder: Path) -> None:
        """Store the version that a run made, and try it where it may answer."""
        result = json.loads((folder / RESULT).read_bytes())
        if "model" not in result:
            await self.runs.end(run.id, "succeeded", result=result)
            return
        plan = Plan.read(folder)
        parents = await self._versions.list(run.workspace_id)
        parent = next((each for each in parents if each.name == plan.parent), None)
        version = await self._versions.add(
            workspace_id=run.workspace_id,
            number=int(plan.name[1:].partition("-")[0]),
            name=plan.name,
            run_id=run.id,
            parent_id=parent.id if parent else None,
            directory=Path(result["model"]),
            sha256=result["sha256"],
            snapshot_sha256=plan.snapshot_sha256,
            recipe=plan.recipe.model_dump(mode="json"),
            gate=result["gate"],
            status=_status(result["outcome"]),
        )
        share = self.settings.training.canary_share
        if version.status == "candidate" and share > 0:
            await self.switch.try_out(version, share=share)
        result |= {"version": plan.name, "versions": plan.versions, "code": plan.code}
        await self._notices.add(await self._telling.made(run, version, result, share=share))
        await self.runs.end(run.id, "succeeded", result=result)


def _status(outcome: str) -> GateStatus:
    """What becomes of a version by the gate's outcome."""
    if outcome == "candidate":
        return "candidate"
    return "undecided" if outcome == "no decision" else "rejected"


def recipe_of(parameters: Mapping[str, Any], *, default: str) -> Recipe:
    """The recipe that somebody asked for: a shipped one by name, or all of its fields.

    Raises:
        RecipeInvalid: there is none of that name, or a field is impossible.
    """
    asked = parameters.get("recipe", default)
    if isinstance(asked, Mapping):
        return parse(asked)
    return named(str(asked), _device())


def _device() -> Device:
    """Whether there is a GPU, without importing torch into the worker."""
    return "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"


def _require_labels(found: Snapshot, min_labels: int) -> None:
    labels = sum(row.split == "train" for row in found.rows)
    too_few = enough_labels(labels, Thresholds(min_labels=min_labels))
    if too_few is None:
        return
    left_out = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items())
    raise NotEnoughFeedback(
        f"Not enough feedback: {too_few.reasons[0]}",
        advice=f"Left out: {left_out}." if left_out else "Rate and correct more answers.",
    )


def _run_row(row: Row) -> RunRow:
    return RunRow(
        row_id=row.id,
        kind=row.kind,
        split=row.split,
        basis=row.basis,
        answer_ids=list(row.answer_ids),
    )


def _run_id(job: Job) -> RunId:
    return RunId(UUID(str(job.task_kwargs["run_id"])))
