"""Child processes: kept running with backoff, stopped completely, gone when their parent is.

Why here: `parley up` and the embedded Argilla both keep children, and the engine is the lowest room
with a process of its own, as for settings and logs.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_AFTER_S = 30.0
"""A child that ran this long starts again at the first backoff."""
STOP_TIMEOUT_S = 8.0
"""Between SIGTERM and SIGKILL; longer than a server's own graceful stop."""
EXIT_CONFIG = 78
"""Exit code of a child that refuses its settings: starting it again would not help."""
LOG_LIMIT_BYTES = 10 * 1024 * 1024

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One supervised child."""

    name: str
    command: tuple[str, ...]
    ready_url: str | None = None


def die_with_parent() -> None:
    """Runs in the child before exec: SIGTERM when the parent is gone, however it went."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def keep(part: Part, *, environment: Mapping[str, str], log: Path) -> int:
    """Start a part again whenever it ends, with backoff, until cancelled; its output goes to `log`.

    Returns:
        EXIT_CONFIG, when the part refuses its settings.
    """
    backoff_s = FIRST_BACKOFF_S
    loop = asyncio.get_running_loop()
    while True:
        started_at_s = loop.time()
        code = await _run_once(part, environment=environment, log=log)
        if code == EXIT_CONFIG:
            return code
        if loop.time() - started_at_s >= STABLE_AFTER_S:
            backoff_s = FIRST_BACKOFF_S
        logger.warning(
            "%s ended (%s); starting it again in %g s. Its log: %s",
            part.name,
            exit_words(code),
            backoff_s,
            log,
            extra={"action": "part_restarted", "part": part.name, "exit_code": code},
        )
        await asyncio.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


async def _run_once(part: Part, *, environment: Mapping[str, str], log: Path) -> int:
    """Run a part to its end; on cancellation stop it and wait until it is gone."""
    with open_log(log) as output:
        process = await asyncio.create_subprocess_exec(
            *part.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            # A session of its own: the terminal's Ctrl-C reaches the supervisor alone, which
            # then stops the parts in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    logger.debug("%s started", part.name, extra={"action": "part_started", "pid": process.pid})
    try:
        return await process.wait()
    finally:
        await stop_process(process)


async def stop_process(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL to the whole session; returns when the process is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        await kill_process(process)


async def kill_process(process: asyncio.subprocess.Process) -> None:
    """SIGKILL to the whole session of a child that loses nothing by it; returns when it is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def answers(client: httpx.AsyncClient, url: str, *, within_s: float) -> bool:
    """Whether a server answers with success before the deadline, in seconds."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while loop.time() < deadline_s:
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get(url)).is_success:
                return True
        await asyncio.sleep(0.1)
    return False


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def open_log(path: Path) -> IO[bytes]:
    """Open a part's log for appending; one older log is kept."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def exit_words(code: int) -> str:
    """An exit code as people read it."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
