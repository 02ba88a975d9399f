"""A process of its own is gone when its work is, however that ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from feedback.own_process import in_own_process
from tests.conftest import CHECKOUT

TIMEOUT_S = 30.0


def add(left: int, right: int) -> tuple[int, int]:
    print("what libraries print is no answer")
    return left + right, os.getpid()


def fail() -> None:
    raise LookupError("no such room")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stay(told: Path) -> None:
    told.write_text(str(os.getpid()))
    time.sleep(600)


def is_gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def process_of(told: Path) -> int:
    while not (told.exists() and told.read_text()):  # noqa: ASYNC110 (another process has no event)
        await asyncio.sleep(0.02)
    return int(told.read_text())


async def test_it_returns_what_the_function_returned_or_raised() -> None:
    total, process = await in_own_process(TIMEOUT_S, add, 2, right=3)
    assert total == 5 and process != os.getpid() and is_gone(process)
    with pytest.raises(LookupError, match="no such room"):
        await in_own_process(TIMEOUT_S, fail)
    with pytest.raises(BrokenProcessPool):
        await in_own_process(TIMEOUT_S, die)


@pytest.mark.parametrize("within_s", [0.5, 600.0])
async def test_it_ends_with_whoever_waits_for_it(tmp_path: Path, within_s: float) -> None:
    before = children()
    waiting = asyncio.create_task(in_own_process(within_s, stay, tmp_path / "process"))
    async with asyncio.timeout(TIMEOUT_S):
        while children() == before:  # noqa: ASYNC110 (another process has no event)
            await asyncio.sleep(0.02)
        if within_s == 600.0:
            waiting.cancel()
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            await waiting
    assert children() == before


async def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    told = tmp_path / "process"
    script = (
        "import asyncio; from pathlib import Path; from feedback.own_process import in_own_process;"
        "from tests.feedback.test_own_process import stay;"
        f"asyncio.run(in_own_process(600, stay, Path({str(told)!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=CHECKOUT)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(TIMEOUT_S):
            process = await process_of(told)
            parent.kill()
            while not is_gone(process):  # noqa: ASYNC110 (another process has no event)
                await asyncio.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
