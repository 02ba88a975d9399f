"""The parent's side: start one child per document, stream its blocks, name what killed it."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage.errors import DocumentRejected
from storage.parsing.blocks import Block, ParseLimits, Progress

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1024**2
"""Most bytes of one record from the child, which cuts blocks far below it."""

EXIT_S = 5.0
"""Grace for a child after its last record; it needs a millisecond."""

TOOK_TOO_LONG = "Reading it took too long (limit {limit:g} s)."
TOO_MUCH_MEMORY = "Reading it needs too much memory."
CRASHED = "The file is damaged: reading it failed, or needs too much memory."


async def parse(
    path: Path,
    *,
    name: str,
    limits: ParseLimits,
    on_progress: Callable[[Progress], None] | None = None,
) -> AsyncGenerator[Block, None]:
    """Yield the blocks of one file in reading order, at the pace of the consumer.

    Closing or cancelling the generator kills the child. Memory does not grow with the document: the
    pipe holds the child back while the consumer works.

    Args:
        path: the file's bytes.
        name: the name its owner gave it; the extension must not contradict the content.
        limits: beyond them the document is rejected.
        on_progress: called with pages done and in all, for formats that have pages.

    Raises:
        DocumentRejected: it cannot be read; `reason` says why in words for its owner. It may come
            after blocks, which are then to be thrown away.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "storage.parsing", str(path), "--name", name),
        *("--limits", json.dumps(asdict(limits)), "--parent", str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_child_environment(),
        limit=MAX_LINE_BYTES,
    )
    ended = False
    try:
        records = _records(child, limits)
        async with contextlib.aclosing(records):
            async for record in records:
                match record.pop("record"):
                    case "block":
                        yield Block(**record)
                    case "progress" if on_progress:
                        on_progress(Progress(**record))
                    case "rejected":
                        ended = True
                        raise DocumentRejected(record["reason"])
                    case "malformed":
                        ended = True
                        logger.debug("%s", record["detail"], extra={"action": "parser_failed"})
                        raise DocumentRejected(record["reason"])
                    case "end":
                        ended = True
                        return
        ended = True
        raise _death_reason(await child.wait(), limits)
    finally:
        await _reap(child, ended=ended)


async def _records(
    child: asyncio.subprocess.Process, limits: ParseLimits
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the child's records; only time spent waiting for it counts towards the wall clock."""
    stdout = child.stdout
    if stdout is None:
        raise RuntimeError("the child was started without a pipe")
    loop = asyncio.get_running_loop()
    limit_s, waited_s = limits.timeout_s, 0.0
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(max(limit_s - waited_s, 0)):
                line = await stdout.readline()
        except TimeoutError:
            raise DocumentRejected(TOOK_TOO_LONG.format(limit=limit_s)) from None
        waited_s += loop.time() - began
        if not line.endswith(b"\n"):
            return
        record = json.loads(line)
        if record["record"] == "ocr":
            limit_s = limits.ocr_timeout_s
        else:
            yield record


async def _reap(child: asyncio.subprocess.Process, *, ended: bool) -> None:
    """Wait for a child that is ending by itself, kill any other.

    A child that is just exiting must not be killed: the signal would reap it behind asyncio's back.
    """
    if ended:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_S):
                await child.wait()
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _death_reason(status: int, limits: ParseLimits) -> DocumentRejected:
    """Name the cause of a child that ended without saying so."""
    logger.warning("parser died", extra={"action": "parser_died", "status": status})
    if status == -signal.SIGXCPU:
        return DocumentRejected(TOOK_TOO_LONG.format(limit=limits.timeout_s))
    if status == -signal.SIGKILL:  # nobody else sends it but the kernel, short of memory
        return DocumentRejected(TOO_MUCH_MEMORY)
    return DocumentRejected(CRASHED)


def _child_environment() -> dict[str, str]:
    """Nothing of the parent's environment, which holds secrets; one thread per numeric library."""
    root = Path(__file__).resolve().parents[2]
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(root),
        "PYTHONUTF8": "1",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
