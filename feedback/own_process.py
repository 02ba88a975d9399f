"""Work in a process that ends with it, for libraries too large for a process that goes on."""

import asyncio
import contextlib
import os
import pickle
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Final, ParamSpec, TypeVar

from engine.children import die_with_parent, kill_process

P = ParamSpec("P")
T = TypeVar("T")

_CHILD: Final = "from feedback.own_process import answer; answer()"


async def in_own_process(
    within_s: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function of a module in a new process; what it imports goes away with it.

    The process is gone when this returns, raises or is cancelled, and when its parent dies.

    Args:
        within_s: most time for the start of the process and the work.

    Raises:
        TimeoutError: it took longer.
        BrokenProcessPool: the process died.
        Exception: what the function raised.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CHILD),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        async with asyncio.timeout(within_s):
            told, _ = await process.communicate(pickle.dumps((work, args, kwargs)))
    finally:
        await kill_process(process)
    if process.returncode != 0:
        raise BrokenProcessPool(f"the process ended with {process.returncode}")
    raised, outcome = pickle.loads(told)  # noqa: S301 - from our own child
    if raised is not None:
        raise raised
    result: T = outcome
    return result


def answer() -> None:
    """The process's part: reads the call from its input and writes what came of it to its output.

    Whatever the work prints goes where errors go.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        work, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
        raised: Exception | None = None
        outcome: object = None
        try:
            outcome = work(*args, **kwargs)
        except Exception as error:
            raised = error
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((raised, outcome), out)
