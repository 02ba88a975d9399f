"""Training's worker: takes runs from the queue, one at a time, and carries them out.

A training runs in a process of its own (`training.execute`), so that whatever it does to memory or
to itself ends a run and never the worker, which imports no torch. A worker that dies leaves a run
whose folder says how far it was; the next worker goes on there.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final
from uuid import UUID

from procrastinate.jobs import Job

from engine.errors import EngineError
from feedback.forgotten_rows import ForgottenRows
from storage.model_versions import GateStatus, ModelVersion, ModelVersions
from storage.notices import PERSON, NewNotice, Notices
from storage.outages import outlive_outages
from storage.pool import Pool
from storage.queue import RetryLater, Worker, end, progressed
from storage.runs import RUN, SERVING_QUEUE, TRAINING_QUEUE, RunId, Runs, StoredRun
from training import reports
from training.canary import CanaryWatch
from training.device import device_of
from training.errors import DiskFull, TrainingError, of_system
from training.execute_files import EVENTS, EXIT_FAILED, EXIT_STOPPED, FAILURE, GATE, RESULT
from training.plan import FILE as PLAN
from training.plan import Live, Plan
from training.planning import live_model, planned
from training.schedule import look_for_ever, queue_due_runs
from training.serving import ModelSwitch, Rollback
from training.settings import TrainingProcessSettings
from training.stage import disk_errors
from training.supervision import WATCH_INTERVAL_S, Supervisor
from training.telling import Telling

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
NO_ROOM_S: Final = 60.0
"""After which a run that found a full disk looks again."""
LONGEST_ROOM_WAIT_S: Final = 12 * 3600.0
"""A night, in which nobody makes room."""
MAX_JUDGEMENTS: Final = 3
"""Of one version: the last one counts where the live model changes again and again meanwhile."""


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
        self._no_room_since: dict[RunId, float] = {}

    async def work(self) -> None:
        """Work, watch what is tried, and delete what forgotten people left in snapshots.

        Until cancelled; outlives outages of the database.
        """
        watch = CanaryWatch(
            pool=self.pool,
            switch=self.switch,
            settings=self.settings.training,
        )
        forgotten = ForgottenRows(pool=self.pool, directory=self.settings.home / "snapshots")
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.watch())
            group.create_task(look_for_ever(forgotten.sweep, action="snapshots_unswept"))
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
            await self._cancelled(run)
            return
        try:
            with disk_errors():
                await self._carry_out(run, job)
        except DiskFull as error:
            await self._wait_for_room(run, error)
        except (TrainingError, EngineError) as error:
            await self._fail(run, str(error), getattr(error, "advice", "") or None)
        except OSError as error:
            logger.exception("a run broke", extra={"action": "run_broke"})
            told = of_system(error)
            await self._fail(run, str(told), told.advice)

    async def _wait_for_room(self, run: StoredRun, error: DiskFull) -> None:
        """Let a run go on when there is room on the disk; who asked for it is told once.

        Raises:
            RetryLater: unless it has waited for `LONGEST_ROOM_WAIT_S`, when the run fails.
        """
        since = self._no_room_since.setdefault(run.id, monotonic())
        if monotonic() - since > LONGEST_ROOM_WAIT_S:
            del self._no_room_since[run.id]
            await self._fail(run, str(error), error.advice)
            return
        await self.runs.tell(run.id, stage="waiting for room", note=f"{error} {error.advice}")
        text = reports.no_room(error.advice)
        await self._notices.add(NewNotice(run=run, text=text, about="no room"))
        raise RetryLater(NO_ROOM_S)

    async def _fail(self, run: StoredRun, failure: str, advice: str | None) -> None:
        text = reports.failed(failure, advice)
        notice = NewNotice(run=run, text=text, about="ended")
        await self.runs.end(run.id, "failed", failure=failure, advice=advice, notice=notice)

    async def _cancelled(self, run: StoredRun) -> None:
        """End a run that somebody cancelled, and tell of it; one that has ended stays as it is."""
        await self.runs.end(run.id, "cancelled")
        now = await self.runs.get(run.id)
        if now is not None and now.status == "cancelled":
            text = reports.cancelled()
            await self._notices.add(NewNotice(run=run, text=text, about="ended"))

    async def _gave_up(self, job: Job, died: bool) -> None:
        """Tell of a run that broke this worker again and again."""
        how = "it ended the worker each time" if died else "a fault, which the worker's log names"
        advice = (
            "Give the machine more memory, or queue a run with smaller batches."
            if died
            else ("Mend what the log names, then queue it again.")
        )
        run = await self.runs.get(_run_id(job))
        if run is not None:
            await self._fail(run, f"Given up after {MAX_ATTEMPTS} attempts: {how}.", advice)

    async def _carry_out(self, run: StoredRun, job: Job) -> None:
        match run.kind:
            case "promote":
                await self._promote(run)
            case "rollback":
                await self._roll_back(run)
            case "train":
                await self._train(run, job)
            case "judge":
                await self._judge(run, job)

    async def _promote(self, run: StoredRun) -> None:
        name = run.parameters.get("version")
        if name is None:
            name = await self.switch.to_promote(run.workspace_id)
            await self.runs.decide(run.id, {"version": name})
        promoted = await self.switch.promote(run.workspace_id, name, by=run.member_id)
        notice = await self._telling.promotion(run, promoted, by=PERSON)
        await self.runs.end(run.id, "succeeded", result=promoted.told(), notice=notice)

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
        notice = NewNotice(run=run, text=text, about="rolled back")
        await self.runs.end(run.id, "succeeded", result=told, notice=notice)

    # -- Training ---------------------------------------------------------------------------------

    async def _train(self, run: StoredRun, job: Job) -> None:
        folder = self.folder(run.id)
        if not (folder / PLAN).exists():
            plan = await self._planned(run)
            if plan is None:
                await self._cancelled(run)
                return
            plan.write(folder)
        # Begun again after a crash, its version may be stored, and answer everybody, already.
        stored = await self._versions.of_run(run.id)
        made = stored is not None and (folder / RESULT).exists()
        if made or await self._executed(run, job, folder):
            await self._made(run, folder)

    async def _planned(self, run: StoredRun) -> Plan | None:
        """Plan a run, which takes minutes where there is much feedback.

        Returns:
            None where somebody cancelled it meanwhile.

        Raises:
            Exception: what `planned` raises.
        """
        device = device_of(self.environment)
        planning = asyncio.create_task(
            planned(run, pool=self.pool, settings=self.settings, device=device)
        )
        try:
            while not planning.done():
                await asyncio.wait({planning}, timeout=WATCH_INTERVAL_S)
                if not planning.done() and await self.runs.tell(run.id, stage=None):
                    return None
            return await planning
        finally:
            await end([planning], again_after_s=WATCH_INTERVAL_S)

    async def _progressed(self, job: Job) -> None:
        self._no_room_since.pop(_run_id(job), None)
        await progressed(self.pool, job)

    async def _executed(
        self, run: StoredRun, job: Job, folder: Path, *, read_from: int = 0
    ) -> bool:
        """Take a folder's process to its end, and let the gate compare with what is live by then.

        Another version may be promoted while this one is trained, and the settings may name another
        judge when the gate is asked again. Everything but the gate is kept, so that running the
        process again is hardly more than judging again.

        Args:
            read_from: as for `Supervisor`, which also says what is raised.

        Returns:
            Whether there is a result; if not, the run has ended otherwise.
        """
        supervisor = Supervisor(
            run,
            folder,
            runs=self.runs,
            limits=self.settings.training,
            environment=self.environment,
            read_from=read_from,
            progressed=partial(self._progressed, job),
        )
        for _ in range(MAX_JUDGEMENTS):
            live = await self._live(run)
            live.write(folder)
            (folder / RESULT).unlink(missing_ok=True)
            code = await supervisor.until_ended()
            if code != 0 or await self._live(run) == live:
                break
        if code == EXIT_FAILED:
            failure = json.loads((folder / FAILURE).read_bytes())
            await self._fail(run, failure["reason"], failure["advice"] or None)
        elif code == EXIT_STOPPED:
            await self._cancelled(run)
        return code == 0

    async def _live(self, run: StoredRun) -> Live:
        return await live_model(run.workspace_id, versions=self._versions, settings=self.settings)

    def folder(self, run_id: RunId) -> Path:
        """Where a run keeps everything."""
        return (self.settings.home / "runs" / str(run_id)).absolute()

    async def _made(self, run: StoredRun, folder: Path) -> None:
        """Store the version that a run made, and try it where it may answer."""
        result = _result(folder)
        if "model" not in result:
            text = reports.made(result, learnt=0, tried=0.0)
            notice = NewNotice(run=run, text=text, about="ended")
            await self.runs.end(run.id, "succeeded", result=result, notice=notice)
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
        instead = await self._tried_but(version)
        share = await self._try_out(version)
        notice = await self._telling.made(run, version, result, share=share, instead=instead)
        await self.runs.end(run.id, "succeeded", result=result, notice=notice)

    async def _tried_but(self, version: ModelVersion) -> ModelVersion | None:
        """Another version that is tried, whose trial ends when this one's begins."""
        tried = (await self._versions.serving(version.workspace_id)).canary
        return tried if tried is not None and tried.id != version.id else None

    async def _try_out(self, version: ModelVersion) -> float | None:
        """Try a candidate.

        Returns:
            The share of the threads that candidates answer; None where somebody promoted this one,
            or took it back, before.
        """
        share = self.settings.training.canary_share
        if version.status in ("live", "retired", "rolled_back"):
            return None
        tries = version.status == "candidate" and share > 0
        if tries and not await self.switch.try_out(version, share=share):
            return None
        return share

    # -- Judging again ----------------------------------------------------------------------------

    async def _judge(self, run: StoredRun, job: Job) -> None:
        """Ask the gate again about a version on which it could not decide.

        Raises:
            TrainingError: there is none, or nothing is left of the run that made it.
        """
        version = await self._to_judge(run)
        if version.run_id is None:
            raise TrainingError(f"The run that made {version.name} is gone; train again.")
        folder = self.folder(version.run_id)
        # Begun again after a crash, the outcome may be stored already.
        if version.status == "undecided" and not await self._judged(run, job, version, folder):
            return
        decided = await self._versions.get(version.id) or version
        result = _result(folder)
        instead = await self._tried_but(decided)
        share = await self._try_out(decided)
        notice = await self._telling.judged(run, decided, result, share=share, instead=instead)
        await self.runs.end(run.id, "succeeded", result=result, notice=notice)

    async def _to_judge(self, run: StoredRun) -> ModelVersion:
        """The version that is meant, which is written down: begun again, it is the same one.

        Raises:
            TrainingError: there is none that waits for a decision.
        """
        versions = await self._versions.list(run.workspace_id)
        if "judging" in run.parameters:
            return next(each for each in versions if each.name == run.parameters["judging"])
        asked = run.parameters.get("version")
        for version in versions:
            named = asked in (None, version.name, f"v{version.number}")
            if named and version.status == "undecided":
                await self.runs.decide(run.id, {"judging": version.name})
                return version
        which = f"{asked} is no version" if asked else "There is no version"
        raise TrainingError(
            f"{which} on which the gate could not decide.", advice="`parley versions` lists them."
        )

    async def _judged(self, run: StoredRun, job: Job, version: ModelVersion, folder: Path) -> bool:
        """Run the gate of a version's run again, and store what it says; False where it did not.

        Raises:
            TrainingError: the run's folder is gone, or the version answers somebody meanwhile.
        """
        Plan.read(folder)  # a folder that is gone is refused before anything is written to it
        (folder / GATE).unlink(missing_ok=True)
        told = folder / EVENTS
        read_from = told.stat().st_size if told.exists() else 0
        if not await self._executed(run, job, folder, read_from=read_from):
            return False
        result = _result(folder)
        status = _status(result["outcome"])
        if not await self._versions.judged(version.id, status=status, gate=result["gate"]):
            raise TrainingError(f"{version.name} was promoted before the gate had decided.")
        return True


def _result(folder: Path) -> dict[str, Any]:
    """What a run's process says of what it made, with what the plan says of it."""
    result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
    if "model" not in result:
        return result
    plan = Plan.read(folder)
    return result | {"version": plan.name, "versions": plan.versions, "code": plan.code}


def _status(outcome: str) -> GateStatus:
    """What becomes of a version by the gate's outcome."""
    if outcome == "candidate":
        return "candidate"
    return "undecided" if outcome == "no decision" else "rejected"


def _run_id(job: Job) -> RunId:
    return RunId(UUID(str(job.task_kwargs["run_id"])))
