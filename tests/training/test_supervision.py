"""A run's own process: limits, deaths, cancellation and the device's lock, on real processes."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Awaitable, Callable
from mmap import PROT_READ, mmap
from pathlib import Path

import pytest

from engine.children import STOP_TIMEOUT_S
from storage.pool import Pool
from storage.queue import RetryLater
from storage.runs import Recipe, RunId, Runs
from storage.settings import TrainingSettings
from tests.storage.conftest import Team
from tests.training.conftest import processes_of
from training.errors import OutOfMemory, TrainingError
from training.execute_files import EVENTS, EXIT_STOPPED
from training.supervision import (
    DEATHS_AT_ONCE,
    DEVICE,
    WAITING,
    WATCH_INTERVAL_S,
    Supervisor,
    _resident_mb,
)

TIMEOUT_S = 60.0
Supervises = Callable[..., Awaitable[tuple[RunId, Supervisor]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder without a plan: its process is of interest while it starts."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def supervises(pool: Pool, team: Team, folder: Path) -> Supervises:
    async def make(
        *,
        read_from: int = 0,
        progressed: Callable[[], Awaitable[None]] | None = None,
        **limits: object,
    ) -> tuple[RunId, Supervisor]:
        runs = Runs(pool)
        run_id = await runs.queue(
            Recipe(kind="train", parameters={}),
            workspace_id=team.general.workspace_id,
            by=None,
            place={},
        )
        await runs.start(run_id)
        run = await runs.get(run_id)
        assert run is not None
        limits_of_run = TrainingSettings.model_validate(limits)
        supervisor = Supervisor(
            run,
            folder,
            runs=runs,
            limits=limits_of_run,
            environment=os.environ,
            read_from=read_from,
            progressed=progressed,
        )
        return run_id, supervisor

    return make


async def _process(folder: Path, *, other_than: set[int]) -> int:
    """The next process of a run."""
    while True:
        for process in processes_of(folder):
            if process not in other_than:
                return process
        await asyncio.sleep(0.01)


def _files_of(process: int) -> set[str]:
    """What a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    return found


async def test_a_run_ends_when_its_time_is_over_also_on_its_first_start(
    supervises: Supervises, folder: Path
) -> None:
    _, supervisor = await supervises(time_limit_h=1e-9)
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(TrainingError, match="took longer than") as caught:
            await supervisor.until_ended()
    assert "time_limit_h" in caught.value.advice
    assert not processes_of(folder)


async def test_a_process_that_is_killed_again_and_again_lacks_memory(
    supervises: Supervises, folder: Path
) -> None:
    _, supervisor = await supervises()
    ending = asyncio.create_task(supervisor.until_ended())
    killed: set[int] = set()
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(DEATHS_AT_ONCE):
            process = await _process(folder, other_than=killed)
            killed.add(process)
            os.kill(process, signal.SIGKILL)
        with pytest.raises(OutOfMemory) as caught:
            await ending
    assert "per_device_train_batch_size" in caught.value.advice


async def test_a_run_that_is_cancelled_while_its_process_starts_does_not_start_again(
    pool: Pool, supervises: Supervises, folder: Path
) -> None:
    run_id, supervisor = await supervises()
    ending = asyncio.create_task(supervisor.until_ended())
    async with asyncio.timeout(TIMEOUT_S):
        process = await _process(folder, other_than=set())
        # The process holds the device itself: it may outlive a worker that is killed.
        assert str(folder.parent / DEVICE) in _files_of(process)
        assert await Runs(pool).cancel(run_id, by=None)
        assert await ending == EXIT_STOPPED
    assert not processes_of(folder)


@pytest.mark.parametrize(
    ("allowed", "used"), [(None, "0"), ("2,3", "2"), ("", "")], ids=["unsaid", "two", "none"]
)
async def test_a_run_uses_one_gpu(
    supervises: Supervises,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
    used: str,
) -> None:
    if allowed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    _, supervisor = await supervises()
    ending = asyncio.create_task(supervisor.until_ended())
    async with asyncio.timeout(TIMEOUT_S):
        process = await _process(folder, other_than=set())
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    assert f"CUDA_VISIBLE_DEVICES={used}".encode() in variables


def test_pages_of_a_mapped_file_are_not_a_runs_memory(tmp_path: Path) -> None:
    size = 64 * 2**20
    file = tmp_path / "weights"
    file.write_bytes(bytes(size))
    before = _resident_mb(os.getpid())
    with file.open("rb") as opened, mmap(opened.fileno(), 0, prot=PROT_READ) as mapped:
        assert sum(mapped[:: 2**12]) == 0  # every page was read
        assert _resident_mb(os.getpid()) - before < 32
    held = b"x" * size
    assert _resident_mb(os.getpid()) - before > 32
    del held


async def test_a_device_serves_one_run(pool: Pool, supervises: Supervises, folder: Path) -> None:
    run_id, supervisor = await supervises()
    with (folder.parent / DEVICE).open("w") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        with pytest.raises(RetryLater):
            await supervisor.until_ended()
    assert not processes_of(folder)
    run = await Runs(pool).get(run_id)
    assert run is not None and run.stage == WAITING


async def test_a_worker_that_stops_does_not_wait_for_a_process_that_does_not_hear(
    supervises: Supervises, folder: Path
) -> None:
    _, supervisor = await supervises()
    ending = asyncio.create_task(supervisor.until_ended())
    async with asyncio.timeout(TIMEOUT_S):
        process = await _process(folder, other_than=set())
        os.kill(process, signal.SIGSTOP)
        ending.cancel()
        async with asyncio.timeout(STOP_TIMEOUT_S / 4):
            await asyncio.gather(ending, return_exceptions=True)
    assert not processes_of(folder)


async def test_only_a_step_that_none_took_before_is_progress(
    supervises: Supervises, folder: Path
) -> None:
    progress = asyncio.Event()

    async def progressed() -> None:
        progress.set()

    def step(number: int) -> None:
        told = {"stage": "sft", "step": number, "of_steps": 9, "eta_s": None, "values": {"loss": 1}}
        with (folder / EVENTS).open("a") as events:
            events.write(json.dumps(told) + "\n")

    _, supervisor = await supervises(progressed=progressed)
    step(1)
    ending = asyncio.create_task(supervisor.until_ended())
    async with asyncio.timeout(TIMEOUT_S):
        os.kill(await _process(folder, other_than=set()), signal.SIGSTOP)
        step(1)
        await asyncio.sleep(3 * WATCH_INTERVAL_S)
        assert not progress.is_set()
        step(2)
        await progress.wait()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


async def test_what_a_stage_says_in_words_is_stored_with_the_run(
    pool: Pool, supervises: Supervises, folder: Path
) -> None:
    run_id, supervisor = await supervises()
    told = [
        {"stage": "dpo", "note": "Left out: There are no pairs."},
        {"stage": "sft", "note": "Going on from step 40."},
        {"stage": "sft", "step": 41, "of_steps": 50, "eta_s": 9, "values": {"loss": 1.0}},
    ]
    (folder / EVENTS).write_text("".join(json.dumps(each) + "\n" for each in told))
    runs = Runs(pool)
    await runs.cancel(run_id, by=None)
    assert await supervisor.until_ended() == EXIT_STOPPED
    run = await runs.get(run_id)
    assert run is not None
    assert (run.stage, run.note) == ("sft", "Going on from step 40.")


async def test_what_another_run_told_in_the_same_folder_is_left_alone(
    pool: Pool, supervises: Supervises, folder: Path
) -> None:
    step = {"stage": "sft", "step": 1, "of_steps": 9, "eta_s": None, "values": {"loss": 1.0}}
    before = json.dumps(step) + "\n"
    (folder / EVENTS).write_text(before + json.dumps({"stage": "gate", "note": "Asked 8."}) + "\n")
    run_id, supervisor = await supervises(read_from=len(before))
    runs = Runs(pool)
    await runs.cancel(run_id, by=None)
    assert await supervisor.until_ended() == EXIT_STOPPED
    run = await runs.get(run_id)
    assert run is not None and (run.stage, run.note) == ("gate", "Asked 8.")
    assert await runs.metrics(run_id) == []


async def test_what_the_process_of_a_killed_worker_told_is_not_lost(
    pool: Pool, supervises: Supervises, folder: Path
) -> None:
    run_id, supervisor = await supervises()
    told = [
        {"stage": "sft", "step": step, "of_steps": 9, "eta_s": None, "values": {"loss": 1.0 / step}}
        for step in (1, 2)
    ]
    lines = [json.dumps(each) for each in told] + ["\0\0\0", '{"stage": "sft", "st']
    (folder / EVENTS).write_text("\n".join(lines))
    runs = Runs(pool)
    await runs.cancel(run_id, by=None)
    assert await supervisor.until_ended() == EXIT_STOPPED
    metrics = await runs.metrics(run_id)
    assert [(each.step, each.values["loss"]) for each in metrics] == [(1, 1.0), (2, 0.5)]
