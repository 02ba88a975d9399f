"""Work in a process that ends with it, for libraries too large for a process that goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_own_process(
    within_s: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function of a module in a new process; what it imports goes away with it.

    Args:
        within_s: most time for the start of the process and the work.

    Raises:
        TimeoutError: it took longer.
        BrokenProcessPool: the process died.
        Exception: what the function raised.
    """
    pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(pool.submit(work, *args, **kwargs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
