"""What the system refuses: a run waits for room, and fails with a reason where nothing helps."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from storage.notices import Notices
from storage.pool import Pool
from storage.runs import Recipe, Runs, StoredRun
from tests.conftest import CHECKOUT, files_limited_to
from tests.storage.conftest import Team
from tests.training.conftest import ENOUGH, MODEL, RECIPE, Rates, Working, ended, queued, until
from training import worker
from training.errors import of_system
from training.execute_files import EXIT_DISK_FULL
from training.plan import Plan
from training.recipes import parse
from training.supervision import CANCEL_S

LIMIT_BYTES = 2**16
"""Most that a file may hold: the plan is less, the rows and the checkpoints are more."""


async def test_a_run_waits_for_room_on_the_disk_and_then_goes_on(
    pool: Pool, team: Team, rate: Rates, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "NO_ROOM_S", 0.5)
    await rate(ENOUGH)
    runs = Runs(pool)
    run_id = await runs.queue(
        Recipe(kind="train", parameters={"recipe": RECIPE}),
        workspace_id=team.general.workspace_id,
        by=team.general.member_id,
        place={"platform": "slack", "workspace": "T1", "channel": "C1"},
    )
    with contextlib.ExitStack() as full:
        full.enter_context(files_limited_to(LIMIT_BYTES))
        async with working():
            waiting = await until(pool, run_id, lambda run: run.stage == "waiting for room")
            assert (waiting.status, waiting.failure) == ("running", None)
            assert waiting.note is not None and "Make room" in waiting.note
            full.close()
            # The snapshot found its place, and the run's own process has begun.
            run = await until(pool, run_id, lambda run: run.stage == "prepare")
    assert run.note != waiting.note
    (told,) = await Notices(pool).due("slack")
    assert "the disk is full" in told.text


@pytest.mark.parametrize("log", [os.devnull, "/dev/full"], ids=["a log elsewhere", "no log"])
async def test_a_process_says_without_a_file_that_there_is_room_for_none(
    home: Path, tmp_path: Path, log: str
) -> None:
    folder = tmp_path / "run"
    Plan(
        run_id="1",
        name="v1",
        recipe=parse(RECIPE, "cpu"),
        snapshot=tmp_path,
        snapshot_sha256="0",
        base=home / "models" / MODEL,
        home=home,
    ).write(folder)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open(log, "wb") as output:  # noqa: ASYNC230 - a device, which waits for nobody
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "training", "execute", str(folder)),
            cwd=CHECKOUT,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )
    assert await process.wait() == EXIT_DISK_FULL
    assert [each.name for each in folder.iterdir() if each.stat().st_size] == ["plan.json"]


async def test_a_run_is_cancelled_while_its_feedback_is_compiled(
    pool: Pool, team: Team, rate: Rates, working: Working
) -> None:
    await rate(2)
    run_id = await queued(pool, team, recipe=RECIPE)

    async def compiles(_: StoredRun) -> bool:
        return bool(_compiling())

    async with working():
        await until(pool, run_id, compiles)
        for process in _compiling():
            os.kill(process, signal.SIGSTOP)
        assert await Runs(pool).cancel(run_id, by=None)
        async with asyncio.timeout(CANCEL_S / 4):
            run = await until(pool, run_id, ended)
        assert not _compiling()
    assert run.status == "cancelled"


def _compiling() -> list[int]:
    """Ids of this process's children that compile feedback."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"own_process" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "A model did not answer"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/runs/1/plan.json"), "/runs/1/plan.json"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_only_a_full_disk_is_told_as_one(error: OSError, says: str) -> None:
    told = of_system(error)
    assert says in str(told) and told.advice
    assert "room" not in str(told) + told.advice
