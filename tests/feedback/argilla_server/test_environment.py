"""Argilla's virtual environment: whole or not there, and clear about what went wrong."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from feedback.argilla_server import environment
from feedback.argilla_server.errors import EnvironmentFailed


def stand_in(folder: Path, stamp: str) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "parley-requirements.sha256").write_text(stamp)


async def test_one_that_is_ready_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    stand_in(folder, environment._stamp())
    before_s = time.monotonic()
    python = await environment.prepare(folder, environment={}, log=tmp_path / "log")
    assert python == folder / "bin" / "python"
    assert time.monotonic() - before_s < 1
    assert not (tmp_path / "log").exists()


def test_one_made_from_other_versions_is_not_ready(tmp_path: Path) -> None:
    stand_in(tmp_path / "venv", "of last year")
    assert not environment.is_ready(tmp_path / "venv")
    assert not environment.is_ready(tmp_path / "missing")


async def test_a_failed_build_names_its_log_and_leaves_the_old_one(tmp_path: Path) -> None:
    folder, log = tmp_path / "venv", tmp_path / "log"
    stand_in(folder, "of last year")
    offline = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    with pytest.raises(EnvironmentFailed, match=r"pip, exit code 1.*No matching distribution") as e:
        await environment.prepare(folder, environment=offline, log=log)
    assert str(log) in str(e.value)
    assert (folder / "bin" / "python").exists()
    assert not environment.is_ready(folder)


async def test_a_build_that_is_cancelled_leaves_nothing_that_counts(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    task = asyncio.create_task(
        environment.prepare(folder, environment={"PATH": os.environ["PATH"]}, log=tmp_path / "log")
    )
    async with asyncio.timeout(10):
        while not folder.with_name("venv.new").exists():  # noqa: ASYNC110 (it sets no event)
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not folder.exists()
