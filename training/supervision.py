"""A run's own process: kept within its limits, started again where it dies, ended when asked to.

Whatever the process does to memory or to itself ends a run and never the worker that watches it.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

from engine.children import die_with_parent, exit_words, kill_process, open_log
from storage.queue import RetryLater
from storage.runs import Runs, StoredRun
from storage.settings import TrainingSettings
from training.device import on_one_gpu
from training.errors import DiskFull, OutOfMemory, TrainingError
from training.execute_files import EVENTS, EXIT_DISK_FULL, EXIT_FAILED, EXIT_STOPPED, LOG
from training.stage import ADVICE_ON_DISK, ADVICE_ON_MEMORY

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S: Final = 0.5
CANCEL_S: Final = 60.0
"""What a process gets to end at its next step when its run is cancelled."""
DEATHS_AT_ONCE: Final = 3
"""Deaths in a row without a step before the run is given up: something is wrong from the start."""
DEATHS_IN_PLACE: Final = 12
"""Deaths in a row without getting further than ever before: it always dies at the same place."""
DEVICE: Final = "device.lock"
DEVICE_TAKEN_S: Final = 2.0
"""After which a run looks again whether the device is free."""
WAITING: Final = "waiting for the device"
"""The stage of a run that finds it taken."""
_OWN_KB: Final = re.compile(r"^Rss(?:Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)


class Supervisor:
    """Takes one run's process to its end.

    Args:
        folder: the run's, with its plan.
        limits: its memory, and its time, which counts while it is watched from here: a worker that
            was off for a weekend takes nothing from it.
        environment: of the process; one run uses one GPU, the first that it allows.
        read_from: bytes of the folder's events that another run told.
        progressed: called when the process took a step that none took before.
    """

    def __init__(
        self,
        run: StoredRun,
        folder: Path,
        *,
        runs: Runs,
        limits: TrainingSettings,
        environment: Mapping[str, str],
        read_from: int = 0,
        progressed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._run = run
        self._folder = folder
        self._runs = runs
        self._limits = limits
        self._environment = environment
        self._read_to = read_from
        self._progressed = progressed
        self._steps: set[tuple[str, int]] = set()
        self._stepped = False
        self._cancelled_at_s: float | None = None
        self._broken: TrainingError | None = None

    async def until_ended(self) -> int:
        """Run the process until it says how it ended; returns its exit code.

        Returns:
            0, EXIT_FAILED, or EXIT_STOPPED where somebody cancelled the run.

        Raises:
            TrainingError: it took more than its share, or dies again and again.
            DiskFull: there is no room for what it writes.
            RetryLater: the device serves another run, or what a killed worker left of this one.
            StorageUnavailable: the database went away; the process is stopped.
        """
        with _device(self._folder.parent) as device:
            if device is None:
                await self._runs.tell(self._run.id, stage=WAITING)
                raise RetryLater(DEVICE_TAKEN_S)
            # What the process of a killed worker told, and nobody read.
            await self._tell(None)
            deadline_s = monotonic() + self._limits.time_limit_h * 3600
            deaths = deaths_in_place = 0
            while self._cancelled_at_s is None:
                known, self._stepped = len(self._steps), False
                code = await self._process(device, deadline_s)
                if code in (0, EXIT_FAILED):
                    return code
                if code == EXIT_DISK_FULL:
                    raise DiskFull("The disk is full.", advice=ADVICE_ON_DISK)
                if self._broken is not None:
                    raise self._broken
                deaths = 0 if self._stepped else deaths + 1
                deaths_in_place = 0 if len(self._steps) > known else deaths_in_place + 1
                if self._cancelled_at_s is None:
                    self._judge(code, deaths, deaths_in_place)
        return EXIT_STOPPED

    def _judge(self, code: int, deaths: int, deaths_in_place: int) -> None:
        """Give up a run whose process ends by itself again and again.

        Raises:
            TrainingError: with what to do about it.
        """
        if deaths < DEATHS_AT_ONCE and deaths_in_place < DEATHS_IN_PLACE:
            logger.warning(
                "the process of a run ended (%s); it goes on from its last checkpoint",
                exit_words(code),
                extra={"action": "run_died", "run": str(self._run.id)},
            )
            return
        times = f"{max(deaths, deaths_in_place)} times ({exit_words(code)})"
        if code == -signal.SIGKILL:
            raise OutOfMemory(
                f"The run's process was killed {times}: most likely the machine has too little "
                "memory.",
                advice=ADVICE_ON_MEMORY,
            )
        raise TrainingError(
            f"The run's process ended {times}, without getting further.",
            advice=f"Its log says more: {self._folder / LOG}.",
        )

    async def _process(self, device: int, deadline_s: float) -> int:
        """Start the process and watch it until it is gone; returns its exit code."""
        with open_log(self._folder / LOG) as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "training", "execute", str(self._folder)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=on_one_gpu(self._environment),
                pass_fds=(device,),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=WATCH_INTERVAL_S)
                known = len(self._steps)
                await self._tell(process)
                if len(self._steps) > known and self._progressed is not None:
                    await self._progressed()
                self._check_limits(process, deadline_s)
            await self._tell(None)  # its last words
            return await ended
        finally:
            ended.cancel()
            # A cancelled run was given its time above. Who stops the worker waits for nothing that
            # the last checkpoint does not hold.
            await kill_process(process)

    async def _tell(self, process: asyncio.subprocess.Process | None) -> None:
        """Store what the process told, and hear whether somebody asks for the run's end."""
        told = self._new_events()
        steps = [each for each in told if each.get("values")]
        self._stepped = self._stepped or bool(steps)
        self._steps.update((each["stage"], each["step"]) for each in steps)
        stage = told[-1]["stage"] if told else None
        notes = [each["note"] for each in told if each.get("note") and each["stage"] == stage]
        wants_end = await self._runs.tell(
            self._run.id,
            stage=stage,
            note=notes[-1] if notes else None,
            metrics=[(each["stage"], each["step"], _values(each)) for each in steps],
        )
        if not wants_end:
            return
        if self._cancelled_at_s is None:
            self._cancelled_at_s = monotonic()
            if process is not None and process.returncode is None:
                process.terminate()

    def _new_events(self) -> list[dict[str, Any]]:
        """The whole lines that were not read yet; a broken one, after a power cut, says nothing."""
        try:
            with (self._folder / EVENTS).open("rb") as file:
                file.seek(self._read_to)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to += len(whole)
        events = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def _check_limits(self, process: asyncio.subprocess.Process, deadline_s: float) -> None:
        """End a process that takes more than its share, or does not hear that it is to end.

        The process limits its own allocations; memory that it shares is seen here only.
        """
        now_s, limits = monotonic(), self._limits
        unheard = self._cancelled_at_s is not None and now_s > self._cancelled_at_s + CANCEL_S
        if now_s > deadline_s:
            self._broken = TrainingError(
                f"The run took longer than {limits.time_limit_h:g} hours.",
                advice="Lower num_train_epochs or set max_steps, or raise training.time_limit_h.",
            )
        elif _resident_mb(process.pid) > limits.memory_mb:
            self._broken = OutOfMemory(
                f"The run needed more than {limits.memory_mb} MB of memory.",
                advice=ADVICE_ON_MEMORY,
            )
        if (unheard or self._broken is not None) and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _device(runs: Path) -> Iterator[int | None]:
    """Hold the device, for which there is one lock beside the runs' folders; gives its descriptor.

    The process inherits it, so a process that outlives its killed worker for a while keeps every
    other one off the device, and off its folder. None where somebody else has it.
    """
    descriptor = os.open(runs / DEVICE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = False
        except BlockingIOError:
            taken = True
        yield None if taken else descriptor
    finally:
        os.close(descriptor)


def _values(event: Mapping[str, Any]) -> dict[str, float]:
    """What a step told, with how far it is: whoever watches needs nothing else."""
    progress = {"of_steps": event["of_steps"], "eta_s": event["eta_s"]}
    known = {key: float(value) for key, value in progress.items() if value is not None}
    return {**event["values"], **known}


def _resident_mb(pid: int) -> float:
    """Memory that a process, which may be gone, holds for itself.

    Pages of files that it maps, such as a model's weights, are not counted: the kernel takes them
    back where somebody else needs room.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(kb) for kb in _OWN_KB.findall(status)) / 1024
